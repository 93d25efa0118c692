"""The metric of a representation, ranks of spectra, and the share that is negative, against NumPy and by hand."""

import math

import numpy as np
import pytest
import torch

from learnmech.errors import InputError
from learnmech.leaky.metric import Metric
from learnmech.leaky.ranks import bottleneck_rank, negativity, stable_rank

DOUBLE = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def kernel(values, bias):
    active = np.maximum(values.numpy(), 0)
    return active.T @ active + bias


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(6, 4), (5, 6), (4, 15)])
def test_against_solving_with_the_kernel(shape, bias):
    values, first, second = normal(*shape), normal(3, shape[1], seed=1), normal(3, shape[1], seed=2)
    metric = Metric(values, bias=bias)
    for ridge in (1e-2, 1.0):
        inverse = np.linalg.inv(kernel(values, bias) + ridge * np.eye(shape[1]))
        assert float(metric.squared_norm(first, ridge)) == pytest.approx(
            np.trace(first.numpy() @ inverse @ first.numpy().T)
        )
        assert float(metric.inner(first, second, ridge)) == pytest.approx(
            np.trace(first.numpy() @ inverse @ second.numpy().T)
        )
        assert np.allclose(metric.solve(first, ridge), first.numpy() @ inverse, rtol=1e-9, atol=1e-9)
    assert np.allclose(
        metric.eigenvalues, np.sort(np.linalg.eigvalsh(kernel(values, bias)))[::-1][: len(metric.eigenvalues)]
    )


def test_a_ridge_per_representation():
    values, moved = normal(3, 4, 5), normal(3, 2, 5, seed=1)
    metric = Metric(values)
    ridges = metric.eigenvalues[:, :1] * torch.tensor([1e-3, 1e-2], dtype=DOUBLE)
    together = metric.squared_norm(moved, ridges)
    for row in range(3):
        alone = Metric(values[row]).squared_norm(moved[row], ridges[row])
        assert together[row].tolist() == pytest.approx(alone.tolist())


def test_what_is_outside_is_not_lost_in_cancellation():
    """A part of 1e-9 outside of a span on which the rest has size 1: its share 1e-18/ridge is exact to many digits."""
    values = torch.zeros(2, 4, dtype=DOUBLE)
    values[0, 0] = values[1, 1] = 1.0
    moved = torch.tensor([[1.0, 0.0, 1e-9, 0.0]], dtype=DOUBLE)
    found = Metric(values, bias=False).squared_norm(moved, [1e-16])
    assert float(found) - 1 == pytest.approx(1e-18 / 1e-16, rel=1e-6)


def test_inner_without_ridge_is_the_limit_of_small_ridges():
    values = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]], dtype=DOUBLE)
    metric = Metric(values, bias=False)
    supported = torch.tensor([[1.0, 1.0, 0.0]])
    outside = torch.tensor([[1.0, 1.0, 3.0]])
    assert float(metric.inner(supported, outside, 0.0)) == pytest.approx(1.25)
    assert float(metric.inner(outside, outside, 0.0)) == math.inf
    assert float(metric.inner(outside, -outside, 0.0)) == -math.inf
    assert float(metric.inner(outside, -outside, 1e-9)) < -1e9
    rows = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])  # outside parts in different rows are orthogonal
    other = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 1.0]])
    assert float(metric.inner(rows, other, 0.0)) == pytest.approx(1.0)
    assert float(metric.squared_norm(outside, 0.0)) == math.inf
    assert float(metric.squared_norm(supported, 0.0)) == pytest.approx(1.25)


def test_support_is_recognised_at_all_scales():
    """M = W sigma by construction is finite, also for big weights; a thousandth of something else is not."""
    for seed in range(30):
        values = normal(5, 40, seed=seed)
        scale = 10.0 ** (seed % 7 - 3)
        metric = Metric(scale * values)
        weights = normal(3, 6, seed=seed + 100) * 10.0 ** (seed % 5)
        made = weights @ metric.activations
        assert float(metric.squared_norm(made, 0.0)) == pytest.approx(float(weights.square().sum()), rel=1e-8)
        off = made + 1e-3 * made.norm() * normal(3, 40, seed=seed + 200) / 10
        assert float(metric.squared_norm(off, 0.0)) == math.inf


def test_weights_without_ridge_are_the_pseudo_inverse():
    for shape in [(6, 4), (4, 9)]:
        values, moved = normal(*shape), normal(2, shape[1], seed=1)
        metric = Metric(values)
        expected = moved.numpy() @ np.linalg.pinv(np.vstack([np.maximum(values.numpy(), 0), np.ones(shape[1])]))
        assert np.allclose(metric.weights(moved, 0.0), expected, atol=1e-10)


def test_stable_rank_by_hand():
    assert float(stable_rank(torch.diag(torch.tensor([3.0, 1.0])))) == pytest.approx(1.6)
    assert float(stable_rank(1e200 * torch.eye(3, dtype=DOUBLE))) == pytest.approx(3)
    assert float(stable_rank(torch.ones(4, 9))) == pytest.approx(1)
    assert math.isnan(float(stable_rank(torch.zeros(2, 3))))
    values = normal(2, 5, 4)
    singular = np.linalg.svd(values.numpy(), compute_uv=False)
    assert stable_rank(values).tolist() == pytest.approx((singular.sum(1) ** 2 / (singular**2).sum(1)).tolist())


def test_bottleneck_rank():
    table = torch.tensor([[7.7, 6.5, 5.4, 3.3, 1.8, 1.4], [13.3, 12.6, 12.2, 11.5, 0.08, 0.01], [0.0] * 6])
    assert bottleneck_rank(table).tolist() == [3, 4, 0]
    assert bottleneck_rank(table, 0.2).tolist() == [5, 4, 0]
    assert bottleneck_rank(table.flip(-1)).tolist() == [3, 4, 0]
    assert bottleneck_rank(torch.tensor([2.0, 1.0])).tolist() == 1  # exactly half does not count


@pytest.mark.parametrize(
    ("spectrum", "threshold", "message"),
    [
        (torch.tensor([1.0, -1.0]), 0.5, "at least 0"),
        (torch.tensor([1.0, math.nan]), 0.5, "at least 0"),
        (torch.tensor([1.0 + 0j]), 0.5, "at least 0"),
        (torch.tensor(1.0), 0.5, "singular values"),
        (torch.zeros(3, 0), 0.5, "singular values"),
        ([1.0], 0.5, "list"),
        (torch.ones(2), 1.0, "threshold"),
        (torch.ones(2), math.nan, "threshold"),
    ],
)
def test_bottleneck_rank_refuses(spectrum, threshold, message):
    with pytest.raises(InputError, match=message):
        bottleneck_rank(spectrum, threshold)


def test_negativity():
    assert float(negativity(torch.tensor([[4.0, -3.0]]))) == pytest.approx(0.6)
    assert negativity(torch.stack([torch.ones(2, 3), -torch.ones(2, 3)])).tolist() == [0.0, 1.0]
    assert math.isnan(float(negativity(torch.zeros(2, 3))))
    # 10,000 normal entries: the standard deviation of the squared share is 0.0087, so 5 of them fail once in 2 million
    assert float(negativity(normal(100, 100))) ** 2 == pytest.approx(0.5, abs=0.044)


@pytest.mark.parametrize("function", [stable_rank, negativity])
def test_ranks_refuse_bad_matrices(function):
    for bad in (
        torch.zeros(3),
        torch.zeros(2, 0),
        torch.tensor([[math.nan]]),
        torch.zeros(2, 2, dtype=torch.complex128),
    ):
        with pytest.raises(InputError):
            function(bad)


def test_metric_refuses():
    metric = Metric(normal(2, 4, 5))
    with pytest.raises(InputError, match="leading dimensions and samples"):
        metric.squared_norm(normal(4, 5), 0.1)
    with pytest.raises(InputError, match="leading dimensions and samples"):
        metric.squared_norm(normal(2, 4, 6), 0.1)
    with pytest.raises(InputError, match="one shape"):
        metric.inner(normal(2, 4, 5), normal(2, 3, 5), 0.1)
    with pytest.raises(InputError, match="ridges must have the shape"):
        metric.squared_norm(normal(2, 4, 5), torch.ones(3, 1))
    with pytest.raises(InputError, match="at least 0"):
        metric.solve(normal(2, 4, 5), -1.0)
    with pytest.raises(InputError, match="NaN"):
        metric.squared_norm(torch.full((2, 1, 5), math.nan), 0.1)
