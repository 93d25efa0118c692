"""Theorem 4: its identity on any pair, its bounds on pairs and on paths, and that they can fail where they should."""

import math

import numpy as np
import pytest
import torch

from learnmech.errors import InputError
from learnmech.leaky.hamilton_equations import momentum_velocity, velocity
from learnmech.leaky.hamiltonians import hamiltonian, ridge_hamiltonian
from learnmech.leaky.theorem4_bounds import TheoremBound, theorem4

DOUBLE = torch.float64
SHAPES = [(6, 4), (5, 6), (5, 5), (4, 25), (1, 1)]  # samples below, equal to and above the rows of sigma


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_identity_on_random_pairs(shape, bias):
    for ridge in (1e-6, 1e-3, 0.1, 10.0):
        found = theorem4(normal(50, *shape), normal(50, *shape, seed=1), 3.0, ridge, bias=bias)
        assert float(found.residual.max()) < 1e-12
        assert bool(found.difference.holds.all())
        assert bool(found.speed.holds.all())
        assert found.dimension is None
        assert found.path_length is None


@pytest.mark.parametrize("shape", SHAPES)
def test_sides_of_the_identity_by_numpy(shape):
    """The same numbers with inverses of matrices, for a moderate ridge: nothing shared with the code."""
    values, duals, ridge, depth = normal(*shape).numpy(), normal(*shape, seed=1).numpy(), 0.1, 3.0
    active = np.vstack([np.maximum(values, 0), np.ones((1, shape[1]))])
    kernel = active.T @ active
    inverse = np.linalg.inv(kernel + ridge * np.eye(shape[1]))

    def square(moved):
        return np.trace(moved @ inverse @ moved.T)

    moved = depth * (duals @ kernel - values)
    identity = (
        square(moved + ridge * depth * duals) / (2 * depth)
        - depth / 2 * square(values)
        - ridge * depth / 2 * np.sum(duals**2)
    )
    found = theorem4(torch.tensor(values), torch.tensor(duals), depth, ridge)
    assert float(found.hamiltonian) == pytest.approx(identity, rel=1e-10, abs=1e-10)
    with_ridge = square(moved) / (2 * depth) - depth / 2 * square(values)
    assert float(found.ridge_hamiltonian) == pytest.approx(with_ridge, rel=1e-10)
    assert float(found.difference.value) == pytest.approx(2 / depth * (identity - with_ridge), rel=1e-8)
    norm = np.sqrt(np.sum(duals**2))
    assert float(found.largest_momentum) == pytest.approx(norm)
    slack = 2 / depth * np.sqrt(ridge) * norm * np.sqrt(square(moved)) + ridge * norm**2
    assert (float(found.difference.low), float(found.difference.high)) == pytest.approx((-slack, slack))
    centre = depth * np.sqrt(max(0, square(values) + 2 * identity / depth))
    room = 2 * depth * np.sqrt(ridge) * norm
    assert (float(found.speed.low), float(found.speed.high)) == pytest.approx((centre - room, centre + room))
    assert float(found.speed.value) == pytest.approx(np.sqrt(square(moved)))


def geodesic(width, samples, depth, nodes, seed):
    """Integrate Hamilton's equations by midpoint steps from a pair with positive entries; give (A, B) at their middles."""
    values = normal(width, samples, seed=seed).abs() + 0.3
    active = torch.cat([values, torch.ones(1, samples, dtype=DOUBLE)])
    moved = 0.3 * normal(width, width + 1, seed=seed + 1) @ active
    duals = (depth * values + moved) @ torch.linalg.pinv(active.T @ active) / depth
    path = []
    step = 1 / nodes
    for _ in range(nodes):
        middle = (
            values + step / 2 * velocity(values, duals, depth),
            duals + step / 2 * momentum_velocity(values, duals, depth),
        )
        path.append(middle)
        values = values + step * velocity(*middle, depth)
        duals = duals + step * momentum_velocity(*middle, depth)
    return (torch.stack(column) for column in zip(*path, strict=True))


@pytest.mark.parametrize("samples", [3, 5])
def test_bounds_on_geodesics(samples):
    for seed in range(4):
        values, duals = geodesic(4, samples, 2.0, 200, 10 * seed)
        steps = torch.full((200,), 1 / 200, dtype=DOUBLE)
        energy = hamiltonian(values, duals, 2.0)
        # paths that cross kinks, at which the integrator is of low order
        assert float(energy.max() - energy.min()) < 0.05 * float(energy.abs().max())
        for ridge in (1e-4, 1e-2, 1.0):
            found = theorem4(values, duals, 2.0, ridge, steps)
            assert float(found.residual.max()) < 1e-12
            assert bool(found.difference.holds.all())
            assert bool(found.speed.holds.all())
            assert bool(found.dimension.holds)
            assert found.dimension.value.shape == ()
            assert float(found.largest_momentum) == pytest.approx(float(duals.norm(dim=(1, 2)).max()))
            speed = torch.tensor([float(v) for v in found.speed.value], dtype=DOUBLE)
            assert float(found.path_length) == pytest.approx(float(speed.mean()))
            expected = ridge_hamiltonian(values, velocity(values, duals, 2.0), 2.0, ridge=ridge)
            assert torch.allclose(found.ridge_hamiltonian, expected)


def test_paths_are_batched():
    values, duals = geodesic(4, 3, 2.0, 20, 0)
    steps = torch.full((20,), 1 / 20, dtype=DOUBLE)
    both = theorem4(torch.stack([values, values]), torch.stack([duals, 2 * duals]), 2.0, 1e-2, steps)
    alone = theorem4(values, 2 * duals, 2.0, 1e-2, steps)
    assert both.residual.shape == (2, 20)
    assert both.dimension.value.shape == both.path_length.shape == both.largest_momentum.shape == (2,)
    assert float(both.dimension.low[1]) == pytest.approx(float(alone.dimension.low))
    assert float(both.speed.high[1, 3]) == pytest.approx(float(alone.speed.high[3]))


def test_the_bound_on_the_dimension_fails_where_there_is_no_common_hamiltonian():
    """Nodes that do not belong to one path: one at rest that costs 1 dimension, and many at rest that cost 5."""
    values = torch.zeros(10, 5, 5, dtype=DOUBLE)
    values[:, 0, 0] = 1.0
    values[1:] = torch.eye(5)
    found = theorem4(values, values.clone(), 2.0, 1e-6, torch.full((10,), 0.1, dtype=DOUBLE), bias=False)
    assert bool(found.difference.holds.all())
    assert bool(found.speed.holds.all())
    assert float(found.dimension.value) == pytest.approx(3.6, abs=1e-4)
    assert not bool(found.dimension.holds)


def test_a_bound_knows_its_sides():
    one, nought = torch.tensor(1.0, dtype=DOUBLE), torch.tensor(0.0, dtype=DOUBLE)
    assert bool(TheoremBound(nought, one, one).holds)
    assert bool(TheoremBound(nought, one + 1e-12, one).holds)
    assert not bool(TheoremBound(nought, one + 1e-6, one).holds)
    assert not bool(TheoremBound(nought, -one * 1e-6, one * 1e-6).holds)


def test_nothing_moves_and_nothing_is_there():
    found = theorem4(torch.zeros(2, 3), torch.zeros(2, 3), 1.0, 0.1)
    assert float(found.residual) == 0.0
    assert bool(found.difference.holds)
    assert bool(found.speed.holds)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.eye(2), torch.eye(2), 1.0, 0.0), "one positive ridge"),
        ((torch.eye(2), torch.eye(2), 1.0, (0.1, 0.2)), "one positive ridge"),
        ((torch.eye(2), torch.eye(2), 1.0, -0.1), "at least 0"),
        ((torch.eye(2), torch.eye(2), 1.0, math.nan), "at least 0"),
        ((torch.eye(2), torch.ones(2, 3), 1.0, 0.1), "momenta must have"),
        ((torch.eye(2), torch.eye(2), 0.0, 0.1), "effective_depth"),
        ((torch.eye(2), torch.eye(2), 1.0, 0.1, torch.ones(1)), "layers, width, samples"),
        ((torch.ones(3, 2, 2), torch.ones(3, 2, 2), 1.0, 0.1, torch.ones(2) / 2), "3 step sizes"),
        ((torch.ones(2, 2, 2), torch.ones(2, 2, 2), 1.0, 0.1, torch.ones(2)), "add up to 1"),
        ((torch.tensor([[math.inf]]), torch.ones(1, 1), 1.0, 0.1), "NaN or infinite"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(InputError, match=message):
        theorem4(*arguments)
