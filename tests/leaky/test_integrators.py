"""The flow of Hamilton's equations against finite differences, closed forms and the orders of its methods."""

import itertools
import math

import numpy as np
import pytest
import torch

from learnmech.errors import InputError, LearnmechWarning
from learnmech.leaky import exact
from learnmech.leaky.hamilton_equations import momentum_velocity, velocity
from learnmech.leaky.hamilton_flow import flow
from learnmech.leaky.integrators import runge_kutta_step, symplectic_euler_step


def energy(A, B, leak, bias):
    active = np.maximum(A, 0)
    if bias:
        active = np.vstack([active, np.ones((1, A.shape[1]))])
    return leak / 2 * np.sum((B @ active.T) ** 2) - leak * np.sum(A * B)


def smooth_pair(seed, width=3, samples=4):
    """A positive representation, and a momentum near that at which it rests."""
    generator = torch.Generator().manual_seed(seed)
    A = torch.rand(width, samples, generator=generator, dtype=torch.float64) + 0.5
    active = torch.cat([A, torch.ones(1, samples, dtype=torch.float64)])
    noise = torch.randn(width, samples, generator=generator, dtype=torch.float64)
    return A, A @ torch.linalg.pinv(active.T @ active) + 0.02 * noise


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("width", "samples"), [(3, 2), (3, 3), (2, 5)])
def test_velocities_are_derivatives_of_the_energy(width, samples, bias):
    generator = np.random.default_rng(width + 10 * samples)
    A, B = generator.normal(size=(2, width, samples))
    moved = velocity(torch.tensor(A), torch.tensor(B), 2.5, bias=bias).numpy()
    pushed = momentum_velocity(torch.tensor(A), torch.tensor(B), 2.5, bias=bias).numpy()
    h = 1e-6
    for i in range(width):
        for j in range(samples):
            change = np.zeros_like(A)
            change[i, j] = h
            by_momentum = (energy(A, B + change, 2.5, bias) - energy(A, B - change, 2.5, bias)) / (2 * h)
            by_position = (energy(A + change, B, 2.5, bias) - energy(A - change, B, 2.5, bias)) / (2 * h)
            assert moved[i, j] == pytest.approx(by_momentum, rel=1e-6, abs=1e-6)
            assert pushed[i, j] == pytest.approx(-by_position, rel=1e-6, abs=1e-6)


def test_velocities_of_a_batch_are_those_of_its_members():
    generator = torch.Generator().manual_seed(0)
    A, B = torch.randn(2, 4, 3, 5, generator=generator, dtype=torch.float64)
    for function in (velocity, momentum_velocity):
        whole = function(A, B, 1.5)
        torch.testing.assert_close(whole, torch.stack([function(a, b, 1.5) for a, b in zip(A, B, strict=True)]))
        assert function(A.float(), B.float(), 1.5).dtype == torch.float64


def spread(run):
    values = run.hamiltonian.values
    values = values[np.isfinite(values)]
    return values.max() - values.min()


def test_runge_kutta_keeps_the_energy_at_order_four():
    A, B = smooth_pair(2)
    runs = [flow(A, B, 2.0, steps) for steps in (20, 40, 80)]
    assert min(float(run.path.min()) for run in runs) > 0.1  # no kink on the way
    spreads = [spread(run) for run in runs]
    assert spreads[0] < 1e-7
    assert [before / after for before, after in itertools.pairwise(spreads)] == pytest.approx([16, 16], rel=0.15)


def test_symplectic_euler_keeps_the_energy_at_order_one():
    A, B = smooth_pair(2)
    spreads = [spread(flow(A, B, 2.0, steps, method="symplectic_euler")) for steps in (80, 160, 320)]
    assert [before / after for before, after in itertools.pairwise(spreads)] == pytest.approx([2, 2], rel=0.05)


@pytest.mark.parametrize(("method", "order"), [("rk4", 4), ("symplectic_euler", 1)])
def test_methods_converge_to_the_closed_form_at_their_order(method, order):
    path = exact.one_sample(1.0, 2.0, 3.0)
    start, momentum = torch.tensor([[1.0]]), torch.tensor([[path.momentum(0.0)]], dtype=torch.float64)
    errors = []
    for steps in (40, 80, 160):
        run = flow(start, momentum, 3.0, steps, method=method)
        expected = [path.position(p) for p in run.depth.values]
        errors.append(np.abs(run.path.values[:, 0, 0] - expected).max())
    ratios = [before / after for before, after in itertools.pairwise(errors)]
    assert ratios == pytest.approx([2**order] * 2, rel=0.12)


def test_flow_without_bias_keeps_the_pairing():
    A, B = smooth_pair(4)
    run = flow(A, B, 2.0, 100, bias=False)
    assert np.ptp(run.pairing.values) < 1e-8
    assert np.ptp(run.weight_norm.values) < 1e-8
    exactly = flow(A, B, 2.0, 20, bias=False, method="symplectic_euler")  # discrete nets keep it at any step size
    pairing = np.sum(exactly.path.values * exactly.momenta.values, axis=(1, 2))
    assert np.ptp(pairing) < 1e-11


@pytest.mark.parametrize("bias", [True, False])
def test_symplectic_euler_takes_the_steps_of_a_net(bias):
    """Signs of both kinds, unequal steps: the forward and backward recursion of a net with W = Lt B sigma^T."""
    generator = torch.Generator().manual_seed(1)
    A = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    B = 0.05 * torch.randn(3, 5, generator=generator, dtype=torch.float64)
    steps = torch.tensor([0.1, 0.2, 0.15, 0.05, 0.3, 0.2], dtype=torch.float64)
    run = flow(A, B, 2.0, steps, method="symplectic_euler", bias=bias)
    path, momenta = run.path.values, run.momenta.values
    np.testing.assert_allclose(run.depth.values, [0, 0.1, 0.3, 0.45, 0.5, 0.8, 1.0])
    for layer, rho in enumerate(steps.tolist(), start=1):
        before, after = path[layer - 1], momenta[layer]
        active = np.maximum(before, 0)
        if bias:
            active = np.vstack([active, np.ones((1, 5))])
        weights = 2.0 * after @ active.T
        np.testing.assert_allclose(path[layer], (1 - 2 * rho) * before + rho * weights @ active, atol=1e-12)
        pulled = (1 - 2 * rho) * after + rho * (before > 0) * (weights[:, :3].T @ after)
        np.testing.assert_allclose(momenta[layer - 1], pulled, atol=1e-12)
        assert run.hamiltonian.values[layer - 1] == pytest.approx(energy(before, after, 2.0, bias), abs=1e-12)
        assert run.weight_norm.values[layer - 1] == pytest.approx(np.linalg.norm(weights))
    assert math.isnan(run.hamiltonian.values[-1])


def test_steps_go_back_where_they_came_from():
    A, B = smooth_pair(5)
    there = runge_kutta_step(A, B, 0.01, 2.0, bias=True)
    back = runge_kutta_step(*there, -0.01, 2.0, bias=True)
    torch.testing.assert_close(back[0], A, atol=1e-9, rtol=0)
    torch.testing.assert_close(back[1], B, atol=1e-9, rtol=0)
    _, unmoved, residual = symplectic_euler_step(A, torch.zeros_like(B), 0.1, 2.0, bias=True)
    assert residual == 0.0
    assert not unmoved.any()


def test_flow_records_what_it_says():
    A, B = smooth_pair(6)
    copies = A.clone(), B.clone()
    run = flow(A, B, 2.0, 10, record_every=4, ridges=(1e-2, 1e-3))
    assert run.layer.values.tolist() == ["0", "4", "8", "10"]
    np.testing.assert_allclose(run.depth.values, [0, 0.4, 0.8, 1])
    assert run.path.shape == run.momenta.shape == (4, 3, 4)
    assert run.identity_cost.dims == ("layer", "ridge")
    whole = flow(A, B, 2.0, 10)
    np.testing.assert_array_equal(run.path.values, whole.path.values[[0, 4, 8, 10]])
    for node in range(11):
        energy_there = energy(whole.path.values[node], whole.momenta.values[node], 2.0, True)
        assert whole.hamiltonian.values[node] == pytest.approx(energy_there, abs=1e-12)
        assert whole.effective_dimension.values[node] == pytest.approx(-energy_there, abs=1e-12)
    ahead = flow(A, B, 2.0, 10, method="symplectic_euler", record_every=4)
    dense = flow(A, B, 2.0, 10, method="symplectic_euler")
    np.testing.assert_array_equal(ahead.hamiltonian.values[:3], dense.hamiltonian.values[[0, 4, 8]])
    assert torch.equal(A, copies[0])
    assert torch.equal(B, copies[1])


def test_identity_cost_rests_where_nothing_moves():
    """At B = A K^+ the velocity is zero and the effective dimension is the cost of identity."""
    A = torch.eye(3, dtype=torch.float64)
    B = A @ torch.linalg.inv(A.T @ A + 1)
    run = flow(A, B, 2.0, 4)
    assert run.effective_dimension.values[0] == pytest.approx(3 - 3 / 4)  # c I_N: N - N / (c^2 + N)


def test_a_flow_that_explodes_names_the_depth():
    A, B = torch.ones(2, 2), torch.full((2, 2), 1e60, dtype=torch.float64)
    with pytest.raises(InputError, match=r"left the range of numbers before depth 0\.\d+ \(step \d+\)"):
        flow(A, B, 5.0, 50)
    with pytest.raises(InputError, match=r"implicit equation .* after step 1 .*more steps"):
        flow(torch.ones(1, 1), torch.full((1, 1), -1e4), 5.0, 6, method="symplectic_euler")


def test_too_coarse_steps_are_reported():
    with pytest.warns(LearnmechWarning, match=r"energy .* more steps"):
        flow(torch.ones(2, 2), torch.full((2, 2), 10.0), 5.0, 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"A0": torch.ones(2)}, r"A0 must have the shape"),
        ({"A0": torch.ones(1, 2, 2), "B0": torch.ones(1, 2, 2)}, r"one matrix"),
        ({"B0": torch.ones(2, 3)}, r"B0 must have the shape of the representation"),
        ({"A0": torch.full((2, 2), math.nan)}, r"NaN"),
        ({"effective_depth": 0.0}, r"effective_depth must be positive"),
        ({"steps": 0}, r"steps must be at least 1"),
        ({"steps": 2.5}, r"number of equal steps"),
        ({"steps": torch.tensor([0.5, 0.6])}, r"add up to 1"),
        ({"method": "euler"}, r"method must be one of rk4, symplectic_euler"),
        ({"record_every": 0}, r"record_every"),
        ({"ridges": (-1.0,)}, r"at least 0"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    arguments = {"A0": torch.ones(2, 2), "B0": torch.ones(2, 2), "effective_depth": 1.0, "steps": 2, **change}
    with pytest.raises(InputError, match=message):
        flow(**arguments)
