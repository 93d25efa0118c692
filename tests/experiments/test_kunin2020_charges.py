"""kunin2020/charges: a cell against charges by hand, claims at the smallest scale, and claims that can fail."""

import numpy as np
import pytest
import torch

from learnmech.errors import InputError
from learnmech.experiments import reproduce
from learnmech.experiments.kunin2020.charged_run import KINDS, build, run_charges
from learnmech.experiments.kunin2020.charges import SETTINGS, check

CELL = {
    **{name: value for name, value in SETTINGS["smoke"].items() if not isinstance(value, list)},
    "steps": 8,
    "stored": 4,
    "momentum": 0.9,
    "weight_decay": 5e-3,
}


def test_a_cell_starts_from_charges_by_hand():
    cell = run_charges(CELL)
    net = build(CELL, 64)
    with torch.no_grad():
        expected = [
            net[0].weight[0].square().sum(),
            net[3].weight[:, 0].square().sum() - net[1].weight[0] ** 2 - net[1].bias[0] ** 2,
            net[4].weight[:, 0].square().sum() - net[3].weight[0].square().sum() - net[3].bias[0] ** 2,
            net[4].weight[:, 0].sum(),
        ]
    np.testing.assert_allclose(cell["charge"].values[0], [float(value) for value in expected], rtol=1e-12)
    assert cell["step"].values.tolist() == [0, 2, 4, 6, 8]
    assert float(cell["drift"].values[-1].max()) > 1e-3
    with pytest.raises(InputError, match="multiple of stored"):
        run_charges({**CELL, "stored": 3})


def test_claims_at_the_smallest_scale_and_when_they_fail(tmp_path):
    outcome = reproduce("kunin2020/charges", out=tmp_path)
    verdicts = {claim.key: claim.verdict for claim in outcome.claims}
    assert verdicts["K1"] == verdicts["K4"] == "pass"
    assert {verdicts[key] for key in ("K2", "K3", "K5", "K6")} == {"not tested at this scale"}
    assert set(outcome.files) == {"history", "claims", "png", "html"}
    broken = outcome.history.copy(deep=True)
    broken["discrete_error"] = broken["discrete_error"] + 1e-9
    broken["drift"] = broken["drift"] * 0 + 1e-3
    broken["continuous_error"] = broken["continuous_error"] + 1.0
    broken["settled_square"] = broken["settled_square"] * 3
    broken["remembered_ratio"] = broken["remembered_ratio"] * 1.1
    assert {claim.verdict for claim in check(broken, "reduced")} == {"fail"}
    assert list(broken["kind"].values) == list(KINDS)


def test_what_the_figure_compares_cannot_be_replaced(tmp_path):
    with pytest.raises(InputError, match="the figure compares them"):
        reproduce("kunin2020/charges", out=tmp_path, momentum=0.5)
    with pytest.raises(InputError, match="no settings epochs"):
        reproduce("kunin2020/charges", out=tmp_path, epochs=3)
