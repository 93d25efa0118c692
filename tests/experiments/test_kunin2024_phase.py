"""Lazy and rich students: a run to files, checkpoints, claims that hold and that can fail, bad input, Ctrl-C."""

import signal

import numpy as np
import pytest
import xarray as xr

from learnmech.errors import InputError
from learnmech.experiments import reproduce
from learnmech.experiments.drawing import as_png
from learnmech.experiments.kunin2024 import phase_cells
from learnmech.experiments.kunin2024.phase import PHASE
from learnmech.experiments.kunin2024.phase_cells import CASES, run_case, spaced_steps
from learnmech.experiments.kunin2024.phase_claims import check, first_below
from learnmech.experiments.reproduction import Context

KEYS = [f"R{number}" for number in range(1, 8)]


def test_the_figure_runs_and_is_drawn(tmp_path):
    history = PHASE.run(Context("smoke", tmp_path))
    claims = PHASE.check(history, "smoke")
    assert [claim.key for claim in claims] == KEYS
    assert {claim.verdict for claim in claims} == {"not tested at this scale"}
    figure = PHASE.draw(history)
    assert as_png(figure)[:8] == b"\x89PNG\r\n\x1a\n"
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert {"kernel distance S", "test error", "S after 100 steps"} <= set(titles)
    assert history["kernel_distance"].dims == ("case", "seed", "step")
    assert history["map_kernel_distance"].sizes == {"seed": 1, "map_step": 2, "overall_scale": 2, "relative_scale": 3}
    assert float(history["kernel_distance"].isel(step=0).max()) == 0
    drift = history["plane_charge_drift"].isel(plane_step=-1)
    ratio = (drift.sel(rate_factor=1.0) / drift.sel(rate_factor=0.5)).sel(plane_case="upstream")
    np.testing.assert_allclose(ratio, 2, rtol=0.1)


def test_checkpoints():
    steps = spaced_steps(8000)
    assert steps[0] == 0
    assert steps[-1] == 8000
    assert {80, 800} <= set(steps)
    assert (np.diff(steps) > 0).all()
    assert spaced_steps(1) == (0, 1)


def make_history(seeds=5, **changes):
    """Made-up cases for which every claim holds; ``changes`` replace variables of one case at every step."""
    steps = np.array([0, 10, 40, 400, 4000])
    noise = 1 + 0.01 * np.arange(seeds)[:, None]
    ends = {
        "large": {
            "kernel_distance": [0, 0, 0, 0, 0.001],
            "pattern_change": 0.0,
            "parameter_distance": 1.0,
            "test_error": 4e-3,
        },
        "downstream": {
            "kernel_distance": [0, 0, 0.01, 0.1, 0.3],
            "pattern_change": 0.1,
            "parameter_distance": 3.0,
            "test_error": 2e-3,
        },
        "balanced": {
            "kernel_distance": [0, 0, 0, 0.1, 0.15],
            "pattern_change": 0.3,
            "parameter_distance": 2.0,
            "test_error": 1e-3,
        },
        "upstream": {
            "kernel_distance": [0, 0.1, 0.1, 0.1, 0.1],
            "pattern_change": 0.4,
            "parameter_distance": 0.5,
            "test_error": 9e-4,
        },
    }
    errors = {
        "large": [1, 0.9, 0.8, 0.3, 0.01],
        "downstream": [1, 0.9, 0.8, 0.3, 0.01],
        "balanced": [1, 0.9, 0.5, 0.01, 0.001],
        "upstream": [1, 0.05, 0.01, 0.001, 1e-4],
    }
    for case, replaced in changes.items():
        ends[case] = {**ends[case], **replaced}
        errors[case] = ends[case].pop("train_error", errors[case])
    variables = {
        name: (
            ("case", "seed", "step"),
            np.stack(
                [np.broadcast_to(np.asarray(ends[case][name], dtype=float), steps.shape) * noise for case in CASES]
            ),
        )
        for name in ("kernel_distance", "pattern_change", "parameter_distance", "test_error")
    }
    wobble = 1 + 0.02 * np.sin(np.arange(seeds) + 1.0)  # so that gains are not all the same
    large = variables["test_error"][1]
    large[list(CASES).index("large")] *= wobble[:, None]
    variables["train_error"] = (
        ("case", "seed", "step"),
        np.stack([np.tile(errors[case], (seeds, 1)) for case in CASES]),
    )
    drift = np.ones((2, 4, 3, 1)) * np.array([2e-4, changes.get("drift", {"half": 1e-4})["half"]])[:, None, None, None]
    variables["plane_charge_drift"] = (("rate_factor", "plane_case", "plane_seed", "plane_step"), drift)
    return xr.Dataset(
        variables,
        {
            "case": list(CASES),
            "seed": range(seeds),
            "step": steps,
            "rate_factor": [1.0, 0.5],
            "plane_case": list(CASES),
        },
    )


def with_drift(half):
    history = make_history()
    history["plane_charge_drift"][1] = half
    return history


def test_claims_hold_where_they_should():
    assert {claim.key: claim.verdict for claim in check(make_history(), "reduced")} == dict.fromkeys(KEYS, "pass")


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({"large": {"kernel_distance": [0, 0, 0, 0, 0.02]}}, {"R1"}),
        ({"large": {"kernel_distance": [np.nan] * 5}}, {"R1"}),
        ({"balanced": {"pattern_change": 0.45}}, {"R2"}),
        ({"downstream": {"pattern_change": 0.35}}, {"R2"}),
        ({"upstream": {"parameter_distance": 2.5}}, {"R3"}),
        ({"upstream": {"train_error": [1, 0.9, 0.9, 0.9, 0.9]}}, {"R4"}),
        ({"downstream": {"test_error": 4e-3}}, {"R5"}),
        ({"upstream": {"test_error": np.nan}}, {"R5"}),
        ({"downstream": {"kernel_distance": [0, 0.1, 0.2, 0.3, 0.3]}}, {"R7"}),
        ({"downstream": {"kernel_distance": [0, 0, 0, 0, 0.05]}}, {"R7"}),
    ],
)
def test_claims_fail_where_they_should(changes, failing):
    found = check(make_history(**changes), "reduced")
    assert {claim.key for claim in found if claim.verdict == "fail"} == failing


@pytest.mark.parametrize("half", [2e-4, 0.5e-4, np.nan])
def test_a_drift_that_is_not_of_the_rate_fails(half):
    found = check(with_drift(half), "reduced")
    assert {claim.key for claim in found if claim.verdict == "fail"} == {"R6"}


def test_few_seeds_and_smoke_test_nothing():
    for history, scale in ((make_history(seeds=4), "reduced"), (make_history(), "smoke")):
        assert {claim.verdict for claim in check(history, scale)} == {"not tested at this scale"}


def test_the_crossing_is_between_checkpoints():
    history = make_history()
    assert 40 < first_below(history, "balanced", 0) < 400
    assert first_below(history, "upstream", 0) == 10
    errors = [1, 1, 1, 0.5, 0.02]  # from 0.5 at 400 to 0.02 at 4000: a tenth at exp(ln 400 + ln 5 / ln 25 ln 10)
    crossing = first_below(make_history(balanced={"train_error": errors}), "balanced", 0)
    assert crossing == pytest.approx(400 * 10 ** (np.log(5) / np.log(25)))
    assert first_below(make_history(balanced={"train_error": [1.0] * 5}), "balanced", 0) == np.inf


def test_bad_overrides_are_refused(tmp_path):
    with pytest.raises(InputError, match="no settings steps"):
        reproduce("kunin2024/phase", out=tmp_path, steps=3)
    with pytest.raises(InputError, match="seed must be a list of values, got 0"):
        reproduce("kunin2024/phase", out=tmp_path, seed=0)


def test_a_cell_that_is_broken_off_is_not_kept(monkeypatch):
    original = phase_cells.student_teacher

    def interrupted(*arguments, **named):
        return original(*arguments, **named, on_progress=lambda done, total: signal.raise_signal(signal.SIGINT))

    monkeypatch.setattr(phase_cells, "student_teacher", interrupted)
    sizes = {"inputs": 3, "neurons": 4, "samples": 8, "test_samples": 8, "steps": 300, "learning_rate": 1e-3}
    with pytest.raises(KeyboardInterrupt):
        run_case({"case": "balanced", "seed": 0, **sizes})
