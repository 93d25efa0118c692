"""The table of a task of rank 3: runs from declaration to files, and claims that hold for the known numbers and can fail."""

import json

import numpy as np
import pytest
import xarray as xr

from learnmech.experiments import reproduce
from learnmech.experiments.jacot2024 import rank_table


def known_sweep():
    """Effective depths 2 to 12 with the known numbers, costs of the aligned closed form with k = 3, and a mean as fourth direction."""
    depths, layers = np.array([2.0, 3.0, 4.0, 6.0, 8.0, 12.0]), 10
    rates = np.array([5.5, 4.5, 3.8])
    p = np.linspace(0, 1, layers + 1)
    least = np.interp(depths, list(rank_table.KNOWN), [row[0] for row in rank_table.KNOWN.values()])
    costs = least[:, None] * (1 + 40 * (p - 0.6) ** 2)
    spectrum = np.full((6, layers + 1, 10), 0.1)
    spectrum[:, :, :3] = (depths[:, None] + rates)[:, None, :]
    spectrum[:, :, 3] = depths[:, None] + 3
    dimension = np.interp(depths, list(rank_table.KNOWN), [row[1] for row in rank_table.KNOWN.values()])
    layer = ("effective_depth", "layer")
    variables = {
        "cost": ("effective_depth", 0.01 * (3 * depths + 2 * rates.sum() + (rates**2).sum() / depths)),
        "identity_cost": ((*layer, "ridge"), np.stack([costs, 2 * costs], axis=-1)),
        "weight_spectrum": ((*layer, "direction"), spectrum),
        "kept_directions": (layer, np.full((6, layers + 1), 4.0)),
        "varying_directions": (layer, np.full((6, layers + 1), 3.0)),
        "pre_effective_dimension": (layer, np.repeat(dimension[:, None], layers + 1, axis=1)),
        "mean_pre_effective_dimension": ("effective_depth", dimension),
    }
    flags = {"residual": 0.1, "stationary": 1.0, "collapsed": 0.0, "diverged": 0.0}
    variables |= {name: ("effective_depth", np.full(6, value)) for name, value in flags.items()}
    coordinates = {
        "effective_depth": depths,
        "layer": [str(n) for n in range(layers + 1)],
        "depth": ("layer", p),
        "ridge": [1e-2, 1e-3],
    }
    history = xr.Dataset(variables, coordinates)
    history.attrs["config"] = json.dumps({"fixed": {"widths": [10, 3, 10], "penalty": 0.02}})
    return history


def verdicts(history, scale="reduced"):
    return {claim.key: claim.verdict for claim in rank_table.check_table(history, scale)}


def test_known_numbers_hold():
    assert verdicts(known_sweep()) == {"K1": "pass", "K2": "pass", "K3": "pass", "K4": "fail", "K5": "pass"}
    assert len(rank_table.draw_table(known_sweep()).axes) == 8


@pytest.mark.parametrize(
    ("broken", "change"),
    [
        ({"K1"}, lambda h: {"identity_cost": h["identity_cost"] * 3}),
        ({"K2"}, lambda h: {"mean_pre_effective_dimension": h["mean_pre_effective_dimension"] + 4}),
        ({"K3"}, lambda h: {"weight_spectrum": h["weight_spectrum"] + 0.2 * h["effective_depth"]}),
        ({"K5"}, lambda h: {"cost": h["cost"] + 0.01 * h["effective_depth"]}),
        ({"K5"}, lambda h: {"varying_directions": h["varying_directions"] + 1}),
    ],
)
def test_each_claim_can_fail(broken, change):
    history = known_sweep()
    found = verdicts(history.assign(change(history)))
    assert {key for key, verdict in found.items() if verdict == "fail"} >= broken


def test_missing_and_unconverged_nets_are_not_judged():
    history = known_sweep()
    assert set(verdicts(history.isel(effective_depth=[0, 1, 3])).values()) == {"not tested at this scale"}
    assert set(verdicts(history, "smoke").values()) == {"not tested at this scale"}
    history["stationary"] = history["stationary"] * 0
    assert verdicts(history)["K2"] == "not tested at this scale"


def test_it_runs_from_declaration_to_files(tmp_path):
    changes = {"samples": 12, "width": 8, "adam_steps": 3, "polish_iterations": 2}
    outcome = reproduce("jacot2024/rank", out=tmp_path, **changes)
    assert outcome.failed_cells == 0
    assert {claim.verdict for claim in outcome.claims} == {"not tested at this scale"}
    assert outcome.files["png"].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
