"""What the leaky instrument reads in a history, and what it draws: each finding needs its reason."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import learnmech as lm
from learnmech.leaky import advice
from learnmech.leaky.advice import findings_of
from learnmech.leaky.figures import draw_all
from learnmech.leaky.network import LeakyResNet
from learnmech.monitor import watch

LAYERS = 8  # input, embedding, five blocks, read-out
BLOCKS = slice(1, 7)


@pytest.fixture(scope="module")
def template():
    torch.manual_seed(0)
    net = lm.nets.ResidualMLP(6, 4, width=10, depth=5)
    x, y = torch.randn(50, 6), torch.arange(50) % 4
    monitor = watch(net, (x, y), F.cross_entropy, measures=["leaky"])
    first = monitor.history
    assert first.sizes["layer"] == LAYERS
    monitor.step()
    monitor.close()
    return monitor.history


@pytest.fixture
def doctored(template):
    """Make a history in which nothing stands out, with some variables changed in its last step."""

    def make(model="LeakyResNet", columns=500, **changes):
        run = template.copy(deep=True)
        steps = np.full(LAYERS, np.nan)
        steps[2:7] = 0.2
        even = {
            "identity_cost": 5.0, "stable_rank": 4.0, "bottleneck_dimension": 5.0, "negativity": 0.01, "relative_step": steps,
        }  # fmt: skip
        for name, value in {**even, **changes}.items():
            run[name].values[...] = np.broadcast_to(np.asarray(value, dtype=float), run[name].shape)
        config = json.loads(run.attrs["config"])
        config["model"]["class"] = model
        run.attrs["config"] = json.dumps(config)
        run.attrs["leaky_columns"] = json.dumps({str(name): columns for name in run["layer"].values})
        return run

    return make


def at(positions, value, other):
    values = np.full(LAYERS, other)
    values[positions] = value
    return values


def blocks(*values):
    return np.array([np.nan, np.nan, *values, np.nan])


NORMAL = {"leaky.no_bottleneck", "leaky.even_steps"}


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({}, NORMAL),
        ({"model": "MLP"}, NORMAL | {"leaky.scope"}),
        ({"identity_cost": at(4, 2.4, 5.0)}, {"leaky.bottleneck", "leaky.even_steps"}),
        ({"identity_cost": at(4, 2.6, 5.0)}, NORMAL),
        ({"identity_cost": at([0, 7], 500.0, 5.0)}, NORMAL),  # input and read-out do not count
        ({"identity_cost": at([0, 7], 0.1, 5.0)}, NORMAL),
        ({"negativity": 0.11}, NORMAL | {"leaky.mixed_signs"}),
        ({"negativity": at(4, 0.5, 0.0), "identity_cost": at(5, 4.0, 5.0)}, NORMAL),  # not where the cost is least
        ({"columns": 9}, {"leaky.few_samples", "leaky.even_steps"}),
        ({"columns": 11}, NORMAL),
        ({"identity_cost": np.nan}, {"leaky.not_measurable", "leaky.even_steps"}),
        ({"identity_cost": at([1, 2, 3, 4], np.nan, 5.0)}, {"leaky.even_steps"}),  # two blocks are no profile
        ({"relative_step": np.nan}, {"leaky.no_bottleneck", "leaky.no_residual_blocks"}),
        ({"relative_step": blocks(0.2, 0.39, 0.3, 0.2, 0.2)}, NORMAL),
        ({"relative_step": blocks(0.2, 0.41, 0.3, 0.2, 0.2)}, {"leaky.no_bottleneck", "leaky.uneven_steps"}),
        ({"relative_step": blocks(0.2, 0.019, 0.2, 0.2, 0.2)}, NORMAL | {"leaky.idle_block"}),
        (
            {"relative_step": blocks(0.2, 0.3, np.nan, np.nan, np.nan)},
            {"leaky.no_bottleneck"},
        ),  # two steps are no spread
        ({"relative_step": blocks(0.0, 0.0, 0.0, 0.0, 0.0)}, {"leaky.no_bottleneck", "leaky.idle_block"}),
    ],
)
def test_each_finding_needs_its_reason(doctored, changes, codes):
    assert {finding.code for finding in findings_of(doctored(**changes))} == codes


def finding(run, code):
    return next(item for item in findings_of(run) if item.code == code)


@pytest.mark.parametrize(("kept", "words"), [(2, "fewer than"), (3, "as many as"), (4, "more than")])
def test_the_bottleneck_is_named_and_compared_with_the_classes(doctored, kept, words):
    run = doctored(identity_cost=at(4, 2.0, 5.0), bottleneck_dimension=at(4, kept, 5.0))
    found = finding(run, "leaky.bottleneck")
    assert found.layers == ("blocks.2",)
    assert f"{kept} dimensions are kept there" in found.message
    assert f"{words} the 3 in which 4 classes" in found.message
    assert "inside the network" in found.message
    assert "identity cost 2 at blocks.2, 5 at" in found.evidence
    run.attrs["classes"] = 0
    assert "classes" not in finding(run, "leaky.bottleneck").message


@pytest.mark.parametrize(("position", "words"), [(1, "the first block"), (6, "the last block")])
def test_a_bottleneck_at_an_end_is_called_so(doctored, position, words):
    run = doctored(identity_cost=at(position, 2.0, 5.0), bottleneck_dimension=1)
    assert words in finding(run, "leaky.bottleneck").message
    assert "1 dimension is kept" in finding(run, "leaky.bottleneck").message


def test_idle_blocks_are_left_out_of_the_spread_and_named(doctored):
    run = doctored(relative_step=blocks(0.001, 0.2, 0.2, 0.3, 0.01))
    assert finding(run, "leaky.even_steps").severity == "good"
    assert finding(run, "leaky.idle_block").layers == ("blocks.0", "blocks.4")


def test_knobs_fit_the_network(doctored):
    steps = blocks(0.1, 0.2, 0.3, 0.4, 0.5)
    assert 'steps="adaptive"' in finding(doctored(relative_step=steps), "leaky.uneven_steps").knobs[0]
    other = finding(doctored(model="ResNet", relative_step=steps), "leaky.uneven_steps")
    assert "StepSizePolicy" in other.knobs[0]
    assert other.layers == ("blocks.0", "blocks.4")


def test_a_bottleneck_outside_of_leaky_resnets_is_less_sure(doctored):
    cost = at(4, 2.0, 5.0)
    assert finding(doctored(identity_cost=cost), "leaky.bottleneck").confidence == "likely"
    assert finding(doctored(identity_cost=cost, model="MLP"), "leaky.bottleneck").confidence == "weak"


def test_what_does_not_carry_over_is_said_with_the_reasons():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    monitor = watch(net, (torch.randn(40, 6), torch.arange(40) % 3), F.cross_entropy, measures=["leaky"])
    scope = next(item for item in monitor.verdict().findings if item.code == "leaky.scope")
    assert scope.evidence == "model Sequential: normalisation (BatchNorm1d), GELU"
    leaky = LeakyResNet(6, 3, 8, 2.0, 5)
    monitor = watch(leaky, (torch.randn(40, 6), torch.arange(40) % 3), F.cross_entropy, measures=["leaky"])
    assert "leaky.scope" not in {item.code for item in monitor.verdict().findings}


def test_every_code_has_a_severity_that_fits(doctored):
    severities = {
        item.code: item.severity
        for changes in (
            {}, {"model": "MLP"}, {"columns": 9}, {"identity_cost": np.nan}, {"relative_step": np.nan}, {"negativity": 0.5},
            {"identity_cost": at(4, 1.0, 5.0), "relative_step": blocks(0.01, 0.1, 0.2, 0.3, 0.4)},
        )
        for item in findings_of(doctored(**changes))
    }  # fmt: skip
    assert severities == {
        "leaky.bottleneck": "note",
        "leaky.no_bottleneck": "note",
        "leaky.mixed_signs": "note",
        "leaky.few_samples": "unknown",
        "leaky.not_measurable": "unknown",
        "leaky.even_steps": "good",
        "leaky.uneven_steps": "note",
        "leaky.idle_block": "note",
        "leaky.no_residual_blocks": "note",
        "leaky.scope": "note",
    }


def test_thresholds_are_in_order():
    assert 0 < advice.BOTTLENECK < 1
    assert 0 < advice.IDLE < advice.MIXED < 0.5
    assert advice.EVEN > 1


# ---------------------------------------------------------------------- figures


def traces(figure):
    return {trace.name: trace for trace in figure.plot.data}


def test_the_cost_is_drawn_over_depth_with_its_beginning_and_the_classes(doctored):
    cost = at(4, 2.0, 5.0)
    run = doctored(identity_cost=np.stack([np.full(LAYERS, 9.0), cost]), stable_rank=at(1, np.nan, 4.0))
    figure = draw_all(run)[0]
    lines = traces(figure)
    assert list(lines) == [
        "identity cost at step 0", "identity cost", "kept dimensions", "stable rank", "number of classes",
    ]  # fmt: skip
    assert list(lines["identity cost"].y) == cost.tolist()
    assert set(lines["identity cost at step 0"].y) == {9.0}
    assert lines["stable rank"].y[1] is None
    assert list(lines["identity cost"].x) == [str(name) for name in run["layer"].values]
    assert set(lines["number of classes"].y) == {4}
    assert figure.plot.layout.yaxis.type == "log"
    alone = traces(draw_all(run.isel(step=[1]))[0])
    assert "identity cost at step 0" not in alone
    run.attrs["classes"] = 0
    assert "number of classes" not in traces(draw_all(run)[0])


def test_steps_are_drawn_as_bars_of_residual_blocks_only(doctored):
    last = blocks(0.1, 0.2, 0.3, 0.4, 0.5)
    run = doctored(relative_step=np.stack([blocks(0.3, 0.3, 0.3, 0.3, 0.3), last]))
    bars = traces(draw_all(run)[1])
    assert list(bars["step 1"].x) == [f"blocks.{k}" for k in range(5)]
    assert list(bars["step 1"].y) == last[2:7].tolist()
    assert set(bars["step 0"].y) == {0.3}
    assert set(bars["median"].y) == {0.3}


def test_nothing_measured_is_not_drawn(doctored):
    assert [figure.name for figure in draw_all(doctored(relative_step=np.nan))] == ["identity_cost"]
    assert draw_all(doctored(relative_step=np.nan, identity_cost=np.nan)) == []


def test_names_of_layers_are_escaped_in_figures(doctored):
    run = doctored()
    run = run.assign_coords(layer=["<b>x</b>", *[str(name) for name in run["layer"].values[1:]]])
    for figure in draw_all(run):
        assert "<b>x</b>" not in figure.plot.to_json()
