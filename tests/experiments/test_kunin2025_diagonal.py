"""The figure of diagonal networks: its claims at the smallest scale, against an integrator of another kind, and its animation."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from learnmech import history as histories
from learnmech.errors import InputError
from learnmech.experiments.drawing import as_png
from learnmech.experiments.kunin2025.diagonal import DIAGONAL, SETTINGS
from learnmech.experiments.kunin2025.diagonal_animation import frame_moments, frame_names, frame_traces
from learnmech.experiments.kunin2025.diagonal_claims import check, time_errors
from learnmech.experiments.kunin2025.diagonal_drawing import loss_grid, scale_name
from learnmech.experiments.kunin2025.diagonal_measuring import five_coordinates, two_coordinates
from learnmech.experiments.reproduction import Context

KEYS = ["G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8"]


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    return DIAGONAL.run(Context(scale="smoke", out=tmp_path_factory.mktemp("diagonal")))


def test_every_claim_holds_at_the_smallest_scale(history):
    claims = DIAGONAL.check(history, "smoke")
    assert [claim.key for claim in claims] == KEYS
    assert {claim.verdict for claim in claims} == {"pass"}, "\n".join(map(str, claims))
    assert json.loads(history.attrs["config"]) == SETTINGS["smoke"]
    assert histories.validate(history) is history


SPOILED = {
    "G1": ("expected_time", 1e-5),
    "G2": ("coefficient_time", 2e-3),
    "G3": ("level", 0.01),
    "G4": ("half_time", 0.1),
    "G5": ("distance", 0.01),
    "G6": ("five_half_time", 0.3),
    "G7": ("route_difference", 1e-8),
    "G8": ("l1_excess", 1e-8),
}


@pytest.mark.parametrize("key", KEYS)
def test_every_claim_can_fail(history, key):
    name, shift = SPOILED[key]
    spoiled = history.copy(deep=True)
    spoiled[name] = spoiled[name] + shift
    verdicts = {claim.key: claim.verdict for claim in check(spoiled, "smoke")}
    assert verdicts[key] == "fail"


def test_a_jump_that_was_not_seen_fails_its_claim_instead_of_passing(history):
    spoiled = history.copy(deep=True)
    spoiled["five_half_time"][-1, 2] = math.nan
    assert {claim.key: claim.verdict for claim in check(spoiled, "smoke")}["G6"] == "fail"
    spoiled["half_time"][-1, 2] = math.nan
    assert {claim.key: claim.verdict for claim in check(spoiled, "smoke")}["G4"] == "fail"


def test_times_are_those_of_an_integrator_of_another_kind(history):
    """The flow of u and v themselves, with events where a coefficient or the loss crosses a height."""
    inputs, values = two_coordinates()
    scale = math.exp(-9.2)

    def slope(_, weights):
        u, v = weights[:2], weights[2:]
        pull = inputs.T @ (values - inputs @ (u * v)) / 2
        return np.concatenate([pull * v, pull * u])

    def loss(weights):
        return np.square(inputs @ (weights[:2] * weights[2:]) - values).sum() / 4

    levels, saddles = history["expected_level"].values, history["saddle"].values
    events = [lambda _, w, h=(a + b) / 2: loss(w) - h for a, b in pairwise(levels)]
    events += [
        lambda _, w: w[0] * w[2] - saddles[1, 0] / 2,
        lambda _, w: w[1] * w[3] - saddles[2, 1] / 2,
        lambda _, w: w[0] * w[2] - saddles[3, 0] / 2,
    ]
    start = np.array([math.sqrt(2) * scale] * 2 + [0.0, 0.0])
    run = solve_ivp(slope, (0, 9.2 * 4), start, method="DOP853", rtol=1e-11, atol=1e-16, events=events)
    found = np.array([times[0] for times in run.t_events]) / 9.2
    at = history.sel(scale=-9.2)
    np.testing.assert_allclose(at["half_time"], found[:3], atol=2e-6)
    np.testing.assert_allclose(at["coefficient_time"], found[3:], atol=2e-5)


def test_the_law_reads_the_largest_error_of_each_scale(history):
    logs, errors = time_errors(history)
    assert (np.diff(logs) > 0).all()
    assert logs[-1] == 230
    differences = history["half_time"].sel(scale=-230.0).values - history["expected_time"].values
    assert errors[-1] == np.abs(differences).max()


def test_records_keep_what_happens(history):
    for prefix in ("", "five_"):
        moments = history[f"{prefix}moment"].values
        assert (np.diff(moments, axis=1) > 0).all()
        np.testing.assert_allclose(moments[:, 0], 0)
        np.testing.assert_allclose(moments[:, -1], 1.3 * float(history[f"{prefix}expected_time"][-1]))
    end = history.sel(scale=-230.0).isel(record=-1)
    np.testing.assert_allclose(end["beta"], [-0.2, 2.0], atol=1e-6)


def test_problems_are_the_papers():
    inputs, values = two_coordinates()
    half = math.sqrt(3) / 2
    turn = np.array([[-half, -0.5], [0.5, -half]])
    np.testing.assert_allclose(inputs @ inputs.T, turn @ np.diag([1, 25]) @ turn.T, atol=1e-12)
    assert np.square(values).mean() / 2 == pytest.approx(2.311099, abs=1e-6)
    inputs, values = five_coordinates()
    assert inputs.shape == (20, 5)
    assert np.linalg.matrix_rank(np.column_stack([inputs, values])) == 5


def test_the_figure_is_drawn(history):
    figure = DIAGONAL.draw(history)
    titles = " ".join(axes.get_title(loc="left") for axes in figure.axes)
    assert len(figure.axes) == 9
    assert "staircase" in titles
    figure.set_dpi(40)
    assert as_png(figure)[:4] == b"\x89PNG"
    first, second, losses = loss_grid(history, 20)
    inputs, values = two_coordinates()
    beta = np.array([first[3], second[7]])
    assert losses[7, 3] == pytest.approx(np.square(inputs @ beta - values).mean() / 2)
    assert (scale_name(math.log(0.01)), scale_name(math.log(1e-6)), scale_name(-230.0)) == (
        "0.01",
        "1e-6",
        "$e^{-230}$",
    )


def test_the_animation_moves_from_saddle_to_saddle(history):
    moments = frame_moments(history)
    names = frame_names(moments)
    assert 40 < len(names) <= 80
    assert len(set(names)) == len(names)
    point = lambda moment: [frame_traces(history, moment)[3][0][axis][0] for axis in ("x", "y")]  # noqa: E731
    np.testing.assert_allclose(point(0.0), [0, 0], atol=1e-9)
    np.testing.assert_allclose(point(0.4), [0.4619, 0], atol=1e-3)
    np.testing.assert_allclose(point(2.0), [0, 1.5843], atol=1e-3)
    np.testing.assert_allclose(point(moments[-1]), [-0.2, 2.0], atol=1e-3)
    utilities = frame_traces(history, 2.0)[4][0]
    assert utilities.x[-1] == 2.0
    assert abs(utilities.y[-1]) < 0.1
    page = DIAGONAL.page(history)
    assert page.lstrip().startswith("<div")
    assert "<html" not in page[:200]
    assert 'src="http' not in page
    assert len(page) < 8e6


def test_nothing_can_be_replaced(tmp_path):
    with pytest.raises(InputError, match="no settings designs"):
        DIAGONAL.run(Context(scale="smoke", out=tmp_path, overrides={"designs": 3}))
