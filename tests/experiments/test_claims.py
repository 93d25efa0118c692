"""Every check of a claim passes on numbers that keep it and fails on numbers that break it."""

import numpy as np
import pytest
import xarray as xr

from learnmech.experiments.shi2024.chain_claims import check_phases, check_same_signs
from learnmech.experiments.shi2024.figure1 import check_batch, check_dropout, check_learning_rate, check_noise
from learnmech.experiments.shi2024.network_claims import check_flat_pinv, check_held_out, rank_correlation

SLOPES = (0.0, 0.4, 1.0)
AXES = {
    "noise": (check_noise, (0.7, 0.4, 0.2, 0.0), {"N1", "N2", "N5", "N5b", "N6", "N6 (0)", "N6 (0.4)"}),
    "dropout": (check_dropout, (0.28, 0.12, 0.04, 0.0), {"N1", "N3", "N5", "N5b", "N6", "N6 (0)", "N6 (0.4)"}),
    "lr": (check_learning_rate, (1e-1, 1e-2, 1e-3, 1e-4), {"N4", "N4b", "N5", "N5b", "N6", "N6 (0)", "N6 (0.4)"}),
    "batch": (check_batch, (20, 80, 320, 1280), {"1d", "N6", "N6 (0)", "N6 (0.4)"}),
}


def network_sweep(axis, values, sign=1.0):
    """The paper's picture (sign 1): bend rises with noise (to the left) and with slope, accuracy follows straightness."""
    noise = np.linspace(1.4, -1.2, len(values))
    if axis == "lr":  # the claims about the slope are made at 1e-3
        noise = np.array([1.0, 0.1, -1.2, -1.3])
    bend = sign * (noise[None, :, None] + 1.3 * np.array(SLOPES)[:, None, None] + np.array([0.0, 0.01]))
    dims, straight = ("slope", axis, "seed"), np.exp(-0.1 * bend**2)
    accuracy = straight if sign > 0 else 1 - straight
    return xr.Dataset(
        {
            "end_difference": (dims, bend),
            "curvature": (dims, bend),
            "linearity": (dims, straight),
            "test_accuracy": (dims, accuracy),
        },
        {"slope": list(SLOPES), axis: list(values), "seed": [0, 1]},
    )


@pytest.mark.parametrize("axis", AXES)
def test_network_claims_pass_on_the_papers_picture_and_fail_on_its_mirror(axis):
    check, values, keys = AXES[axis]
    good = {claim.key: claim.verdict for claim in check(network_sweep(axis, values), "reduced")}
    bad = {claim.key: claim.verdict for claim in check(network_sweep(axis, values, -1.0), "reduced")}
    assert {key for key, verdict in good.items() if verdict == "pass"} == keys
    assert {key for key, verdict in bad.items() if verdict == "fail"} == keys


def test_no_verdict_at_the_smallest_scale():
    claims = check_noise(network_sweep("noise", AXES["noise"][1]), "smoke")
    assert {claim.verdict for claim in claims} == {"not tested at this scale"}


def test_values_that_are_not_on_the_grid_are_not_tested():
    claims = {claim.key: claim for claim in check_noise(network_sweep("noise", (0.7, 0.1, 0.0)), "reduced")}
    assert claims["N2"].verdict == "not tested at this scale"


@pytest.mark.parametrize(("shift", "verdicts"), [(0.3, ["pass", "pass"]), (-0.3, ["fail", "pass"])])
def test_held_out_curves(shift, verdicts):
    sweep = network_sweep("dropout", (0.3, 0.0))
    moved = sweep["end_difference"] + shift * (sweep["slope"] < 1)
    claims = check_held_out(sweep.assign(end_difference_held_out=moved), "reduced")
    assert [claim.verdict for claim in claims] == verdicts
    linear = check_held_out(sweep.assign(end_difference_held_out=sweep["end_difference"] + 0.2), "reduced")
    assert linear[1].verdict == "fail"


@pytest.mark.parametrize(("drop", "verdict"), [(0.2, "pass"), (0.8, "fail"), (-0.8, "fail")])
def test_flat_pinv(drop, verdict):
    layer = xr.DataArray(np.linspace(0, 1, 4), dims="layer")
    sweep = xr.Dataset(
        {"load": (2 - layer) * xr.ones_like(xr.DataArray([1.0], dims="seed")), "load_pinv": (2 - drop * layer)},
        {"layer": ["input", "1", "2", "readout"], "role": ("layer", ["input", "block", "block", "readout"])},
    )
    sweep["load_pinv"] = sweep["load_pinv"].expand_dims(seed=1)
    assert check_flat_pinv(sweep, "reduced")[0].verdict == verdict


def test_rank_correlation():
    numbers = np.array([1.0, 2.0, np.nan, 4.0])
    assert rank_correlation(numbers, numbers**3) == pytest.approx(1)
    assert rank_correlation(numbers, -numbers) == pytest.approx(-1)
    assert np.isnan(rank_correlation(numbers, np.ones(4)))
    assert np.isnan(rank_correlation(numbers[:2], numbers[:2]))


@pytest.fixture(scope="module")
def phases(tmp_path_factory):
    from learnmech.experiments import reproduce

    return reproduce("shi2024/fig3", out=tmp_path_factory.mktemp("fig3")).history


def broken(phases, **changes):
    claims = check_phases(phases.assign(**{name: change(phases[name]) for name, change in changes.items()}))
    return {claim.key for claim in claims if claim.verdict == "fail"}


def test_chain_claims_fail_on_broken_phases(phases):
    assert broken(phases) == set()
    assert broken(phases, bend=lambda bend: -bend) >= {"S1", "S2", "S3", "S4", "S5", "S6"}
    assert "S4" in broken(phases, bend=lambda bend: bend.copy(data=bend.values[::-1]))
    assert "S5" in broken(phases, bend=lambda bend: bend.clip(max=0.0))
    assert "S6" in broken(phases, bend=lambda bend: bend + 0.1)
    lopsided = np.zeros(phases["elongation"].shape)
    lopsided[..., 0] = 1.0
    assert "S7" in broken(
        phases, elongation=lambda elongation: elongation.copy(data=lopsided * phases["noise"].values[None, :, None])
    )


def test_same_signs(phases):
    bend = phases["bend"].values
    assert check_same_signs(phases, bend, "S9", "it").verdict == "pass"
    assert check_same_signs(phases, -bend, "S9", "it").verdict == "fail"
