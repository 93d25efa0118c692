"""The engine of alternating gradient flows: closed forms, an active-set path, frozen flows by another route, limits, bad input."""

import signal

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import brentq, nnls

from learnmech.dynamics.agf.engine_active import restored, settle
from learnmech.dynamics.agf.engine_dormant import log_norms, thresholds
from learnmech.dynamics.agf.engine_reading import read_run
from learnmech.dynamics.agf.engine_run import run
from learnmech.dynamics.agf.flows import gradient_flow
from learnmech.dynamics.agf.problems import Block, Problem
from learnmech.dynamics.agf.written_problem import NeuronProblem
from learnmech.errors import InputError, LearnmechWarning


class Linear(Problem):
    """f = sum of a w^T, of two numbers each, against a matrix."""

    degree, size, blocks = 2, 4, (Block(0, 2), Block(2, 4))

    def __init__(self, matrix):
        self.target = np.array(matrix, dtype=float).ravel()

    def features(self, neurons):
        return (neurons[:, :2, None] * neurons[:, None, 2:]).reshape(len(neurons), 4)

    def pull(self, neurons, residual):
        matrix = residual.reshape(2, 2)
        return np.hstack([neurons[:, 2:] @ matrix.T, neurons[:, :2] @ matrix])


class Diagonal(Problem):
    """f = X (u * v), a neuron for each coordinate."""

    degree = 2

    def __init__(self, inputs, targets):
        self.dim = inputs.shape[1]
        self.size = 2 * self.dim
        self.blocks = (Block(0, self.dim), Block(self.dim, self.size))
        self.inputs, self.target = inputs / np.sqrt(len(inputs)), targets / np.sqrt(len(inputs))

    def features(self, neurons):
        return (neurons[:, : self.dim] * neurons[:, self.dim :]) @ self.inputs.T

    def pull(self, neurons, residual):
        drive = residual @ self.inputs
        return np.hstack([drive * neurons[:, self.dim :], drive * neurons[:, : self.dim]])

    def label(self, neuron):
        product = neuron[: self.dim] * neuron[self.dim :]
        index = np.abs(product).argmax()
        return f"{'+' if product[index] > 0 else '-'}{index}"


class Cubic(Problem):
    """f = a w^2 u, three numbers a neuron whose features are two: a (w^2, w u)."""

    degree, size = 3, 3

    def __init__(self, target):
        self.target = np.array(target, dtype=float)

    def features(self, neurons):
        a, w, u = neurons.T
        return np.stack([a * w**2, a * w * u], axis=1)

    def pull(self, neurons, residual):
        a, w, u = neurons.T
        first, second = residual
        return np.stack([first * w**2 + second * w * u, 2 * first * a * w + second * a * u, second * a * w], axis=1)


class Rectified(Problem):
    """f = a relu(w x) on the two samples x = 1 and x = -1."""

    degree, size, smooth = 2, 2, False

    def __init__(self, target):
        self.target = np.array(target, dtype=float)

    def features(self, neurons):
        a, w = neurons.T
        return np.stack([a * np.maximum(w, 0), a * np.maximum(-w, 0)], axis=1)

    def pull(self, neurons, residual):
        a, w = neurons.T
        up, down = (w > 0) * residual[0], (w < 0) * residual[1]
        return np.stack([up * w - down * w, a * up - a * down], axis=1)


def mode(first, second, size):
    """A neuron along a mixture of the two modes of a diagonal matrix."""
    return size * np.array([first, second, first, second]) / np.sqrt(2)


def successive_active_sets(inputs, targets):
    """Pesme and Flammarion's path: times over minus the log of the scale, and levels."""
    count, dim = inputs.shape
    time, beta, sums, times, levels = 0.0, np.zeros(dim), np.zeros(dim), [], []
    while np.abs(slope := inputs.T @ (inputs @ beta - targets) / count).max() > 1e-9:
        live = np.abs(slope) > 1e-9
        waits = np.full(dim, np.inf)
        waits[live] = (1 + np.sign(slope[live]) * sums[live]) / np.abs(slope[live])
        waits[waits < 1e-9] = np.inf
        step = waits.min()
        time += step
        sums = np.clip(sums - step * slope, -1, 1)
        sums[np.abs(np.abs(sums) - 1) < 1e-9] = np.round(sums[np.abs(np.abs(sums) - 1) < 1e-9])
        signs = np.where(np.abs(sums) == 1, sums, 0.0)
        beta = np.zeros(dim)
        beta[signs != 0] = signs[signs != 0] * nnls(inputs[:, signs != 0] * signs[signs != 0], targets)[0]
        times.append(time)
        levels.append(np.square(inputs @ beta - targets).sum() / (2 * count))
    return np.array(times), np.array(levels)


def test_aligned_neurons_take_log_over_strength():
    """-log|theta_0| / sigma_k, to half the squares of what is not yet learned."""
    stages = run(Linear(np.diag([2.0, 0.5])), np.array([mode(0, 1, 1e-4), mode(1, 0, 1e-6)]))
    np.testing.assert_allclose(stages["moment"], [0, np.log(1e6) / 2, np.log(1e4) / 0.5], rtol=1e-10)
    np.testing.assert_allclose(stages["loss"], [2.125, 0.125, 0], atol=1e-12)
    assert stages["active"].values.tolist() == [[False, False], [False, True], [True, True]]
    np.testing.assert_allclose(stages["accumulated"][-1], [np.log(1e4), np.log(1e6)], rtol=1e-12)
    np.testing.assert_allclose(stages["accumulated"][1, 0], 0.25 * np.log(1e6), rtol=1e-9)
    np.testing.assert_allclose(np.abs(stages["neurons"][-1, 0]), mode(0, 1, 1), atol=1e-8)
    assert stages["converged"].all()
    assert stages.attrs["ended"] == "loss"
    np.testing.assert_allclose(log_norms(stages["neurons"].values[0]), np.log([1e-4, 1e-6]), rtol=1e-12)


def test_mixed_directions_follow_the_sum_of_exponentials():
    """|theta|^2 = sum of c_k^2 exp(2 sigma_k t) until the first is 1; the other then goes on with mode 2 alone."""
    start = np.array([mode(0.8, 0.6, 1e-3), mode(0.6, 0.8, 5e-4)])
    stages = run(Linear(np.diag([2.0, 1.0])), start)
    first = brentq(lambda t: 0.64e-6 * np.exp(4 * t) + 0.36e-6 * np.exp(2 * t) - 1, 0, 10)
    assert float(stages["moment"][1]) == pytest.approx(first, rel=1e-10)
    # what the first neuron learned is the best matrix of rank one, so mode 2 is left
    kept = 0.36 * 25e-8 * np.exp(4 * first)
    grown = brentq(lambda t: kept + 0.64 * 25e-8 * np.exp(2 * t) - 1, first, 20)
    assert float(stages["moment"][2]) == pytest.approx(grown, rel=1e-7)
    np.testing.assert_allclose(stages["loss"], [2.5, 0.5, 0], atol=1e-10)


def test_degree_three_takes_the_inverse_of_the_norm():
    """a w^2 with target 1: the best unit neuron has utility 2 / (3 sqrt 3)."""
    best = np.array([1, np.sqrt(2), 0]) / np.sqrt(3)
    stages = run(Cubic([1.0, 0.0]), 0.01 * best[None])
    assert float(stages["moment"][1]) == pytest.approx((100 - 1) / (3 * 2 / 3**1.5), rel=1e-8)
    assert float(stages["accumulated"][1, 0]) == pytest.approx(99, rel=1e-12)
    assert float(stages["loss"][1]) == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(thresholds(np.log([0.01, 0.5, 2.0]), 4), [4999.5, 1.5, 0])


def test_dormant_neurons_move_as_the_frozen_flow_does():
    """The same neurons integrated as they are, not as directions and logarithms."""
    problem = Cubic([1.0, -0.7])
    start = 0.05 * np.random.default_rng(3).standard_normal((3, 3))
    stages = run(problem, start, most_stages=1)

    def slope(_, flat):
        return problem.pull(flat.reshape(3, 3), problem.target).ravel()

    def reaches(_, flat):
        return np.linalg.norm(flat.reshape(3, 3), axis=1).max() - 1

    reaches.terminal = True
    found = solve_ivp(slope, (0, 1e4), start.ravel(), method="DOP853", rtol=1e-11, atol=1e-14, events=reaches)
    assert float(stages["moment"][1]) == pytest.approx(found.t[-1], rel=1e-8)
    ends = found.y[:, -1].reshape(3, 3)
    dormant = ~stages["active"].values[1]
    np.testing.assert_allclose(stages["neurons"].values[1][dormant], ends[dormant], rtol=1e-6)
    assert stages.attrs["ended"] == "loss"


def test_gradient_flow_jumps_when_the_engine_says():
    problem = Cubic([1.0, 0.3])
    start = 1e-3 * np.random.default_rng(0).standard_normal((3, 3))
    prediction = read_run(run(problem, start))
    flow = gradient_flow(problem, start, stop=1e-6)
    for time, high, low in zip(prediction.times, prediction.levels, prediction.levels[1:], strict=False):
        after = int((flow["loss"].values < (high + low) / 2).argmax())
        assert float(flow["time"][after]) == pytest.approx(time, rel=5e-3)
    assert float(flow["loss"].min()) == pytest.approx(prediction.levels[-1], abs=1e-6)


@pytest.mark.parametrize("seed", [1, 3, 15])
def test_coordinates_that_vanish_follow_the_active_set_path(seed):
    """Correlated designs in which a coordinate leaves, and comes back with the other sign after twice the way.

    In the last one rounding in the zeros of a row would grow to a coordinate of its own.
    """
    random = np.random.default_rng(0)
    for _ in range(seed + 1):
        inputs = random.standard_normal((8, 5)) @ random.standard_normal((5, 5))
        targets = random.standard_normal(8) * 3
    expected, levels = successive_active_sets(inputs, targets)
    start = np.hstack([np.sqrt(2) * 1e-6 * np.eye(5), np.zeros((5, 5))])
    problem = Diagonal(inputs, targets)
    stages = run(problem, start, loss_tolerance=0.0)
    assert (np.diff(stages["active"].values.astype(int), axis=0) < 0).any()
    prediction = read_run(stages)
    flipped = {name[1] for name in prediction.order if name[0] == "+"} & {
        name[1] for name in prediction.order if name[0] == "-"
    }
    assert flipped
    np.testing.assert_allclose(prediction.times / -np.log(1e-6), expected, rtol=1e-3)
    np.testing.assert_allclose(prediction.levels[1:], levels, atol=1e-9)
    assert stages.attrs["ended"] in {"at rest", "all active"}


def test_charges_come_back_to_a_vanished_neuron():
    problem = Linear(np.eye(2))
    activated = np.array([np.cos(0.7), 0, np.sin(0.7), 0])
    there = restored(problem, 1e-4 * np.array([0.6, 0.8, 0.0, -1.0]), activated)
    np.testing.assert_allclose(problem.charges(there[None]), problem.charges(activated[None]), rtol=1e-12)
    np.testing.assert_allclose(there, [0.6 * np.cos(0.7), 0.8 * np.cos(0.7), 0, -np.sin(0.7)])
    np.testing.assert_allclose(restored(Cubic([1, 0]), np.array([0, 2e-4, 0]), activated[:3]), [0, 1, 0])
    # a block that is gone points as it did at activation
    np.testing.assert_allclose(restored(problem, np.array([1e-4, 0, 0, 0]), activated), activated)


def test_ties_wake_together_and_are_one_jump():
    problem = Linear(np.diag([1.0, 1.0]))
    stages = run(problem, np.array([mode(1, 0, 1e-3), mode(0, 1, 1e-3), mode(1, 0, 1e-5)]))
    np.testing.assert_allclose(stages["moment"], [0, np.log(1e3)])
    prediction = read_run(stages)
    assert prediction.order == ((0, 1),)
    np.testing.assert_allclose(prediction.levels, [1, 0], atol=1e-12)


def test_what_never_wakes():
    """A zero sleeps for ever; a neuron with nothing to gain rests; the wrong sign sinks."""
    problem = Linear(np.diag([1.0, 0.0]))
    stages = run(problem, np.array([mode(1, 0, 1e-3), np.zeros(4), mode(0, 1, 1e-3)]), loss_tolerance=0.0)
    assert stages.attrs["ended"] == "at rest"
    assert stages["active"].values[-1].tolist() == [True, False, False]
    assert stages["accumulated"].values[-1, 1:].tolist() == [0.0, 0.0]
    assert not stages["neurons"].values[:, 1].any()
    sinking = run(Rectified([1.0, 0.0]), [[-1e-3, 1e-3]])
    assert sinking.attrs["ended"] in {"at rest", "longest"}
    assert len(sinking["stage"]) == 1
    assert run(Linear(np.zeros((2, 2))), mode(1, 0, 1e-3)[None]).attrs["ended"] == "loss"
    off = run(Linear(np.diag([1.0, 0.0])), mode(0, 1, 1e-3)[None])
    assert off.attrs["ended"] == "at rest"
    assert len(read_run(off)) == 0


def test_neurons_of_norm_one_are_active_from_the_start():
    stages = run(Linear(np.diag([2.0, 1.0])), np.array([mode(1, 0, 1.5), mode(0, 1, 1e-3)]))
    np.testing.assert_allclose(stages["moment"], [0, 0, np.log(1e3)], rtol=1e-9)
    np.testing.assert_allclose(stages["loss"], [2.5, 0.5, 0], atol=1e-12)
    assert stages["accumulated"].values[:, 0].tolist() == [0.0, 0.0, 0.0]


def test_the_engine_ends_where_it_is_told_to():
    problem, start = Linear(np.diag([2.0, 1.0])), np.array([mode(1, 0, 1e-3), mode(0, 1, 1e-3)])
    short = run(problem, start, longest=5.0)
    assert short.attrs["ended"] == "longest"
    assert float(short["accumulated"][-1, 1]) == pytest.approx(np.log(1e3) / 2)
    assert run(problem, start, most_stages=1).attrs["ended"] == "most stages"
    assert run(problem, start, loss_tolerance=0.25).attrs["ended"] == "loss"
    assert run(problem, start[:1], loss_tolerance=0.0).attrs["ended"] == "all active"
    assert "more may be learned later" in read_run(short).notes[0]


class Escaping(Cubic):
    """Features (a^2, a b): the target (0, 1) is only reached with a = 0 and b infinite."""

    degree, size = 2, 2

    def features(self, neurons):
        a, b = neurons.T
        return np.stack([a**2, a * b], axis=1)

    def pull(self, neurons, residual):
        a, b = neurons.T
        return np.stack([2 * a * residual[0] + b * residual[1], a * residual[1]], axis=1)


def test_a_best_loss_at_infinity_and_an_unreachable_tolerance_warn_and_end():
    with pytest.warns(LearnmechWarning, match="did not come to rest in 1 of 1"):
        stages = run(Escaping([0.0, 1.0]), [[0.01, 0.01]])
    assert stages["converged"].values.tolist() == [True, False]
    assert 0 < float(stages["loss"][1]) < 1e-3
    assert "1 of the levels did not converge." in read_run(stages).notes
    problem = Diagonal(np.array([[1.0, 0.3], [0.2, 1.7]]), np.array([1.1, 0.7]))
    with pytest.warns(LearnmechWarning, match="larger tolerance"):
        stages = run(problem, 1e-3 * np.eye(4)[:2] + 1e-4, tolerance=0.0, most_stages=1)
    assert stages["converged"].values.tolist() == [True, False]


def test_the_first_interrupt_keeps_the_stages():
    class Interrupted(Linear):
        calls = 0

        def pull(self, neurons, residual):
            Interrupted.calls += 1
            if Interrupted.calls == 40:
                signal.raise_signal(signal.SIGINT)
            return super().pull(neurons, residual)

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        stages = run(Interrupted(np.diag([2.0, 1.0])), mode(1, 0.1, 1e-3)[None])
    finally:
        signal.signal(signal.SIGINT, previous)
    assert stages.attrs["ended"] == "interrupted"
    assert len(stages["stage"]) == 1


def test_kinks():
    """Two rectified neurons, one for each sample: |theta|^2 grows at rate 2 a |w| y."""
    problem = Rectified([2.0, 1.0])
    stages = run(problem, 1e-4 * np.array([[1, 1], [1, -1]]) / np.sqrt(2))
    np.testing.assert_allclose(stages["moment"], [0, np.log(1e4) / 2, np.log(1e4)], rtol=1e-4)
    np.testing.assert_allclose(stages["loss"], [2.5, 0.5, 0], atol=1e-9)
    problem.settle = lambda neurons: (np.array([[1.0, 2.0]]), True)
    np.testing.assert_allclose(run(problem, [[1e-3, 1e-3]])["loss"], [2.5, 0.5])


def test_cost_minimisation_takes_out_what_vanishes():
    """The second coordinate is driven down to nothing, the first one to its best."""
    problem = Diagonal(np.eye(2) * np.sqrt(2), np.array([1.0, -1.0]) * np.sqrt(2))
    neurons = np.array([[1.0, 0, 1, 0], [0, 1, 0, 1]]) / np.sqrt(2)
    found = settle(problem, neurons, may_vanish=np.array([True, True]))
    assert found.vanished.tolist() == [False, True]
    assert found.converged
    np.testing.assert_allclose(found.neurons[0], [1, 0, 1, 0], atol=1e-8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"init": np.zeros((2, 4))}, "0 everywhere"),
        ({"init": np.ones((2, 3))}, "must have shape"),
        ({"init": [[np.nan, 0, 0, 0]]}, "finite"),
        ({"loss_tolerance": 1.0}, "loss_tolerance"),
        ({"longest": -1.0}, "longest"),
        ({"longest": np.nan}, "longest"),
        ({"most_stages": 0}, "most_stages"),
        ({"most_stages": True}, "most_stages"),
        ({"tolerance": np.nan}, "tolerance"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        run(Linear(np.eye(2)), **{"init": mode(1, 0, 1e-3)[None], **arguments})


def test_reading_something_else():
    with pytest.raises(InputError, match=r"agf\.run"):
        read_run(gradient_flow(Linear(np.eye(2)), mode(1, 0, 0.1)[None], end=1.0))


def squares(theta, x):
    return theta[0] * (x @ theta[1:]) ** 2


def test_a_written_problem_has_the_gradients_of_its_loss():
    random = np.random.default_rng(5)
    inputs, targets = random.standard_normal((7, 2)), random.standard_normal(7)
    weights = random.uniform(0, 1, 7)
    problem = NeuronProblem(squares, 3, torch.tensor(inputs), targets, 3, weights=weights, label=lambda neuron: "x")
    neurons = random.standard_normal((2, 3))
    output = neurons[:, 0] @ (neurons[:, 1:] @ inputs.T) ** 2
    share = weights / weights.sum()
    assert problem.loss(neurons) == pytest.approx(share @ (targets - output) ** 2 / 2, rel=1e-12)
    assert problem.label(neurons[0]) == "x"
    utility = (share * targets) @ (neurons[0, 0] * (inputs @ neurons[0, 1:]) ** 2)
    assert problem.utility(neurons, problem.target)[0] == pytest.approx(utility, rel=1e-12)
    for row in range(2):
        for column in range(3):
            shift = np.zeros((2, 3))
            shift[row, column] = 1e-6
            slope = (problem.loss(neurons + shift) - problem.loss(neurons - shift)) / 2e-6
            assert problem.gradient(neurons)[row, column] == pytest.approx(slope, rel=1e-6, abs=1e-8)
    np.testing.assert_allclose(
        problem.gradient(neurons), -problem.pull(neurons, problem.residual(neurons)), rtol=1e-12, atol=1e-14
    )
    assert problem.features(neurons[:0]).shape == (0, 7)
    assert problem.pull(neurons[:0], problem.target).shape == problem.gradient(neurons[:0]).shape == (0, 3)


def test_a_neuron_that_cannot_be_vectorised_gives_the_same():
    def branching(theta, x):
        return squares(theta, x) if float(theta[0].detach()) > 0 else squares(theta, x) + 0.0

    inputs, neurons = np.random.default_rng(6).standard_normal((2, 5, 2)), np.ones((2, 3))
    one, other = (NeuronProblem(neuron, 3, inputs[0], inputs[1, :, 0], 3) for neuron in (squares, branching))
    np.testing.assert_allclose(one.features(neurons), other.features(neurons))
    np.testing.assert_allclose(one.gradient(neurons), other.gradient(neurons))


def test_a_written_linear_net_of_two_outputs_runs():
    """Two modes of the identity covariance; levels are halves of squares, times logs over strengths."""
    inputs = np.sqrt(2) * np.eye(2)
    problem = NeuronProblem(
        lambda theta, x: torch.outer(x @ theta[2:], theta[:2]),
        2,
        inputs,
        inputs @ np.diag([2.0, 1.0]),
        4,
        blocks=(Block(0, 2), Block(2, 4)),
    )
    prediction = read_run(run(problem, [mode(1, 0, 1e-3), mode(0, 1, 1e-3)]))
    np.testing.assert_allclose(prediction.times, [np.log(1e3) / 2, np.log(1e3)], rtol=1e-9)
    np.testing.assert_allclose(prediction.levels, [2.5, 0.5, 0], atol=1e-10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"degree": 2}, "degree 3"),
        ({"degree": 1}, "degree must be an integer"),
        ({"size": 2.0}, "size must be an integer"),
        ({"neuron": lambda theta, x: theta[0] + (x @ theta[1:]) ** 3}, "grows as degree"),
        ({"neuron": lambda theta, x: theta[0]}, "must give a tensor of shape"),
        ({"neuron": lambda theta, x: 3.0}, "got float"),
        ({"neuron": lambda theta, x: squares(theta, x).float()}, "float64"),
        ({"neuron": lambda theta, x: squares(theta, x) * torch.inf}, "not finite"),
        ({"neuron": lambda theta, x: 0 * squares(theta, x)}, "is 0"),
        ({"size": 5}, "failed on theta"),
        ({"blocks": (Block(0, 1, 2), Block(1, 3, 1))}, "in its numbers 0 to 0"),
        ({"blocks": (Block(0, 2), Block(1, 3))}, "disjoint"),
        ({"X": [["a"]]}, "X must be numbers"),
        ({"X": np.full((4, 2), np.nan)}, "finite"),
        ({"X": np.zeros((0, 2))}, "samples"),
        ({"y": np.zeros(3)}, "each of the 4 samples"),
        ({"weights": -np.ones(4)}, "not negative"),
    ],
)
def test_written_problems_that_do_not_fit(changes, message):
    given = {"neuron": squares, "degree": 3, "X": np.ones((4, 2)), "y": np.ones(4), "size": 3, **changes}
    with pytest.raises(InputError, match=message):
        NeuronProblem(**given)
