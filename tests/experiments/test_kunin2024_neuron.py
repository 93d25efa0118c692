"""Figures of the single linear neuron: every claim is tested at the smallest scale, and can fail."""

import json

import pytest

from learnmech.errors import InputError
from learnmech.experiments import reproduce
from learnmech.experiments.kunin2024 import bias, neuron


@pytest.mark.parametrize(("name", "keys"), [("neuron", "K1 K2 K3 K4 K5 K6"), ("bias", "B1 B2 B3 B4")])
def test_figures_run_from_declaration_to_files_and_keep_their_claims(name, keys, tmp_path):
    outcome = reproduce(f"kunin2024/{name}", out=tmp_path)
    assert [claim.key for claim in outcome.claims] == keys.split()
    assert {claim.verdict for claim in outcome.claims} == {"pass"}, str(outcome)
    assert outcome.files["png"].read_bytes()[:4] == b"\x89PNG"
    assert json.loads(outcome.files["claims"].read_text())["scale"] == "smoke"
    spoiled = outcome.history.copy(deep=True)
    for variable in ("beta", "kernel_distance", "measured_speed", "limit_speed", "slow_error", "random_error"):
        if variable in spoiled:
            spoiled[variable] = spoiled[variable] * 0 + 0.05
    for variable in ("closed", "wide_error"):
        if variable in spoiled:
            spoiled[variable] = spoiled[variable] + 0.05
    module = neuron if name == "neuron" else bias
    assert {claim.verdict for claim in module.check(spoiled, "smoke")} == {"fail"}


def test_settings_cannot_be_replaced(tmp_path):
    with pytest.raises(InputError, match="no settings points"):
        reproduce("kunin2024/neuron", out=tmp_path, points=3)
