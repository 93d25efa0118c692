"""Regimes of constructed load curves, their thresholds, and advice in the terms of the run."""

import numpy as np
import pytest

from learnmech import history
from learnmech.springs.advice import findings_of, knobs_for
from learnmech.springs.regime import LEAST_GAIN, STRAIGHT_CURVATURE, Shape, classify

U = np.linspace(0, 1, 9)


def parabola(q, gain=3.0):
    """A curve that falls from 1 by ``gain`` with normalised parabola coefficient q."""
    return 1 - gain + gain * ((1 - U) + q * (U**2 - U))


S_CURVE = 1 - 3 * (1 / (1 + np.exp(-20 * (U - 0.5))))

CURVES = [
    ("balanced", parabola(0.0)),
    ("balanced", parabola(STRAIGHT_CURVATURE - 0.01)),
    ("balanced", parabola(-STRAIGHT_CURVATURE + 0.01)),
    ("active/convex", parabola(STRAIGHT_CURVATURE + 0.01)),
    ("lazy/concave", parabola(-STRAIGHT_CURVATURE - 0.01)),
    ("active/convex", parabola(0.9)),
    ("lazy/concave", parabola(-0.9)),
    ("uneven", S_CURVE),
    ("under-trained", parabola(0.0, gain=LEAST_GAIN - 0.01)),
    ("under-trained", parabola(0.0, gain=-2)),
    ("balanced", parabola(0.0, gain=LEAST_GAIN + 0.01)),
    ("collapsed", np.where(U == 0.5, np.nan, parabola(0.0))),
    ("collapsed", np.where(U == 1, -np.inf, parabola(0.0))),
    ("not measurable", np.full(9, np.nan)),
    ("not measurable", np.array([1.0, 0.0])),
]


@pytest.mark.parametrize(("regime", "load"), CURVES)
def test_every_regime_is_reached(regime, load):
    assert classify(Shape(load)).regime == regime


def test_noise_and_chance_make_a_curve_under_trained():
    load = parabola(0.0, gain=1.0)
    assert classify(Shape(load, gain_error=0.4)).regime == "balanced"
    assert classify(Shape(load, gain_error=0.6)).regime == "under-trained"
    at_chance = Shape(load, accuracy=0.12, classes=10, samples=1000)
    assert classify(at_chance).regime == "under-trained"
    assert "chance (0.10)" in classify(at_chance).reason
    assert classify(Shape(load, accuracy=0.2, classes=10, samples=1000)).regime == "balanced"


def test_regression_needs_a_drop_relative_to_its_start():
    start = 1e-3
    small = np.linspace(start, start * 0.97, 9)
    large = np.linspace(start, start * 0.5, 9)
    assert classify(Shape(small, logarithmic=False)).regime == "under-trained"
    assert classify(Shape(large, logarithmic=False)).regime == "balanced"


@pytest.mark.parametrize(("error", "sure"), [(0.01, True), (0.2, False), (np.nan, False)])
def test_sure_means_clear_of_the_threshold_by_two_standard_errors(error, sure):
    assert classify(Shape(parabola(-0.6), curvature_error=error)).sure is sure


CONFIG = {
    "optimizer": {"class": "SGD", "lr": 0.03},
    "model": {"dropout": [0.0, 0.25], "leaky_slopes": [0.1], "activations": ["LeakyReLU"]},
    "batch_size": 64,
    "label_noise": 0.2,
}


def test_advice_names_the_settings_of_the_run():
    lazy = " | ".join(knobs_for("lazy/concave", CONFIG))
    assert "raise the learning rate (now 0.03)" in lazy
    assert "smaller batch (now 64)" in lazy
    assert "more dropout (now 0.25)" in lazy
    assert "leakier activation (slope now 0.1)" in lazy
    active = knobs_for("active/convex", CONFIG)
    assert active[0] == "less label or data noise (now 0.2)"
    assert active[1] == "less dropout (now 0.25)"
    assert "lower the learning rate (now 0.03), three to ten times" in active
    assert "use a larger batch (now 64)" in active
    assert "a stronger nonlinearity: a smaller leaky slope (now 0.1)" in active
    assert knobs_for("balanced", CONFIG) == ()


def test_advice_without_settings_speaks_in_general():
    assert "add a little dropout (0.05 to 0.15) or data augmentation" in knobs_for("lazy/concave", {})
    assert "a leakier activation: LeakyReLU(0.2 to 0.4)" in knobs_for("lazy/concave", {})
    assert not any("now" in knob for regime, _ in CURVES for knob in knobs_for(regime, {}))


def run_of(loads, steps=(0,), *, errors=0.01, accuracy=0.9, held_out=None):
    """A history that holds what the instrument measures."""
    loads = np.atleast_2d(loads)
    meaning = {"long_name": "x", "scale": "x", "source": "test"}
    contribution = np.concatenate([np.full((len(loads), 1), np.nan), -np.diff(loads, axis=1)], axis=1)
    variables = {}
    for suffix, values in (("", loads), ("_held_out", held_out)):
        if values is None:
            continue
        values = np.broadcast_to(values, loads.shape)
        variables["load" + suffix] = (("step", "layer"), values, meaning)
        for name, number in (("gain_error", errors), ("curvature_error", errors), ("accuracy", accuracy)):
            variables[name + suffix] = (("step",), np.full(len(loads), number), meaning)
    variables["contribution"] = (("step", "layer"), contribution, meaning)
    variables["contribution_error"] = (("step", "layer"), np.full(loads.shape, errors), meaning)
    names = [f"layer{position}" for position in range(loads.shape[1])]
    roles = ["input", *["block"] * (len(names) - 1)]
    coordinates = {
        "step": list(steps),
        "layer": names,
        "depth": ("layer", np.linspace(0, 1, len(names))),
        "role": ("layer", roles),
    }
    return history.build(variables, coordinates, config={"probe_samples": 300})


def found(*arguments, **options):
    return {finding.code: finding for finding in findings_of(run_of(*arguments, **options), {"probe_samples": 300}, 3)}


@pytest.mark.parametrize(("regime", "load"), [pair for pair in CURVES if len(pair[1]) > 2])
def test_every_regime_becomes_a_finding(regime, load):
    first = findings_of(run_of(load), {"probe_samples": 300}, 3)[0]
    assert first.title == regime
    assert first.code.startswith("springs.regime.")
    assert first.message
    assert first.evidence


def test_layers_that_undo_separation():
    load = parabola(0.0).copy()
    load[4] = load[3] + 0.3
    assert found(load)["springs.undoing"].layers == ("layer4",)
    assert "springs.undoing" not in found(load, errors=0.2)
    assert "springs.undoing" not in found(parabola(0.0))


def test_runs_that_have_not_settled():
    steps = (0, 25, 50, 75, 100)
    moving = [parabola(0.0, gain) for gain in (0.5, 1.0, 1.5, 2.0, 3.0)]
    settled = [parabola(0.0, gain) for gain in (0.5, 2.0, 2.8, 2.95, 3.0)]
    assert "springs.unsettled" in found(moving, steps)
    assert "springs.unsettled" not in found(settled, steps)
    assert "springs.unsettled" not in found(moving[:3], steps[:3])


def test_held_out_curves_of_another_regime():
    assert "active/convex" in found(parabola(0.0), held_out=parabola(0.8))["springs.held_out"].title
    assert "springs.held_out" not in found(parabola(0.0), held_out=parabola(0.1))
