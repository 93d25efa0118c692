"""Figures of papers: each runs from its declaration to its files; claims can fail; bad input is refused."""

import json
import pickle
import sys

import numpy as np
import pytest
import xarray as xr

from learnmech import history as histories
from learnmech.errors import DataError, InputError, LearnmechError
from learnmech.experiments import list_figures, reproduce
from learnmech.experiments.registry import FIGURES, find
from learnmech.experiments.reproduction import SCALES, judge, untested
from learnmech.fingerprint import canonical_json

TINY = {"epochs": 2, "samples": 120, "width": 8, "depth": 4}
CHAINS = ("shi2024/fig2", "shi2024/fig3", "shi2024/figS13", "shi2024/figS14")
LIKE_OTHERS = tuple(f"shi2024/{name}" for name in ("fig1b", "fig1d", "figS5", "figS7", "figS8", "figS11"))
"""Made by the same code as a neighbour that is run, with other values on the axes; running each takes seconds."""
TINY_OF = {
    "shi2024/figS5": {name: TINY[name] for name in ("epochs", "samples", "width")},
    "shi2024/fig5": {"steps": 3},
    "shi2024/figS2": {"samples": 60, "width": 3, "depth": 4, "stage_epochs": [1, 1]},
    "shi2024/figS6": {name: TINY[name] for name in ("epochs", "samples", "depth")},
}


def test_the_figures_that_were_promised_are_there():
    main = {"fig1a", "fig1b", "fig1c", "fig1d", "fig2", "fig3", "fig4", "fig5"}
    supplement = {f"figS{number}" for number in (2, *range(4, 15))}
    springs = {f"shi2024/{name}" for name in main | supplement}
    speeds = {f"chizat2023/{name}" for name in (*(f"F{number}" for number in range(1, 8)), "scalings")}
    leaky = {f"jacot2024/{name}" for name in ("fig1", "fig2", "fig3", "rank", "digits", "mnist")}
    rich = {f"kunin2024/{name}" for name in ("neuron", "bias", "phase")}
    saddles = {"jacot2022/phase"}
    scaled = {"chizat2019/lazy"}
    mechanics = {"kunin2020/charges"}
    kinds = ("framework", "linear", "diagonal", "modular", "attention", "relu", "greedy")
    flows = {f"kunin2025/{name}" for name in kinds}
    assert set(FIGURES) == springs | speeds | leaky | rich | saddles | mechanics | scaled | flows
    assert set(list_figures()) == set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_declared(name):
    figure = find(name)
    assert figure.name == name
    assert figure.title
    assert figure.caption
    assert set(figure.settings) == set(SCALES)
    for settings in figure.settings.values():
        json.loads(canonical_json(settings))


@pytest.mark.parametrize(
    "name", [name for name in FIGURES if name.startswith("shi2024/") and name not in (*CHAINS, *LIKE_OTHERS)]
)
@pytest.mark.filterwarnings("ignore::learnmech.errors.LearnmechWarning")  # nets this small and short may diverge
def test_networks_run_from_declaration_to_files(name, tmp_path):
    outcome = reproduce(name, out=tmp_path, **TINY_OF.get(name, TINY))
    assert outcome.failed_cells == outcome.missing_cells == 0
    assert len(outcome.claims) >= 1
    network = [claim for claim in outcome.claims if claim.key.startswith("N") and not claim.key.startswith("N9")]
    assert all(claim.verdict == "not tested at this scale" for claim in network)
    check_files(outcome)


@pytest.mark.parametrize("name", CHAINS)
def test_chains_keep_their_claims_at_the_smallest_scale(name, tmp_path):
    outcome = reproduce(name, out=tmp_path)
    assert {claim.verdict for claim in outcome.claims} == {"pass"}, str(outcome)
    check_files(outcome)


def check_files(outcome):
    assert set(outcome.files) == {"history", "claims", "png", "html"}
    assert outcome.files["png"].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    page = outcome.files["html"].read_text()
    assert "src=" not in page.split("</script>")[-1]
    assert "shi2024spring" in page
    stored = json.loads(outcome.files["claims"].read_text())
    assert stored["claims"] == [claim.to_dict() for claim in outcome.claims]
    assert set(histories.load(outcome.files["history"]).data_vars) == set(outcome.history.data_vars)
    for claim in outcome.claims:
        assert claim.key in str(outcome)


def test_a_second_call_trains_nothing_again(tmp_path):
    first = reproduce("shi2024/fig1c", out=tmp_path, **TINY)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "sweep" / "cells").glob("*/history.nc")}
    assert len(times) == 9
    second = reproduce("shi2024/fig1c", out=tmp_path, **TINY)
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "sweep" / "cells").glob("*/history.nc")}
    xr.testing.assert_identical(first.history["load"], second.history["load"])


def test_shares_are_put_together(tmp_path):
    first = reproduce("shi2024/fig5", out=tmp_path, shard=(0, 2), steps=3)
    assert first.missing_cells > 0
    assert first.claims == ()
    assert first.files == {}
    assert "still to come" in str(first)
    assert reproduce("shi2024/fig5", out=tmp_path, shard=(1, 2), steps=3).missing_cells == 0


def test_when_all_cells_fail_the_reason_is_given(tmp_path):
    with pytest.raises(LearnmechError, match=r"all 4 cells of shi2024/fig5 failed, the first with .*retry=True"):
        reproduce("shi2024/fig5", out=tmp_path, steps="many")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "shi2024/fig9"}, "unknown figure 'shi2024/fig9'; known are shi2024/fig1a"),
        ({"name": "shi2024/fig1a", "scale": "huge"}, "scale must be one of smoke, reduced, paper"),
        ({"name": "shi2024/fig3", "epochs": 3}, "no settings epochs that could be replaced"),
        ({"name": "shi2024/fig5", "lr": 3}, "it has steps"),
        ({"name": "shi2024/fig1c", "nonsense": 1}, "unknown settings nonsense of a network; known are"),
        ({"name": "shi2024/fig1c", "width": 0}, "width must be a positive integer"),
        ({"name": "shi2024/fig1a", "noise": 0.1}, "noise cannot be replaced: the figure varies it"),
    ],
)
def test_bad_input_is_refused(arguments, message, tmp_path):
    with pytest.raises(InputError, match=message):
        reproduce(**arguments, out=tmp_path)


def test_verdicts():
    assert judge("K", "t", "e", "m", True).verdict == "pass"
    assert judge("K", "t", "e", "m", False).verdict == "fail"
    assert judge("K", "t", "e", "m", False, tested=False).verdict == "not tested at this scale"
    assert untested("K", "t", "why").verdict == "not tested at this scale"
    assert str(judge("K", "t", "e", "m", False)).startswith("FAIL")


def test_nets_of_different_depth_are_padded(tmp_path):
    outcome = reproduce("shi2024/figS5", out=tmp_path, **TINY_OF["shi2024/figS5"])
    curves = outcome.history["load"]
    assert outcome.history["weight_layers"].values.tolist() == [4, 8]
    assert np.isfinite(curves.sel(weight_layers=8)).all()
    assert np.isnan(curves.sel(weight_layers=4)).any()
    assert np.isfinite(curves.sel(weight_layers=4, layer="1")).all()


@pytest.mark.filterwarnings("ignore::learnmech.errors.LearnmechWarning")
def test_cifar_runs_when_its_files_are_given(tmp_path):
    """Five training batches and a test batch in torchvision's layout, of random pixels."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        images = generator.integers(0, 256, (20, 3072), dtype=np.uint8)
        content = {b"data": images, b"labels": [position % 10 for position in range(20)]}
        (folder / name).write_bytes(pickle.dumps(content))
    outcome = reproduce(
        "shi2024/figS9", scale="reduced", out=tmp_path / "out", data_dir=str(tmp_path), **{**TINY, "samples": 60}
    )
    assert outcome.failed_cells == 0
    assert {claim.verdict for claim in outcome.claims} <= {"pass", "fail"}
    assert outcome.history["load"].sizes["slope"] == 3
    check_files(outcome)


def test_missing_data_is_said_before_anything_is_trained(tmp_path):
    with pytest.raises(DataError, match="cifar-10-batches-py"):
        reproduce("shi2024/figS8", scale="reduced", out=tmp_path / "out", data_dir=str(tmp_path))


def test_without_matplotlib_nothing_is_trained(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(LearnmechError, match=r"needs matplotlib; install it with pip install 'learnmech\[paper\]'"):
        reproduce("shi2024/fig1a", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
