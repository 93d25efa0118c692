"""The phases of deep linear networks: one run from declaration to files, claims that can fail, bad input."""

import json

import numpy as np
import pytest

from learnmech import history as histories
from learnmech.errors import InputError
from learnmech.experiments import reproduce
from learnmech.experiments.jacot2022 import phase


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return reproduce("jacot2022/phase", out=tmp_path_factory.mktemp("phase"))


def test_it_runs_from_declaration_to_files(outcome):
    assert outcome.failed_cells == outcome.missing_cells == 0
    assert set(outcome.files) == {"history", "claims", "png", "html"}
    assert outcome.files["png"].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    stored = histories.load(outcome.files["history"])
    assert set(stored.data_vars) == set(outcome.history.data_vars)
    assert set(json.loads(stored.attrs["config"])) == {"widths", "path_runs", "silent_runs"}
    assert [claim.key for claim in outcome.claims] == ["W1", "W2", "W3", "W4", "W5", "S1", "S2", "S3", "A1"]
    assert {claim.verdict for claim in outcome.claims} == {"not tested at this scale"}


def test_what_it_measures_is_right_even_at_the_smallest_scale(outcome):
    history = outcome.history
    jumps = phase.find_path_jumps(history, 2.0)[0]
    np.testing.assert_allclose(jumps.levels, [10.5, 2.5, 0.5, 0.0], atol=0.1)
    assert len(phase.find_path_jumps(history, 0.8)[0]) == 0
    silent = history["silent_cosine"].sel(silent_scale=[0.5, 0.1, 1e-3]).values[:, 0]
    assert silent[0] < silent[1] < silent[2]
    assert silent[2] > 0.99
    losses = history["path_loss"]
    end, start = losses.isel(path_record=-1), losses.isel(path_record=0)
    assert float((end / start).max()) < 1e-5


def test_claims_can_fail_and_are_not_tested_when_too_small(outcome):
    """The same history, judged as a larger run, and with every number spoilt."""
    history = outcome.history.copy(deep=True)
    for name in ("kernel", "output", "saddle", "minimum", "minimum_per_error"):
        history[f"{name}_slope"] = history[f"{name}_predicted"] + 0.05
    verdicts = {claim.key: claim.verdict for claim in phase.check(history, "reduced")}
    assert set(verdicts.values()) == {"pass"}, verdicts
    for name in ("kernel", "output", "saddle", "minimum", "minimum_per_error"):
        history[f"{name}_slope"] = history[f"{name}_predicted"] + 0.11
    history["path_loss"] = 1 + 0 * history["path_loss"]
    history["path_kernel_norm"] = 1 + 0 * history["path_kernel_norm"]
    history["silent_cosine"] = 0.5 + 0 * history["silent_cosine"]
    verdicts = {claim.key: claim.verdict for claim in phase.check(history, "reduced")}
    assert set(verdicts.values()) == {"fail"}, verdicts


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"gammas": [1.0]}, "no settings gammas that could be replaced"),
        ({"draws": 1}, "draws must be an integer of at least 2"),
    ],
)
def test_bad_overrides_are_refused(overrides, message, tmp_path):
    with pytest.raises(InputError, match=message):
        reproduce("jacot2022/phase", out=tmp_path, **overrides)
