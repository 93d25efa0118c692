"""Distance, alignment, spectrum and rank of kernels against closed forms; the operator against the matrix."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from learnmech.dynamics.kernel_matrix import kernel
from learnmech.dynamics.kernel_products import kernel_operator
from learnmech.dynamics.kernel_statistics import effective_rank, kernel_alignment, kernel_distance, kernel_spectrum
from learnmech.errors import InputError


def test_distance_of_linear_neurons_in_closed_form():
    """f = a w.x with whitened inputs, unit rates: <K1, K2> = d a1^2 a2^2 + a1^2|w2|^2 + a2^2|w1|^2 + (w1.w2)^2."""
    rng = np.random.default_rng(0)
    d = 4
    x, _ = np.linalg.qr(rng.normal(size=(d, d)))
    kernels, inner = (
        [],
        lambda p, q: d * p[0] ** 2 * q[0] ** 2 + p[0] ** 2 * q[1] @ q[1] + q[0] ** 2 * p[1] @ p[1] + (p[1] @ q[1]) ** 2,
    )
    neurons = [(1.5, rng.normal(size=d)), (-0.3, rng.normal(size=d))]
    for a, w in neurons:
        net = nn.Sequential(nn.Linear(d, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
        with torch.no_grad():
            net[0].weight.copy_(torch.from_numpy(w[None]))
            net[1].weight.fill_(a)
        kernels.append(kernel(net, torch.from_numpy(x)))
    first, second = neurons
    expected = 1 - inner(first, second) / math.sqrt(inner(first, first) * inner(second, second))
    assert math.isclose(kernel_distance(*kernels), expected, rel_tol=1e-12)
    assert kernel_distance(kernels[0], 7 * kernels[0]) < 1e-15


def test_small_distances_keep_their_digits():
    base, other = np.diag([1.0, 0.0]), np.diag([0.0, 1.0])
    for angle in (1e-3, 1e-6):
        turned = math.cos(angle) * base + math.sin(angle) * other
        assert math.isclose(kernel_distance(base, turned), 2 * math.sin(angle / 2) ** 2, rel_tol=1e-9)
    assert kernel_distance(base, other) == 1.0
    assert kernel_distance(1e-200 * np.eye(2), 1e200 * np.ones((2, 2))) == pytest.approx(1 - 2 / math.sqrt(8))
    assert isinstance(kernel_distance(torch.eye(2), np.eye(2)), float)


def test_alignment():
    labels = np.array([0, 0, 1, 1, 2])
    rows = np.eye(3)[labels]
    assert math.isclose(kernel_alignment(rows @ rows.T + 5, labels), 1.0, rel_tol=1e-12)
    assert kernel_alignment(rows @ rows.T + 5, labels, centered=False) < 0.9
    y = np.array([1.0, -2.0, 0.5])
    matrix = np.diag([1.0, 2.0, 3.0])
    expected = float(y @ matrix @ y) / (np.linalg.norm(matrix) * float(y @ y))
    assert math.isclose(kernel_alignment(matrix, y, centered=False), expected, rel_tol=1e-12)
    centring = np.eye(3) - 1 / 3
    turned, flat = centring @ matrix @ centring, centring @ np.outer(y, y) @ centring
    expected = np.sum(turned * flat) / np.linalg.norm(turned) / np.linalg.norm(flat)
    assert math.isclose(kernel_alignment(torch.from_numpy(matrix), torch.from_numpy(y)), expected, rel_tol=1e-12)
    assert math.isnan(kernel_alignment(np.eye(3), [1, 1, 1]))
    assert math.isnan(kernel_alignment(np.ones((3, 3)), [0, 1, 2]))


def test_spectrum_and_rank():
    rng = np.random.default_rng(0)
    directions, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    values = np.array([4.0, 2.0, 1.0, 0.0])
    matrix = directions * values @ directions.T
    np.testing.assert_allclose(kernel_spectrum(matrix), values, atol=1e-13)
    assert math.isclose(effective_rank(matrix), 49 / 21, rel_tol=1e-12)
    assert math.isclose(effective_rank(np.outer([1.0, 2.0], [1.0, 2.0])), 1.0, rel_tol=1e-12)
    assert math.isclose(effective_rank(1e-200 * torch.eye(5).double()), 5.0, rel_tol=1e-12)


@pytest.mark.parametrize("function", [kernel_spectrum, effective_rank, lambda k: kernel_alignment(k, [0, 1])])
@pytest.mark.parametrize(
    "bad",
    [
        np.ones((2, 3)),
        np.array([[1.0, np.nan], [0.0, 1.0]]),
        np.array([[1.0, 5.0], [0.0, 1.0]]),
        np.ones(2),
        np.ones((0, 0)),
    ],
)
def test_matrices_that_are_no_kernels_are_refused(function, bad):
    with pytest.raises(InputError):
        function(bad)


def test_other_bad_input_is_refused():
    with pytest.raises(InputError, match="same shape"):
        kernel_distance(np.eye(2), np.eye(3))
    with pytest.raises(InputError, match="zero"):
        kernel_distance(np.eye(2), np.zeros((2, 2)))
    with pytest.raises(InputError, match="first kernel holds 1 NaN"):
        kernel_distance(np.array([[np.nan]]), np.eye(1))
    with pytest.raises(InputError, match="zero"):
        effective_rank(np.zeros((2, 2)))
    with pytest.raises(InputError, match="negative eigenvalue"):
        kernel_spectrum(np.diag([1.0, -0.1]))
    with pytest.raises(InputError, match="2 labels or rows"):
        kernel_alignment(np.eye(2), [0, 1, 2])
    with pytest.raises(InputError, match="targets hold 1 NaN"):
        kernel_alignment(np.eye(2), [0.0, np.nan])


def test_operator_is_the_matrix():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 2)).double()
    inputs = torch.randn(4, 3).double()
    rates = {"0.weight": 0.5, "3.weight": 2.0, "2.bias": 1.0}
    full = kernel(net, inputs, outputs="full", learning_rates=rates).reshape(8, 8).numpy()
    operator = kernel_operator(net, inputs, learning_rates=rates)
    vector = np.random.default_rng(0).normal(size=8)
    np.testing.assert_allclose(operator.matvec(vector), full @ vector, rtol=1e-11)
    np.testing.assert_allclose(operator.as_linear_operator() @ vector, full @ vector, rtol=1e-11)
    np.testing.assert_allclose(operator.dense(), full, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(operator.top_eigenvalues(2), np.linalg.eigvalsh(full)[:-3:-1], rtol=1e-9)
    assert operator.matvec(np.zeros(8)).tolist() == [0.0] * 8
    # Hutchinson: within five of its own standard errors of the trace, which fails for fewer than one seed in a million.
    trace, deviation = operator.trace(probes=64, seed=1)
    assert abs(trace - np.trace(full)) < 5 * deviation
    with torch.no_grad():
        net[0].weight.zero_()
    np.testing.assert_allclose(operator.matvec(vector), full @ vector, rtol=1e-11)


def test_operator_refuses_bad_input():
    operator = kernel_operator(nn.Linear(3, 2), torch.ones(2, 3))
    for call, message in (
        (lambda: operator.matvec(np.ones(3)), "4 numbers"),
        (lambda: operator.matvec(np.array([1.0, np.nan, 0.0, 0.0])), "NaN"),
        (lambda: operator.dense(largest=3), "4 x 4"),
        (lambda: operator.trace(probes=1), "at least 2"),
        (lambda: operator.top_eigenvalues(4), "from 1 to 3"),
    ):
        with pytest.raises(InputError, match=message):
            call()
