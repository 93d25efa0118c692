"""Linear attention that regresses in context: exact loss, levels, motion of heads, times against gradient flow, bad input."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import minimize

from learnmech.dynamics.agf.attention_heads import HeadPaths, Heads
from learnmech.dynamics.agf.attention_modes import LEADING_TIME, linear_attention
from learnmech.dynamics.agf.attention_problem import AttentionProblem
from learnmech.dynamics.agf.comparing import compare
from learnmech.dynamics.agf.engine_run import run
from learnmech.dynamics.agf.flows import gradient_flow
from learnmech.errors import InputError

SPREAD = np.array([0.96, 0.48, 0.32, 0.24])
PAIRS = 32


def heads(seed, scale, count=5, dimension=4):
    return scale * np.random.default_rng(seed).standard_normal((count, 1 + 2 * dimension)) / math.sqrt(3)


def test_levels_and_strengths_of_the_figure():
    found = linear_attention(SPREAD, PAIRS)
    np.testing.assert_allclose(found.levels, [1, 0.56218527, 0.3555485, 0.22510264, 0.13219942], atol=5e-9)
    np.testing.assert_allclose(found.strengths, [0.02969, 0.05605, 0.07962, 0.10081], atol=5e-6)
    assert found.order == (0, 1, 2, 3)
    assert found.time_unit == LEADING_TIME
    assert linear_attention(SPREAD[::-1], PAIRS).order == (3, 2, 1, 0)
    assert linear_attention(torch.tensor(SPREAD), PAIRS).order == (0, 1, 2, 3)


def test_the_loss_is_that_of_attention_on_sampled_contexts():
    generator = np.random.default_rng(0)
    spread, pairs, samples = np.array([1.0, 0.4]), 5, 400_000
    problem = AttentionProblem(spread, pairs)
    neurons = 0.6 * generator.standard_normal((3, 5))
    shown = generator.standard_normal((samples, pairs, 2)) * np.sqrt(spread)
    asked = generator.standard_normal((samples, 2)) * np.sqrt(spread)
    task = generator.standard_normal((samples, 2))
    answers = np.einsum("snd,sd->sn", shown, task)
    predicted = np.zeros(samples)
    for head in neurons:
        value, query, key = head[0], head[1:3], head[3:]
        predicted += value * (asked @ query) * np.einsum("snd,d,sn->s", shown, key, answers)
    errors = (np.einsum("sd,sd->s", asked, task) - predicted) ** 2 / 2
    assert abs(errors.mean() - problem.loss(neurons)) < 4 * errors.std() / math.sqrt(samples)


def test_the_gradient_is_that_of_the_loss():
    problem = AttentionProblem([1.0, 0.5, 0.0], 3)
    neurons = np.random.default_rng(1).standard_normal((2, 7))
    numeric = np.zeros(neurons.size)
    for number, step in enumerate(np.eye(neurons.size).reshape(-1, *neurons.shape) * 1e-5):
        numeric[number] = (problem.loss(neurons + step) - problem.loss(neurons - step)) / 2e-5
    np.testing.assert_allclose(problem.gradient(neurons).ravel(), numeric, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(problem.output(neurons), problem.features(neurons).sum(axis=0), atol=1e-12)
    rest = problem.residual(neurons)
    np.testing.assert_allclose(problem.utility(neurons, rest), problem.features(neurons) @ rest, rtol=1e-12)
    assert problem.output(neurons[:0]).tolist() == [0.0] * 9
    assert problem.label(np.array([1.0, 0.1, 2.0, 0.0, 0.1, 1.0, 0.0])) == 1


@pytest.mark.parametrize("count", [1, 2])
def test_levels_are_the_least_losses_of_so_many_heads(count):
    problem = AttentionProblem([1.0, 0.5, 0.3], 4)
    generator = np.random.default_rng(2)
    found = linear_attention([1.0, 0.5, 0.3], 4)
    best = min(
        minimize(lambda flat: problem.loss(flat.reshape(count, 7)), generator.standard_normal(7 * count), tol=1e-10).fun
        for _ in range(3)
    )
    assert best == pytest.approx(found.levels[count], rel=1e-6)


def test_the_floor_is_that_of_the_best_matrix_and_one_number_is_explicit():
    problem = AttentionProblem(SPREAD, PAIRS)
    assert problem.floor == pytest.approx(0.13219942, abs=5e-9)
    # N = 1 and variance 1: L = (1 - 2 b + 3 b^2) / 2, least at b = 1 / 3
    one = AttentionProblem([1.0], 1)
    assert one.loss(np.array([[1.0, 1.0, 1.0]])) == pytest.approx(1.0)
    assert linear_attention([1.0], 1).strengths.tolist() == [1 / 3]


@pytest.mark.parametrize("seed", range(6))
def test_heads_move_as_an_ode_solver_says(seed):
    generator = np.random.default_rng(seed)
    dimension, scale = 3, 10.0 ** -(seed % 4 + 1)
    growth = np.abs(generator.standard_normal(dimension)) * 10
    start = scale * generator.standard_normal((4, 7)) / math.sqrt(7)
    paths = HeadPaths(Heads(start[:, 0], start[:, 1:4], start[:, 4:]), growth)
    waits = paths.times_to_norm(1.0)
    early = paths.at(0.4 * float(waits.min()))

    def slope(_, state):
        value, query, key = state[0], state[1:4], state[4:]
        return np.concatenate([[query * growth @ key], value * growth * key, value * growth * query])

    def reached(_, state):
        return state @ state - 1

    reached.terminal = True
    for number, head in enumerate(start):
        path = solve_ivp(
            slope,
            (0, 2 * waits[number]),
            head,
            "DOP853",
            rtol=1e-11,
            atol=1e-13 * scale,
            events=reached,
            dense_output=True,
        )
        assert path.t_events[0][0] == pytest.approx(waits[number], rel=1e-6)
        mine = np.concatenate([[early.value[number]], early.query[number], early.key[number]])
        np.testing.assert_allclose(mine, path.sol(0.4 * float(waits.min())), atol=1e-7 * scale)


def test_a_head_that_turns_comes_back_the_same_way():
    """v = 0 halfway: a head with q = k = x and v = -w is at the turn at half of the time to (w, x, x)."""
    start = Heads(np.array([-1e-2]), np.array([[2e-2]]), np.array([[2e-2]]))
    paths = HeadPaths(start, np.array([1.0]))
    mirrored = HeadPaths(Heads(np.array([1e-2]), np.array([[2e-2]]), np.array([[2e-2]])), np.array([1.0]))
    between = float(paths.times_to_norm(1.0)[0] - mirrored.times_to_norm(1.0)[0])
    back = paths.at(between)
    np.testing.assert_allclose([back.value[0], back.query[0, 0], back.key[0, 0]], [1e-2, 2e-2, 2e-2], rtol=1e-10)
    middle = paths.at(between / 2)
    assert middle.value[0] == pytest.approx(0.0, abs=1e-9)
    # the charges are kept: q^2 - v^2
    assert middle.query[0, 0] ** 2 == pytest.approx(3e-4, rel=1e-9)


def test_an_aligned_head_takes_the_time_of_the_lower_bound():
    """x' = c x^2 for v = q = k = x, of norm n = sqrt 3 x: sqrt 3 (1 / n - 1) / c up to norm 1."""
    size = 1e-3 / math.sqrt(3)
    found = linear_attention([1.0, 0.25], 4, init=[[size, size, 0.0, size, 0.0]])
    assert found.activation_times[0] == pytest.approx(math.sqrt(3) * (1e3 - 1) / 4, rel=1e-10)
    assert found.activation_times[0] == pytest.approx(found.lower_bounds[0], rel=1e-10)
    assert linear_attention([1.0, 0.25], 4, scale=1e-3).times[0] == pytest.approx(found.lower_bounds[0], rel=1e-10)
    assert len(found) == 1
    assert "1 heads learn 1 of 2 components." in found.notes


@pytest.mark.parametrize(("seed", "scale", "error"), [(0, 1e-2, 6e-2), (0, 1e-4, 2e-4), (1, 1e-4, 2e-4)])
def test_jumps_are_those_of_gradient_flow(seed, scale, error):
    init = heads(seed, scale)
    found = linear_attention(SPREAD, PAIRS, init=init)
    assert found.order == (0, 1, 2, 3)
    flow = gradient_flow(AttentionProblem(SPREAD, PAIRS), init, end=1.1 * float(found.times[-1]), tolerance=1e-8)
    result = compare(found, flow)
    assert np.abs(result.time_errors).max() < error
    assert (found.lower_bounds <= result.crossings).all()
    assert (found.lower_bounds <= found.activation_times).all()
    np.testing.assert_allclose(result.levels[:-1], found.levels[:-1], rtol=3 * scale)


@pytest.mark.parametrize(
    ("spread", "seed"), [(SPREAD[:3], 0), (np.array([0.5, 0.5, 0.3]), 0), (np.array([0.5, 0.5, 0.3]), 1)]
)
def test_the_engine_agrees_equal_eigenvalues_included(spread, seed):
    init = heads(seed, 1e-3, 4, 3)
    found = linear_attention(spread, 8, init=init)
    stages = run(AttentionProblem(spread, 8), init)
    np.testing.assert_allclose(stages["moment"][1:], found.activation_times, rtol=1e-6)
    np.testing.assert_allclose(stages["loss"], found.levels, atol=1e-9)
    assert any("has equals" in note for note in found.notes) == (spread[0] == spread[1])
    if spread[0] == spread[1]:
        flow = gradient_flow(AttentionProblem(spread, 8), init, end=1.1 * float(found.times[-1]), tolerance=1e-8)
        assert np.abs(compare(found, flow).time_errors).max() < 6e-3


def test_eigenvalues_of_zero_and_heads_that_stay_dormant():
    found = linear_attention([1.0, 0.0, 0.5], 4)
    assert found.order == (0, 2)
    assert found.levels[-1] == pytest.approx(AttentionProblem([1.0, 0.0, 0.5], 4).floor)
    init = np.zeros((3, 5))
    init[0] = heads(0, 1e-2, 1, 2)
    init[1, 1] = 1e-2
    sleeping = linear_attention([1.0, 0.5], 4, init=init)
    assert sleeping.heads == (0,)
    assert linear_attention([1.0, 0.5], 4, init=[[0.0, 1e-2, 0.0, 0.0, 0.0]]).times.tolist() == []
    # v = 1e-2, q = -k = 1e-2 / sqrt 2 e_1: v and q come to rest at 0 for ever
    far = linear_attention([1e4, 1e-4], 4, init=[[1e-3, 0.0, 1e-3, 0.0, 1e-3]])
    assert far.order == (1,)
    assert far.activation_times[0] > math.sqrt(3) * (1e3 / math.sqrt(3) - 1) / 4e-8 - 1.0
    lost = np.array([[1e-2, 1e-2 / math.sqrt(2), 0.0, -1e-2 / math.sqrt(2), 0.0]])
    assert linear_attention([1.0, 0.5], 4, init=lost).heads == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"eigenvalues": []}, "variances"),
        ({"eigenvalues": [1.0, -0.1]}, "variances"),
        ({"eigenvalues": [0.0, 0.0]}, "variances"),
        ({"eigenvalues": [1.0, math.nan]}, "finite"),
        ({"eigenvalues": [[1.0]]}, "dimension"),
        ({"context": 0}, "context"),
        ({"context": 2.5}, "context"),
        ({"context": None}, "context"),
        ({"context": True}, "context"),
        ({"scale": 0.0}, "scale"),
        ({"scale": 1.0}, "scale"),
        ({"scale": math.nan}, "scale"),
        ({"scale": 1e-3, "init": 1e-3 * np.ones((1, 5))}, "not both"),
        ({"init": 1e-3 * np.ones((1, 4))}, "shape"),
        ({"init": np.zeros((2, 5))}, "saddle"),
        ({"init": np.ones((2, 5))}, "small"),
        ({"init": np.full((2, 5), math.nan)}, "finite"),
        ({"init": np.zeros((0, 5))}, "shape"),
    ],
)
def test_bad_input(given, message):
    with pytest.raises(InputError, match=message):
        linear_attention(**{"eigenvalues": [1.0, 0.5], "context": 4, **given})
