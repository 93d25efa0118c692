"""ReLU nets: extremal directions, kinks, gradient flow, and the staircase, against scans, other integrators and closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, lsq_linear

from learnmech.dynamics.agf.flows import gradient_flow
from learnmech.dynamics.agf.relu_directions import extremal_directions
from learnmech.dynamics.agf.relu_frozen import frozen_flow, place
from learnmech.dynamics.agf.relu_kinks import on_kink, settle
from learnmech.dynamics.agf.relu_path import relu
from learnmech.dynamics.agf.relu_problem import ReluProblem
from learnmech.dynamics.agf.relu_stages import minimise
from learnmech.errors import InputError

HALF = math.sqrt(0.5)


def circle(angles):
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def rectified(heights):
    return np.maximum(heights, 0.0)


SIX = circle(np.deg2rad([20, 75, 140, 200, 265, 320]))
TARGET = 2 * rectified(SIX @ circle(0.9)) - 0.8 * rectified(SIX @ circle(3.6))


def small_start(count, dimension, log, seed):
    generator = np.random.default_rng(seed)
    weights = generator.standard_normal((count, dimension))
    weights *= HALF / np.linalg.norm(weights, axis=1, keepdims=True)
    return math.exp(log) * np.column_stack([np.where(np.arange(count) % 2, HALF, -HALF), weights])


def random_data(seed, count=6, dimension=2):
    generator = np.random.default_rng(seed)
    return generator.standard_normal((count, dimension)), generator.standard_normal(count)


def scan(X, residual, sign, leak=0.0, count=50_000):
    """Strict local maxima of the utility on the circle, by looking everywhere."""
    angles = (np.arange(count) + 0.5) * 2 * np.pi / count
    heights = circle(angles) @ X.T
    utility = sign * np.where(heights > 0, heights, leak * heights) @ residual / (2 * len(residual))
    peaks = (utility > np.roll(utility, 1)) & (utility > np.roll(utility, -1))
    return angles[peaks], utility[peaks]


def crossing(history, level):
    """When the loss falls through a level: Hermite interpolation from the loss and its derivative."""
    times, losses, speeds = (history[name].values for name in ("time", "loss", "speed"))
    index = int(np.flatnonzero((losses[:-1] > level) & (losses[1:] <= level))[0])
    width = times[index + 1] - times[index]

    def loss(share):
        a, b = losses[index], losses[index + 1]
        da, db = -speeds[index] * width, -speeds[index + 1] * width
        s = share
        return (
            (1 + 2 * s) * (1 - s) ** 2 * a
            + s * (1 - s) ** 2 * da
            + s * s * (3 - 2 * s) * b
            + s * s * (s - 1) * db
            - level
        )

    return times[index] + width * brentq(loss, 0.0, 1.0)


@pytest.mark.parametrize("leak", [0.0, 0.3])
def test_enumeration_in_the_plane_finds_every_maximum_of_the_utility(leak):
    seen_edge = False
    for seed in range(16):
        X, residual = random_data(seed, 2 + seed % 9)
        found = extremal_directions(X, residual, leak=leak)
        assert found.complete
        for sign in (1.0, -1.0):
            angles, utilities = scan(X, residual, sign, leak)
            mine = [i for i in range(len(found)) if found.signs[i] == sign and found.kinds[i] == "attracting"]
            assert len(mine) == len(angles), (seed, sign)
            order = np.argsort(found.angles[mine])
            np.testing.assert_allclose(found.angles[mine][order], angles, atol=1e-4)
            np.testing.assert_allclose(found.utilities[mine][order], utilities, atol=2e-5)
            # minima of the utility are the maxima of the other sign: repelling
            low = [i for i in range(len(found)) if found.signs[i] == -sign and found.kinds[i] == "repelling"]
            assert len(low) == len(angles)
            np.testing.assert_allclose(found.angles[low][np.argsort(found.angles[low])], angles, atol=1e-4)
        seen_edge |= bool(found.attracting().boundary.any())
    assert seen_edge


def test_the_six_points_have_one_attracting_direction_for_each_sign():
    found = extremal_directions(SIX, TARGET).attracting()
    assert found.signs.tolist() == [1.0, -1.0]
    assert not found.boundary.any()
    for direction, sign, utility, gates in zip(
        found.directions, found.signs, found.utilities, found.gates, strict=True
    ):
        np.testing.assert_array_equal(gates, SIX @ direction > 0)
        pull = SIX.T @ (gates * TARGET) / 6
        np.testing.assert_allclose(direction, sign * pull / np.linalg.norm(pull), atol=1e-14)
        assert utility == pytest.approx(np.linalg.norm(pull) / 2, rel=1e-14)


@pytest.mark.parametrize("dimension", [3, 5])
def test_directions_beyond_the_plane_meet_the_conditions_of_an_optimum(dimension):
    """Nothing near is better, and the pull of admissible gates is parallel to the direction: found by other means."""
    generator = np.random.default_rng(7)
    edges = 0
    for seed in range(3):
        X, residual = random_data(seed, 12, dimension)
        found = extremal_directions(X, residual, starts=15, seed=seed)
        assert len(found)
        assert not found.complete
        for index, direction in enumerate(found.directions):
            sign = found.signs[index]
            on = np.abs(X @ direction) < 1e-9
            assert on.any() == found.boundary[index]
            edges += on.any()
            assert ((found.gates[index] > 0) & (found.gates[index] < 1)).sum() == on.sum()
            pull = sign * X.T @ (found.gates[index] * residual) / len(X)
            np.testing.assert_allclose(pull, 2 * found.utilities[index] * direction, atol=1e-12)
            near = direction + 1e-5 * generator.standard_normal((300, dimension))
            near /= np.linalg.norm(near, axis=1, keepdims=True)
            values = sign * rectified(near @ X.T) @ residual / (2 * len(X))
            assert values.max() <= found.utilities[index] + 1e-12
    assert edges


def test_clustered_flows_find_in_the_plane_what_enumeration_finds():
    from learnmech.dynamics.agf import relu_directions

    for seed in range(4):
        X, residual = random_data(seed, 8)
        exact = extremal_directions(X, residual).attracting()
        flows = relu_directions._cluster(X, residual / 8, 0.0, 40, seed)
        np.testing.assert_allclose(flows.utilities, exact.utilities, rtol=1e-10)
        np.testing.assert_allclose(flows.directions, exact.directions, atol=1e-7)


def test_degenerate_data_has_defined_directions():
    assert len(extremal_directions(np.zeros((3, 2)), [1.0, 2.0, 3.0])) == 0
    assert len(extremal_directions(np.eye(2), [0.0, 0.0])) == 0
    assert len(extremal_directions(np.zeros((3, 3)), [1.0, 2.0, 3.0])) == 0
    one = extremal_directions([[1.0, 0.0]], [1.0])
    grows = one.attracting()
    assert grows.directions.tolist() == [[1.0, 0.0]]
    assert grows.utilities.tolist() == [0.5]
    # with a < 0 the neuron turns away until no sample activates it: both edges of the dead half plane
    dead = [i for i, kind in enumerate(one.kinds) if kind == "dead"]
    assert [one.signs[i] for i in dead] == [-1.0, -1.0]
    np.testing.assert_allclose(one.angles[dead], [np.pi / 2, 3 * np.pi / 2])
    # duplicates, collinear and zero inputs change nothing but the mean
    X, residual = SIX[:3], np.array([1.0, -2.0, 0.5])
    double = np.concatenate([X, 2 * X, np.zeros((3, 2))])
    a = extremal_directions(X, residual)
    b = extremal_directions(double, np.concatenate([residual, residual, [9.0, 9.0, 9.0]]))
    np.testing.assert_allclose(b.directions, a.directions, atol=1e-12)
    np.testing.assert_allclose(b.utilities, a.utilities, atol=1e-12)
    assert b.kinds == a.kinds
    # opposite points share their kinks
    both = extremal_directions([[1.0, 0.0], [-1.0, 0.0]], [1.0, 2.0]).attracting()
    assert both.directions.tolist() == [[-1.0, 0.0], [1.0, 0.0]]
    assert both.utilities.tolist() == [0.5, 0.25]
    line = extremal_directions([[1.0], [-2.0]], [1.0, 1.0]).attracting()
    assert line.directions.tolist() == [[-1.0], [1.0]]
    assert line.utilities.tolist() == [0.5, 0.25]
    # the pull of one cone lies exactly on its edge
    edge = extremal_directions([[1.0, 0.0], [0.0, 1.0]], [1.0, 0.0]).attracting()
    assert edge.directions.round(12).tolist() == [[1.0, 0.0]]
    with pytest.raises(InputError, match="two dimensions"):
        _ = line.angles


def test_names_of_directions():
    found = extremal_directions(SIX, TARGET).attracting()
    assert [found.name(0), found.name(1)] == ["48.6+", "207.5-"]
    assert found.nearest(circle(0.9) * 1e-9, 1e-9) == "48.6+"
    assert found.nearest(circle(0.9), -1.0) is None
    assert found.nearest(np.zeros(2), 1.0) is None
    problem = ReluProblem(SIX, TARGET)
    assert problem.label(np.array([1.0, *circle(0.8)])) == "48.6+"
    cube = extremal_directions(np.eye(3), [1.0, 2.0, 3.0]).attracting()
    assert cube.name(0) == "0+"


def test_a_kink_is_crossed_or_held_as_the_shortest_velocity_says():
    """With one concave kink, the gate is the clipped minimiser; several: a bounded least-squares problem, by another solver."""
    generator = np.random.default_rng(3)
    for _ in range(20):
        X = generator.standard_normal((9, 4))
        pulls = generator.standard_normal(9)
        kinks = np.zeros(9, bool)
        kinks[:3] = True
        pulls[:3] = -np.abs(pulls[:3])
        drift = settle(X, pulls, 1.0, np.ones(9), kinks, 0.0)
        base = pulls[3:] @ X[3:]
        other = lsq_linear((pulls[:3, None] * X[:3]).T, -base, bounds=(0, 1), method="trf", tol=1e-14)
        shortest = base + (other.x * pulls[:3]) @ X[:3]
        np.testing.assert_allclose(drift.pull, shortest, atol=1e-5)
        np.testing.assert_allclose(X[drift.held] @ drift.pull, 0.0, atol=1e-12)
    assert on_kink(np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), np.array([1.0, 0.0])).tolist() == [
        False,
        True,
        False,
    ]
    # a convex kink lets through, and a neuron on it leaves to the side where it is pulled
    away = settle(
        np.array([[0.0, 1.0], [0.5, 1.0]]),
        np.array([1.0, 1.0]),
        1.0,
        np.array([0.0, 1.0]),
        np.array([True, False]),
        0.0,
    )
    assert away.gates.tolist() == [1.0, 1.0]
    assert not away.held.any()


def euler(X, pulls, leak, neuron, end, steps):
    state = neuron.copy()
    for _ in range(steps):
        pull = (np.where(X @ state[1:] > 0, 1.0, leak) * pulls) @ X
        state = state + end / steps * np.concatenate([[state[1:] @ pull], state[0] * pull])
    return state


@pytest.mark.parametrize(("seed", "leak", "unbalanced"), [(0, 0.0, 1.0), (1, 0.2, 1.0), (4, 0.0, 0.2), (6, 0.0, 3.0)])
def test_the_frozen_flow_is_that_of_small_steps(seed, leak, unbalanced):
    """Through kinks, along kinks, and through a change of sign of a, which needs a < |w|."""
    X, residual = random_data(seed, 7)
    pulls = residual / 7
    for row in small_start(3, 2, 0.0, seed):
        start = row * np.array([unbalanced, 1.0, 1.0])
        neuron = place(X, pulls, leak, start[0], start[1:], math.log(np.linalg.norm(start)))
        exact, passed = frozen_flow(X, pulls, leak, neuron, duration=6.0)
        assert passed == 6.0
        mine = math.exp(exact.log_norm) * np.append(exact.output, exact.weights)
        other = euler(X, pulls, leak, start, 6.0, 4000)
        np.testing.assert_allclose(mine, other, atol=2e-2 * np.linalg.norm(other))


def test_the_frozen_flow_knows_its_ends():
    X, pulls = np.array([[1.0, 0.0]]), np.array([1.0])
    aligned = place(X, pulls, 0.0, 1.0, np.array([1.0, 0.0]), -1000.0)
    end, passed = frozen_flow(X, pulls, 0.0, aligned, limit=0.0)
    assert end.end == "limit"
    assert passed == pytest.approx(1000.0, rel=1e-12)
    end, passed = frozen_flow(X, pulls, 0.0, aligned, limit=0.0, duration=40.0)
    assert (end.end, passed, end.log_norm) == ("time", 40.0, pytest.approx(-960.0))
    assert frozen_flow(X, pulls, 0.0, aligned)[0].end == "growth"
    # exactly against the pull: shrinks for ever; on no sample: rests; nothing: rests
    against = place(X, pulls, 0.0, -1.0, np.array([1.0, 0.0]), 0.0)
    assert [frozen_flow(X, pulls, 0.0, against)[0].end] == ["decay"]
    short, _ = frozen_flow(X, pulls, 0.0, against, duration=2.0)
    assert short.log_norm == pytest.approx(-2.0, rel=1e-12)
    for output, weights in ((1.0, [-1.0, 0.3]), (0.0, [0.0, 0.0])):
        still = place(X, pulls, 0.0, output, np.array(weights), 0.0)
        assert frozen_flow(X, pulls, 0.0, still, limit=5.0) == (
            still.__class__(**{**vars(still), "end": "rest"}),
            math.inf,
        )
    # |theta|^2 = w_perp^2 + 2 A^2 e^2t + 2 B^2 e^-2t in closed form
    free = place(X, pulls, 0.0, 0.6, np.array([0.2, 0.7]), 0.0)
    norm = math.sqrt(0.36 + 0.04 + 0.49)
    end, _ = frozen_flow(X, pulls, 0.0, free, duration=1.5)
    a, w = 0.6 * math.cosh(1.5) + 0.2 * math.sinh(1.5), 0.2 * math.cosh(1.5) + 0.6 * math.sinh(1.5)
    assert math.exp(end.log_norm) == pytest.approx(math.sqrt(a * a + w * w + 0.49) / norm, rel=1e-12)


def test_features_and_pull_are_those_of_a_sum_written_out():
    X, y = random_data(2, 5, 3)
    problem = ReluProblem(X, y, 0.1, bias=True)
    assert problem.size == 5
    generator = np.random.default_rng(0)
    neurons = generator.standard_normal((4, 5))
    ones = np.column_stack([X, np.ones(5)])
    output = sum(row[0] * np.maximum(ones @ row[1:], 0.1 * (ones @ row[1:])) for row in neurons)
    assert problem.loss(neurons) == pytest.approx(0.5 * np.mean((y - output) ** 2), rel=1e-13)
    gradient = problem.gradient(neurons)
    for index in np.ndindex(neurons.shape):
        step = np.zeros_like(neurons)
        step[index] = 1e-6
        difference = (problem.loss(neurons + step) - problem.loss(neurons - step)) / 2e-6
        assert difference == pytest.approx(gradient[index], abs=1e-8)
    assert problem.label(neurons[0]) is None or isinstance(problem.label(neurons[0]), str)
    assert ReluProblem(torch.tensor(X), torch.tensor(y)[:, None]).values.tolist() == y.tolist()
    assert problem.config()["leak"] == 0.1


def test_gradient_flow_is_that_of_another_integrator_and_keeps_the_charges():
    """Small midpoint steps on the whole gradient, which know nothing of kinks."""
    problem = ReluProblem(SIX, TARGET)
    start = small_start(5, 2, -2.0, 1) * np.array([1.3, 1.0, 1.0])
    mine = gradient_flow(problem, start, end=12.0, tolerance=1e-10)
    state, steps = start.copy(), 4000
    for _ in range(steps):
        first = -problem.gradient(state)
        state = state - 12 / steps * problem.gradient(state + 6 / steps * first)
    np.testing.assert_allclose(mine["neurons"][-1].values, state, atol=2e-3)
    np.testing.assert_allclose(problem.charges(mine["neurons"][-1].values), problem.charges(start), atol=1e-8)
    assert float(mine["time"][-1]) == 12.0
    slopes = np.gradient(mine["loss"].values, mine["time"].values)[1:-1]
    np.testing.assert_allclose(slopes, -mine["speed"].values[1:-1], atol=5e-3)


def test_gradient_flow_slides_along_kinks():
    """One neuron whose only attracting direction lies on a kink: small Euler steps chatter about the same line."""
    X, y = np.array([[1.0, 0.2], [1.0, 1.0], [0.2, 1.0]]), np.array([1.0, -0.1, 1.0])
    seed = next(s for s in range(50) if extremal_directions(*random_data(s, 4)).attracting().boundary.any())
    X, y = random_data(seed, 4)
    found = extremal_directions(X, y).attracting()
    index = int(np.flatnonzero(found.boundary)[0])
    direction, sign = found.directions[index], found.signs[index]
    start = 1e-3 * HALF * np.array([[sign, *(direction + 0.02 * direction[::-1] * [1, -1])]])
    problem = ReluProblem(X, y)
    end = 4.0 / (2 * found.utilities[index])
    mine = gradient_flow(problem, start, end=end)["neurons"][-1].values
    state, steps = start.copy(), 5000
    for _ in range(steps):
        state = state - end / steps * problem.gradient(state)
    np.testing.assert_allclose(mine, state, atol=3e-3 * np.linalg.norm(state))
    assert mine[0, 1:] @ direction == pytest.approx(np.linalg.norm(mine[0, 1:]), rel=1e-12)
    # from the symmetric start each of the two neurons is on the kink of the dead half plane: all at rest, and it ends
    still = gradient_flow(ReluProblem([[1.0, 0.0]], [1.0]), [[0.5, -0.5, 0.0]])
    assert float(still["loss"][-1]) == 0.5


def test_the_staircase_of_the_six_points():
    found = relu(SIX, TARGET, math.exp(-10))
    size = 2 * extremal_directions(SIX, TARGET).attracting().utilities
    assert found.times[0] == pytest.approx(10 / size[0], rel=1e-12)
    assert found.levels[0] == pytest.approx(0.595623, abs=1e-6)
    # the first neuron turns from 48.6 degrees onto the kink of the samples at 140 and 320 degrees, which holds it at 50
    rise = rectified(SIX @ circle(np.deg2rad(50)))
    strength = rise @ TARGET / (rise @ rise)
    assert found.levels[1] == pytest.approx(np.square(TARGET - strength * rise).sum() / 12, rel=1e-10)
    assert found.levels[1] == pytest.approx(0.073155, abs=5e-5)
    assert found.levels[2] == pytest.approx(0.0, abs=1e-20)
    assert found.order == ("48.6+", "207.5-")
    assert found.signs.tolist() == [1.0, -1.0]
    np.testing.assert_allclose(2 * found.utilities[0], size[0], rtol=1e-12)
    output = found.neurons[:, 0] @ rectified(found.neurons[:, 1:] @ SIX.T)
    np.testing.assert_allclose(output, TARGET, atol=1e-10)


def test_the_error_in_time_falls_as_one_over_the_logarithm_and_the_refined_one_faster():
    problem = ReluProblem(SIX, TARGET)
    logs = np.array([5.0, 10.0, 20.0, 40.0])
    plain, refined = [], []
    for log in logs:
        start = small_start(8, 2, -log, 0)
        found = relu(SIX, TARGET, init=start)
        assert found.order == ("48.6+", "207.5-")
        middles = (found.levels[1:] + found.levels[:-1]) / 2
        flow = gradient_flow(problem, start, end=1.1 * found.times[-1], tolerance=1e-6)
        truth = np.array([crossing(flow, middle) for middle in middles])
        plain.append(found.times / truth - 1)
        refined.append(np.abs(found.refined_times / truth - 1))
    slopes = np.polyfit(np.log(logs), np.log(np.abs(plain)), 1)[0]
    np.testing.assert_allclose(slopes, -1.0, atol=0.15)
    assert np.max(refined) < 1e-4
    assert np.max(refined[2:]) < 2e-5


def test_the_refined_time_of_one_mode_is_the_logistic_one():
    """One sample: beta' = 2 |beta| (1 - beta) with beta(0) half the sum of the squared norms of all aligned neurons."""
    norms = np.array([1e-6, 3e-6, 2e-6])
    start = HALF * norms[:, None] * np.array([1.0, 1.0, 0.0])
    found = relu([[1.0, 0.0]], [1.0], init=start)
    beta, small = 1 - math.sqrt(0.5), np.square(norms).sum() / 2
    logistic = 0.5 * math.log(beta / (1 - beta) * (1 - small) / small)
    assert found.refined_times[0] == pytest.approx(logistic, rel=1e-5)
    assert found.times[0] == pytest.approx(-math.log(3e-6), rel=1e-12)
    assert found.order == ("0+",)
    assert len(found.neurons) == 3


@pytest.mark.parametrize(("seed", "dimension"), [(0, 2), (1, 2), (2, 2), (3, 2), (8, 2), (0, 3), (0, 5)])
def test_neurons_gather_in_predicted_directions(seed, dimension):
    """Under the frozen residual, and in gradient flow while the loss is still on its first plateau."""
    X, y = random_data(seed, 6 if dimension == 2 else 10, dimension)
    found = extremal_directions(X, y, starts=60)
    best = found.attracting()
    ends = np.array([kind != "repelling" for kind in found.kinds])
    start = small_start(10, dimension, -100.0, 100 + seed)
    flow = gradient_flow(ReluProblem(X, y), start, end=80.0 / (2 * best.utilities[0]), tolerance=1e-5)
    assert float(flow["loss"][-1]) == pytest.approx(float(flow["loss"][0]), rel=1e-6)
    grown = 0
    for row, after in zip(start, flow["neurons"][-1].values, strict=True):
        pulls = y / len(y)
        neuron, _ = frozen_flow(X, pulls, 0.0, place(X, pulls, 0.0, row[0], row[1:], 0.0))
        if not (X @ neuron.weights > 1e-9).any():
            assert not (X @ after[1:] > 1e-9 * np.linalg.norm(after)).any()
            continue
        for weights in (neuron.weights, after[1:])[: 2 if neuron.end == "growth" else 1]:
            direction = weights / np.linalg.norm(weights)
            close = np.where(ends & (found.signs == np.sign(row[0])), found.directions @ direction, -1.0).max()
            assert math.acos(min(close, 1.0)) < 1e-2
        grown += neuron.end == "growth"
    assert grown >= 4


def test_a_neuron_that_becomes_active_late_turns_first():
    """The second neuron's accumulated utility counts its turn: by the frozen flow with small steps."""
    found = relu(SIX, TARGET, math.exp(-10), refine=False)
    first = extremal_directions(SIX, TARGET).attracting()
    one, rests = minimise(SIX, TARGET, 0.0, 1e-3 * HALF * np.array([[1.0, *first.directions[0]]]))
    assert rests
    residual = TARGET - one[0, 0] * rectified(SIX @ one[0, 1:])
    state = HALF * np.array([-1.0, *first.directions[1]])
    log, moment, step = -10 + 2 * first.utilities[1] * found.times[0], found.times[0], 2e-3
    while log < 0:
        pull = ((SIX @ state[1:] > 0) * residual / 6) @ SIX
        slope = np.concatenate([[state[1:] @ pull], state[0] * pull])
        state = state + step * slope
        norm = np.linalg.norm(state)
        state, log, moment = state / norm, log + math.log(norm), moment + step
    assert moment == pytest.approx(found.times[1], rel=5e-4)
    np.testing.assert_allclose(state[1:] / np.linalg.norm(state[1:]), found.directions[1], atol=1e-3)


def test_nothing_to_learn_and_neurons_that_never_become_active():
    for found in (relu(SIX, np.zeros(6), 1e-3), relu(np.zeros((3, 2)), [1.0, 1.0, 1.0], 1e-3)):
        assert len(found) == 0
        assert found.refined_times.size == 0
        assert found.neurons.shape == (0, 3)
    dead = relu([[1.0, 0.0]], [1.0], init=[[1e-3, -1e-3, 0.0], [0.0, 0.0, 0.0]])
    assert dead.levels.tolist() == [0.5]
    against = relu([[1.0, 0.0]], [1.0], init=[[-1e-3, 1e-3, 0.0]])
    assert against.levels.tolist() == [0.5]
    both = relu([[1.0, 0.0]], [1.0], init=[[-1e-3, 1e-3, 0.0], [1e-3, 1e-3, 0.0]])
    assert both.levels.round(12).tolist() == [0.5, 0.0]


def test_ties_are_learned_one_after_the_other_at_the_same_time():
    tied = relu([[1.0, 0.0], [-1.0, 0.0]], [1.0, 1.0], 1e-4)
    assert tied.times[0] == pytest.approx(tied.times[1], rel=1e-9)
    np.testing.assert_allclose(tied.levels, [0.5, 0.25, 0.0], atol=1e-12)
    assert sorted(tied.order) == ["0+", "180+"]
    assert len(relu([[1.0, 0.0], [-1.0, 0.0]], [1.0, 1.0], 1e-4, most=1)) == 1


def test_a_bias_and_a_leak():
    X = np.linspace(-1, 1, 7)[:, None]
    y = rectified(X[:, 0] - 0.2)
    plain = relu(X, y, 1e-3, bias=True)
    ones = relu(np.column_stack([X, np.ones(7)]), y, 1e-3)
    np.testing.assert_array_equal(plain.times, ones.times)
    assert plain.levels[-1] < 0.05 * plain.levels[0]
    leaky = relu(SIX, np.maximum(SIX @ circle(0.5), 0.2 * (SIX @ circle(0.5))), 1e-3, leak=0.2)
    assert leaky.levels[-1] < 1e-3 * leaky.levels[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: relu(SIX, TARGET), "either scale"),
        (lambda: relu(SIX, TARGET, 1e-3, init=np.ones((1, 3))), "either scale"),
        (lambda: relu(SIX, TARGET, 0.0), "scale must be above 0"),
        (lambda: relu(SIX, TARGET, 0.5), "at most 0.1"),
        (lambda: relu(SIX, TARGET, "small"), "scale must be"),
        (lambda: relu(SIX, TARGET[:5], 1e-3), "as many rows"),
        (lambda: relu(SIX, np.ones((6, 2)), 1e-3), "several outputs"),
        (lambda: relu(SIX, TARGET * np.nan, 1e-3), "finite"),
        (lambda: relu(SIX, TARGET, 1e-3, leak=1.0), "leak must be"),
        (lambda: relu(SIX, TARGET, 1e-3, most=0), "most must be"),
        (lambda: relu(SIX, TARGET, 1e-3, stop=0), "stop must lie"),
        (lambda: relu(SIX, TARGET, init=np.full((2, 2), 1e-3)), r"\(neurons, 3\)"),
        (lambda: relu(SIX, TARGET, init=np.ones((2, 3))), "norms below 1"),
        (lambda: relu(SIX, TARGET, init=np.zeros((2, 3))), "aren't all 0"),
        (lambda: extremal_directions(SIX, TARGET, starts=0), "starts must be"),
        (lambda: extremal_directions(SIX[0], TARGET), "X must have 2"),
        (lambda: ReluProblem(np.zeros((0, 2)), []), "as many rows"),
        (lambda: gradient_flow(ReluProblem(SIX, TARGET), np.zeros((2, 3))), "0 everywhere"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
