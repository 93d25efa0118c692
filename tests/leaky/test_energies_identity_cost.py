"""The cost of identity: closed forms, its bounds and invariances, its gradient, what it refuses."""

import math

import numpy as np
import pytest
import torch
from scipy import optimize

from learnmech.errors import InputError
from learnmech.leaky.cost_of_identity import identity_cost
from learnmech.leaky.metric import Metric
from learnmech.leaky.ranks import negativity, stable_rank

DOUBLE = torch.float64


@pytest.fixture
def one_thread():
    """Thousands of tiny steps: with more threads than free cores each of them waits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def cost(values, **settings):
    return float(identity_cost(values, **settings))


def eye(size, scale=1.0):
    return scale * torch.eye(size, dtype=DOUBLE)


@pytest.mark.parametrize(
    ("values", "settings", "expected"),
    [
        (eye(7), {"bias": False}, 7.0),
        (eye(7, 1.3), {"bias": False, "ridge": 0.1}, 6.608938547486034),
        (eye(7), {}, 6.125),
        (eye(7, 3.0), {}, 6.5625),
        (torch.full((1, 5), 1.7, dtype=DOUBLE), {}, 0.7429305912596401),
        (uniform(20, 4) @ uniform(4, 30, seed=1), {"bias": False}, 4.0),
        (uniform(30, 4) @ uniform(4, 20, seed=1), {"bias": False}, 4.0),
        (torch.cat([normal(1, 9), -normal(1, 9)]), {"bias": False}, 4.0),
        (normal(1, 9), {"bias": False}, math.inf),
        (normal(1, 9), {}, math.inf),
        (torch.tensor([[-1.0]]), {"bias": False}, math.inf),
        (torch.tensor([[-1.0]]), {}, 1.0),  # the bias alone, W = [0, -1]
        (torch.zeros(3, 4), {}, 0.0),
        (torch.zeros(3, 4), {"bias": False}, 0.0),
        (torch.zeros(3, 4), {"bias": False, "ridge": 1e-3}, 0.0),
        (-eye(3), {"bias": False}, math.inf),  # no activation at all
        (-eye(3), {"bias": False, "ridge": 0.5}, 6.0),
    ],
)
def test_closed_forms(values, settings, expected):
    assert cost(values, **settings) == pytest.approx(expected, rel=2e-14)


@pytest.mark.parametrize("angle", [0.2, math.pi / 4, 1.1, 1.5])
def test_rotation(angle):
    c, s = math.cos(angle), math.sin(angle)
    assert cost(torch.tensor([[c, -s], [s, c]], dtype=DOUBLE), bias=False) == pytest.approx(
        (1 + c**2) / c**4, rel=1e-12
    )


@pytest.mark.parametrize("scale", [1e-3, 1.0, 40.0])
@pytest.mark.parametrize("size", [1, 3, 6])
def test_a_simplex_with_a_vertex_at_zero_costs_its_dimension(scale, size):
    corners = torch.cat([torch.zeros(size, 1, dtype=DOUBLE), eye(size, scale)], dim=1)
    assert cost(corners) == pytest.approx(size, rel=1e-12)


@pytest.mark.parametrize("eta", [1e-1, 1e-3, 1e-6, 1e-8])
def test_a_needed_direction_that_vanishes(eta):
    d = 0.7
    values = torch.tensor([[1.0, 1.0], [-d, d * eta]], dtype=DOUBLE)
    assert cost(values, bias=False) == pytest.approx(1 + d**2 + (1 + 1 / eta) ** 2, rel=1e-12)


def test_below_the_tolerance_a_direction_is_absent():
    values = torch.diag(torch.tensor([1.0, 1e-6], dtype=DOUBLE))
    assert cost(values, bias=False) == pytest.approx(2)
    assert cost(values, bias=False, tolerance=1e-5) == pytest.approx(1)
    unsupported = torch.tensor([[1.0, 1.0], [-0.7, 0.7e-6]], dtype=DOUBLE)
    assert cost(unsupported, bias=False, tolerance=1e-5) == math.inf


@pytest.mark.parametrize("shape", [(6, 4), (9, 6), (9, 3)])
def test_sherman_morrison(shape):
    """With bias K grows by a matrix of ones: a scalar correction, solved here by NumPy."""
    values = normal(*shape, seed=1)
    active = values.clamp(min=0).numpy()
    kernel, ones = active.T @ active, np.ones(shape[1])
    solved = np.linalg.solve(kernel, ones)
    correction = np.linalg.norm(values.numpy() @ solved) ** 2 / (1 + ones @ solved)
    assert cost(values) == pytest.approx(cost(values, bias=False) - correction, rel=1e-9)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(6, 4), (5, 6), (4, 25)])
def test_the_ridge_form_is_a_least_squares_problem(shape, bias):
    """Brute force: W by NumPy's least squares on [sigma^T; sqrt(ridge)], then the value of what is minimised."""
    values = normal(*shape, seed=2).numpy()
    active = np.vstack([np.maximum(values, 0)] + [np.ones((1, shape[1]))] * bias)
    ridges = [1e-6, 1e-3, 0.1, 5.0]
    found = identity_cost(torch.tensor(values), ridge=ridges, bias=bias)
    for ridge, value in zip(ridges, found.tolist(), strict=True):
        left = np.vstack([active.T, math.sqrt(ridge) * np.eye(len(active))])
        right = np.vstack([values.T, np.zeros((len(active), shape[0]))])
        weights = np.linalg.lstsq(left, right, rcond=None)[0].T
        expected = np.sum(weights**2) + np.sum((values - weights @ active) ** 2) / ridge
        assert value == pytest.approx(expected, rel=1e-10)
        assert np.allclose(
            Metric(torch.tensor(values), bias=bias).weights(torch.tensor(values), ridge), weights, rtol=1e-8, atol=1e-8
        )


def test_ridge_zero_is_the_least_norm_of_exact_weights():
    """A general minimiser with constraints, from a random start, finds the same weights' size."""
    values = torch.tensor([[-1.0, 2.0], [1.0, -2.0], [0.5, 0.3]], dtype=DOUBLE)
    active = values.clamp(min=0).numpy()
    rng = np.random.default_rng(0)
    found = optimize.minimize(
        lambda w: np.sum(w**2),
        rng.standard_normal(9),
        jac=lambda w: 2 * w,
        constraints={"type": "eq", "fun": lambda w: (w.reshape(3, 3) @ active - values.numpy()).ravel()},
        method="SLSQP",
        options={"ftol": 1e-14},
    )
    assert found.success
    assert cost(values, bias=False) == pytest.approx(found.fun, rel=1e-8)


def test_proposition_1_on_thousands_of_matrices():
    """Without bias the cost is never below the stable rank, given that it is infinite where unsupported."""
    generator = torch.Generator().manual_seed(3)
    finite = infinite = 0
    for width, samples in [(1, 1), (1, 2), (2, 2), (3, 2), (2, 3), (5, 3), (4, 4), (8, 5), (3, 9)]:
        values = torch.randn(400, width, samples, generator=generator, dtype=DOUBLE)
        values[::4] = values[::4].abs()  # non-negative: rank
        values[1::4] += 2  # mostly positive
        costs, ranks = identity_cost(values, bias=False), stable_rank(values)
        assert bool((costs >= ranks - 1e-9).all())
        assert costs[::4].tolist() == pytest.approx([float(min(width, samples))] * 100, rel=1e-6)
        finite += int(costs.isfinite().sum())
        infinite += int(costs.isinf().sum())
    assert finite > 1200
    assert infinite > 400


def test_without_the_infinity_proposition_1_would_fail():
    values = torch.tensor([[-1.0]])
    pseudo_inverse = float((Metric(values, bias=False).solve(values, 0.0) @ values.double().T).trace())
    assert pseudo_inverse == 0.0 < float(stable_rank(values))
    assert cost(values, bias=False) == math.inf


@pytest.mark.parametrize("shape", [(7, 5), (4, 11)])
def test_falls_with_the_ridge_and_with_a_bias(shape):
    values = normal(5, *shape, seed=4)
    ridges = [0.0, 1e-8, 1e-4, 1e-2, 1.0, 100.0]
    with_bias, without = identity_cost(values, ridge=ridges), identity_cost(values, ridge=ridges, bias=False)
    for costs in (with_bias, without):
        assert bool((costs[:, :-1] > costs[:, 1:]).all())
    assert bool((with_bias[:, 1:] < without[:, 1:]).all())
    assert bool((with_bias[:, 0] <= without[:, 0]).all())


def test_invariances():
    values = normal(7, 5, seed=5)
    shuffled = values[torch.randperm(7, generator=torch.Generator().manual_seed(0))]
    for ridge in (0.0, 1e-2):
        for bias in (True, False):
            assert cost(shuffled, ridge=ridge, bias=bias) == pytest.approx(
                cost(values, ridge=ridge, bias=bias), rel=1e-9
            )
            assert cost(values.flip(1), ridge=ridge, bias=bias) == pytest.approx(
                cost(values, ridge=ridge, bias=bias), rel=1e-9
            )
    for scale in (1e-8, 1e-2, 1e6):
        assert cost(scale * values, bias=False) == pytest.approx(cost(values, bias=False), rel=1e-9)
    rising = [cost(scale * values) for scale in (0.1, 0.5, 1.0, 3.0, 10.0)]
    assert rising == sorted(rising)
    assert rising[0] < rising[-1] < cost(values, bias=False)


def test_a_zero_neuron_changes_nothing():
    values = normal(7, 5, seed=6)
    more = torch.cat([values, torch.zeros(2, 5, dtype=DOUBLE)])
    assert cost(more) == pytest.approx(cost(values), rel=1e-9)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(6, 4), (4, 9)])
def test_gradient_by_finite_differences(shape, bias):
    values = normal(2, *shape, seed=7)
    ridges, factors = (1e-2, 0.3), torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=DOUBLE)
    leaf = values.clone().requires_grad_()
    (identity_cost(leaf, ridge=ridges, bias=bias) * factors).sum().backward()
    direction, step = normal(2, *shape, seed=8), 1e-6
    above = (identity_cost(values + step * direction, ridge=ridges, bias=bias) * factors).sum()
    below = (identity_cost(values - step * direction, ridge=ridges, bias=bias) * factors).sum()
    expected = float(above - below) / (2 * step)
    assert float((leaf.grad * direction).sum()) == pytest.approx(expected, rel=1e-6)


def test_gradient_reaches_what_made_the_representation_in_its_own_type():
    weights = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    result = identity_cost(weights @ torch.ones(3, 5), ridge=0.1)
    assert result.dtype == DOUBLE
    result.backward()
    assert weights.grad.dtype == torch.float32
    assert bool(weights.grad.isfinite().all())


def test_ridge_zero_is_detached():
    leaf = normal(3, 2).requires_grad_()
    assert not identity_cost(leaf).requires_grad
    assert not identity_cost(leaf, ridge=(0.0, 1.0)).requires_grad
    assert identity_cost(leaf, ridge=1.0).requires_grad
    with torch.no_grad():
        assert not identity_cost(leaf, ridge=1.0).requires_grad


@pytest.mark.parametrize("shape", [(4, 3), (3, 6)])
def test_second_derivative_by_finite_differences(shape):
    values, direction, step = normal(*shape, seed=10), normal(*shape, seed=11), 1e-6

    def slope(at, create_graph=False):
        leaf = at.clone().requires_grad_()
        (found,) = torch.autograd.grad(identity_cost(leaf, ridge=(0.1, 0.7)).sum(), leaf, create_graph=create_graph)
        return leaf, found

    leaf, found = slope(values, create_graph=True)
    (product,) = torch.autograd.grad((found * direction).sum(), leaf)
    expected = (slope(values + step * direction)[1] - slope(values - step * direction)[1]) / (2 * step)
    assert torch.allclose(product, expected, rtol=1e-5, atol=1e-6)


def test_proposition_2_minima_are_non_negative_and_cost_an_integer(one_thread):
    """Minima that survive an added zero neuron are non-negative, with an integer as cost, the same without bias.

    A run from fixed seeds. The tolerance is that of Adam's last steps (0.01 and 0.05 of negative entries).
    """
    values = torch.randn(4, 10, 5, generator=torch.Generator().manual_seed(0), dtype=DOUBLE).requires_grad_()
    optimizer = torch.optim.Adam([values], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2200)
    for _ in range(2200):
        optimizer.zero_grad()
        identity_cost(values, ridge=1e-6).sum().backward()
        optimizer.step()
        schedule.step()
    costs = identity_cost(values.detach(), ridge=1e-6)
    assert bool((costs.round() >= 1).all())
    assert float((costs - costs.round()).abs().max()) < 0.01
    assert float(negativity(values.detach()).max()) < 0.05


def test_batched_equals_one_by_one():
    values = normal(3, 2, 6, 4, seed=9)
    together = identity_cost(values, ridge=(0.0, 1e-3))
    assert together.shape == (3, 2, 2)
    for row in range(3):
        for column in range(2):
            alone = identity_cost(values[row, column], ridge=(0.0, 1e-3))
            assert together[row, column].tolist() == pytest.approx(alone.tolist(), rel=1e-12)


def test_shapes_and_types():
    values = normal(4, 3)
    assert identity_cost(values).shape == ()
    assert identity_cost(values, ridge=[1e-3]).shape == (1,)
    assert identity_cost(values, ridge=torch.tensor([1e-3, 1e-2])).shape == (2,)
    assert identity_cost(values.float()).dtype == DOUBLE
    assert cost(torch.tensor([[1, 0], [0, 2]]), bias=False) == pytest.approx(2)  # integers are converted


def test_the_argument_is_left_alone():
    values = normal(4, 3)
    before = values.clone()
    identity_cost(values, ridge=(0.0, 1e-3))
    assert torch.equal(values, before)


@pytest.mark.parametrize(
    ("values", "settings", "message"),
    [
        (torch.tensor([[1.0, math.nan]]), {}, "1 NaN or infinite"),
        (torch.tensor([[1.0, math.inf]]), {}, "1 NaN or infinite"),
        (torch.zeros(3, 0), {}, "at least one entry"),
        (torch.zeros(0, 3), {}, "at least one entry"),
        (torch.zeros(3), {}, r"one neuron as \(1, samples\)"),
        (torch.zeros(2, 2, dtype=torch.complex64), {}, "real"),
        (torch.zeros(2, 2, dtype=torch.bool), {}, "real"),
        (np.zeros((2, 2)), {}, "must be a tensor"),
        (torch.eye(2), {"ridge": -1e-3}, "at least 0"),
        (torch.eye(2), {"ridge": math.nan}, "at least 0"),
        (torch.eye(2), {"ridge": math.inf}, "at least 0"),
        (torch.eye(2), {"ridge": ()}, "ridge must be"),
        (torch.eye(2), {"ridge": torch.ones(2, 2)}, "ridge must be"),
        (torch.eye(2), {"ridge": "small"}, "ridge must be"),
        (torch.eye(2), {"tolerance": 0.0}, "tolerance"),
        (torch.eye(2), {"tolerance": math.nan}, "tolerance"),
    ],
)
def test_bad_input(values, settings, message):
    with pytest.raises(InputError, match=message):
        identity_cost(values, **settings)
