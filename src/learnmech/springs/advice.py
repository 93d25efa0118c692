"""From a regime to words: what it means, how sure it is, which knob moves it, in the terms of the run at hand."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from learnmech.monitor.instrument import Confidence, Finding, Severity
from learnmech.springs.regime import Reading, Regime, Shape, classify

_MEANING: dict[Regime, tuple[str, Severity, str]] = {
    "lazy/concave": (
        "lazy",
        "warning",
        "The load curve is concave: the deep layers {do} and the early ones contribute little. In the spring-block theory this "
        "is strong nonlinearity with little noise; balanced curves usually generalise better.",
    ),
    "balanced": (
        "balanced",
        "good",
        "The load curve is straight: every layer contributes about the same, which is where networks of this kind "
        "generalise best in the spring-block experiments. Nothing needs turning.",
    ),
    "active/convex": (
        "active",
        "warning",
        "The load curve is convex: the early layers {do} and the deep ones add little. In the spring-block theory this is much "
        "noise (dropout, label noise, large steps, small batches) or little nonlinearity.",
    ),
    "uneven": (
        "uneven",
        "warning",
        "The load curve does not bend one way but is not straight either: single layers do most of the work, or some undo "
        "it. See the table for which.",
    ),
    "under-trained": (
        "under_trained",
        "warning",
        "The layers do not {do} yet, so the shape of the load curve says nothing about the regime.",
    ),
    "collapsed": (
        "collapsed",
        "problem",
        "The features of some layers no longer vary over the data, vary only between classes, or do not tell classes apart "
        "at all; the load is not finite there.",
    ),
    "not measurable": (
        "not_measurable",
        "unknown",
        "The load curve has no shape that could be read.",
    ),
}
_WORK = {True: "separate the classes", False: "bring the targets within reach of a linear read-out"}
_UNTRIED = " These experiments were on fully connected and convolutional classifiers; for this network it is a guess."


def findings_of(history: xr.Dataset, config: Mapping[str, Any], classes: int) -> list[Finding]:
    """Read the load curve at the last step.

    Args:
        history: a history with the variables of the spring instrument.
        config: what the run was set to.
        classes: number of classes in the probe.

    Returns:
        The regime, and where they apply: layers that undo separation, a held-out curve of another regime, a run that has
        not settled.
    """
    shape = shape_at(history, -1, config, classes)
    reading = classify(shape)
    code, severity, meaning = _MEANING[reading.regime]
    meaning = meaning.format(do=_WORK[classes > 0])
    confidence = _confidence(reading, history)
    if reading.regime in ("lazy/concave", "balanced", "active/convex", "uneven") and not _tried(history, classes):
        meaning += _UNTRIED
        severity = "note" if severity == "warning" else severity
        confidence = "weak"
    findings = [
        Finding(
            f"springs.regime.{code}",
            reading.regime,
            meaning,
            severity,
            reading.reason,
            confidence,
            knobs_for(reading.regime, config),
        )
    ]
    if reading.regime not in ("not measurable", "collapsed"):
        findings += [*_undoing_layers(history), *_unsettled(history, shape, config, classes)]
    if "load_held_out" in history:
        findings += _held_out(history, reading, config, classes)
    return findings


def shape_at(history: xr.Dataset, position: int, config: Mapping[str, Any], classes: int, suffix: str = "") -> Shape:
    """Take the load curve out of a history, without the read-out.

    Args:
        history: the history.
        position: index along ``step``.
        config: what the run was set to.
        classes: number of classes in the probe; 0 for real-valued targets.
        suffix: ``_held_out`` for the curve on held-out data.

    Returns:
        The curve with what is known of its noise.
    """
    at = history.isel(step=position)
    curve = at["load" + suffix].values[at["role"].values != "readout"]
    return Shape(
        curve,
        float(at["gain_error" + suffix]),
        float(at["curvature_error" + suffix]),
        float(at["accuracy" + suffix]),
        classes,
        int(config.get("probe_samples", 0)),
        logarithmic=classes > 0,
    )


def knobs_for(regime: Regime, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Say which knobs move a regime towards balance, in the terms of this run.

    Directions follow the phase diagrams of Shi, Pan, Dokmanić 2024 (Fig. 1): more noise (label noise, dropout, larger steps,
    smaller batches) and less nonlinearity move a curve from concave to convex.

    Args:
        regime: where the run is.
        config: what it was set to.

    Returns:
        Sentences, most effective first; empty for a balanced run.
    """
    optimizer, model = config.get("optimizer", {}), config.get("model", {})
    rate = f"learning rate (now {optimizer['lr']:g})" if isinstance(optimizer.get("lr"), float) else "learning rate"
    rates = [value for value in model.get("dropout", []) if value > 0]
    slopes = model.get("leaky_slopes", [])
    batch = f"batch (now {config['batch_size']})" if config.get("batch_size") else "batch"
    noise = max(float(config.get("label_noise", 0) or 0), float(config.get("data_noise", 0) or 0))
    if regime == "lazy/concave":
        return (
            f"raise the {rate}, three to ten times",
            f"use a smaller {batch}",
            f"more dropout (now {rates[0]:g})" if rates else "add a little dropout (0.05 to 0.15) or data augmentation",
            f"a leakier activation (slope now {slopes[0]:g})"
            if slopes
            else "a leakier activation: LeakyReLU(0.2 to 0.4)",
        )
    if regime == "active/convex":
        knobs = [
            f"lower the {rate}, three to ten times",
            f"use a larger {batch}",
        ]
        if rates:
            knobs.insert(0, f"less dropout (now {max(rates):g})")
        if noise > 0:
            knobs.insert(0, f"less label or data noise (now {noise:g})")
        if slopes and max(slopes) > 0:
            knobs.append(f"a stronger nonlinearity: a smaller leaky slope (now {max(slopes):g})")
        elif not model.get("activations"):
            knobs.append("a stronger nonlinearity: the model has no activation module")
        return tuple(knobs)
    if regime == "under-trained":
        return ("train longer", f"raise the {rate}")
    if regime == "collapsed":
        return (f"lower the {rate}", "look at the layers marked dead in the table", "normalise between layers")
    if regime == "uneven":
        return ("look at the layers with the largest and smallest contribution in the table",)
    return ()


def _confidence(reading: Reading, history: xr.Dataset) -> Confidence:
    if reading.sure:
        return "sure"
    known = np.isfinite(float(history["curvature_error"].isel(step=-1)))
    return "likely" if known else "weak"


def _tried(history: xr.Dataset, classes: int) -> bool:
    """Whether the network is of a kind that the theory was compared with: a classifier of weight layers in a chain."""
    if "kinds" not in history.coords:
        return classes > 0
    blocks = [
        str(kinds)
        for kinds, role in zip(history["kinds"].values, history["role"].values, strict=True)
        if role == "block"
    ]
    return classes > 0 and all(kinds.startswith(("Linear", "Conv")) for kinds in blocks)


def _undoing_layers(history: xr.Dataset) -> list[Finding]:
    at = history.isel(step=-1)
    blocks = at["role"].values == "block"
    contribution, error = at["contribution"].values, at["contribution_error"].values
    undone = blocks & (contribution < -2 * np.where(np.isfinite(error), error, np.inf)) & (contribution < -0.05)
    names = tuple(str(name) for name in history["layer"].values[undone])
    if not names:
        return []
    amounts = ", ".join(
        f"{name} {value:+.2f} ± {spread:.2f}"
        for name, value, spread in zip(names, contribution[undone], error[undone], strict=True)
    )
    return [
        Finding(
            "springs.undoing",
            "layers that undo work",
            "After these layers the load is higher than before them: they undo some of what earlier layers did.",
            "note",
            amounts,
            "sure",
            (
                "fewer layers may do",
                "add skip connections",
                "with small batches: larger ones, as eval-mode BatchNorm lags",
            ),
            names,
        )
    ]


def _unsettled(history: xr.Dataset, shape: Shape, config: Mapping[str, Any], classes: int) -> list[Finding]:
    steps = history["step"].values
    if len(steps) < 4:
        return []
    position = int(np.searchsorted(steps, 0.75 * steps[-1]))
    if position >= len(steps) - 1:
        return []
    earlier = shape_at(history, position, config, classes)
    change = shape.gain - earlier.gain
    noise = 2 * shape.gain_error if np.isfinite(shape.gain_error) else 0.0
    if not np.isfinite(change) or abs(change) <= max(0.1 * abs(shape.gain), noise):
        return []
    return [
        Finding(
            "springs.unsettled",
            "still moving",
            "The total drop of the load still changes by more than a tenth in the last quarter of the run: the regime may change "
            "with further training.",
            "note",
            f"drop of the load {earlier.gain:.2f} at step {steps[position]}, {shape.gain:.2f} at step {steps[-1]}",
            "sure",
        )
    ]


def _held_out(history: xr.Dataset, reading: Reading, config: Mapping[str, Any], classes: int) -> list[Finding]:
    shape = shape_at(history, -1, config, classes, "_held_out")
    held_out = classify(shape)
    if held_out.regime == reading.regime or held_out.regime == "not measurable":
        return []
    return [
        Finding(
            "springs.held_out",
            f"on held-out data the curve is {held_out.regime}",
            "Held-out curves follow the training ones but lie towards convex for nonlinear networks; where they differ, "
            "part of the work of the deep layers is memorised.",
            "note",
            held_out.reason,
            "sure" if held_out.sure else "likely",
        )
    ]
