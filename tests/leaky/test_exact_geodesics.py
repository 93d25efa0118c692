"""Closed forms against the printed digits, quadrature, finite differences and brute-force minimisation."""

import itertools
import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize, minimize_scalar

from learnmech.errors import InputError
from learnmech.leaky import exact


def test_scalar_has_the_printed_digits():
    path = exact.scalar(0.5, 3.0, 4.0)
    assert f"{path.weight:.10f}" == "5.7917594692"
    assert f"{path.effective_dimension:.10f}" == "0.7993498753"
    assert f"{path.action:.10f}" == "4.1930597187"
    assert all(type(value) is float for value in (path.weight, path.action, path.hamiltonian, path.momentum(0.3)))


@pytest.mark.parametrize(
    ("layers", "digits"), [(5, "0.7097900799"), (20, "0.7803974150"), (100, "0.7957168409"), (1000, "0.7989899825")]
)
def test_discrete_scalar_has_the_printed_digits(layers, digits):
    assert f"{exact.scalar_discrete(0.5, 3.0, 4.0, layers).effective_dimension:.10f}" == digits


@pytest.mark.parametrize(
    ("a0", "a1", "leak"), [(0.5, 3.0, 4.0), (3.0, 0.01, 2.0), (1e-8, 1e8, 100.0), (2.0, 2.1, 1e-3)]
)
def test_scalar_solves_the_equations(a0, a1, leak):
    path = exact.scalar(a0, a1, leak)
    for p in (0.0, 0.3, 1.0):
        a, b = path.position(p), path.momentum(p)
        assert leak * b * a == pytest.approx(path.weight, rel=1e-12)
        energy = leak / 2 * (b * a) ** 2 - leak * b * a
        assert energy == pytest.approx(path.hamiltonian, rel=1e-9, abs=1e-12 * leak)
    assert path.position(0.0) == pytest.approx(a0)
    assert path.position(1.0) == pytest.approx(a1)
    assert path.momentum_start == pytest.approx(path.momentum(0.0))
    h = 1e-6
    slope = (path.position(0.5 + h) - path.position(0.5 - h)) / (2 * h)
    assert slope == pytest.approx((path.weight - leak) * path.position(0.5), rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("layers", [1, 4, 9])
def test_discrete_scalar_is_a_net_that_ends_where_it_should(layers):
    path = exact.scalar_discrete(0.5, 3.0, 4.0, layers)
    rho, a, nodes = 1 / layers, 0.5, [0.5]
    for _ in range(layers):
        a = (1 - rho * 4.0) * a + rho * path.weight * a
        nodes.append(a)
    assert a == pytest.approx(3.0, rel=1e-13)
    assert [path.position(k / layers) for k in range(layers + 1)] == pytest.approx(nodes)
    b = path.momentum_end  # back with B_(l-1) = (1 - rho Lt) B_l + rho W B_l
    for k in range(layers, 0, -1):
        assert 4.0 * b * nodes[k - 1] == pytest.approx(path.weight)
        b = (1 - rho * 4.0) * b + rho * path.weight * b
    assert b == pytest.approx(path.momentum_start)
    assert path.action == pytest.approx(path.weight**2 / 8)


def test_discrete_scalar_is_the_fully_connected_net_at_one_layer_an_effective_depth():
    assert exact.scalar_discrete(0.5, 3.0, 6.0, 6).weight == pytest.approx(6 * 6 ** (1 / 6), rel=1e-13)


def test_aligned_adds_scalars_up():
    starts, ends, leak = [0.5, 1.0, 2.0], [3.0, 0.7, 2.5], 4.0
    whole = exact.aligned(starts, ends, leak)
    parts = [exact.scalar(a, b, leak) for a, b in zip(starts, ends, strict=True)]
    assert whole.spectrum == pytest.approx([part.weight for part in parts])
    assert whole.effective_dimension == pytest.approx(sum(part.effective_dimension for part in parts))
    assert whole.action == pytest.approx(sum(part.action for part in parts))
    assert whole.hamiltonian == pytest.approx(sum(part.hamiltonian for part in parts))
    counted, once, twice = whole.expansion
    assert counted == 3.0
    assert once == pytest.approx(2 * math.log(3.0 * 0.7 * 2.5))
    assert 2 * whole.action == pytest.approx(leak * counted + once + twice / leak)
    assert whole.effective_dimension == pytest.approx(counted - twice / leak**2)


@pytest.mark.parametrize(
    ("a0", "target", "leak", "penalty"),
    [(0.5, 3.0, 4.0, 0.02), (0.5, 3.0, 12.0, 2.0), (1.0, -2.0, 2.0, 0.1), (1.0, 0.0, 5.0, 1e-4), (2.0, 1.0, 0.01, 5.0)],
)
def test_trained_scalar_is_the_least_cost(a0, target, leak, penalty):
    net = exact.scalar_trained(a0, target, leak, penalty)
    end = net.geodesic.end

    def cost(u):
        return (target - math.exp(u)) ** 2 + penalty / (2 * leak) * (leak + u - math.log(a0)) ** 2

    grid = np.linspace(math.log(a0) - 3 * leak - 5, math.log(max(a0, abs(target))) + 2, 40001)
    costs = np.array([cost(u) for u in grid])
    best = int(costs.argmin())
    fine = minimize_scalar(
        cost, bounds=(grid[max(best - 1, 0)], grid[best + 1]), method="bounded", options={"xatol": 1e-12}
    )
    assert net.cost == pytest.approx(fine.fun, rel=1e-9, abs=1e-12)
    assert math.log(end) == pytest.approx(fine.x, abs=1e-5)
    # The end condition of the Hamiltonian: the momentum is the pull of the data.
    assert net.geodesic.momentum_end == pytest.approx(2 / penalty * (target - end), rel=1e-7, abs=1e-7)
    assert net.cost == pytest.approx(net.data_cost + penalty * net.geodesic.action, rel=1e-10)
    inner = [k for k in range(1, len(grid) - 1) if costs[k] < costs[k - 1] and costs[k] < costs[k + 1]]
    assert len(net.minima) == len(inner)
    assert np.log(net.minima) == pytest.approx(grid[inner], abs=1e-3 * leak + 1e-3)


def test_trained_scalar_names_the_collapsed_minimum():
    kept = exact.scalar_trained(1.0, 2.0, 6.0, 1.0)
    lost = exact.scalar_trained(1.0, 2.0, 6.0, 3.0)
    assert len(kept.minima) == 2
    assert kept.geodesic.end == kept.minima[1]
    assert lost.geodesic.end == lost.minima[0] < 0.01


@pytest.mark.parametrize(
    ("leak", "dimension", "least", "action"),
    # Dimension and minimum as printed in the specification; actions by mpmath at 50 digits.
    [
        (1.0, 0.4674765628, 0.9369373626, 0.2446633442612),
        (2.0, 0.3582523796, 0.7471579268, 0.4546512198017),
        (10.0, 1.817152542e-4, 0.0134814050, 0.6930563497628),
    ],
)
def test_one_sample_has_the_printed_digits(leak, dimension, least, action):
    path = exact.one_sample(1.0, 1.0, leak)
    assert path.effective_dimension == pytest.approx(dimension, rel=3e-10)
    assert path.minimum == pytest.approx(least, abs=1e-10)
    assert path.action == pytest.approx(action, abs=1e-13)
    assert path.other_actions == ()


ENDS = list(itertools.product((0.01, 0.9, 3.0, 100.0), (0.02, 1.0, 10.0, 1000.0), (1e-3, 0.5, 3.0, 20.0, 100.0)))


@pytest.mark.parametrize(("a0", "a1", "leak"), ENDS)
def test_one_sample_everywhere(a0, a1, leak):
    path = exact.one_sample(a0, a1, leak)
    assert path.position(0.0) == pytest.approx(a0, rel=1e-12)
    assert path.position(1.0) == pytest.approx(a1, rel=1e-12)

    def density(p):
        weight, bias = path.weights(p)
        return (weight * weight + bias * bias) / (2 * leak)

    edges = np.linspace(0, 1, 21)
    action = sum(quad(density, *edge, epsabs=1e-13, epsrel=1e-11)[0] for edge in itertools.pairwise(edges))
    assert path.action == pytest.approx(action, rel=1e-9, abs=1e-9)
    for p in (0.0, 0.4, 1.0):  # the energy is constant
        a, b = path.position(p), path.momentum(p)
        energy = leak / 2 * b * b * (1 + a * a) - leak * b * a
        assert energy == pytest.approx(path.hamiltonian, rel=1e-9, abs=1e-11 * leak * (1 + abs(b * a)))
    lowest = min(path.position(p) for p in np.linspace(0, 1, 2001))
    assert path.minimum <= lowest * (1 + 1e-12)
    assert lowest <= path.minimum + 1e-3 * max(a0, a1)
    assert path.effective_dimension < 1
    h = 1e-5 * leak
    slope = (exact.one_sample(a0, a1, leak + h).action - exact.one_sample(a0, a1, leak - h).action) / (2 * h)
    assert slope == pytest.approx(-path.hamiltonian / leak, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("a0", "a1", "leak"), [(1.0, 1.0, 2.0), (0.5, 3.0, 1.0), (3.0, 0.2, 1.5), (10.0, 10.0, 9.0)])
def test_one_sample_solves_hamiltons_equations(a0, a1, leak):
    path, h = exact.one_sample(a0, a1, leak), 1e-5
    for p in (0.1, 0.5, 0.9):
        a, b = path.position(p), path.momentum(p)
        assert (path.position(p + h) - path.position(p - h)) / (2 * h) == pytest.approx(
            leak * (b * (a * a + 1) - a), rel=1e-6, abs=1e-8
        )
        assert (path.momentum(p + h) - path.momentum(p - h)) / (2 * h) == pytest.approx(
            leak * (b - a * b * b), rel=1e-6, abs=1e-8
        )


@pytest.mark.parametrize(
    ("a0", "a1", "leak"), [(1.0, 1.0, 2.0), (1.0, 2.0, 4.0), (10.0, 10.0, 8.0), (10.0, 10.0, 12.0), (2.0, 0.3, 1.0)]
)
def test_one_sample_is_the_least_action_of_brute_force(a0, a1, leak):
    """Piecewise linear paths of 150 pieces, midpoint rule: off by O(1/150^2) times the curvature."""
    pieces = 150

    def action(inner):
        a = np.concatenate([[a0], inner, [a1]])
        middle, slope = (a[1:] + a[:-1]) / 2, np.diff(a) * pieces
        u, weight = middle + slope / leak, 1 / (1 + middle**2)
        by_middle = leak * (u * weight - u * u * middle * weight * weight) / pieces
        by_slope = u * weight / pieces
        gradient = np.zeros(pieces + 1)
        gradient[:-1] += by_middle / 2 - by_slope * pieces
        gradient[1:] += by_middle / 2 + by_slope * pieces
        return float((leak / 2 * u * u * weight).sum() / pieces), gradient[1:-1]

    p = np.linspace(0, 1, pieces + 1)[1:-1]
    starts = [a0 + (a1 - a0) * p, (a0 * np.sinh(leak * (1 - p)) + a1 * np.sinh(leak * p)) / np.sinh(leak)]
    found = [
        minimize(action, start, jac=True, method="L-BFGS-B", options={"maxiter": 5000, "maxfun": 9000})
        for start in starts
    ]
    path = exact.one_sample(a0, a1, leak)
    assert min(one.fun for one in found) == pytest.approx(path.action, rel=3e-3)
    assert len(path.other_actions) in (0, 2)


def test_one_sample_jumps_between_two_geodesics():
    stays, falls = exact.one_sample(10.0, 10.0, 9.0), exact.one_sample(10.0, 10.0, 9.4)
    assert stays.minimum > 8
    assert falls.minimum < 0.3
    # By mpmath at 50 digits: the three geodesics at effective depth 9.
    assert (stays.action, *stays.other_actions) == pytest.approx(
        (4.4518949397364, 4.5875956805386, 4.7546615956472), abs=1e-12
    )


@pytest.mark.parametrize("leak", [0.1, 3.0, 80.0])
def test_one_sample_falls_for_free(leak):
    path = exact.one_sample(1.0, math.exp(-leak), leak)
    assert path.action == pytest.approx(0.0, abs=1e-12)
    assert path.weights(0.5) == pytest.approx((0.0, 0.0), abs=1e-9 * leak)
    up = exact.one_sample(math.exp(-leak), 1.0, leak)  # the dearest energy-free path: log((1 + a1^2) / (1 + a0^2))
    assert up.hamiltonian == pytest.approx(0.0, abs=1e-9 * leak)
    assert up.action == pytest.approx(math.log(2 / (1 + math.exp(-2 * leak))), rel=1e-9)


@pytest.mark.parametrize("function", [exact.scalar, exact.one_sample])
@pytest.mark.parametrize(
    "bad",
    [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, 0.0), (math.nan, 1.0, 1.0), (1.0, math.inf, 1.0), ("x", 1.0, 1.0)],
)
def test_bad_numbers_are_refused(function, bad):
    with pytest.raises(InputError, match=r"must be a"):
        function(*bad)


def test_other_bad_arguments_are_refused():
    with pytest.raises(InputError, match="layers must be a whole number"):
        exact.scalar_discrete(1.0, 2.0, 3.0, 0)
    with pytest.raises(InputError, match="equally many"):
        exact.aligned([1.0, 2.0], [1.0], 2.0)
    with pytest.raises(InputError, match="positive finite"):
        exact.aligned([1.0, -2.0], [1.0, 1.0], 2.0)
    with pytest.raises(InputError, match="list of positive"):
        exact.aligned("no numbers", [1.0], 2.0)
    with pytest.raises(InputError, match="depth runs from 0"):
        exact.one_sample(1.0, 1.0, 1.0).position(1.1)
    with pytest.raises(InputError, match="must lie between"):
        exact.one_sample(1e200, 1.0, 1.0)
    with pytest.raises(InputError, match="target"):
        exact.scalar_trained(1.0, math.nan, 1.0, 1.0)
