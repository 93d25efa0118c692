"""Energies of representations in motion, against the scalar closed form, NumPy's least squares and limits."""

import math

import numpy as np
import pytest
import torch

from learnmech.errors import InputError
from learnmech.leaky.cost_of_identity import identity_cost
from learnmech.leaky.energies import (
    cross_term,
    kinetic_energy,
    lagrangian,
    least_norm_weights,
    path_length,
    potential_energy,
)
from learnmech.leaky.hamiltonians import ridge_hamiltonian

DOUBLE = torch.float64
DEPTH = 3.5


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def test_scalar_geodesic():
    """One neuron, one sample, no bias, a = a0^(1-p) a1^p: velocity r a, weight L + r, everything by hand."""
    a0, a1, depth = 0.5, 3.0, 4.0
    rate = math.log(a1 / a0)
    for p in (0.0, 0.3, 1.0):
        a = torch.tensor([[a0 ** (1 - p) * a1**p]], dtype=DOUBLE)
        moved = rate * a
        assert float(potential_energy(a, depth, bias=False)) == pytest.approx(-depth / 2)
        assert float(kinetic_energy(a, moved, depth, bias=False)) == pytest.approx(rate**2 / (2 * depth))
        assert float(cross_term(a, moved, bias=False)) == pytest.approx(rate)
        assert float(lagrangian(a, moved, depth, bias=False)) == pytest.approx(4.1930597187, abs=1e-10)
        assert float(least_norm_weights(a, moved, depth, bias=False)) == pytest.approx(5.7917594692, abs=1e-10)
        assert -2 / depth * float(ridge_hamiltonian(a, moved, depth, ridge=0.0, bias=False)) == pytest.approx(
            0.7993498753, abs=1e-10
        )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(6, 4), (5, 6), (4, 15)])
def test_lagrangian_is_its_three_terms_and_the_least_weights(shape, bias):
    values, moved = normal(*shape), normal(*shape, seed=1)
    for ridge in (1e-3, 0.4):
        terms = (
            kinetic_energy(values, moved, DEPTH, ridge=ridge, bias=bias)
            + cross_term(values, moved, ridge=ridge, bias=bias)
            - potential_energy(values, DEPTH, ridge=ridge, bias=bias)
        )
        whole = float(lagrangian(values, moved, DEPTH, ridge=ridge, bias=bias))
        assert whole == pytest.approx(float(terms), rel=1e-9)
        weights = least_norm_weights(values, moved, DEPTH, ridge=ridge, bias=bias).numpy()
        active = np.vstack([np.maximum(values.numpy(), 0)] + [np.ones((1, shape[1]))] * bias)
        target = DEPTH * values.numpy() + moved.numpy()
        direct = (np.sum(weights**2) + np.sum((target - weights @ active) ** 2) / ridge) / (2 * DEPTH)
        assert whole == pytest.approx(direct, rel=1e-9)


@pytest.mark.parametrize("shape", [(6, 4), (4, 15)])
def test_motions_made_by_weights_cost_at_most_these(shape):
    """dA = W sigma - L A: the Lagrangian is at most |W|^2/2L, and equal for the pseudo-inverse's weights."""
    values, weights = normal(*shape), normal(shape[0], shape[0] + 1, seed=1)
    active = torch.cat([values.clamp(min=0), torch.ones(1, shape[1], dtype=DOUBLE)])
    moved = weights @ active - DEPTH * values
    found = float(lagrangian(values, moved, DEPTH))
    projected = weights.numpy() @ active.numpy() @ np.linalg.pinv(active.numpy())
    assert found == pytest.approx(np.sum(projected**2) / (2 * DEPTH), rel=1e-9)
    assert found <= float(weights.square().sum()) / (2 * DEPTH) * (1 + 1e-9)
    assert np.allclose(least_norm_weights(values, moved, DEPTH), projected, atol=1e-9)


def test_the_leak_is_free_even_where_the_split_is_infinite():
    values = normal(3, 12)  # more samples than rows: not supported
    assert float(lagrangian(values, -DEPTH * values, DEPTH)) == pytest.approx(0, abs=1e-20)
    assert float(kinetic_energy(values, -DEPTH * values, DEPTH)) == math.inf
    assert float(potential_energy(values, DEPTH)) == -math.inf
    assert float(cross_term(values, -DEPTH * values)) == -math.inf
    assert math.isnan(float(ridge_hamiltonian(values, -DEPTH * values, DEPTH, ridge=0.0)))


@pytest.mark.parametrize("eta", [1e-1, 1e-3, 1e-5])
def test_energies_blow_up_and_cancel(eta):
    """Two neurons, two samples, no bias: only the leak moves the second row; energies grow like eta^-2, their sum does not."""
    d = 0.7
    values = torch.tensor([[1.0, 1.0], [-d, d * eta]], dtype=DOUBLE)
    moved = torch.stack([torch.zeros(2, dtype=DOUBLE), -DEPTH * values[1]])
    kinetic = float(kinetic_energy(values, moved, DEPTH, bias=False))
    cross = float(cross_term(values, moved, bias=False))
    assert kinetic * eta**2 == pytest.approx(DEPTH / 2 * ((1 + eta) ** 2 + eta**2 * d**2), rel=0.7)
    assert cross == pytest.approx(-2 * kinetic, rel=1e-12)
    assert float(lagrangian(values, moved, DEPTH, bias=False)) == pytest.approx(DEPTH / 2, rel=1e-9)
    # difference of two numbers of size eta^-2: what round-off leaves
    dimension = -2 / DEPTH * float(ridge_hamiltonian(values, moved, DEPTH, ridge=0.0, bias=False))
    assert dimension == pytest.approx(1, abs=1e-15 / eta**2 + 1e-12)


def test_timing_changes_kinetic_energy_not_the_cross_term_of_the_path():
    values, moved = normal(5, 4), normal(5, 4, seed=1)
    assert float(kinetic_energy(values, 2 * moved, DEPTH)) == pytest.approx(
        4 * float(kinetic_energy(values, moved, DEPTH))
    )
    assert float(cross_term(values, 2 * moved)) == pytest.approx(2 * float(cross_term(values, moved)))


def test_path_length():
    path = torch.tensor([1.0, 2.0, 4.0, 3.0]).reshape(4, 1, 1)
    assert float(path_length(path, ridge=0.0, bias=False)) == pytest.approx(1 + 1 + 0.25)
    both = path_length(torch.stack([path, path.flip(0)]), ridge=(0.0, 3.0), bias=False)
    first, second = 2.25, 1 / 3 + 0.5 + 0.5
    assert both[:, 0].tolist() == pytest.approx([first, second])
    assert float(both[0, 1]) == pytest.approx(1 / 2 + 2 / math.sqrt(7) + 1 / math.sqrt(19))
    # fine steps of a geometric path: |r| in total, to first order
    fine = torch.logspace(0, 3, 2001, base=math.e, dtype=DOUBLE).reshape(-1, 1, 1)
    assert float(path_length(fine, ridge=0.0, bias=False)) == pytest.approx(3, rel=1e-3)
    assert float(path_length(normal(3, 2, 9), ridge=0.0)) == math.inf


def test_batched_and_several_ridges():
    values, moved = normal(3, 2, 5, 4), normal(3, 2, 5, 4, seed=1)
    ridges = (1e-3, 1e-1, 0.0)
    for function in (
        lambda a, v: kinetic_energy(a, v, DEPTH, ridge=ridges),
        lambda a, v: potential_energy(a, DEPTH, ridge=ridges),
        lambda a, v: cross_term(a, v, ridge=ridges),
        lambda a, v: lagrangian(a, v, DEPTH, ridge=ridges),
        lambda a, v: ridge_hamiltonian(a, v, DEPTH, ridge=ridges),
    ):
        together = function(values, moved)
        assert together.shape == (3, 2, 3)
        assert together.dtype == DOUBLE
        assert torch.allclose(together[1, 1], function(values[1, 1], moved[1, 1]), rtol=1e-11)
    weights = least_norm_weights(values, moved, DEPTH, ridge=0.1)
    assert torch.allclose(weights[2, 0], least_norm_weights(values[2, 0], moved[2, 0], DEPTH, ridge=0.1))


def test_ridge_hamiltonian_is_kinetic_plus_potential():
    values, moved = normal(5, 9), normal(5, 9, seed=1)
    expected = kinetic_energy(values, moved, DEPTH, ridge=0.1) + potential_energy(values, DEPTH, ridge=0.1)
    assert float(ridge_hamiltonian(values, moved, DEPTH, ridge=0.1)) == pytest.approx(float(expected))


def test_potential_energy_has_the_gradient_of_the_cost():
    leaf, other = normal(4, 3).requires_grad_(), normal(4, 3).requires_grad_()
    potential_energy(leaf, DEPTH, ridge=0.1).backward()
    identity_cost(other, ridge=0.1).backward()
    assert torch.allclose(leaf.grad, -DEPTH / 2 * other.grad)


def test_others_are_detached():
    leaf, moved = normal(4, 3).requires_grad_(), normal(4, 3, seed=1).requires_grad_()
    for result in (
        kinetic_energy(leaf, moved, DEPTH, ridge=0.1),
        cross_term(leaf, moved, ridge=0.1),
        lagrangian(leaf, moved, DEPTH, ridge=0.1),
        least_norm_weights(leaf, moved, DEPTH),
        ridge_hamiltonian(leaf, moved, DEPTH, ridge=0.1),
        path_length(leaf[None].expand(2, 4, 3), ridge=0.1),
    ):
        assert not result.requires_grad


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ((torch.eye(2), torch.ones(2, 3), 1.0), {}, "shape of the representation"),
        ((torch.eye(2), torch.ones(1, 2, 2), 1.0), {}, "shape of the representation"),
        ((torch.eye(2), torch.full((2, 2), math.nan), 1.0), {}, "velocity holds 4 NaN"),
        ((torch.eye(2), torch.eye(2), 0.0), {}, "effective_depth must be positive"),
        ((torch.eye(2), torch.eye(2), -1.0), {}, "effective_depth must be positive"),
        ((torch.eye(2), torch.eye(2), math.nan), {}, "effective_depth must be positive"),
        ((torch.eye(2), torch.eye(2), math.inf), {}, "effective_depth must be positive"),
        ((torch.eye(2), torch.eye(2), torch.ones(2)), {}, "effective_depth must be one number"),
        ((torch.eye(2), torch.eye(2), "deep"), {}, "effective_depth must be one number"),
        ((torch.eye(2), torch.eye(2), 1.0), {"ridge": -0.1}, "at least 0"),
        ((torch.eye(2, dtype=torch.complex64), torch.eye(2), 1.0), {}, "real"),
    ],
)
@pytest.mark.parametrize("function", [kinetic_energy, lagrangian, least_norm_weights])
def test_bad_input(function, arguments, settings, message):
    with pytest.raises(InputError, match=message):
        function(*arguments, **settings)


def test_more_bad_input():
    with pytest.raises(InputError, match="one ridge"):
        least_norm_weights(torch.eye(2), torch.eye(2), 1.0, ridge=(0.1, 0.2))
    with pytest.raises(InputError, match="two nodes"):
        path_length(torch.eye(2), ridge=0.1)
    with pytest.raises(InputError, match="two nodes"):
        path_length(torch.eye(2)[None], ridge=0.1)
    with pytest.raises(InputError, match="at least 0"):
        path_length(torch.ones(2, 2, 2), ridge=-0.1)
    with pytest.raises(InputError, match="effective_depth"):
        potential_energy(torch.eye(2), 0.0)
    with pytest.raises(InputError, match="shape of the representation"):
        cross_term(torch.eye(2), torch.eye(3))
