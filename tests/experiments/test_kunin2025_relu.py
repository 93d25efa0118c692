"""The figure of ReLU nets: it runs from settings to a picture, its claims hold where tested and can fail, bad input is refused."""

import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from learnmech.dynamics.agf.relu_directions import extremal_directions
from learnmech.errors import InputError
from learnmech.experiments.drawing import as_png
from learnmech.experiments.kunin2025 import relu_cells
from learnmech.experiments.kunin2025.relu import RELU
from learnmech.experiments.reproduction import Context

TESTED = {"R1", "R3", "R4", "R5"}


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    return RELU.run(Context("smoke", tmp_path_factory.mktemp("relu")))


def test_claims_hold_at_the_smallest_scale_and_the_figure_is_drawn(history):
    claims = RELU.check(history, "smoke")
    assert [claim.key for claim in claims] == [f"R{number}" for number in range(1, 8)]
    verdicts = {claim.key: claim.verdict for claim in claims}
    assert {key for key, verdict in verdicts.items() if verdict == "pass"} == TESTED, verdicts
    assert {verdicts[key] for key in set(verdicts) - TESTED} == {"not tested at this scale"}
    assert as_png(RELU.draw(history))[:4] == b"\x89PNG"


def test_every_claim_can_fail_and_pass(history):
    good = history.copy(deep=True)
    good["distance"] = 0 * good["distance"] + 1e-4
    good["problem_after"] = 0 * good["problem_after"] + 1e-3
    good["problem_growth"] = 0 * good["problem_growth"] + 20.0
    assert {claim.verdict for claim in RELU.check(good, "reduced")} == {"pass"}
    spoilt = history.copy(deep=True)
    spoilt["utility"] = spoilt["utility"].roll(angle=5)
    spoilt["level"] = spoilt["level"] + 0.01
    spoilt["refined"] = 1.001 * spoilt["refined"]
    spoilt["plain"] = 1.1 * spoilt["plain"]
    spoilt["distance"] = 0 * spoilt["distance"] + 1.0
    spoilt["problem_after"] = 0 * spoilt["problem_after"] + 0.02
    spoilt["problem_growth"] = 0 * spoilt["problem_growth"] + 20.0
    assert {claim.verdict for claim in RELU.check(spoilt, "reduced")} == {"fail"}


def test_what_was_not_found_is_a_failure(history):
    lost = history.copy(deep=True)
    for name in ("crossing", "level"):
        lost[name] = np.nan * lost[name]
    verdicts = {claim.key: claim.verdict for claim in RELU.check(lost, "smoke")}
    assert {verdicts[key] for key in ("R3", "R4", "R5")} == {"fail"}


def test_times_of_a_run_are_those_of_another_integrator(history):
    """The whole gradient, by small steps of a general solver, until the loss has fallen by half of the first drop."""
    inputs, targets = relu_cells.six_points()
    start = relu_cells.draw_neurons(8, 5.0, relu_cells.derive_seed(0, "relu start"))
    assert np.linalg.norm(start, axis=1) == pytest.approx(math.exp(-5.0))

    def slope(_, flat):
        neurons = flat.reshape(-1, 3)
        heights = neurons[:, 1:] @ inputs.T
        rest = targets - neurons[:, 0] @ np.maximum(heights, 0)
        pulls = ((heights > 0) * rest / 6) @ inputs
        return np.column_stack([(neurons[:, 1:] * pulls).sum(1), neurons[:, :1] * pulls]).ravel()

    def gap(_, flat):
        neurons = flat.reshape(-1, 3)
        rest = targets - neurons[:, 0] @ np.maximum(neurons[:, 1:] @ inputs.T, 0)
        return rest @ rest / 12 - (0.595622728 + 0.073126245) / 2

    gap.terminal = True
    ran = solve_ivp(slope, (0, 30), start.ravel(), method="RK45", rtol=1e-7, atol=1e-10, events=gap)
    measured = float(history["crossing"].sel(log=5.0, draw=0, jump=0))
    assert ran.t_events[0][0] == pytest.approx(measured, rel=1e-4)


def test_distances_are_angles_to_directions_of_the_own_sign():
    found = extremal_directions(*relu_cells.six_points())
    up, down = found.attracting().angles
    neurons = np.array(
        [[sign, math.cos(angle), math.sin(angle)] for sign, angle in [(1, up + 0.3), (-1, down - 0.2), (-1, up)]]
    )
    gap = min(abs(up - down), 2 * math.pi - abs(up - down))
    np.testing.assert_allclose(relu_cells.distances(found, neurons), [0.3, 0.2, gap], atol=1e-12)
    none = extremal_directions(np.zeros((2, 2)), [1.0, 1.0])
    np.testing.assert_allclose(relu_cells.distances(none, neurons), np.pi)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"tolerance": 1e-3}, "no settings tolerance"),
        ({"logs": [5.0]}, "logs must be two or more increasing numbers"),
        ({"logs": [10.0, 5.0]}, "logs must be two or more increasing numbers"),
        ({"neurons": 1}, "neurons must be an integer of at least 2"),
        ({"draws": 0}, "draws must be an integer of at least 1"),
    ],
)
def test_bad_overrides_are_refused(overrides, message, tmp_path):
    with pytest.raises(InputError, match=message):
        RELU.run(Context("smoke", tmp_path, overrides=overrides))
