"""Modular addition: utilities by brute force, levels and six neurons without error, the flow and the staircase, bad input."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import least_squares

from learnmech.dynamics.agf.flows import gradient_flow
from learnmech.dynamics.agf.modular_levels import modular_addition
from learnmech.dynamics.agf.modular_neurons import six_neurons
from learnmech.dynamics.agf.modular_path import alternate
from learnmech.dynamics.agf.modular_problem import ModularProblem
from learnmech.dynamics.agf.modular_spectra import frequency_power, frequency_share, neuron_power
from learnmech.dynamics.agf.modular_stabilised import follow
from learnmech.dynamics.agf.modular_times import activation_times
from learnmech.dynamics.agf.modular_utility import fourier_template, maximal_utilities, utility_maximiser
from learnmech.errors import InputError

PAPER = fourier_template(20, {1: 10.0, 3: 5.0, 5: 2.5})
APART = fourier_template(20, {1: 10.0, 4: 5.0, 7: 2.5})
ODD = fourier_template(9, {1: 2.0, 2: 3.5, 4: 1.2}, {1: 0.4, 2: -1.3, 4: 2.0})
NYQUIST = fourier_template(8, {1: 2.0, 4: 2.1, 2: 1.0}, {4: np.pi, 2: 0.7})


def slow_outputs(template, neurons):
    """The network and its target, pair by pair."""
    p = len(template)
    inputs = [np.roll(template, shift) for shift in range(p)]
    made = np.zeros((p, p, p))
    wanted = np.zeros((p, p, p))
    for a in range(p):
        for b in range(p):
            wanted[a, b] = inputs[(a + b) % p]
            for row in neurons:
                u, v, w = row[:p], row[p : 2 * p], row[2 * p :]
                made[a, b] += (u @ inputs[a] + v @ inputs[b]) ** 2 * w
    return made, wanted


def best_utility(template, tries=12, seed=0):
    """Largest mean over all pairs on the unit sphere, by a shifted power iteration from many starts."""
    p = len(template)
    pairs = [(a, b) for a in range(p) for b in range(p)]
    left = np.array([np.concatenate([np.roll(template, a), np.roll(template, b)]) for a, b in pairs])
    right = np.array([np.roll(template, a + b) for a, b in pairs])
    points = np.random.default_rng(seed).standard_normal((tries, 3 * p))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    best = 0.0
    for step in range(3000):
        inner, outer = points[:, : 2 * p] @ left.T, points[:, 2 * p :] @ right.T
        slope = np.hstack([(2 * inner * outer) @ left, np.square(inner) @ right]) / p**2
        value = (points * slope).sum(axis=1).max() / 3
        if step > 200 and abs(value - best) < 1e-14 * value:
            break
        best = value
        points = slope + np.linalg.norm(slope, axis=1, keepdims=True) * points
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    return best


@pytest.mark.parametrize("template", [PAPER, ODD, NYQUIST])
def test_utilities_are_the_maxima_that_a_search_finds(template):
    """Frequency after frequency is taken out of the template, so that the next one is the maximum."""
    found = maximal_utilities(template)
    spectrum = np.fft.fft(template)
    for frequency in sorted(found, key=found.get, reverse=True):
        rest = np.fft.ifft(spectrum).real
        assert found[frequency] == pytest.approx(best_utility(rest), rel=1e-8)
        spectrum[[frequency, -frequency % len(template)]] = 0
    if template is PAPER:
        assert found[1] == pytest.approx(3.04290310, abs=1e-8)


def test_tied_frequencies_do_not_gain_by_mixing():
    tied = fourier_template(9, {1: 2.0, 2: 2.0, 4: 2.0}, {2: 1.0})
    assert best_utility(tied) == pytest.approx(maximal_utilities(tied)[1], rel=1e-8)
    even = fourier_template(8, {1: 2.0, 4: 2.0 / 2 ** (1 / 6)})
    assert maximal_utilities(even)[4] == pytest.approx(maximal_utilities(even)[1], rel=1e-12)
    assert best_utility(even) == pytest.approx(maximal_utilities(even)[1], rel=1e-8)


@pytest.mark.parametrize("template", [PAPER, ODD, NYQUIST])
def test_the_maximisers_have_the_maximal_utility_and_no_slope_along_the_sphere(template):
    problem = ModularProblem(template)
    for frequency, utility in maximal_utilities(template).items():
        neuron = utility_maximiser(template, frequency, 0.3, 1.1)
        assert neuron @ neuron == pytest.approx(1.0, abs=1e-12)
        assert problem.utility(neuron[None], problem.target)[0] == pytest.approx(utility, rel=1e-10)
        np.testing.assert_allclose(problem.pull(neuron[None], problem.target)[0], 3 * utility * neuron, atol=1e-10)
        assert problem.label(neuron) == frequency


def test_loss_features_and_gradient_are_those_of_pairs_and_differences():
    for template in (ODD, NYQUIST):
        problem = ModularProblem(template)
        neurons = 0.7 * np.random.default_rng(1).standard_normal((3, problem.size))
        made, wanted = slow_outputs(template, neurons)
        p = len(template)
        assert problem.loss(neurons) == pytest.approx(np.square(wanted - made).sum() / (2 * p**2), rel=1e-12)
        np.testing.assert_allclose(problem.output(neurons), made.ravel() / p, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(problem.features(neurons).sum(axis=0), made.ravel() / p, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(problem.target, wanted.ravel() / p, atol=1e-12)
        way = np.random.default_rng(2).standard_normal(neurons.shape)
        slope = (problem.loss(neurons + 1e-5 * way) - problem.loss(neurons - 1e-5 * way)) / 2e-5
        assert (problem.gradient(neurons) * way).sum() == pytest.approx(slope, rel=1e-7)
        others = neurons[:2]
        np.testing.assert_allclose(
            problem.pull_beside(neurons, others), problem.pull(neurons, problem.residual(others)), rtol=1e-9, atol=1e-9
        )
        np.testing.assert_allclose(
            problem.pull_beside(neurons, others[:0]), problem.pull(neurons, problem.target), atol=1e-9
        )
        bare = neurons[:0]
        assert problem.features(bare).shape == (0, p**3)
        assert problem.loss(bare) == pytest.approx(np.square(wanted).sum() / (2 * p**2))


@pytest.mark.parametrize("template", [PAPER, ODD, NYQUIST, np.array([1.0, 2.0, 5.0]), np.array([1.0, 0.0, 0.0, 0.0])])
def test_six_neurons_learn_a_frequency_without_error_and_the_levels_are_what_is_left(template):
    problem = ModularProblem(template)
    prediction = modular_addition(template)
    neurons = np.zeros((0, problem.size))
    assert problem.loss(neurons) == pytest.approx(prediction.levels[0], rel=1e-12)
    for frequency, level in zip(prediction.order, prediction.levels[1:], strict=True):
        new = six_neurons(template, frequency)
        assert len(new) == (2 if 2 * frequency == len(template) else 6)
        neurons = np.vstack([neurons, new])
        assert problem.loss(neurons) == pytest.approx(level, rel=1e-10, abs=1e-20)
    assert problem.loss(neurons) < 1e-20
    assert prediction.levels[-1] == 0


def test_fewer_neurons_leave_known_shares():
    """A search by least squares comes down to the shares, and not below; with 2 and 4 slowly, in a flat valley."""

    def best(template, count, seeds):
        problem = ModularProblem(template)
        found = []
        for seed in seeds:
            start = 0.5 * np.random.default_rng(seed).standard_normal((count, problem.size))
            run = least_squares(
                lambda flat: problem.residual(flat.reshape(count, -1)), start.ravel(), max_nfev=100, xtol=1e-12
            )
            found.append(run.cost / problem.loss(start[:0]))
        return min(found)

    one = fourier_template(5, {1: 2.0})
    assert best(one, 1, range(2)) == pytest.approx(8 / 9, abs=1e-6)
    for count, seeds, share in ((2, range(2), 5 / 9), (4, range(2), 1 / 6)):
        assert share - 1e-9 < best(one, count, seeds) < share + 3e-4
    assert best(fourier_template(6, {3: 2.0}), 1, range(2)) == pytest.approx(1 / 2, abs=1e-6)


def test_the_levels_are_those_of_the_mean_squared_error_of_pytorch():
    prediction = modular_addition(PAPER)
    np.testing.assert_allclose(prediction.levels, [6.5625, 1.5625, 0.3125, 0.0], atol=1e-12)
    made, wanted = slow_outputs(PAPER, six_neurons(PAPER, 1))
    squared = torch.nn.MSELoss()(torch.tensor(made), torch.tensor(wanted))
    assert float(squared) == pytest.approx(2 / 20 * prediction.levels[1], rel=1e-12)


def test_times_without_a_start_are_the_bounds():
    np.testing.assert_allclose(modular_addition(PAPER, scale=0.0159).times, [6.78, 54.24, 433.9], rtol=1e-3)
    bare = modular_addition(torch.tensor(PAPER))
    np.testing.assert_allclose(bare.times, 1 / (3 * bare.utilities), rtol=1e-12)
    assert "norm of a neuron" in bare.time_unit
    np.testing.assert_allclose(bare.amplitudes, [10.0, 5.0, 2.5])
    assert modular_addition(PAPER + 3.0).levels[0] == pytest.approx(6.5625)
    assert any("mean" in note for note in modular_addition(PAPER + 3.0).notes)
    assert any("three times frequency 1" in note for note in bare.notes)
    assert not any("three times" in note for note in modular_addition(APART).notes)


def test_ties_and_the_nyquist_frequency_have_a_defined_order():
    tied = modular_addition(fourier_template(9, {4: 2.0, 2: 2.0, 1: 1.0}))
    assert tied.order == (2, 4, 1)
    assert tied.times[0] == pytest.approx(tied.times[1], rel=1e-9)
    assert any("Some frequencies tie" in note for note in tied.notes)
    hot = modular_addition([1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert hot.order == (1, 2, 3)
    np.testing.assert_allclose(hot.times, hot.times[0], rtol=1e-9)
    assert any("no staircase" in note for note in hot.notes)
    assert modular_addition(fourier_template(8, {1: 2.0, 4: 1.9})).order == (4, 1)
    assert modular_addition(fourier_template(8, {1: 2.0, 4: 1.7})).order == (1, 4)
    assert any("factor of 2" in note for note in modular_addition(fourier_template(8, {1: 2.0, 2: 1.9})).notes)


@pytest.mark.parametrize("template", [PAPER, NYQUIST])
def test_activation_times_are_those_of_an_integrator(template):
    """The flow of single neurons under the target, by a general solver and the dense gradient."""
    problem = ModularProblem(template)
    neurons = problem.neurons(4, 0.05, 4)
    frequencies, times = activation_times(template, neurons)
    p = len(template)
    compared = 0
    for column, frequency in enumerate(frequencies):
        waves = np.exp(2j * np.pi * np.outer(np.arange(p), [frequency]) / p)
        onto = (waves @ waves.conj().T).real * (1 if 2 * frequency == p else 2) / p
        for row, time in zip(neurons, times[:, column], strict=True):
            only = (row.reshape(3, p) @ onto).ravel()
            if time > 150:
                continue

            def slope(_, state):
                return problem.pull_beside(state[None], state[None][:0])[0]

            def arrive(_, state):
                return state @ state - 1

            arrive.terminal = True
            run = solve_ivp(slope, (0, 200), only, events=arrive, rtol=1e-9, atol=1e-13)
            assert run.t_events[0][0] == pytest.approx(time, rel=1e-6)
            compared += 1
    assert compared >= 4


def test_a_neuron_that_misses_two_parts_never_activates():
    start = 0.1 * utility_maximiser(PAPER, 1)
    start[20:] = 0
    assert np.isinf(activation_times(PAPER, [start])[1]).all()
    assert activation_times(PAPER, [20 * utility_maximiser(PAPER, 1)])[1][0, 0] == 0
    against = 0.1 * utility_maximiser(PAPER, 1)
    against[40:] *= -1
    assert np.isinf(activation_times(PAPER, [against])[1][0, 0])
    prediction = modular_addition(PAPER, init=[start])
    assert len(prediction) == 0
    assert prediction.levels.tolist() == pytest.approx([6.5625])
    assert any("1, 3, 5" in note for note in prediction.notes)


def test_the_flow_is_that_of_a_general_integrator():
    template = fourier_template(5, {1: 3.0, 2: 1.5})
    problem = ModularProblem(template)
    start = problem.neurons(4, 0.2, 0)
    run = gradient_flow(problem, start, end=8.0)
    true = solve_ivp(
        lambda _, flat: -problem.gradient(flat.reshape(start.shape)).ravel(),
        (0, 8),
        start.ravel(),
        method="LSODA",
        t_eval=run.time.values,
        rtol=1e-9,
        atol=1e-13,
    )
    losses = np.array([problem.loss(flat.reshape(start.shape)) for flat in true.y.T])
    fast = np.abs(np.gradient(losses, run.time.values)).max()
    np.testing.assert_allclose(run["loss"], losses, atol=2e-3 * fast)
    np.testing.assert_allclose(run["neurons"][-1], true.y[:, -1].reshape(start.shape), atol=2e-3)
    assert (np.diff(run["loss"]) <= 1e-12).all()
    coarse, fine = (follow(problem, start, 8.0, 0.0, tolerance, 500) for tolerance in (1e-4, 1e-6))
    exact = true.y[:, -1].reshape(start.shape)
    assert np.abs(fine.states[-1] - exact).max() < 0.1 * np.abs(coarse.states[-1] - exact).max()


def test_a_flow_that_cannot_reach_the_tolerance_ends_at_rest():
    problem = ModularProblem(fourier_template(5, {1: 2.0}))
    run = gradient_flow(problem, problem.neurons(1, 0.3, 1), stop=1e-10, records=50)
    assert float(run["loss"][-1]) == pytest.approx(8 / 9 * float(problem.loss(np.zeros((0, 15)))), rel=1e-6)
    assert run.sizes["time"] <= 51


def test_the_alternation_starts_at_the_closed_form_and_predicts_the_flow():
    problem = ModularProblem(APART)
    start = problem.neurons(18, 2e-2, 0)
    prediction = modular_addition(APART, init=start, end=125.0)
    assert prediction.order == (1, 4)
    assert prediction.stages[0].moment == pytest.approx(activation_times(APART, start)[1].min(), rel=1e-5)
    assert any("frequencies 7" in note for note in prediction.notes)
    run = gradient_flow(problem, start, end=130.0, tolerance=1e-4)
    middles = (prediction.levels[1:] + prediction.levels[:-1]) / 2
    crossings = np.interp(-middles, -run["loss"].values, run["time"].values)
    np.testing.assert_allclose(prediction.times, crossings, rtol=0.03)
    share = frequency_share(run["neurons"].values[[0, -1]], APART)
    assert np.abs(share[0]).max() < 1e-3
    assert share[1, 0] > 0.99
    assert share[1, 1] > 0.5 > 0.1 > share[1, 2]


def test_few_neurons_are_said_to_be_few():
    template = fourier_template(5, {1: 3.0})
    start = 0.2 * np.stack([utility_maximiser(template, 1, phase, 2 * phase) for phase in (0.0, 1.0, 2.0)])
    prediction = modular_addition(template, init=start)
    assert any("fewer than the 6" in note for note in prediction.notes)
    assert len(alternate(ModularProblem(template), start, 1e-3, np.array([1.8]))) == 0


def test_spectra_are_those_of_the_outputs():
    neurons = np.random.default_rng(5).standard_normal((2, 3, 24))
    power, share, own = (each(neurons, NYQUIST) for each in (frequency_power, frequency_share, neuron_power))
    for time in range(2):
        made, wanted = slow_outputs(NYQUIST, neurons[time])
        waves = np.fft.fft(made, axis=2)
        total = np.square(np.abs(waves)).mean(axis=(0, 1)) / 8
        expected = [total[0], total[1] + total[7], total[2] + total[6], total[3] + total[5], total[4]]
        np.testing.assert_allclose(power[time], expected, rtol=1e-9)
        for place, frequency in enumerate((1, 2, 4)):
            part = np.fft.fft(wanted, axis=2)
            part[:, :, [k for k in range(8) if k not in (frequency, 8 - frequency)]] = 0
            part = np.fft.ifft(part, axis=2).real
            assert share[time, place] == pytest.approx((made * part).sum() / np.square(part).sum(), rel=1e-9)
    np.testing.assert_allclose(own.sum(axis=-1), np.square(neurons).sum(axis=-1), rtol=1e-12)


def test_bad_input_is_refused():
    start = ModularProblem(PAPER).neurons(3, 1e-2, 0)
    for template in (np.zeros(6), np.full(6, 0.1), [1.0, 2.0], [1.0, np.nan, 2.0], [[1.0, 2.0, 3.0]], "abc"):
        for call in (modular_addition, ModularProblem, maximal_utilities):
            with pytest.raises(InputError):
                call(template)
    for scale in (0.0, -1.0, 1.0, np.nan):
        with pytest.raises(InputError, match="scale"):
            modular_addition(PAPER, scale=scale)
    for arguments in (
        {"scale": 0.1, "init": start},
        {"end": 3.0},
        {"init": start[:, :-1]},
        {"init": 0 * start},
        {"init": 200 * start},
        {"init": start, "end": -1.0},
    ):
        with pytest.raises(InputError):
            modular_addition(PAPER, **arguments)
    for call in (
        lambda: six_neurons(PAPER, 2),
        lambda: utility_maximiser(PAPER, 0),
        lambda: fourier_template(2, {1: 1.0}),
        lambda: fourier_template(8, {5: 1.0}),
        lambda: fourier_template(8, {1: -1.0}),
        lambda: fourier_template(8, {4: 1.0}, {4: 0.3}),
        lambda: activation_times(PAPER, start[:, :-1]),
        lambda: frequency_power(start[:, :-1], PAPER),
        lambda: ModularProblem(PAPER).neurons(0, 0.1, 0),
        lambda: ModularProblem(PAPER).neurons(3, 0.0, 0),
    ):
        with pytest.raises(InputError):
            call()


def test_a_part_of_the_spectrum_that_is_only_rounding_is_absent():
    template = PAPER + 1e-12 * np.random.default_rng(0).standard_normal(20)
    assert list(maximal_utilities(template)) == [1, 3, 5]
    assert ModularProblem(PAPER).label(np.zeros(60)) is None
