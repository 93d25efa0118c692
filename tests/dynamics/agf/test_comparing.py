"""Predicted staircases held against curves whose jumps are known in closed form."""

import numpy as np
import pytest
import xarray as xr
from scipy.integrate import solve_ivp

from learnmech.dynamics.agf.comparing import compare
from learnmech.dynamics.agf.comparing_curves import measured_curve
from learnmech.dynamics.agf.comparing_judgement import judge
from learnmech.dynamics.agf.comparing_order import order_agreement
from learnmech.dynamics.agf.comparing_predictions import as_prediction, predicted_times
from learnmech.dynamics.agf.engine_run import run
from learnmech.dynamics.agf.flows import gradient_flow
from learnmech.dynamics.agf.linear_modes import linear
from learnmech.dynamics.agf.linear_problem import LinearProblem
from learnmech.dynamics.agf.predictions import Prediction
from learnmech.dynamics.agf.staircase_drawing import draw_staircase
from learnmech.errors import InputError


def steps_down(times, moments=(10.0, 20.0), levels=(1.0, 0.25, 0.0), rate=4.0):
    """A sum of logistic steps, whose middles are the moments as long as they lie far apart."""
    drops = -np.diff(levels)
    exponents = np.clip(rate * (times[:, None] - np.array(moments)), -600, 600)
    return levels[-1] + (drops / (1 + np.exp(exponents))).sum(axis=1)


def slopes_down(times, moments=(10.0, 20.0), levels=(1.0, 0.25, 0.0), rate=4.0):
    drops = -np.diff(levels)
    parts = 1 / (1 + np.exp(np.clip(rate * (times[:, None] - np.array(moments)), -600, 600)))
    return (drops * rate * parts * (1 - parts)).sum(axis=1)


def staircase(times=(10.0, 20.0), levels=(1.0, 0.25, 0.0), order=("first", "second"), **fields):
    return Prediction(times=np.array(times), levels=np.array(levels), order=tuple(order), **fields)


def history_of(times, losses, speeds=None, dimension="time"):
    variables = {"loss": ((dimension,), losses)}
    if speeds is not None:
        variables["speed"] = ((dimension,), speeds)
    return xr.Dataset(variables, {dimension: times})


class TestTimes:
    def test_a_crossing_is_exact_with_speeds(self):
        times = np.sort(np.random.default_rng(0).uniform(0, 30, 900))
        found = compare(staircase(), history_of(times, steps_down(times), slopes_down(times)))
        assert np.abs(found.crossings - [10, 20]).max() < 1e-5
        assert found.crossing_noise.tolist() == [0, 0]

    def test_its_error_falls_with_the_fourth_power_of_the_spacing(self):
        errors = []
        for count in (200, 400, 800):
            times = np.linspace(0, 30.01, count)
            curve = measured_curve(history_of(times, steps_down(times), slopes_down(times)), None, None)
            levels = np.linspace(0.3, 0.95, 40)
            exact = 10 + np.log((0.75 - (levels - 0.25)) / (levels - 0.25)) / 4
            errors.append(
                max(abs(curve.crossing(level)[0] - moment) for level, moment in zip(levels, exact, strict=True))
            )
        assert errors[0] / errors[1] > 10
        assert errors[1] / errors[2] > 10
        assert errors[2] < 1e-4

    def test_times_without_speeds_are_within_their_own_error_or_close(self):
        times = np.arange(0, 30, 0.1)
        found = compare(staircase(), times, steps_down(times, (10.03, 20.01)))
        assert np.abs(found.crossings - [10.03, 20.01]).max() < 1e-3
        assert found.time_errors == pytest.approx([0.003, 0.0005], abs=1e-4)

    def test_predicted_and_measured_levels_give_two_times(self):
        times = np.linspace(0, 30, 3001)
        expected = staircase(levels=(1.0, 0.35, 0.0))
        found = compare(expected, times, steps_down(times))
        early = 10 + np.log((1 - 0.675) / (0.675 - 0.25)) / 4  # where the first logistic step passes 0.675
        assert found.crossings[0] == pytest.approx(early, abs=1e-4)
        assert found.midpoints[0] == pytest.approx(10, abs=1e-4)
        assert found.level_errors == pytest.approx([0, -0.1, 0], abs=1e-6)
        assert found.relative_level_errors[1] == pytest.approx(-0.1 / 0.35, abs=1e-6)

    def test_noise_gives_standard_errors_that_cover_the_truth(self):
        times = np.linspace(0, 30, 3000)
        scores = []
        for seed in range(4):
            noise = 0.05 * np.random.default_rng(seed).standard_normal(len(times))
            found = compare(staircase(), times, steps_down(times, rate=2.0) + noise)
            assert found.noisy
            assert np.abs(found.time_errors).max() < 0.03
            scores.append((found.levels - [1, 0.25, 0]) / found.level_noise)
        assert np.square(scores).mean() < 3
        assert "noisy" in str(found)

    def test_nans_in_the_run_are_left_out(self):
        times = np.linspace(0, 30, 600)
        losses = steps_down(times)
        losses[50:60] = np.nan
        assert compare(staircase(), times, losses).complete


class TestWhatIsNotSeen:
    def test_a_run_that_ends_early(self):
        times = np.linspace(0, 15, 600)
        found = compare(staircase(), times, steps_down(times))
        assert found.status == ("seen", "missing")
        assert "the run ends at 15, before the predicted time 20" in found.reasons[1]
        assert np.isnan(found.crossings[1])
        assert np.isnan(found.levels[2])
        assert found.levels[1] == pytest.approx(0.25)
        assert "1 missing" in found.verdict

    def test_a_loss_that_stops_above_the_prediction(self):
        times = np.linspace(0, 30, 600)
        found = compare(staircase(), times, 0.3 + 0.7 * steps_down(times, (10.0,), (1.0, 0.0)))
        assert found.status == ("seen", "missing")
        assert "never falls to 0.125" in found.reasons[1]
        assert "ends at 0.3" in found.reasons[1]

    def test_a_loss_that_begins_below(self):
        times = np.linspace(12, 30, 600)
        found = compare(staircase(), times, steps_down(times))
        assert found.status == ("passed", "seen")
        assert np.isnan(found.levels[0])
        assert found.levels[1] == pytest.approx(0.25, abs=1e-3)

    def test_jumps_too_near_to_be_told_apart(self):
        times = np.linspace(0, 30, 3000)
        found = compare(staircase((10.0, 10.3)), times, steps_down(times, (10.0, 10.3)))
        assert found.status == ("merged", "merged")
        assert "merged with jump 2" in found.reasons[0]
        assert np.isfinite(found.crossings).all()
        apart = compare(staircase((10.0, 13.0)), times, steps_down(times, (10.0, 13.0)))
        assert apart.status == ("seen", "seen")

    def test_jumps_at_one_predicted_time_are_merged(self):
        times = np.linspace(0, 30, 3000)
        assert compare(staircase((15.0, 15.0)), times, steps_down(times)).status == ("merged", "merged")

    def test_a_jump_without_a_drop(self):
        times = np.linspace(0, 30, 3000)
        expected = staircase((10.0, 15.0, 20.0), (1.0, 0.25, 0.25, 0.0), ("a", "b", "c"))
        found = compare(expected, times, steps_down(times))
        assert found.status == ("seen", "no drop", "seen")
        assert "too small" in found.reasons[1]
        assert np.nanmax(np.abs(found.time_errors)) < 1e-6

    def test_a_jump_without_a_time(self):
        times = np.linspace(0, 30, 3000)
        found = compare(staircase((np.nan, 20.0)), times, steps_down(times))
        assert found.status == ("seen", "seen")
        assert found.reasons[0] == "no time is predicted for it."
        assert np.isnan(found.time_errors[0])
        assert found.crossings[0] == pytest.approx(10, abs=1e-4)

    def test_more_jumps_in_the_run_than_predicted(self):
        times = np.linspace(0, 30, 3000)
        found = compare(staircase((10.0,), (1.0, 0.25), ("a",)), times, steps_down(times))
        assert len(found.jumps) == 2
        assert "without the prediction 2 would be seen" in found.verdict


class TestOrder:
    def test_kendall_counts_pairs(self):
        found = order_agreement("abcd", "badc")
        pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
        places = ["badc".index(letter) for letter in "abcd"]
        counted = sum(1 if places[i] < places[j] else -1 for i, j in pairs) / 6
        assert found.kendall == pytest.approx(counted)
        assert found.share == 0

    def test_a_shorter_run_is_judged_on_what_it_has(self):
        assert order_agreement("abc", "ab").share == 1
        assert order_agreement("abc", "a").kendall is None

    def test_a_function_is_asked_between_plateaus(self):
        times = np.linspace(0, 30, 3000)
        asked = []

        def learned(history, before, after):
            asked.append((before, after))
            return "first" if before < 10 < after else "second"

        found = compare(staircase(), history_of(times, steps_down(times)), learned=learned)
        assert found.order.learned == ("first", "second")
        assert found.order.share == 1
        assert asked[0][0] < 10 < asked[0][1] < 20 < asked[1][1]
        assert "order as predicted" in found.verdict

    @pytest.mark.parametrize("learned", ["ab", 3, [], [[1]]])
    def test_what_cannot_be_compared(self, learned):
        times = np.linspace(0, 30, 300)
        with pytest.raises(InputError):
            compare(staircase(), times, steps_down(times), learned=learned)


@pytest.fixture(scope="module")
def two_modes():
    first, second = 1e-3 * np.array([[1.0, 2.0], [0.0, 1.0]]), 1e-3 * np.array([[1.0, -1.0], [2.0, 0.0]])
    problem = LinearProblem(np.diag([2.0, 0.7]))
    init = problem.neurons(first, second)
    return problem, init, linear(first, second, problem.sigma_yx), gradient_flow(problem, init, end=20.0)


class TestRuns:
    def test_gradient_flow_agrees_with_another_solver(self, two_modes):
        problem, init, prediction, flow = two_modes
        found = compare(prediction, flow)
        level = float(prediction.levels[0] + prediction.levels[1]) / 2

        def slope(_, flat):
            return -problem.gradient(flat.reshape(init.shape)).ravel()

        def crossing(_, flat):
            return problem.loss(flat.reshape(init.shape)) - level

        solved = solve_ivp(slope, (0, 20), init.ravel(), "Radau", events=crossing, rtol=1e-10, atol=1e-14)
        assert found.crossings[0] == pytest.approx(solved.t_events[0][0], rel=1e-7)
        assert found.complete
        assert found.time_field == "crossing_times"
        assert np.abs(found.time_errors).max() < 2e-3

    def test_other_fields_of_times(self, two_modes):
        _, _, prediction, flow = two_modes
        found = compare(prediction, flow, times="plain_times")
        assert found.time_field == "plain_times"
        assert found.predicted.tolist() == prediction.plain_times.tolist()
        with pytest.raises(InputError, match="no times called 'levels'"):
            compare(prediction, flow, times="levels")

    def test_stages_of_the_engine_and_saved_predictions(self, two_modes):
        problem, init, prediction, flow = two_modes
        stages = compare(run(problem, init), flow)
        assert stages.status == ("seen", "seen")
        assert stages.levels == pytest.approx(prediction.levels, abs=1e-2)
        saved = as_prediction(prediction.to_history())
        assert saved.times.tolist() == prediction.times.tolist()
        assert saved.order == ("0", "1")
        with pytest.raises(InputError, match="got str"):
            as_prediction("prediction")

    def test_steps_and_relative_units_are_refused(self, two_modes):
        _, _, prediction, flow = two_modes
        with pytest.raises(InputError, match="convert it first"):
            compare(prediction, flow.rename(time="step"))
        converted = prediction.convert(time_factor=100.0, time_unit="optimizer steps")
        run_in_steps = flow.assign_coords(time=flow.time * 100).rename(time="step").drop_vars("speed")
        assert compare(converted, run_in_steps).status == ("seen", "seen")
        with pytest.raises(InputError, match="minus the log of the scale"):
            compare(staircase(time_unit="time of the gradient flow over minus the log of the scale"), flow)

    def test_known_crossings_are_compared_and_converted(self):
        prediction = Prediction(
            times=np.array([10.0, 20.0]),
            levels=np.array([2.0, 1.0, 0.0]),
            order=("a", "b"),
            crossings=np.array([9.0, 19.0]),
        )
        times, field = predicted_times(prediction, None)
        assert field == "crossing_times"
        assert times.tolist() == [9.0, 19.0]
        steps = prediction.convert(time_factor=2.0, time_unit="steps")
        assert predicted_times(steps, None)[0].tolist() == [18.0, 38.0]
        assert predicted_times(steps, "times")[0].tolist() == [20.0, 40.0]

    def test_the_table_names_every_jump(self, two_modes):
        _, _, prediction, flow = two_modes
        text = str(compare(prediction, flow))
        assert text.splitlines()[0].startswith("two-layer linear network: 2 of 2 predicted jumps seen")
        assert len(text.splitlines()) == 5


class TestBadInput:
    def test_nothing_predicted(self):
        with pytest.raises(InputError, match="no jumps"):
            compare(Prediction(times=np.zeros(0), levels=np.ones(1), order=()), np.arange(9.0), np.ones(9))

    def test_no_curve(self):
        with pytest.raises(InputError, match="at least 8 finite points"):
            compare(staircase(), np.arange(5.0), np.ones(5))
        with pytest.raises(InputError, match="no variable"):
            compare(staircase(), xr.Dataset({"accuracy": (("step",), np.ones(9))}, {"step": np.arange(9)}))
        with pytest.raises(InputError, match="clock"):
            compare(staircase(), np.arange(9.0), np.ones(9), clock="slow")

    def test_a_loss_that_never_moves(self):
        found = compare(staircase(), np.arange(50.0), np.ones(50))
        assert found.status == ("missing", "missing")
        assert not found.complete

    def test_judging_a_rising_loss(self):
        curve = measured_curve(np.arange(50.0), np.linspace(1, 2, 50), None)
        assert judge(curve, staircase(), np.array([10.0, 20.0])).status == ("missing", "missing")


class TestDrawing:
    def test_a_run_and_its_staircase(self):
        times = np.linspace(0, 30, 300)
        figure = compare(staircase((9.0, 21.0)), times, steps_down(times)).draw()
        assert [trace.name for trace in figure.data] == ["run", "predicted", "learned", "measured jumps"]
        assert figure.data[1].x.tolist() == [0, 9, 9, 21, 21, 30]
        assert figure.data[1].y.tolist() == [1, 1, 0.25, 0.25, 0, 0]
        assert figure.data[3].x.tolist() == pytest.approx([10, 20], abs=1e-3)

    def test_logarithmic_axes(self):
        times = np.linspace(0, 30, 300)
        figure = draw_staircase(staircase(), times, steps_down(times), log_time=True, log_loss=True)
        assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"
        assert min(figure.data[0].x) > 0
        assert min(figure.data[1].x) == 1.0
        assert min(figure.data[1].y) > 0

    def test_a_jump_without_a_time_is_left_out(self):
        figure = draw_staircase(staircase((np.nan, 20.0)))
        assert figure.data[0].y.tolist() == [1, 1, 0, 0]
        with pytest.raises(InputError, match="known time"):
            draw_staircase(staircase((np.nan, np.nan)))
