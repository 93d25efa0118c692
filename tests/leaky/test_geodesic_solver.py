"""The boundary-value problem against closed forms, brute force by another method, and the equations it must solve."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from learnmech.errors import InputError, LearnmechWarning
from learnmech.leaky import exact
from learnmech.leaky.geodesic_figures import draw_geodesic
from learnmech.leaky.geodesic_passes import LeakyPasses
from learnmech.leaky.geodesics import solve_geodesic


def tensor(values):
    return torch.as_tensor(np.asarray(values, dtype=np.float64))


def ends(seed, width=3, samples=3, low=0.2):
    generator = np.random.default_rng(seed)
    return tensor(generator.random((width, samples)) + low), tensor(generator.random((width, samples)) + low)


def sigma(A, bias):
    active = np.maximum(A, 0)
    return np.vstack([active, np.ones((1, A.shape[1]))]) if bias else active


def run_net(A0, weights, steps, leak, bias):
    path = [A0]
    for rho, W in zip(steps, weights, strict=True):
        path.append((1 - rho * leak) * path[-1] + rho * W @ sigma(path[-1], bias))
    return np.stack(path)


def check_equations(result, A0, A1, *, tolerance=1e-8):
    """End points, the net's own recursion, W = Lt B sigma^T, and the backward recursion up to a slope of the kink in [0, 1]."""
    path, momenta, weights, steps = (
        value.numpy() for value in (result.path, result.momenta, result.weights, result.steps)
    )
    leak, bias = result.effective_depth, result.bias
    scale = max(1.0, np.abs(momenta).max())
    np.testing.assert_allclose(path[0], A0.numpy())
    np.testing.assert_allclose(path[-1], A1.numpy(), atol=1e-9)
    np.testing.assert_allclose(run_net(A0.numpy(), weights, steps, leak, bias), path, atol=1e-12 * np.abs(path).max())
    action, at_kinks = 0.0, 0
    for layer, rho in enumerate(steps, start=1):
        before, after, W = path[layer - 1], momenta[layer], weights[layer - 1]
        active = sigma(before, bias)
        np.testing.assert_allclose(W, leak * after @ active.T, atol=tolerance * scale)
        action += rho / (2 * leak) * np.sum(W**2)
        H = leak / 2 * np.sum((after @ active.T) ** 2) - leak * np.sum(after * before)
        assert result.hamiltonian[layer - 1].item() == pytest.approx(H, abs=1e-9 * scale**2)
        full = rho * W[:, : before.shape[0]].T @ after
        excess = momenta[layer - 1] - (1 - rho * leak) * after  # is s * full
        kink = np.abs(before) < 1e-9
        np.testing.assert_allclose(excess[~kink], (full * (before > 0))[~kink], atol=tolerance * scale)
        if layer > 1:
            assert np.all(excess[kink] <= tolerance * scale)
            assert np.all(excess[kink] >= np.minimum(full, 0)[kink] - tolerance * scale)
            at_kinks += int(kink.sum())
    assert result.action == pytest.approx(action, rel=1e-12)
    assert result.effective_dimension == pytest.approx(-2 / leak * float(steps @ result.hamiltonian.numpy()), rel=1e-12)
    return at_kinks


@pytest.mark.parametrize(
    ("layers", "digits"), [(5, "0.7097900799"), (20, "0.7803974150"), (100, "0.7957168409"), (1000, "0.7989899825")]
)
def test_scalar_has_the_digits_of_the_closed_form(layers, digits):
    A0, A1 = tensor([[0.5]]), tensor([[3.0]])
    result = solve_geodesic(A0, A1, 4.0, layers, bias=False)
    closed = exact.scalar_discrete(0.5, 3.0, 4.0, layers)
    assert f"{result.effective_dimension:.10f}" == digits
    assert result.action == pytest.approx(closed.action, rel=1e-11)
    np.testing.assert_allclose(result.weights.numpy(), closed.weight, rtol=1e-9)
    assert result.momenta[0].item() == pytest.approx(closed.momentum_start, rel=1e-9)
    assert result.momenta[-1].item() == pytest.approx(closed.momentum_end, rel=1e-9)
    assert result.converged
    if layers == 20:
        check_equations(result, A0, A1)


def test_diagonal_matrices_add_scalars_up():
    starts, last = [0.5, 1.0, 2.0], [3.0, 0.7, 2.5]
    result = solve_geodesic(torch.diag(tensor(starts)), torch.diag(tensor(last)), 4.0, 20, bias=False)
    parts = [exact.scalar_discrete(a, b, 4.0, 20) for a, b in zip(starts, last, strict=True)]
    assert result.action == pytest.approx(sum(part.action for part in parts), rel=1e-9)
    assert result.effective_dimension == pytest.approx(sum(part.effective_dimension for part in parts), rel=1e-9)
    spectrum = torch.linalg.svdvals(result.weights)
    np.testing.assert_allclose(spectrum[7].numpy(), sorted((part.weight for part in parts), reverse=True), rtol=1e-8)


@pytest.mark.parametrize("leak", [1.0, 2.0])
def test_one_sample_is_reached_as_layers_grow(leak):
    """Errors of first order in 1/layers: two rounds of Richardson's extrapolation leave third order."""
    actions = [solve_geodesic(tensor([[1.0]]), tensor([[1.0]]), leak, layers).action for layers in (20, 40, 80, 160)]
    once = [2 * after - before for before, after in itertools.pairwise(actions)]
    twice = [(4 * after - before) / 3 for before, after in itertools.pairwise(once)]
    assert twice[-1] == pytest.approx(exact.one_sample(1.0, 1.0, leak).action, abs=3e-8)


def test_sagging_and_staying_paths_are_both_tried():
    stays = solve_geodesic(tensor([[10.0]]), tensor([[10.0]]), 8.0, 60)
    falls = solve_geodesic(tensor([[10.0]]), tensor([[10.0]]), 12.0, 120)
    assert float(stays.path.min()) > 8
    assert float(falls.path.min()) < 0.3
    upper = solve_geodesic(
        tensor([[10.0]]), tensor([[10.0]]), 12.0, 120, initial=torch.full((121, 1, 1), 10.0, dtype=torch.float64)
    )
    assert float(upper.path.min()) > 7
    assert upper.action > falls.action


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("seed", [0, 3])
def test_all_equations_hold(seed, bias):
    A0, A1 = ends(seed)
    result = solve_geodesic(A0, A1, 3.0, 12, bias=bias)
    assert result.converged
    assert float(result.stationarity.max()) < 1e-8
    assert result.end_error < 1e-10
    check_equations(result, A0, A1)


def test_paths_that_slide_along_a_kink_are_exact_too():
    A0, A1 = ends(0, width=4)
    result = solve_geodesic(A0, A1, 3.0, 12)
    assert result.converged
    assert result.kinks > 0
    assert check_equations(result, A0, A1) >= result.kinks


def test_mixed_signs():
    generator = np.random.default_rng(4)
    A0, A1 = tensor(generator.normal(size=(3, 2))), tensor(generator.normal(size=(3, 2)))
    result = solve_geodesic(A0, A1, 2.0, 8)
    assert result.converged
    check_equations(result, A0, A1)


def test_more_samples_than_rows():
    A0, A1 = tensor([[1.0, 2.0]]), tensor([[-1.0, 0.5]])
    result = solve_geodesic(A0, A1, 2.0, 8)
    assert result.converged
    check_equations(result, A0, A1)


def test_unequal_steps():
    A0, A1 = ends(2)
    steps = tensor([0.1, 0.05, 0.2, 0.15, 0.25, 0.25])
    result = solve_geodesic(A0, A1, 2.0, 6, steps=steps)
    assert torch.equal(result.steps, steps)
    check_equations(result, A0, A1)


def test_energy_is_constant_up_to_the_step_size():
    A0, A1 = ends(3)
    spreads = []
    for layers in (10, 20, 40):
        energies = solve_geodesic(A0, A1, 2.0, layers).hamiltonian
        spreads.append(float(energies.max() - energies.min()))
    assert [before / after for before, after in itertools.pairwise(spreads)] == pytest.approx([2, 2], rel=0.2)


def test_without_bias_weights_are_of_one_size_between_kinks():
    """Equal to rounding on a path of positive entries, only nearly where an entry changes its sign; the pairing never jumps."""
    for low, positive in ((2.0, True), (0.2, False)):
        A0, A1 = ends(3, low=low)
        result = solve_geodesic(A0, A1, 2.0, 12, bias=False)
        norms = torch.linalg.matrix_norm(result.weights).numpy()
        assert (float(result.path.min()) > 0) == positive
        assert (np.ptp(norms) < 1e-8 * norms[0]) == positive
        assert np.ptp(norms) < 1e-3 * norms[0]
        pairing = (result.momenta * result.path).sum(dim=(1, 2)).numpy()
        np.testing.assert_allclose(pairing, pairing[0], rtol=1e-8)


def test_effective_dimension_is_the_slope_of_the_action():
    """The envelope: d(action)/dLt = -(1/Lt) sum rho H, by a central difference along the branch."""
    A0, A1 = ends(3)
    middle = solve_geodesic(A0, A1, 2.0, 10)
    h = 1e-3
    up, down = (solve_geodesic(A0, A1, 2.0 + s * h, 10, initial=middle.path).action for s in (1, -1))
    assert (up - down) / (2 * h) == pytest.approx(middle.effective_dimension / 2, rel=1e-5)


@pytest.mark.parametrize("seed", [0, 3])
def test_neighbouring_paths_cost_more(seed):
    """Random weights near the minimum, brought back to the end by changing the last layer only."""
    A0, A1 = ends(seed)
    result = solve_geodesic(A0, A1, 3.0, 12)
    generator = np.random.default_rng(1)
    rho, leak = 1 / 12, 3.0
    for size in (1e-1, 1e-2, 1e-3):
        for _ in range(20):
            weights = result.weights.numpy() + size * generator.normal(size=result.weights.shape)
            path = run_net(A0.numpy(), weights, [rho] * 12, leak, True)
            wanted = (A1.numpy() - (1 - rho * leak) * path[-2]) / rho
            weights[-1] = np.linalg.lstsq(sigma(path[-2], True).T, wanted.T, rcond=None)[0].T
            assert run_net(A0.numpy(), weights, [rho] * 12, leak, True)[-1] == pytest.approx(A1.numpy(), abs=1e-8)
            assert rho / (2 * leak) * np.sum(weights**2) > result.action


@pytest.mark.parametrize("seed", [1, 2])
def test_brute_force_by_another_method_finds_the_same_action(seed):
    """SciPy's SLSQP with finite differences on the inner representations; two samples, so that weights follow from the path."""
    A0, A1 = ends(seed, width=2, samples=2)
    leak, layers = 2.0, 6
    rho = 1 / layers

    def action(flat):
        path = np.concatenate([A0.numpy()[None], flat.reshape(-1, 2, 2), A1.numpy()[None]])
        total = 0.0
        for before, after in itertools.pairwise(path):
            W = ((after - (1 - rho * leak) * before) / rho) @ np.linalg.pinv(sigma(before, True))
            total += rho / (2 * leak) * np.sum(W**2)
        return total

    share = np.linspace(0, 1, layers + 1)[1:-1, None, None]
    start = ((1 - share) * A0.numpy() + share * A1.numpy()).ravel()
    found = minimize(action, start, method="SLSQP", options={"maxiter": 500, "ftol": 1e-13})
    result = solve_geodesic(A0, A1, leak, layers)
    assert result.action == pytest.approx(found.fun, rel=1e-6)
    assert result.action <= found.fun * (1 + 1e-9)


@pytest.mark.parametrize("bias", [True, False])
def test_derivatives_by_hand_against_finite_differences(bias):
    generator = np.random.default_rng(0)
    passes = LeakyPasses(generator.normal(size=(3, 4)), np.array([0.2, 0.3, 0.1, 0.4]), 1.5, bias=bias)
    scaled, change, pulls = (generator.normal(size=shape) for shape in ((4, 3, passes.rows),) * 2 + ((5, 3, 4),))
    at, h = passes.point(scaled), 1e-6
    up_point, down_point = passes.point(scaled + h * change), passes.point(scaled - h * change)
    tangent = (up_point.path - down_point.path) / (2 * h)
    np.testing.assert_allclose(passes.tangent(at, at.up, change), tangent, atol=1e-7)
    momenta = passes.momenta(at, at.up, pulls)
    gradient = passes.gradient(at, momenta)
    assert np.vdot(gradient, change) == pytest.approx(np.vdot(pulls, tangent), rel=1e-6)
    gradients = [passes.gradient(point, passes.momenta(point, point.up, pulls)) for point in (up_point, down_point)]
    np.testing.assert_allclose(
        passes.curvature(at, at.up, momenta, change), (gradients[0] - gradients[1]) / (2 * h), atol=1e-6
    )
    entries = (np.array([4, 4, 2, 1]), np.array([0, 2, 1, 0]), np.array([3, 1, 0, 2]))
    rows = passes.jacobian(at, at.up, entries)
    np.testing.assert_allclose(np.tensordot(rows, change, axes=3), tangent[entries], atol=1e-7)


def test_standing_still_costs_about_the_identity_cost():
    """A path from A to A of positive entries rests for a large effective depth where it is cheap: it dips, and never costs more."""
    A = ends(5)[0]
    result = solve_geodesic(A, A, 3.0, 12)
    active = sigma(A.numpy(), True)
    identity = np.sum((A.numpy() @ np.linalg.pinv(active)) ** 2)
    assert result.action < 3.0 / 2 * identity
    check_equations(result, A, A)


def test_zero_ends():
    A0, _ = ends(6, samples=2)
    zero = torch.zeros_like(A0)
    nothing = solve_geodesic(zero, zero, 3.0, 10)
    assert nothing.action == 0.0
    assert nothing.converged
    assert nothing.effective_dimension == 0.0
    # Leaking away is free but never arrives: what is left must be removed.
    down = solve_geodesic(A0, zero, 3.0, 10)
    assert down.converged
    assert down.action > 0
    leaked = solve_geodesic(A0, (1 - 3.0 / 10) ** 10 * A0, 3.0, 10)
    assert leaked.action == pytest.approx(0.0, abs=1e-12)


def test_rank_deficient_start():
    """Multiples of one column: with a bias they can be bent apart by steps that follow one another."""
    A0 = tensor([[1.0, 2.0], [0.5, 1.0], [2.0, 4.0]])
    A1 = tensor([[1.0, 0.5], [0.2, 1.0], [0.7, 0.3]])
    result = solve_geodesic(A0, A1, 2.0, 6)
    assert result.converged
    check_equations(result, A0, A1)


def test_an_end_out_of_reach_is_reported():
    """One layer, one neuron: an affine map takes (1, 2, 3) to a line, never to (2, 1, 2); the best miss is by sqrt(2/3)."""
    with pytest.warns(LearnmechWarning, match=r"did not converge: it ends .* Give more layers"):
        result = solve_geodesic(tensor([[1.0, 2.0, 3.0]]), tensor([[2.0, 1.0, 2.0]]), 0.5, 1, max_iterations=30)
    assert not result.converged
    assert result.end_error >= math.sqrt(2 / 3) / math.sqrt(14) - 1e-9


@pytest.mark.parametrize(
    ("A0", "A1", "bias", "message"),
    [
        ([[1.0, 1.0]], [[1.0, 2.0]], True, r"columns 0 and 1 of A0 are equal, .* Merge"),
        ([[1.0, 2.0]], [[1.0, 1.0]], False, r"positive multiples"),
        ([[-1.0, 2.0]], [[1.0, 1.0]], False, r"only leak, by the factor .* columns \[0\]"),
    ],
)
def test_ends_that_no_weights_reach_are_refused(A0, A1, bias, message):
    with pytest.raises(InputError, match=message):
        solve_geodesic(tensor(A0), tensor(A1), 1.0, 4, bias=bias)


def test_equal_columns_may_stay_together():
    result = solve_geodesic(tensor([[1.0, 1.0]]), tensor([[2.0, 2.0]]), 1.0, 4)
    single = solve_geodesic(tensor([[1.0]]), tensor([[2.0]]), 1.0, 4)
    assert result.action == pytest.approx(single.action, rel=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 4}, r"must be below 1, but reaches 1; .* at least 5 layers"),
        ({"layers": 0}, r"layers must be a whole number"),
        ({"A1": torch.ones(2, 3)}, r"A1 must have the shape of the representation"),
        ({"A0": torch.full((2, 2), math.inf)}, r"A0 holds 4 NaN or infinite"),
        ({"A0": torch.ones(1, 2, 2), "A1": torch.ones(1, 2, 2)}, r"one matrix"),
        ({"effective_depth": -1.0}, r"effective_depth must be positive"),
        ({"steps": torch.tensor([0.5, 0.5])}, r"5 step sizes"),
        ({"steps": torch.tensor([0.6, 0.1, 0.1, 0.1, 0.1])}, r"reaches 2\.4"),
        ({"tolerance": 0.0}, r"tolerance must be positive"),
        ({"max_iterations": 0}, r"max_iterations"),
        ({"initial": torch.ones(3, 2, 2)}, r"initial must be a path of shape \(6, 2, 2\)"),
        ({"A0": torch.ones(100, 100), "A1": torch.ones(100, 100)}, r"fewer samples, layers or neurons"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    arguments = {"A0": torch.eye(2), "A1": torch.eye(2), "effective_depth": 4.0, "layers": 5, **change}
    with pytest.raises(InputError, match=message):
        solve_geodesic(**arguments)


def test_inputs_stay_and_progress_is_told():
    A0, A1 = ends(3)
    copies, told = (A0.clone(), A1.clone()), []
    result = solve_geodesic(A0, A1, 2.0, 8, on_progress=lambda *state: told.append(state))
    assert torch.equal(A0, copies[0])
    assert torch.equal(A1, copies[1])
    assert [state[0] for state in told] == list(range(1, result.iterations + 1))
    assert told[-1][2] < 1e-9


def test_history_and_figures():
    A0, A1 = ends(3)
    result = solve_geodesic(A0, A1, 2.0, 8)
    history = result.to_history(ridges=(1e-2, 1e-3))
    np.testing.assert_allclose(history.hamiltonian.values[:-1], result.hamiltonian.numpy(), atol=1e-12)
    for name in ("hamiltonian", "weights", "stationarity", "weight_norm"):
        assert np.isnan(history[name].values[-1]).all()
    np.testing.assert_allclose(
        history.weight_norm.values[:-1], torch.linalg.matrix_norm(result.weights).numpy(), rtol=1e-7
    )
    assert history.attrs["action"] == result.action
    energies, path = draw_geodesic(history)
    assert [trace.name for trace in energies.plot.data][-1].startswith("effective dimension")
    assert len(energies.plot.data) == 4
    np.testing.assert_allclose(
        np.array(energies.plot.data[-1].y[:-1], dtype=float), -2 / 2.0 * result.hamiltonian.numpy(), atol=1e-12
    )
    assert energies.plot.data[-1].y[-1] is None
    assert len(path.plot.data) == 9
    with pytest.raises(InputError, match="lacks path"):
        draw_geodesic(history.drop_vars("path"))
