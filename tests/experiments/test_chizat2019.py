"""Lazy training by output scale: a cell by hand, a run to files, claims that hold and that can fail, bad input."""

import json

import numpy as np
import pytest
import torch
import xarray as xr

import learnmech as lm
from learnmech.errors import InputError
from learnmech.experiments import reproduce
from learnmech.experiments.chizat2019 import lazy_cells
from learnmech.experiments.chizat2019.lazy_cells import REGIMES, LazySetup, build_net, train_scaled
from learnmech.experiments.chizat2019.lazy_claims import check

KEYS = [f"Z{number}" for number in range(1, 7)]
TINY = {"samples": 120, "width": 12, "depth": 4, "epochs": 4, "batch": 60}


def test_the_net_starts_at_zero_with_he_weights():
    setup = LazySetup(width=400, depth=3, output_scale=5.0, seed=2)
    net = build_net(300, 10, setup)
    assert net(torch.randn(4, 300)).abs().max().item() == 0
    # 120 000 weights: the standard deviation has a relative error of 0.2 %, so 1.5 % is seven of them.
    assert net.net.hidden_1.weight.std().item() == pytest.approx(np.sqrt(2 / 300), rel=0.015)
    assert net.net.readout.weight.std().item() == pytest.approx(1 / 20, rel=0.06)
    assert net.net.hidden_2.bias.abs().max().item() == 0
    assert [name for name, _ in net.net.named_children()] == ["hidden_1", "relu_1", "hidden_2", "relu_2", "readout"]


def test_a_cell_is_what_plain_sgd_gives(monkeypatch):
    """Full batches, so that no order matters: the loss by a loop with the twin model f - f0, in NumPy's hands at the end."""
    kept = []
    original = lazy_cells.build_net

    def build_and_keep(*arguments):
        kept.append(original(*arguments))
        return kept[-1]

    monkeypatch.setattr(lazy_cells, "build_net", build_and_keep)
    cell = train_scaled({**TINY, "batch": 120, "output_scale": 3.0})
    (net,) = kept
    data = lm.data.load("digits", train_samples=120).flatten()
    twin = original(64, 10, LazySetup(**TINY, output_scale=3.0))
    start = [parameter.detach().clone() for parameter in twin.net.parameters()]
    one_hot = torch.nn.functional.one_hot(data.train_targets, 10).float()
    velocity = [torch.zeros_like(parameter) for parameter in start]
    for _ in range(4):
        first = torch.func.functional_call(
            twin.net, dict(zip(dict(twin.net.named_parameters()), start, strict=True)), (data.train_inputs,)
        )
        loss = (3 * (twin.net(data.train_inputs) - first) - one_hot).square().mean() / 9
        gradients = torch.autograd.grad(loss, list(twin.net.parameters()))
        with torch.no_grad():
            for parameter, gradient, speed in zip(twin.net.parameters(), gradients, velocity, strict=True):
                speed.mul_(0.9).add_(gradient)
                parameter.sub_(0.6 * speed)
    for parameter, other in zip(net.net.parameters(), twin.net.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-3, atol=1e-5)
    moved = sum(
        float((part.detach() - first).square().sum()) for part, first in zip(net.net.parameters(), start, strict=True)
    )
    size = sum(float(first.square().sum()) for first in start)
    assert float(cell["parameter_distance"].isel(step=-1)) == pytest.approx(np.sqrt(moved / size), rel=1e-4)
    right = (net(data.test_inputs).argmax(1) == data.test_targets).float().mean().item()
    assert float(cell["test_accuracy"]) == pytest.approx(right, abs=1e-6)
    assert cell["layer"].values.tolist() == ["input", "net.hidden_1", "net.hidden_2", "net.hidden_3", "net.readout"]


def test_the_figure_runs_from_declaration_to_files(tmp_path):
    outcome = reproduce("chizat2019/lazy", out=tmp_path, **TINY)
    assert outcome.failed_cells == outcome.missing_cells == 0
    assert [claim.key for claim in outcome.claims] == KEYS
    assert {claim.verdict for claim in outcome.claims} == {"not tested at this scale"}
    assert set(outcome.files) == {"history", "claims", "png", "html"}
    assert outcome.files["png"].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert json.loads(outcome.files["claims"].read_text())["claims"] == [claim.to_dict() for claim in outcome.claims]
    distance = outcome.history["centred_kernel_distance"].isel(step=-1, seed=0)
    assert float(distance.sel(output_scale=100.0)) < 0.1 * float(distance.sel(output_scale=1.0))


def make_history(seeds=3, **changes):
    """Made-up scales for which every claim holds; ``changes`` replace variables."""
    factors = [1.0, 3.0, 10.0, 100.0]
    noise = 1 + 0.01 * np.arange(seeds)
    steps = np.linspace(0, 1, 2)

    def grow(*ends):
        return np.array(ends)[:, None, None] * noise[None, :, None] * steps

    load = np.zeros((4, seeds, 2, 5))
    load[0, :, 1] = [0.8, 0.4, 0.0, -0.5, -2.0]
    load[3, :, 1] = [0.8, 0.9, 1.0, 1.1, 0.0]
    test = np.array([0.94, 0.93, 0.92, 0.91])[:, None] + 0.001 * np.sin(np.outer(np.arange(4), np.arange(seeds)))
    codes = [REGIMES.index(name) for name in ("rich", "undecided", "lazy", "lazy")]
    cell = ("output_scale", "seed")
    variables = {
        "centred_kernel_distance": ((*cell, "step"), grow(0.3, 0.1, 0.02, 0.001)),
        "parameter_distance": ((*cell, "step"), grow(0.3, 0.15, 0.05, 0.005)),
        "load": ((*cell, "step", "layer"), load),
        "train_accuracy": (cell, np.full((4, seeds), 0.99)),
        "train_loss": (cell, np.full((4, seeds), 0.01)),
        "test_accuracy": (cell, test),
        "curvature": (cell, np.zeros((4, seeds))),
        "regime": (cell, np.tile(np.array(codes)[:, None], (1, seeds))),
    }
    replaced = {name: (variables[name][0], value) for name, value in changes.items()}
    coordinates = {
        "output_scale": factors,
        "seed": range(seeds),
        "step": [0, 100],
        "role": ("layer", ["input", "block", "block", "block", "readout"]),
    }
    return xr.Dataset({**variables, **replaced}, coordinates)


def verdicts(history, scale="reduced"):
    return {claim.key: claim.verdict for claim in check(history, scale)}


def test_claims_hold_where_they_should():
    assert verdicts(make_history()) == dict.fromkeys(KEYS, "pass")


FLAT = np.full((4, 3, 2, 5), 1.0)


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({"regime": np.full((4, 3), REGIMES.index("rich"))}, {"Z1"}),
        ({"regime": np.full((4, 3), REGIMES.index("too_early"))}, {"Z1"}),
        ({"train_accuracy": np.full((4, 3), 0.96)}, {"Z2"}),
        ({"train_accuracy": np.full((4, 3), np.nan)}, {"Z2"}),
        ({"centred_kernel_distance": np.full((4, 3, 2), 0.2)}, {"Z3"}),
        ({"parameter_distance": np.full((4, 3, 2), 0.2)}, {"Z4"}),
        ({"test_accuracy": np.full((4, 3), 0.9) + 0.001 * np.arange(12).reshape(4, 3)}, {"Z5"}),
        ({"load": FLAT}, {"Z6"}),
        ({"load": np.full((4, 3, 2, 5), np.nan)}, {"Z6"}),
    ],
)
def test_claims_fail_where_they_should(changes, failing):
    found = verdicts(make_history(**changes))
    assert {key for key, verdict in found.items() if verdict == "fail"} == failing


def test_what_a_run_does_not_show_is_not_tested():
    for history, scale in (
        (make_history(), "smoke"),
        (make_history(seeds=2), "reduced"),
        (make_history().isel(output_scale=[0, 1, 3]), "reduced"),
    ):
        assert set(verdicts(history, scale).values()) == {"not tested at this scale"}


def test_bad_settings_are_refused(tmp_path):
    with pytest.raises(InputError, match="no settings steps that could be replaced"):
        reproduce("chizat2019/lazy", out=tmp_path, steps=3)
    with pytest.raises(InputError, match="output_scale must be a list of values"):
        reproduce("chizat2019/lazy", out=tmp_path, output_scale=3.0)
    with pytest.raises(InputError, match="unknown settings kernel of a scaled net; known are batch"):
        train_scaled({"kernel": 3})
    table = tmp_path / "table.csv"
    table.write_text("a,b,y\n" + "".join(f"{n},{n * n},{n % 7}\n" for n in range(40)))
    with pytest.raises(InputError, match="expected a data set with classes"):
        train_scaled({**TINY, "data": f"csv:{table}", "samples": 20})
