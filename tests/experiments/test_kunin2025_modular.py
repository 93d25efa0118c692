"""The figure of modular addition: it runs, its claims can hold and fail, and what it measures agrees with other routes."""

import math

import numpy as np
import pytest
import xarray as xr

from learnmech import history as histories
from learnmech.dynamics.agf.modular_problem import ModularProblem
from learnmech.dynamics.agf.modular_utility import fourier_template, utility_maximiser
from learnmech.errors import InputError
from learnmech.experiments.drawing import as_png
from learnmech.experiments.kunin2025.modular import MODULAR, SETTINGS
from learnmech.experiments.kunin2025.modular_animation import frame_names, frame_records, frame_traces, shown_run
from learnmech.experiments.kunin2025.modular_cells import ONE_HOT, main_phases, make_template
from learnmech.experiments.kunin2025.modular_claims import check, leading_part, near_misses, part_at_half, time_errors
from learnmech.experiments.reproduction import Context

KEYS = ["M1", "M2", "M3", "M4", "M5", "M6", "M7", "M8"]
TESTED = {"M3", "M4", "M5", "M6", "M7"}


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    return MODULAR.run(Context(scale="smoke", out=tmp_path_factory.mktemp("modular")))


def verdicts(history):
    return {claim.key: claim.verdict for claim in check(history, "reduced")}


@pytest.fixture(scope="module")
def full(history):
    """A made-up run of five seeds and two jumps, all as predicted: that of the smallest scale with its jump twice."""
    seeds = [history.isel(seed=[0]).assign_coords(seed=[seed]) for seed in range(5)]
    whole = xr.concat(seeds, "seed", data_vars="minimal", coords="minimal", compat="override", join="override")
    levels = history["level"].values
    whole = whole.drop_dims("plateau")
    jumps = [whole.isel(jump=[0]).assign_coords(jump=[jump]) for jump in range(2)]
    whole = xr.concat(jumps, "jump", data_vars="minimal", coords="minimal", compat="override", join="override")
    doubled = np.repeat(np.concatenate([levels, 0.2 * levels[..., -1:]], axis=-1), 5, axis=1)
    whole["level"] = (("encoding", "seed", "plateau"), doubled)
    for name in ("predicted_time", "crossing"):
        whole[name] = whole[name] * xr.DataArray([1.0, 7.0], dims="jump")
    whole["crossing"] = whole["predicted_time"] * 1.02
    whole["predicted_frequency"] = whole["predicted_frequency"].copy()
    whole["predicted_frequency"].loc[{"jump": 1}] = [[3.0] * 5, [2.0] * 5, [2.0] * 5]
    whole["learned_time"] = xr.where(np.isinf(whole["learned_time"]), 1e4, whole["learned_time"])
    return whole


def test_claims_hold_at_the_smallest_scale(history, tmp_path):
    claims = MODULAR.check(history, "smoke")
    assert [claim.key for claim in claims] == KEYS
    for claim in claims:
        assert claim.verdict == ("pass" if claim.key in TESTED else "not tested at this scale"), str(claim)
    kept = histories.load(histories.save(history, tmp_path / "history.nc"))
    assert set(kept) == set(history)


def test_claims_about_times_pass_and_fail(full):
    found = verdicts(full)
    assert found["M1"] == found["M2"] == found["M3"] == "pass"
    for place, key in enumerate(("M1", "M2")):
        for spoil in (1.2, math.nan):  # too late, or never seen
            spoiled = full.copy(deep=True)
            spoiled["crossing"][{"encoding": place, "seed": 3, "jump": 1}] *= spoil
            found = verdicts(spoiled)
            assert found[key] == "fail"
            assert found[{"M1": "M2", "M2": "M1"}[key]] == "pass"
    spoiled["learned_time"].loc[{"encoding": "correlated", "seed": 2, "frequency": 3}] = 0.01
    assert verdicts(spoiled)["M3"] == "fail"
    spoiled = full.copy(deep=True)
    spoiled["learned_time"].loc[{"encoding": "correlated", "seed": 2, "frequency": 3}] = np.inf
    assert verdicts(spoiled)["M3"] == "fail"


def test_a_near_miss_is_named(full):
    spoiled = full.sel(encoding="without resonance").copy(deep=True)
    middle = float(spoiled["level"][0, 1:].mean())
    spoiled["stage_loss"][{"stage": 0}] = 1.004 * middle
    spoiled["stage_time"][{"stage": 0}] = 1.0
    np.testing.assert_allclose(near_misses(spoiled)[:, 1], 0.004, atol=1e-9)
    spoiled = full.copy(deep=True)
    place = {"encoding": 1, "seed": 3}
    spoiled["crossing"][{**place, "jump": 1}] *= 1.2
    spoiled["stage_time"][place] = np.linspace(1, 2, spoiled.sizes["stage"])
    spoiled["stage_loss"][place] = 1.004 * middle
    measured = {claim.key: claim.measured for claim in check(spoiled, "reduced")}
    assert "seed 3, jump 2: 0.40% above" in measured["M2"]


@pytest.mark.parametrize(
    ("key", "name", "value"),
    [
        ("M4", "searched_utility", 1 + 1e-6),
        ("M4", "searched_purity", 0.999),
        ("M5", "level_error", 1e5),
        ("M6", "six_loss", 1e12),
        ("M7", "few_fraction", 1.01),
    ],
)
def test_claims_about_neurons_can_fail(history, key, name, value):
    spoiled = history.copy(deep=True)
    spoiled[name] = spoiled[name] * value
    assert verdicts(spoiled)[key] == "fail"


def test_the_claim_about_one_hot_numbers_reads_the_leading_frequency():
    records, frequencies = 11, 5
    gone = np.linspace(0, 1, records)

    def run(shares):
        return xr.Dataset(
            {
                "share": (("record", "frequency"), np.outer(gone, shares)),
                "part": (("frequency",), np.full(frequencies, 2.0)),
                "loss": (("record",), 10 * (1 - gone)),
            }
        )

    even, single = run(np.ones(frequencies)), run(np.array([1.0, 0.02, 0, 0, 0]))
    assert part_at_half(even) == pytest.approx(0.2)
    assert part_at_half(single) == pytest.approx(1 / 1.02)
    assert np.isnan(leading_part(even)[1][0])
    assert math.isnan(part_at_half(even.isel(record=slice(3))))


def test_errors_are_those_of_the_flow(history):
    errors = time_errors(history.sel(encoding=["correlated", "without resonance"]))
    assert errors.shape == (2, 1, 1)
    assert np.isfinite(errors).all()
    for name in ("correlated", "without resonance"):
        run = history.sel(encoding=name, seed=0)
        middle = float(run["level"][:2].mean())
        rough = np.interp(-middle, -run["loss"].values, run["moment"].values)
        assert float(run["crossing"][0]) == pytest.approx(rough, rel=5e-3)


def test_losses_are_shares_and_powers_of_the_output(history):
    """The loss at the start is the sum of the parts; powers of neurons add to squared norms."""
    run = history.sel(encoding="correlated", seed=0)
    template = make_template({**SETTINGS["smoke"], "encoding": "correlated"})
    assert float(run["part"].sum()) == pytest.approx(np.square(template).sum() / 2)
    assert float(run["loss"][0]) == pytest.approx(float(run["part"].sum()), rel=1e-3)
    hot = make_template({**SETTINGS["smoke"], "encoding": ONE_HOT})
    np.testing.assert_array_equal(hot, [1, 0, 0, 0, 0])


def test_phases_agree_for_the_best_neurons():
    template = fourier_template(9, {1: 2.0, 2: 5.0}, {2: 0.7})
    neurons = np.stack([utility_maximiser(template, k, 0.4, -1.3) for k in (1, 2)])
    sums, lasts = main_phases(neurons, template)
    np.testing.assert_allclose(sums, lasts, atol=1e-9)
    np.testing.assert_allclose(sums, [-0.9, -0.9 - 0.7], atol=1e-9)


def test_six_neurons_in_the_history_learn_the_frequency(history):
    template = fourier_template(8, {1: 5.0})
    problem = ModularProblem(template)
    assert problem.loss(history["six"].values) < 1e-20


def test_the_figure_and_the_animation_are_drawn(history):
    figure = MODULAR.draw(history)
    assert all(axes.get_title(loc="left") and axes.has_data() for axes in figure.axes[:9])
    assert as_png(figure)[:4] == b"\x89PNG"
    run = shown_run(history)
    records = frame_records(run)
    names = frame_names(run, records)
    assert 40 < len(names) <= 80
    assert len(set(names)) == len(names)
    traces = [trace for trace, _ in frame_traces(run, records[-1])]
    by_frequency, (_, loss, spectrum) = traces[:-3], traces[-3:]
    assert len(by_frequency) == len(SETTINGS["smoke"]["templates"]["correlated"])
    heights = np.array([value for trace in by_frequency for value in trace.y if value is not None])
    assert len(heights) == SETTINGS["smoke"]["width"] * 4
    assert np.square(heights).sum() == pytest.approx(float(run["power"][-1].sum()), rel=1e-3)
    assert loss.y[-1] == pytest.approx(float(run["loss"][-1]), abs=1e-4)
    assert spectrum.y[1] == pytest.approx(float(run["output_power"][-1, 0]), abs=1e-4)
    page = MODULAR.page(history)
    assert page.lstrip().startswith("<div")
    assert "<html" not in page[:200]
    assert 'src="http' not in page
    assert len(page) < 8e6


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"width": 3}, "no settings width"),
        ({"seeds": 0}, "seeds must be an integer of at least 1"),
        ({"records": 10}, "records must be an integer of at least 50"),
        ({"starts": True}, "starts must be an integer"),
    ],
)
def test_bad_overrides_are_refused(overrides, message, tmp_path):
    with pytest.raises(InputError, match=message):
        MODULAR.run(Context(scale="smoke", out=tmp_path, overrides=overrides))
