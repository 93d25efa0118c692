"""The implicit bias of a linear neuron: closed form against the flow's end, a constrained optimiser, and limits."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize, root

from learnmech.dynamics.implicit_bias_limit import implicit_bias
from learnmech.dynamics.implicit_bias_potential import bias_potential
from learnmech.dynamics.neuron_integrator import neuron_flow
from learnmech.errors import InputError
from learnmech.experiments.kunin2024.neuron_measuring import start_weights

RANDOM = np.random.default_rng(1)
X, Y, DIRECTION = RANDOM.standard_normal((3, 6)), RANDOM.standard_normal(3), RANDOM.standard_normal(6)
DIRECTION /= np.linalg.norm(DIRECTION)
STARTS = [
    (1.6, 0.6, 1, 1),
    (1, 1, 1, 1),
    (0.6, 1.6, 1, 1),
    (1.2, 0.5, 0.3, 2),
    (0.4, 1.5, 2, 0.2),
    (-0.2, 1.5, 1, 1),
    (0, 1, 1, 1),
]


def null_space(inputs):
    return np.linalg.svd(inputs)[2][np.linalg.matrix_rank(inputs) :].T


@pytest.mark.parametrize(("a0", "size", "eta_a", "eta_w"), STARTS)
def test_closed_form_is_the_end_of_the_flow_and_the_least_potential(a0, size, eta_a, eta_w):
    w0 = size * DIRECTION
    end = implicit_bias(X, Y, a0, w0, eta_a=eta_a, eta_w=eta_w)
    flow = neuron_flow(X, Y, a0, w0, [1500.0], eta_a=eta_a, eta_w=eta_w)
    np.testing.assert_allclose(flow.beta[0], end.beta, atol=1e-9)
    np.testing.assert_allclose(flow.w[0], end.w, atol=1e-9)
    assert float(flow.a[0]) == pytest.approx(end.a, abs=1e-9)
    assert end.rank == 3
    assert end.residual < 1e-20
    assert end.sigma == np.sign(a0) * np.sign(float(flow.a[0]))

    # The printed potential with sigma, written out here; a0 = 0 has no direction of beta_0 and takes that of w_0.
    delta, rate = eta_w * a0**2 - eta_a * size**2, math.sqrt(eta_a * eta_w)
    before = math.sqrt(math.sqrt(delta**2 + 4 * rate**2 * (a0 * size) ** 2) - delta)
    linear = np.sign(float(flow.a[0])) * before * DIRECTION
    free = null_space(X)

    def potential(place):
        beta = end.regression + free @ place
        k = math.sqrt(delta**2 + 4 * rate**2 * (beta @ beta))
        return (k - 2 * delta) * math.sqrt(k + delta) / (3 * rate) - linear @ beta

    def slope(place):
        beta = end.regression + free @ place
        norm = np.linalg.norm(beta)
        k = math.sqrt(delta**2 + 4 * rate**2 * norm**2)
        return free.T @ (math.sqrt(k - delta) * beta / norm - linear)

    rough = minimize(potential, np.zeros(3), method="BFGS")  # finite differences: the slope below is not trusted alone
    np.testing.assert_allclose(end.regression + free @ rough.x, end.beta, atol=1e-5)
    exact = root(slope, rough.x, tol=1e-14).x
    np.testing.assert_allclose(end.regression + free @ exact, end.beta, atol=1e-9)
    places = [end.regression + free @ place for place in (exact, exact + 0.1)]
    offset = end.potential(places[0]) - potential(exact)
    assert end.potential(places[1]) - potential(exact + 0.1) == pytest.approx(offset, abs=1e-12)
    assert end.potential(places[1]) > end.potential(places[0])


def test_rank_deficient_inputs_and_noisy_targets():
    """Five samples of rank two in four inputs, whose targets no solution fits: the flow ends at a least-squares solution."""
    random = np.random.default_rng(2)
    inputs = random.standard_normal((5, 2)) @ random.standard_normal((2, 4))
    y, w0 = random.standard_normal(5), random.standard_normal(4)
    end = implicit_bias(inputs, y, 0.5, w0)
    assert end.rank == 2
    assert end.residual == pytest.approx(np.linalg.lstsq(inputs, y, rcond=None)[1].sum() / 2 or end.residual)
    assert end.residual > 0.01
    np.testing.assert_allclose(inputs.T @ (inputs @ end.beta - y), 0, atol=1e-12)
    flow = neuron_flow(inputs, y, 0.5, w0, [3000.0])
    np.testing.assert_allclose(flow.beta[0], end.beta, atol=1e-9)


def test_without_a_null_space_there_is_no_bias():
    random = np.random.default_rng(3)
    inputs, y = random.standard_normal((6, 3)), random.standard_normal(6)
    end = implicit_bias(inputs, y, -0.1, [1.0, 2.0, 0.5])
    np.testing.assert_allclose(end.beta, np.linalg.lstsq(inputs, y, rcond=None)[0], atol=1e-12)
    np.testing.assert_allclose(end.a * end.w, end.beta, atol=1e-12)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_limits_of_extreme_balances(sign):
    """The distance to the limit falls like 1/delta^2; beta_0 both along and against the fit."""
    product = sign * np.array([0.3, -0.2, 0.5, 0.1, 0.2, -0.4])
    for side, name in ((1.0, "lazy_limit"), (-1.0, "direction_limit")):
        errors = []
        for delta in (1e2, 1e3):
            a0, w0 = start_weights(product, side * delta)
            end = implicit_bias(X, Y, a0, w0)
            errors.append(np.abs(end.beta - getattr(end, name)).max())
        assert errors[0] < 1e-3
        assert errors[1] < 0.02 * errors[0] + 1e-14
    projection = np.eye(6) - null_space(X) @ null_space(X).T
    np.testing.assert_allclose(end.lazy_limit, end.regression + product - projection @ product, atol=1e-12)
    kept = end.direction_limit - end.regression
    assert abs(kept @ (product - projection @ product)) == pytest.approx(
        np.linalg.norm(kept) * np.linalg.norm(product - projection @ product)
    )


def test_potential_is_right_at_its_ends():
    """For delta to +inf a square, for delta to -inf a cone; slope sqrt(k - delta) by central differences."""
    for delta, eta_a, eta_w in ((0.7, 1.0, 1.0), (-0.7, 0.5, 3.0), (0.0, 2.0, 2.0), (-1e3, 1.0, 1.0)):
        s, step = 1.3, 1e-5
        slope = np.diff(bias_potential([s - step, s + step], delta, eta_a, eta_w))[0] / (2 * step)
        k = math.sqrt(delta**2 + 4 * eta_a * eta_w * s**2)
        assert slope == pytest.approx(math.sqrt(k - delta), rel=1e-6)
    cone = bias_potential([0.0, 1.0, 2.0], -1e6)
    assert cone[2] - cone[1] == pytest.approx(cone[1] - cone[0], rel=1e-6)
    assert bias_potential(0.0, -5.0) == 0.0


@pytest.mark.parametrize(
    ("arguments", "named", "message"),
    [
        (([[1.0, 0.0]], [1.0], 0.0, [0.0, 0.0]), {}, "at or very near a saddle"),
        (([[1.0, 0.0]], [1.0], 0.0, [0.0, 1.0]), {}, "at or very near a saddle"),
        (([[1.0, 0.0]], [0.0], 0.1, [1.0, 0.5]), {}, "no end of its own"),
        (([[1.0, 0.0]], [1.0], 1.0, [1.0]), {}, "same length"),
        (([1.0, 0.0], [1.0], 1.0, [1.0]), {}, "X must be a matrix"),
        (([[1.0, math.nan]], [1.0], 1.0, [1.0, 0.0]), {}, "X must be finite"),
        (([[1.0, 0.0]], [1.0], 1.0, [1.0, 0.0]), {"end_sign": 2}, "end_sign must be"),
    ],
)
def test_bad_input_is_refused(arguments, named, message):
    with pytest.raises(InputError, match=message):
        implicit_bias(*arguments, **named)


def test_bad_points_of_the_potential_are_refused():
    with pytest.raises(InputError, match="2 entries"):
        implicit_bias([[1.0, 0.0]], [1.0], 1.0, [0.5, 0.5]).potential([1.0])
    with pytest.raises(InputError, match="at least 0"):
        bias_potential([-1.0], 0.0)
    with pytest.raises(InputError, match="numbers"):
        bias_potential("x", 0.0)
