"""Diagonal networks: the paper's figures, two routes over random designs, linear programmes, the flow in logarithms."""

import time

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import linprog, minimize

from learnmech.dynamics.agf.diagonal_active_set import minimise_with_signs
from learnmech.dynamics.agf.diagonal_bias import diagonal_limit, diagonal_potential
from learnmech.dynamics.agf.diagonal_data import diagonal_data
from learnmech.dynamics.agf.diagonal_logs import diagonal_flow
from learnmech.dynamics.agf.diagonal_path import diagonal
from learnmech.dynamics.agf.diagonal_problem import DiagonalProblem
from learnmech.dynamics.agf.diagonal_utilities import arccosh_exp, log_cosh
from learnmech.dynamics.agf.flows import gradient_flow
from learnmech.errors import InputError, LearnmechError

TURN = np.array([[-np.sqrt(3), -1], [1, -np.sqrt(3)]]) / 2
PLANE = np.linalg.cholesky(TURN @ np.diag([1.0, 25.0]) @ TURN.T)
VALUES = PLANE @ np.array([-0.2, 2.0])


def five():
    random = np.random.RandomState(10)
    inputs = random.multivariate_normal(np.zeros(5), np.diag(1 / np.arange(1, 6)), 20)
    return inputs, inputs @ (10 * random.randn(5))


def crossing(times, values, height):
    index = int(np.argmax(values > height))
    return np.interp(height, values[index - 1 : index + 1], times[index - 1 : index + 1])


def wide(seed, samples=5, dim=12):
    random = np.random.default_rng(seed)
    return random.standard_normal((samples, dim)), random.standard_normal(samples)


@pytest.mark.parametrize("route", ["active_set", "utilities"])
def test_the_papers_two_coordinates(route):
    path = diagonal(PLANE, VALUES, route=route)
    np.testing.assert_allclose(path.times, [0.193042, 0.600220, 3.457363], atol=1e-6)
    np.testing.assert_allclose(path.levels, [2.311099, 1.114650, 0.07, 0.0], atol=1e-6)
    np.testing.assert_allclose(path.saddles, [[0, 0], [0.46193, 0], [0, 1.584308], [-0.2, 2]], atol=1e-6)
    assert path.order == ("+0", "+1", "-0")
    assert path.entering == (((0, 1),), ((1, 1),), ((0, -1),))
    assert path.leaving == ((), (0,), ())
    np.testing.assert_allclose(path.accumulated[:, 0], [0, 1, 1, -1], atol=1e-12)
    np.testing.assert_allclose(path.l1_norm, [0, 0.46193, 1.584308, 2.2], atol=1e-6)
    assert "Jump 2: 0 leaves again." in str(path)


def test_times_of_the_flow_are_those_of_the_limit_times_the_log_of_the_scale():
    limit, finite = diagonal(PLANE, VALUES), diagonal(PLANE, VALUES, 1e-6)
    np.testing.assert_allclose(finite.times, 13.815511 * limit.times, rtol=1e-7)
    np.testing.assert_allclose(finite.times, [2.667, 8.292, 47.765], atol=1e-3)
    assert limit.time_unit != finite.time_unit
    # the norm is 1 where 2 scale^2 cosh 2G = 1: the bookkeeping's clock differs by scale^4
    for scale, difference in ((1e-1, 1e-4), (1e-2, 1e-8)):
        other = diagonal(PLANE, VALUES, scale, route="utilities")
        np.testing.assert_allclose(other.times, diagonal(PLANE, VALUES, scale).times, rtol=difference)


def test_the_papers_five_coordinates():
    inputs, values = five()
    path, other = diagonal(inputs, values), diagonal(inputs, values, route="utilities")
    np.testing.assert_allclose(other.times, path.times, rtol=1e-13)
    assert path.order == other.order == ("-1", "-2", "+3", "+0", "-4")
    for beta, sides in zip(path.saddles[1:], path.accumulated[1:], strict=True):
        gradient = inputs.T @ (inputs @ beta - values) / 20
        bound = np.abs(sides) == 1
        assert np.abs(gradient[beta != 0]).max() < 1e-12
        assert (gradient * sides)[bound].min() > -1e-12
        assert not beta[~bound].any()


def test_two_routes_agree_on_random_designs():
    random = np.random.default_rng(0)
    left = jumps = 0
    for trial in range(220):
        inputs = random.standard_normal((12, 8)) @ (np.eye(8) + 0.7 * random.standard_normal((8, 8)))
        while np.linalg.cond(inputs) > 300:  # beyond, rounding of the data alone moves the late times by 1e-9
            inputs = random.standard_normal((12, 8)) @ (np.eye(8) + 0.7 * random.standard_normal((8, 8)))
        values = inputs @ random.standard_normal(8) + 0.1 * (trial % 2) * random.standard_normal(12)
        scale = (None, 1e-100)[trial % 3 == 0]
        path, other = diagonal(inputs, values, scale), diagonal(inputs, values, scale, route="utilities")
        np.testing.assert_allclose(other.times, path.times, rtol=1e-9)
        np.testing.assert_allclose(other.saddles, path.saddles, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(other.accumulated, path.accumulated, rtol=1e-9, atol=1e-9)
        assert (other.order, other.leaving) == (path.order, path.leaving)
        left += any(path.leaving)
        jumps += len(path)
        assert (np.diff(path.levels) < 0).all()
        np.testing.assert_allclose(path.saddles[-1], np.linalg.lstsq(inputs, values, rcond=None)[0], atol=1e-8)
    assert left > 120
    assert jumps > 1800


def test_sign_constrained_minimum_is_that_of_trying_all_supports():
    random = np.random.default_rng(1)
    for _ in range(20):
        inputs, values = random.standard_normal((7, 5)), random.standard_normal(7)
        sides = random.choice([-1.0, 0.0, 1.0], 5)
        best = float(values @ values)
        for bits in range(32):
            support = np.array([bits >> place & 1 for place in range(5)], bool)
            fit = np.zeros(5)
            fit[support] = np.linalg.lstsq(inputs[:, support], values, rcond=None)[0]
            if (fit * sides >= 0).all() and not fit[sides == 0].any():
                best = min(best, float(np.square(values - inputs @ fit).sum()))
        beta = minimise_with_signs(diagonal_data(inputs, values), sides, np.zeros(5))
        assert np.square(values - inputs @ beta).sum() == pytest.approx(best, rel=1e-12)
        assert (beta * sides >= 0).all()


def test_coordinates_that_do_not_interact_have_closed_forms():
    slopes, energies = np.array([1.5, -0.2, 3.0, 0.7]), np.array([2.0, 0.5, 1.0, 4.0])
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 4)))[0]
    inputs = np.sqrt(6) * rotation * np.sqrt(energies)
    path = diagonal(inputs, inputs @ (slopes / energies))
    order = [2, 0, 3, 1]
    np.testing.assert_allclose(path.times, 1 / np.abs(slopes[order]), rtol=1e-12)
    shares = slopes[order] ** 2 / energies[order] / 2
    np.testing.assert_allclose(path.levels, [*np.cumsum(shares[::-1])[::-1], 0], atol=1e-14)
    assert path.order == ("+2", "+0", "+3", "-1")


def test_the_end_is_the_interpolator_of_least_l1_norm():
    for seed in range(15):
        inputs, values = wide(seed)
        if seed % 3 == 0:
            values = inputs[:, :2] @ np.array([1.0, -2.0])
        dim = inputs.shape[1]
        least = linprog(np.ones(2 * dim), A_eq=np.hstack([inputs, -inputs]), b_eq=values, method="highs-ds").x
        path = diagonal(inputs, values)
        np.testing.assert_allclose(path.saddles[-1], least[:dim] - least[dim:], atol=1e-9)
        np.testing.assert_allclose(diagonal_limit(inputs, values), least[:dim] - least[dim:], atol=1e-9)
        assert path.levels[-1] < 1e-20


def test_half_times_and_plateaus_of_the_flow():
    """Half of an entering coefficient's value: the specification's table; the middle of two levels: another integrator."""
    path = diagonal(PLANE, VALUES)
    middles = (path.levels[1:] + path.levels[:-1]) / 2
    table = {-9.2: (0.1925, 0.6623, 3.4254), -36.8: (0.1933, 0.6159, 3.4494), -230.0: (0.1933, 0.6031, 3.4562)}
    errors = []
    for log_scale, expected in table.items():
        run = diagonal_flow(PLANE, VALUES, log_scale)
        times, beta, loss = run["time"].values / -log_scale, run["beta"].values, run["loss"].values
        halves = [
            crossing(times, c, h) for c, h in ((beta[:, 0], 0.230965), (beta[:, 1], 0.792154), (-beta[:, 0], 0.1))
        ]
        np.testing.assert_allclose(halves, expected, atol=6e-4)
        errors.append(np.abs([crossing(times, -loss, -middle) for middle in middles] / path.times - 1).max())
        assert np.interp(2.0, times, loss) == pytest.approx(0.07, rel=0.01)
        if log_scale < -9.2:
            between = [np.interp(moment, times, loss) for moment in (0.4, 2.0)]
            np.testing.assert_allclose(between, path.levels[1:3], rtol=1e-5)
    assert errors[0] / errors[2] == pytest.approx(25, rel=0.3)


def test_the_flow_is_that_of_u_and_v():
    problem = DiagonalProblem(PLANE, VALUES)
    run = gradient_flow(problem, problem.neurons(np.exp(-9.2)), end=40.0)

    def slope(_, state):
        gradient = PLANE.T @ (PLANE @ (state[:2] * state[2:]) - VALUES) / 2
        return np.concatenate([-gradient * state[2:], -gradient * state[:2]])

    start = np.array([1.0, 1.0, 0.0, 0.0]) * np.sqrt(2) * np.exp(-9.2)
    picked = run["time"].values[::40]
    other = solve_ivp(slope, (0, 40), start, t_eval=picked, method="DOP853", rtol=1e-11, atol=1e-15).y
    u, v = run["neurons"].values[::40, [0, 1], [0, 1]].T, run["neurons"].values[::40, [0, 1], [2, 3]].T
    np.testing.assert_allclose(np.concatenate([u, v]), other, atol=1e-6)
    assert not run["neurons"].values[:, [0, 1], [1, 0]].any()
    log = diagonal_flow(PLANE, VALUES, -9.2, end=40.0)
    np.testing.assert_allclose(np.interp(picked, log["time"], log["loss"]), run["loss"][::40], atol=1e-4)
    slopes = -np.gradient(run["loss"].values, run["time"].values)
    fast = run["speed"].values > 0.05
    np.testing.assert_allclose(run["speed"].values[fast], slopes[fast], rtol=0.3)


def test_the_flow_from_any_start():
    """Several neurons that share coordinates, v larger than u, u = -v, zeros: against an integrator of u and v themselves."""
    random = np.random.default_rng(4)
    inputs, values = random.standard_normal((7, 3)), random.standard_normal(7) * 2
    problem = DiagonalProblem(inputs, values)
    init = 0.3 * random.standard_normal((4, 6))
    init[1, 1], init[2] = 0.0, 0.0
    init[3, 3:] = -init[3, :3]
    run = gradient_flow(problem, init, end=4.0)

    def slope(_, flat):
        return -problem.gradient(flat.reshape(4, 6)).ravel()

    end = solve_ivp(slope, (0, 4), init.ravel(), method="DOP853", rtol=1e-11, atol=1e-13).y[:, -1].reshape(4, 6)
    np.testing.assert_allclose(run["neurons"].values[-1], end, atol=1e-7)
    np.testing.assert_allclose(run["neurons"].values[0], init, atol=1e-15)
    kept = [problem.charges(state) for state in run["neurons"].values]
    np.testing.assert_allclose(kept, np.broadcast_to(kept[0], np.shape(kept)), atol=1e-12)
    np.testing.assert_allclose([problem.loss(s) for s in run["neurons"].values], run["loss"], rtol=1e-12)
    np.testing.assert_allclose(
        [np.square(problem.gradient(s)).sum() for s in run["neurons"].values], run["speed"], rtol=1e-8, atol=1e-14
    )


def test_a_start_that_can_only_decay_comes_to_rest():
    run = gradient_flow(DiagonalProblem([[1.0]], [1.0]), [[0.5, -0.5]])
    assert float(run["loss"][-1]) == pytest.approx(0.5, rel=1e-5)


def test_a_start_of_its_own_for_each_coordinate():
    """Thresholds are minus half the log of (u + v)^2 / 2 or (u - v)^2 / 2: the flow comes to them at small starts."""
    inputs, values = five()
    ones = np.ones(5)
    scale = 1e-8
    same = diagonal(inputs, values, init=(np.sqrt(2) * scale * ones, 0 * ones))
    np.testing.assert_allclose(same.times, diagonal(inputs, values, scale).times, rtol=1e-12)
    powers = np.array([20.0, 80.0, 10.0, 40.0, 30.0])
    errors = []
    for factor in (1, 4):
        u, v = np.exp(-factor * powers), np.exp(-factor * powers) * np.array([0.5, 0.3, -0.4, 2.0, -3.0])
        path = diagonal(inputs, values, init=(u, v))
        run = gradient_flow(DiagonalProblem(inputs, values), np.hstack([np.diag(u), np.diag(v)]))
        middles = (path.levels[1:] + path.levels[:-1]) / 2
        found = [crossing(run["time"].values, -run["loss"].values, -middle) for middle in middles]
        errors.append(np.abs(found / path.times - 1).max())
    assert errors[0] < 0.1
    assert errors[1] < 0.3 * errors[0]
    never = diagonal([[1.0]], [1.0], init=([1e-3], [-1e-3]))
    assert len(never) == 0


def test_the_end_of_the_flow_minimises_the_hyperbolic_entropy():
    inputs, values = wide(7, 3, 5)
    null = np.linalg.svd(inputs)[2][3:]
    for scale in (0.5, 1e-2):
        run = diagonal_flow(inputs, values, np.log(scale), stop=1e-26, tolerance=1e-12)
        end = diagonal_limit(inputs, values, scale)
        np.testing.assert_allclose(run["beta"].values[-1], end, atol=1e-9)
        least = np.linalg.lstsq(inputs, values, rcond=None)[0]
        found = minimize(
            lambda z, base, s: diagonal_potential(base + z @ null, s), np.zeros(2), (least, scale), tol=1e-12
        )
        np.testing.assert_allclose(least + found.x @ null, end, atol=1e-5)
        assert diagonal_potential(end, scale) <= found.fun + 1e-12
    np.testing.assert_allclose(diagonal_limit(inputs, values, 1e3), least, atol=1e-6)
    distances = [
        np.abs(diagonal_limit(inputs, values, s) - diagonal_limit(inputs, values)).max() for s in (1e-2, 1e-20)
    ]
    assert distances[1] < distances[0]


def test_the_potential_is_that_of_woodworth_and_has_the_flow_as_its_gradient():
    beta, scale = np.array([0.3, -2.0, 0.0]), 0.2
    z = 2 * beta / scale**2
    quoted = scale**2 / 2 * (2 - np.sqrt(4 + z**2) + z * np.arcsinh(z / 2)).sum()
    assert diagonal_potential(beta, scale) == pytest.approx(quoted, rel=1e-13)
    step = 1e-6
    difference = (diagonal_potential([0.3 + step], scale) - diagonal_potential([0.3 - step], scale)) / (2 * step)
    assert difference == pytest.approx(np.arcsinh(0.3 / scale**2), rel=1e-8)
    assert diagonal_potential([0.0], 0.1) == 0
    assert diagonal_potential([2.0, -1.0], 1e-160) / (-2 * np.log(1e-160)) == pytest.approx(3, rel=1e-2)
    assert diagonal_potential([3e-9], 10.0) == pytest.approx(9e-18 / 200, rel=1e-9)


def test_helpers_in_logarithms():
    values = np.array([1e-9, 1e-3, 0.5, 1.0, 3.0])
    np.testing.assert_allclose(log_cosh(values[2:]), np.log(np.cosh(values[2:])), rtol=1e-14)
    np.testing.assert_allclose(log_cosh(values[:1]), values[:1] ** 2 / 2, rtol=1e-9)
    np.testing.assert_allclose(arccosh_exp(log_cosh(values)), values, rtol=1e-12)
    np.testing.assert_allclose(arccosh_exp(log_cosh(np.array([-800.0]))), 800.0)


@pytest.mark.parametrize("route", ["active_set", "utilities"])
def test_ties_and_dependent_columns(route):
    tied = diagonal(np.eye(3), [1.0, 1.0, -0.5], route=route)
    np.testing.assert_allclose(tied.times, [3.0, 6.0], rtol=1e-12)
    assert tied.order == ("+0 +1", "-2")
    np.testing.assert_allclose(tied.levels, [0.375, 1 / 24, 0], atol=1e-15)
    twins = diagonal(np.array([[1.0, 1.0, 0.0], [2.0, 2.0, 0.0]]), [2.0, 4.0], route=route)
    np.testing.assert_allclose(twins.saddles[-1], [1, 1, 0], atol=1e-12)
    assert twins.order == ("+0 +1",)
    # a whole face of minimisers: the flow's own choice among them
    inputs = np.array([[1.0, 0.0, 0.5, 0.0], [0.0, 1.0, 0.5, 0.0]])
    face = diagonal(inputs, [2.0, 1.0], route=route)
    np.testing.assert_allclose(face.times, [1.0, 2.0], rtol=1e-12)
    flow = diagonal_flow(inputs, [2.0, 1.0], -200.0, stop=1e-16)["beta"].values[-1]
    np.testing.assert_allclose(face.saddles[-1], flow, atol=1e-6)
    signs = np.random.default_rng(3).choice([-1.0, 1.0], (4, 12))
    values = signs[:, :2] @ np.array([2.0, 1.0])
    flow = diagonal_flow(signs, values, -300.0, stop=1e-16)["beta"].values[-1]
    np.testing.assert_allclose(diagonal(signs, values, route=route).saddles[-1], flow, atol=1e-6)


@pytest.mark.parametrize("route", ["active_set", "utilities"])
def test_nothing_to_learn(route):
    for inputs, values, level in (
        (np.eye(2), [0.0, 0.0], 0.0),
        (np.zeros((2, 2)), [1.0, 1.0], 0.5),
        ([[1.0], [1.0]], [1.0, -1.0], 0.5),
    ):
        path = diagonal(inputs, values, route=route)
        assert (len(path), path.order, path.times.shape) == (0, (), (0,))
        np.testing.assert_allclose(path.levels, [level], atol=1e-15)
        run = diagonal_flow(inputs, values, -10.0)
        assert not run["beta"].values[-1].any()
        assert not diagonal_limit(inputs, values, 0.1).any()
        np.testing.assert_allclose(run["loss"], level, atol=1e-15)


def test_the_problem_is_homogeneous_and_its_gradient_that_of_differences():
    inputs, values = wide(2, 6, 3)
    values = values + 1
    problem = DiagonalProblem(inputs, values)
    rows = np.random.default_rng(0).standard_normal((2, 6))
    beta = (rows[:, :3] * rows[:, 3:]).sum(axis=0)
    np.testing.assert_allclose(problem.beta(rows), beta)
    assert problem.loss(rows) == pytest.approx(np.square(inputs @ beta - values).mean() / 2, rel=1e-12)
    np.testing.assert_allclose(problem.features(3 * rows), 9 * problem.features(rows), rtol=1e-12)
    gradient, step = problem.gradient(rows), 1e-6
    for row in range(2):
        for column in range(6):
            shift = np.zeros((2, 6))
            shift[row, column] = step
            slope = (problem.loss(rows + shift) - problem.loss(rows - shift)) / (2 * step)
            assert gradient[row, column] == pytest.approx(slope, rel=1e-6, abs=1e-8)
    np.testing.assert_allclose(
        problem.utility(rows, problem.target), problem.features(rows) @ problem.target, rtol=1e-12
    )
    assert problem.label(np.array([0.0, 0.1, 0.0, 0.0, -0.1, 0.0])) == "-1"
    assert problem.label(np.zeros(6)) is None
    assert problem.neurons(0.1).shape == (3, 6)
    assert problem.floor == pytest.approx(diagonal(inputs, values).levels[-1], rel=1e-9)


def test_tensors_and_columns_are_welcome():
    path = diagonal(torch.tensor(PLANE), torch.tensor(VALUES)[:, None])
    np.testing.assert_allclose(path.times, diagonal(PLANE, VALUES).times)
    assert len(diagonal(np.eye(2, dtype=int), [1, 2])) == 2


def test_predicting_is_much_cheaper_than_the_flow():
    """Measured at more than 200 times; a factor of 10 can't fail by chance."""
    inputs, values = five()
    spent = []
    for work in (lambda: diagonal(inputs, values), lambda: diagonal_flow(inputs, values, -230.0)):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    assert spent[1] > 10 * spent[0]


@pytest.mark.parametrize(
    "call",
    [
        lambda: diagonal(np.ones((2, 2)), [1.0]),
        lambda: diagonal(np.ones(2), [1.0, 1.0]),
        lambda: diagonal(np.ones((0, 2)), []),
        lambda: diagonal([[np.nan]], [1.0]),
        lambda: diagonal([["a"]], [1.0]),
        lambda: diagonal([[1.0]], [1.0], 0),
        lambda: diagonal([[1.0]], [1.0], -0.1),
        lambda: diagonal([[1.0]], [1.0], 1.0),
        lambda: diagonal([[1.0]], [1.0], np.nan),
        lambda: diagonal([[1.0]], [1.0], "small"),
        lambda: diagonal([[1.0]], [1.0], 0.8, route="utilities"),
        lambda: diagonal([[1.0]], [1.0], route="other"),
        lambda: diagonal([[1.0]], [1.0], 0.1, init=([0.1], [0.0])),
        lambda: diagonal([[1.0]], [1.0], init=([0.0], [0.0])),
        lambda: diagonal([[1.0]], [1.0], init=([2.0], [0.0])),
        lambda: diagonal([[1.0]], [1.0], init=([0.1, 0.1], [0.0])),
        lambda: diagonal([[1.0]], [1.0], init=3),
        lambda: diagonal_flow([[1.0]], [1.0], 0.5),
        lambda: diagonal_flow([[1.0]], [1.0], True),
        lambda: diagonal_flow([[1.0]], [1.0], -5, end=0),
        lambda: diagonal_flow([[1.0]], [1.0], -5, stop=1),
        lambda: diagonal_flow([[1.0]], [1.0], -5, tolerance=1),
        lambda: diagonal_flow([[1.0]], [1.0], -5, records=1),
        lambda: diagonal_limit([[1.0]], [1.0], 0),
        lambda: diagonal_potential([[1.0]], 1.0),
        lambda: DiagonalProblem([[1.0]], [1.0]).neurons(0),
        lambda: gradient_flow(DiagonalProblem([[1.0]], [1.0]), [[0.0, 0.0]]),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(InputError):
        call()


def test_a_large_scale_is_mentioned():
    assert any("not small" in note for note in diagonal(PLANE, VALUES, 0.5).notes)
    assert not any("not small" in note for note in diagonal(PLANE, VALUES, 1e-3).notes)


def test_an_end_point_that_newtons_method_does_not_reach_is_an_error(monkeypatch):
    monkeypatch.setattr("learnmech.dynamics.agf.diagonal_bias._STEPS", 1)
    with pytest.raises(LearnmechError, match="take a larger scale"):
        diagonal_limit(*wide(0), scale=0.1)
