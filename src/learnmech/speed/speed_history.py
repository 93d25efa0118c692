"""The history of one measurement of feature speed: names, meanings and labels."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import xarray as xr

from learnmech import history as histories
from learnmech.monitor.layers import LayerChoice
from learnmech.monitor.paths import Paths
from learnmech.speed.readings import ParameterNumbers

_PAPER = "Chizat, Netrapalli 2023, arXiv 2311.18718"
_DERIVED = "learnmech"
FORMULA_TOLERANCE = 0.02
"""Relative error of the feature speed formula above which the notes say so: more than bfloat16 and finite differences have."""

LAYER_VARIABLES: dict[str, tuple[str, str, str]] = {
    "speed": (
        "size of the first-order feature update, |df|",
        "units of the features",
        f"{_PAPER}, feature speed formula",
    ),
    "speed_rms": ("root mean square of the first-order feature update", "units of the features", _PAPER),
    "real_speed_rms": ("root mean square of the real feature update of the step", "units of the features", _DERIVED),
    "relative_speed": (
        "first-order feature update relative to the features, |df| / |f|",
        "1e-2 is one per cent a step",
        _DERIVED,
    ),
    "linearity": (
        "distance of the real feature update from the first-order one, |Df - df| / |df|",
        "0 is linear; above 0.5 the first-order numbers do not describe the step",
        _DERIVED,
    ),
    "activation_rms": ("root mean square of the features", "1 is well scaled", _DERIVED),
    "backward_norm": ("size of the backward signal, |dL/df|", "loss per unit of feature", _PAPER),
    "cosine": (
        "cosine of the angle between minus the backward signal and the feature update",
        "1: features move as the loss asks; 0: the motion does not change the loss",
        f"{_PAPER}, backward-feature angle",
    ),
    "loss_decay": (
        "first-order loss decay brought by all parameters before the features; by what passes them, in a branch",
        "units of the loss, per step",
        f"{_PAPER}, feature speed formula",
    ),
    "share": (
        "share of the whole first-order loss decay that the layer's own parameters bring",
        "sums to 1; equal shares are balanced",
        f"{_PAPER}, balanced contributions",
    ),
    "sensitivity": (
        "feature speed (root mean square) per unit of loss decay",
        "does not depend on a global learning rate",
        f"{_PAPER}, authors' code",
    ),
    "identity_error": (
        "relative error of the feature speed formula, as measured",
        "1e-7 in float32; NaN where it does not apply",
        f"{_PAPER}, feature speed formula",
    ),
}
PARAMETER_VARIABLES: dict[str, tuple[str, str]] = {
    "parameter_decay": ("first-order loss decay that the parameter brings, -<g, dw>", "units of the loss"),
    "parameter_share": ("share of the first-order loss decay that the parameter brings", "sums to 1"),
    "parameter_norm": ("Euclidean norm of the parameter", "units of the parameter"),
    "gradient_norm": ("Euclidean norm of the gradient", "loss per unit of parameter"),
    "update_norm": ("Euclidean norm of the displacement", "units of the parameter"),
    "relative_update": (
        "size of the displacement relative to the parameter",
        "about 1e-3 a step is common; infinite where the parameter is zero",
    ),
    "effective_learning_rate": (
        "learning rate with which gradient descent brings the same decay, -<g, dw> / |g|^2",
        "as a learning rate of gradient descent",
    ),
}
SCALARS: dict[str, tuple[str, str, str]] = {
    "loss": ("loss on the batch", "as the loss function gives it", "the batch"),
    "accuracy": ("share of correct samples", "0 to 1", "the batch"),
    "total_decay": ("first-order loss decay of the whole step", "units of the loss", _PAPER),
    "real_decay": ("loss before minus loss after the real step", "units of the loss", _DERIVED),
}


def build_history(
    layers: LayerChoice,
    values: Mapping[str, np.ndarray],
    parameters: Mapping[str, ParameterNumbers],
    paths: Mapping[str, Paths] | None,
    *,
    scalars: Mapping[str, float],
    config: Any,
    method: str,
    unused: Collection[str],
    data_fingerprint: str,
) -> xr.Dataset:
    """Build the history of one measurement.

    Args:
        layers: the layers.
        values: variables over layers.
        parameters: numbers by parameter.
        paths: where each layer lies; None if unknown.
        scalars: numbers of the whole step.
        config: what was measured.
        method: how the feature update was found.
        unused: parameters that the loss does not depend on.
        data_fingerprint: of the batch.

    Returns:
        A valid history.
    """
    variables: dict[str, tuple[tuple[str, ...], Any, dict[str, str]]] = {
        name: (("layer",), values[name], _meaning(*LAYER_VARIABLES[name])) for name in LAYER_VARIABLES
    }
    for name, flags, text in (
        (
            "is_cut",
            is_cut(layers, paths),
            "whether every path from the parameters before to the loss passes this layer",
        ),
        ("is_finite", is_finite(values), "whether features, their update and the backward signal are finite"),
    ):
        variables[name] = (("layer",), flags, _meaning(text, "true or false", _DERIVED))
    for name, (text, scale) in PARAMETER_VARIABLES.items():
        variables[name] = (
            ("parameter",),
            _column(name, parameters, scalars["total_decay"]),
            _meaning(text, scale, _DERIVED),
        )
    for name, meaning in SCALARS.items():
        variables[name] = ((), scalars[name], _meaning(*meaning))
    coordinates = {
        "layer": ("layer", layers.names),
        "depth": ("layer", layers.depths),
        "role": ("layer", [layer.role for layer in layers.layers]),
        "kinds": ("layer", [layer.kinds for layer in layers.layers]),
        "place": ("layer", places(layers, paths)),
        "sharing": ("layer", sharing(layers, paths)),
        "parameter": ("parameter", list(parameters)),
    }
    attributes = {
        "citations": ["chizat2023"],
        "method": method,
        "notes": _notes(layers, values, paths, unused),
        "skipped": [f"{item.name} ({item.kind}): {item.reason}" for item in layers.skipped],
        "data_fingerprint": data_fingerprint,
    }
    return histories.build(variables, coordinates, config=config, attributes=attributes)


def _column(name: str, parameters: Mapping[str, ParameterNumbers], total: float) -> np.ndarray:
    if name == "parameter_share":
        return np.array([item.decay for item in parameters.values()]) / (total if total != 0 else np.nan)
    attribute = name.removeprefix("parameter_")
    return np.array([getattr(item, attribute) for item in parameters.values()], dtype=float)


def _meaning(text: str, scale: str, source: str) -> dict[str, str]:
    return {"long_name": text, "scale": scale, "source": source}


def is_cut(layers: LayerChoice, paths: Mapping[str, Paths] | None) -> np.ndarray:
    """Say which layers are cuts; where that is unknown, none is.

    Args:
        layers: the layers.
        paths: where they lie.

    Returns:
        Shape (layers,), booleans.
    """
    return np.array([paths is not None and paths[name].cut for name in layers.names])


def is_finite(values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Say at which layers everything that was summed is finite.

    Args:
        values: variables over layers.

    Returns:
        Shape (layers,), booleans. A backward signal that is not computed, where nothing before is trained, does not count.
    """
    finite: np.ndarray = np.isfinite(values["speed"]) & np.isfinite(values["activation_rms"])
    if "backward_norm" in values:
        backward = values["backward_norm"]
        finite &= np.isfinite(backward) | (np.isnan(backward) & (values["speed"] == 0))
    return finite


def places(layers: LayerChoice, paths: Mapping[str, Paths] | None) -> list[str]:
    """Name the place of each layer: ``cut``, ``branch`` or ``unknown``.

    Args:
        layers: the layers.
        paths: where they lie.

    Returns:
        One word a layer.
    """
    if paths is None:
        return ["unknown"] * len(layers.layers)
    return ["cut" if paths[name].cut else "branch" for name in layers.names]


def sharing(layers: LayerChoice, paths: Mapping[str, Paths] | None) -> list[str]:
    """Say which layers share parameters with others.

    Args:
        layers: the layers.
        paths: where they lie.

    Returns:
        ``reused module`` (the module that holds the layer's weights is called several times), ``tied parameters`` (parameters
        before the layer also act past it), or ``no``.
    """
    modules = [layer.members[:1] for layer in layers.layers if layer.role != "input"]  # an activation may serve many
    words = []
    for layer in layers.layers:
        if layer.role != "input" and modules.count(layer.members[:1]) > 1:
            words.append("reused module")
        elif paths is not None and paths[layer.name].tied:
            words.append("tied parameters")
        else:
            words.append("no")
    return words


def _notes(
    layers: LayerChoice, values: Mapping[str, np.ndarray], paths: Mapping[str, Paths] | None, unused: Collection[str]
) -> list[str]:
    notes = []
    if paths is None:
        notes.append(
            "parts run under re-entrant activation checkpoints: which layers are cuts is unknown, and shares count the parameters "
            "of the layers themselves, without those between layers."
        )
    if unused:
        notes.append(f"the loss does not depend on {', '.join(sorted(unused))}.")
    broken = [name for name, finite in zip(layers.names, is_finite(values), strict=True) if not finite]
    if broken:
        notes.append(f"not finite at {', '.join(broken)}.")
    reached = [layer for layer in layers.layers if layer.role != "readout"]
    silent = [
        layer.name
        for layer, size in zip(layers.layers, values["backward_norm"], strict=True)
        if layer in reached and layer.role == "block" and size == 0
    ]
    if silent:
        notes.append(
            f"no backward signal reaches {', '.join(silent)}: a read-out of zeros, dead units, or features that the loss does "
            "not depend on. Angles and sensitivities there are not defined."
        )
    missed = values["identity_error"]
    if np.nanmax(missed, initial=0.0) > FORMULA_TOLERANCE:
        notes.append(
            f"the formula misses by {np.nanmax(missed):.2g} at {layers.names[int(np.nanargmax(missed))]}: the backward and the "
            "forward pass are not of the same function. Does the model compute without gradients what depends on its "
            "parameters, or draw random numbers from a generator of its own? Half precision does this, too."
        )
    return notes
