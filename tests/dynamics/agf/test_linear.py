"""Two-layer linear networks: modes and their times against gradient flow, closed forms, the engine, bad input."""

import math
import pickle

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import minimize

from learnmech.dynamics.agf.comparing import compare
from learnmech.dynamics.agf.engine_run import run
from learnmech.dynamics.agf.flows import gradient_flow
from learnmech.dynamics.agf.linear_covariance import general_stages
from learnmech.dynamics.agf.linear_exact import missing_shares
from learnmech.dynamics.agf.linear_modes import linear
from learnmech.dynamics.agf.linear_problem import LinearProblem
from learnmech.errors import InputError

SPECTRUM = np.array([3.0, 2.0, 1.2, 0.6])
A_SMALL, W_SMALL = np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([[1.0, -1.0], [2.0, 0.0]])


def rotation(generator, size):
    return np.linalg.qr(generator.standard_normal((size, size)))[0]


def start(generator, scale, hidden=8, outputs=4, inputs=4):
    return scale * generator.standard_normal((outputs, hidden)), scale * generator.standard_normal((hidden, inputs))


def flow_of(problem, A, W, prediction):
    times = prediction.times[np.isfinite(prediction.times)]
    return gradient_flow(problem, problem.neurons(A, W), end=1.2 * float(times[-1]), tolerance=1e-9, records=4000)


def half_times(history, prediction):
    """When each mode of AW has half of its strength, interpolated in the flow."""
    outputs = len(prediction.left)
    neurons, times = history["neurons"].values, history["time"].values
    product = np.einsum("tno,tni->toi", neurons[..., :outputs], neurons[..., outputs:])
    found = []
    for left, right, strength in zip(prediction.left.T, prediction.right.T, prediction.strengths, strict=True):
        share = np.einsum("o,toi,i->t", left, product, right) / strength
        after = int((share > 0.5).argmax())
        log_odds = np.log(share[after - 1 : after + 1] / (1 - share[after - 1 : after + 1]))
        found.append(np.interp(0.0, log_odds, times[after - 1 : after + 1]))
    return np.array(found)


def crossings(history, prediction):
    middles = (prediction.levels[1:] + prediction.levels[:-1]) / 2
    return np.interp(-middles, -history["loss"].values, history["time"].values)


def test_the_explicit_case_of_two_modes():
    found = linear(1e-4 * A_SMALL, 1e-4 * W_SMALL, np.diag([2.0, 1.0]))
    np.testing.assert_allclose(found.times, [4.3760975, 9.6095942], atol=1e-6)
    assert found.case == "whitened"
    assert found.order == (0, 1)
    assert found.levels.tolist() == [2.5, 0.5, 0.0]
    problem = LinearProblem(np.diag([2.0, 1.0]))
    flow = flow_of(problem, 1e-4 * A_SMALL, 1e-4 * W_SMALL, found)
    np.testing.assert_allclose(half_times(flow, found), [4.3760975, 9.6095942], atol=1e-4)
    np.testing.assert_allclose(crossings(flow, found), found.crossing_times, rtol=2e-4)


@pytest.mark.parametrize("hidden", [8, 40])
@pytest.mark.parametrize(
    ("spread", "scale", "error"),
    [(None, 1e-2, 1e-3), (None, 1e-4, 3e-7), (None, 1e-8, 1e-7)]
    + [((2.0, 0.5, 1.0, 3.0), scale, error) for scale, error in ((1e-2, 5e-3), (1e-4, 4e-4), (1e-8, 1e-5))],
)
def test_refined_times_are_those_of_gradient_flow(hidden, spread, scale, error):
    generator = np.random.default_rng(1)
    left, right = rotation(generator, 4), rotation(generator, 4)
    cross, covariance = left @ np.diag(SPECTRUM) @ right.T, None
    if spread is not None:
        covariance = right @ np.diag(spread) @ right.T
    A, W = start(generator, scale, hidden)
    found = linear(A, W, cross, covariance)
    assert found.case == ("whitened" if spread is None else "commuting")
    np.testing.assert_allclose(found.growth, SPECTRUM, rtol=1e-12)
    np.testing.assert_allclose(found.strengths, SPECTRUM / (1.0 if spread is None else np.array(spread)), rtol=1e-9)
    flow = flow_of(LinearProblem(cross, covariance), A, W, found)
    np.testing.assert_allclose(found.times / half_times(flow, found), 1.0, atol=error)
    if spread is None:
        assert np.abs(compare(found, flow).time_errors).max() < 2 * error


def test_missing_shares_are_those_of_the_flow():
    """Far before and far after, and in between beside an ODE solver, a fourfold covariance included."""
    generator = np.random.default_rng(4)
    A, W = start(generator, 1e-5, 5, 3, 3)
    growth = np.array([3.0, 2.5, 1.0])
    strengths = growth / 4
    times = np.linspace(2.0, 14.0, 9)

    def slope(_, flat):
        A, W = flat[:15].reshape(3, 5), flat[15:].reshape(5, 3)
        rest = np.diag(growth) - 4 * A @ W
        return np.concatenate([(rest @ W.T).ravel(), (A.T @ rest).ravel()])

    path = solve_ivp(slope, (0, 14), np.concatenate([A.ravel(), W.ravel()]), t_eval=times, rtol=1e-11, atol=1e-16)
    found = missing_shares(times, (A.T + W) / math.sqrt(2), growth, strengths)
    for flat, missing in zip(path.y.T, found, strict=True):
        product = flat[:15].reshape(3, 5) @ flat[15:].reshape(5, 3)
        expected = np.eye(3) - product / np.sqrt(np.outer(strengths, strengths))
        np.testing.assert_allclose(missing, expected, atol=5e-7)
    np.testing.assert_allclose(missing_shares(np.zeros(1), (A.T + W), growth, strengths)[0], np.eye(3), atol=1e-9)
    np.testing.assert_allclose(missing_shares(np.full(1, 1e4), (A.T + W), growth, strengths)[0], 0.0, atol=1e-9)


def test_modes_that_overlap_still_have_exact_crossings():
    generator = np.random.default_rng(0)
    A, W = start(generator, 1e-3, 6, 6, 6)
    found = linear(A, W, np.diag(1 / np.arange(1.0, 7.0)))
    flow = flow_of(LinearProblem(np.diag(1 / np.arange(1.0, 7.0))), A, W, found)
    np.testing.assert_allclose(crossings(flow, found), found.crossing_times, rtol=1e-4)


def test_the_order_is_that_of_growth_and_not_of_the_drop():
    """Strengths (1, 3, 0.5) and variances (2, 0.5, 1): growth (2, 1.5, 0.5), drops (1, 2.25, 0.125)."""
    strengths, spread = np.array([1.0, 3.0, 0.5]), np.array([2.0, 0.5, 1.0])
    cross, covariance = np.diag(strengths * spread), np.diag(spread)
    A, W = start(np.random.default_rng(0), 1e-6, 6, 3, 3)
    found = linear(A, W, cross, covariance)
    np.testing.assert_allclose(found.levels, [3.375, 2.375, 0.125, 0.0], atol=1e-12)
    np.testing.assert_allclose(found.growth, [2.0, 1.5, 0.5])
    assert found.order == (0, 1, 2)
    flow = flow_of(LinearProblem(cross, covariance), A, W, found)
    np.testing.assert_allclose(half_times(flow, found), found.times, rtol=1e-4)
    assert (np.diff(half_times(flow, found)) > 0).all()


def test_a_mode_that_starts_far_behind_is_learned_after_a_slower_one():
    A = np.array([[1e-12, 0.0], [0.0, 1e-2]])
    found = linear(A, A, np.diag([2.0, 1.5]))
    assert found.order == (1, 0)
    np.testing.assert_allclose(found.growth, [1.5, 2.0])
    np.testing.assert_allclose(found.levels, [3.125, 2.0, 0.0])
    assert (np.diff(found.times) > 0).all()
    flow = flow_of(LinearProblem(np.diag([2.0, 1.5])), A, A, found)
    np.testing.assert_allclose(half_times(flow, found), found.times, rtol=1e-6)


@pytest.mark.parametrize("growth", [[3.0, 2.0, 2.0, 0.6], [2.0, 2.0, 2.0, 2.0]])
def test_tied_modes_take_the_singular_values_of_their_block(growth):
    generator = np.random.default_rng(3)
    left, right = rotation(generator, 4), rotation(generator, 4)
    cross = left @ np.diag(growth) @ right.T
    A, W = start(generator, 1e-6)
    found = linear(A, W, cross)
    np.testing.assert_allclose(found.left @ np.diag(found.strengths) @ found.right.T, cross, atol=1e-12)
    flow = flow_of(LinearProblem(cross), A, W, found)
    np.testing.assert_allclose(half_times(flow, found), found.times, rtol=1e-6)
    turn = rotation(generator, 4)
    np.testing.assert_allclose(linear(turn @ A, W, turn @ cross).times, found.times, rtol=1e-9)


def test_equal_growth_at_unequal_strength_says_so():
    A, W = start(np.random.default_rng(0), 1e-4, 4, 2, 2)
    found = linear(A, W, np.diag([1.0, 1.0]), np.diag([1.0, 2.0]))
    assert sorted(found.strengths) == pytest.approx([0.5, 1.0])
    assert any("approximate" in note for note in found.notes)


@pytest.mark.parametrize("seed", range(3))
def test_the_engine_agrees_with_plain_times_and_levels(seed):
    generator = np.random.default_rng(seed)
    cross = rotation(generator, 4) @ np.diag(SPECTRUM) @ rotation(generator, 4).T
    A, W = start(generator, 1e-4)
    problem = LinearProblem(cross)
    stages = run(problem, problem.neurons(A, W))
    found = linear(A, W, cross)
    np.testing.assert_allclose(stages["moment"][1:], found.plain_times, rtol=1e-9)
    np.testing.assert_allclose(stages["loss"], found.levels, atol=1e-9)


def test_plain_times_of_aligned_neurons_are_logarithms():
    A = 1e-3 * np.eye(3) / math.sqrt(2)
    found = linear(A, A, np.diag([3.0, 2.0, 1.0]))
    np.testing.assert_allclose(found.plain_times, -math.log(1e-3) / np.array([3.0, 2.0, 1.0]), rtol=1e-12)
    # the hidden vector of mode k has length 1e-3, and hidden vectors are orthogonal: a logistic curve from 5e-7
    np.testing.assert_allclose(found.times, [math.log(s / 5e-7 - 1) / (2 * s) for s in (3.0, 2.0, 1.0)], rtol=1e-10)


def test_fewer_hidden_neurons_learn_the_first_modes():
    generator = np.random.default_rng(2)
    A, W = start(generator, 1e-5, 2)
    found = linear(A, W, np.diag(SPECTRUM))
    assert len(found) == 2
    assert found.levels[-1] == pytest.approx((1.2**2 + 0.6**2) / 2)
    assert "the hidden neurons learn 2 of 4 modes." in found.notes
    only = linear(1e-3 * np.array([[0.0], [1.0]]), 1e-3 * np.array([[0.0, 1.0]]), np.diag([2.0, 1.0]))
    assert only.order == (1,)
    np.testing.assert_allclose(only.levels, [2.5, 2.0])
    flow = flow_of(LinearProblem(np.diag(SPECTRUM)), A, W, found)
    assert float(flow["loss"][-1]) == pytest.approx(found.levels[-1], rel=1e-3)
    np.testing.assert_allclose(half_times(flow, found), found.times, rtol=1e-4)


def test_modes_without_strength_and_nothing_to_learn():
    A, W = start(np.random.default_rng(0), 1e-3, 4, 3, 3)
    found = linear(A, W, np.diag([2.0, 1.0, 0.0]))
    assert len(found) == 2
    empty = linear(A, W, np.zeros((3, 3)))
    assert len(empty) == 0
    assert empty.levels.tolist() == [0.0]
    assert linear(A, W, np.zeros((3, 3)), np.diag([1.0, 2.0, 3.0])).levels.tolist() == [0.0]


def test_a_mode_absent_from_the_start_is_never_learned():
    A = 1e-3 * np.array([[1.0, 0.0], [0.0, 0.0]])
    found = linear(A, A, np.diag([1.0, 2.0]))
    assert found.order == (1, 0)
    assert np.isfinite(found.times[0])
    assert np.isinf(found.times[1])
    assert np.isinf(found.plain_times[1])
    assert any("never learned" in note for note in found.notes)


def test_a_start_that_is_not_small_has_no_time():
    found = linear(3 * np.eye(2), 3 * np.eye(2), np.diag([2.0, 1.0]))
    assert np.isnan(found.times).all()
    assert any("not small" in note for note in found.notes)


def test_levels_for_any_covariance_are_those_of_the_best_map_of_each_rank():
    generator = np.random.default_rng(5)
    root = generator.standard_normal((4, 4))
    covariance = root @ root.T / 4 + 0.2 * np.eye(4)
    cross = generator.standard_normal((3, 4)) @ covariance
    A, W = start(generator, 1e-8, 8, 3, 4)
    found = linear(A, W, cross, covariance)
    assert found.case == "general"
    assert any("conjecture" in note for note in found.notes)
    problem = LinearProblem(cross, covariance)

    def loss(flat, rank):
        return problem.loss(flat.reshape(rank, -1))

    for rank in (1, 2):
        best = min(minimize(loss, generator.standard_normal(7 * rank), args=(rank,), tol=1e-10).fun for _ in range(2))
        assert best == pytest.approx(found.levels[rank], rel=1e-6)
    flow = flow_of(problem, A, W, found)
    np.testing.assert_allclose(crossings(flow, found) / found.crossing_times, 1.0, atol=0.15)


def test_the_conjecture_gives_the_known_times_where_inputs_commute():
    cross, spread = np.diag([3.0, 2.0, 1.0]), np.array([1.0, 1.5, 2.0])
    stages = general_stages(cross, np.diag(spread**-0.5), 3)
    np.testing.assert_allclose(stages.times, [1 / 3, 1 / 2, 1.0], rtol=1e-12)
    np.testing.assert_allclose(
        stages.levels, np.cumsum([0.0, 0.5, 8 / 3, 9.0])[::-1][[0, 1, 2, 3]] / 2 * 1.0, rtol=1e-12
    )


def test_inputs_without_variance_are_left_out():
    generator = np.random.default_rng(7)
    X = generator.standard_normal((50, 3)) @ generator.standard_normal((3, 5))
    Y = X @ generator.standard_normal((5, 2)) + 0.1 * generator.standard_normal((50, 2))
    problem = LinearProblem.from_data(X, Y)
    residual = Y - X @ np.linalg.lstsq(X, Y, rcond=None)[0]
    assert problem.floor == pytest.approx(np.square(residual).sum() / 100)
    A, W = start(generator, 1e-6, 4, 2, 5)
    covariances = Y.T @ X / 50, X.T @ X / 50
    found = linear(A, W, *covariances, sigma_yy=Y.T @ Y / 50)
    assert found.levels[0] == pytest.approx(np.square(Y).sum() / 100)
    assert found.levels[-1] == pytest.approx(problem.floor)
    assert linear(A, W, *covariances).levels[-1] == pytest.approx(0.0, abs=1e-12)
    assert problem.loss(problem.neurons(A, W)) == pytest.approx(np.square(Y - X @ W.T @ A.T).sum() / 100)


def test_the_gradient_is_that_of_the_loss():
    generator = np.random.default_rng(8)
    root = generator.standard_normal((4, 4))
    problem = LinearProblem(generator.standard_normal((3, 4)), root @ root.T)
    neurons = generator.standard_normal((2, problem.size))
    moved, numeric = np.eye(neurons.size).reshape(-1, *neurons.shape) * 1e-5, np.zeros(neurons.size)
    for number, step in enumerate(moved):
        numeric[number] = (problem.loss(neurons + step) - problem.loss(neurons - step)) / 2e-5
    np.testing.assert_allclose(problem.gradient(neurons).ravel(), numeric, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(problem.output(neurons), problem.features(neurons).sum(axis=0), atol=1e-12)
    assert problem.output(neurons[:0]).tolist() == [0.0] * 12
    rest = problem.residual(neurons)
    np.testing.assert_allclose(problem.utility(neurons, rest), problem.features(neurons) @ rest, rtol=1e-12)


def test_tensors_and_labels():
    A, W = (torch.tensor(1e-4 * part, requires_grad=True) for part in (A_SMALL, W_SMALL))
    found = linear(A, W, torch.diag(torch.tensor([2.0, 1.0])))
    np.testing.assert_allclose(found.times, [4.3760975, 9.6095942], atol=1e-6)
    problem = LinearProblem(np.diag([1.0, 2.0]))
    assert problem.label(np.array([0.0, 1.0, 0.0, 1.0])) == 0
    assert problem.label(np.array([1.0, 0.0, 1.0, 0.0])) == 1
    assert "learns 0" in str(found)
    again = pickle.loads(pickle.dumps(found)).convert(time_factor=2.0)
    np.testing.assert_allclose(again.times, 2 * found.times)
    np.testing.assert_array_equal(again.plain_times, found.plain_times)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"A0": np.ones((2, 3))}, "must have shape"),
        ({"W0": np.ones(2)}, "dimension"),
        ({"A0": np.full((2, 2), math.nan)}, "finite"),
        ({"A0": np.zeros((2, 2)), "W0": np.zeros((2, 2))}, "saddle"),
        ({"sigma_yx": np.full((2, 2), math.inf)}, "finite"),
        ({"sigma_yx": np.zeros((0, 2))}, "outputs and inputs"),
        ({"sigma_xx": np.eye(3)}, "shape"),
        ({"sigma_xx": np.array([[1.0, 1.0], [0.0, 1.0]])}, "symmetric"),
        ({"sigma_xx": np.diag([1.0, -1.0])}, "negative"),
        ({"sigma_xx": np.diag([1.0, 0.0])}, "no variance"),
        ({"sigma_yy": np.eye(3)}, "shape"),
        ({"sigma_yy": 0.1 * np.eye(2)}, "explains more"),
    ],
)
def test_bad_input(changed, message):
    given = {"A0": 1e-3 * np.eye(2), "W0": 1e-3 * np.eye(2), "sigma_yx": np.diag([2.0, 1.0]), **changed}
    with pytest.raises(InputError, match=message):
        linear(**given)


def test_bad_data():
    with pytest.raises(InputError, match="rows"):
        LinearProblem.from_data(np.ones((4, 2)), np.ones((3, 1)))
