"""Vital signs of every layer, whatever the theory: size of activations and weights, dead units, gradients, updates."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from learnmech.figures import figure_over_steps
from learnmech.monitor.instrument import Figure, Finding, Level, Variable
from learnmech.monitor.layers import LayerChoice
from learnmech.monitor.norms import joint_norms, roots_of_sums, squared_norm
from learnmech.monitor.probe import Probe
from learnmech.monitor.snapshot import Chunk, Snapshot
from learnmech.monitor.vital_findings import read_vitals

_SOURCE = "the training run"
_GLANCE = 32  # samples looked at before a unit is suspected to be dead
_FORWARD = {
    "activation_rms": Variable(("layer",), "root mean square of the layer's output", "1 is well scaled", _SOURCE),
    "dead_fraction": Variable(
        ("layer",),
        "share of units that give the same value for every probe sample",
        "0 to 1; 1 is a dead layer, NaN for a single sample or NaN features",
        _SOURCE,
    ),
    "weight_norm": Variable(("layer",), "Euclidean norm of the layer's parameters", "units of the parameters", _SOURCE),
}
_UPDATES = {
    "update_ratio": Variable(
        ("layer",),
        "size of the latest parameter update relative to the parameters",
        "about 1e-3 a step is common; above 1e-1 is violent, NaN where no step was watched",
        _SOURCE,
    ),
}
_BACKWARD = {
    "gradient_norm": Variable(
        ("layer",),
        "Euclidean norm of the loss gradient of the layer's parameters",
        "loss per unit of parameter",
        _SOURCE,
    ),
    "leverage": Variable(
        ("layer",),
        "largest first-order loss change per relative change of the layer's output, |dL/df| |f|",
        "units of the loss",
        "Cauchy-Schwarz: |dL| <= |dL/df| |df|",
    ),
}


class VitalsInstrument:
    """Measures sizes: is every layer alive, does it get a gradient, does it move.

    Args:
        level: ``light`` measures the forward pass only, ``standard`` also the update by the latest optimizer step, ``full``
            also gradients.
    """

    name = "vitals"
    citations: tuple[str, ...] = ()
    held_out = False
    columns: Mapping[str, str] = {
        "activation_rms": "activation rms",
        "dead_fraction": "dead units",
        "update_ratio": "update ratio",
    }

    def __init__(self, level: Level = "standard") -> None:
        self.needs_updates = level != "light"
        self.needs_backward = level == "full"

    def variables(self) -> Mapping[str, Variable]:
        """Describe what is measured."""
        updates = _UPDATES if self.needs_updates else {}
        return {**_FORWARD, **updates, **(_BACKWARD if self.needs_backward else {})}

    def start(self, probe: Probe, layers: LayerChoice) -> "_VitalsMeter":
        """Begin one probe."""
        return _VitalsMeter(layers)

    def read(self, history: xr.Dataset) -> Sequence[Finding]:
        """Find layers that are dead, get no gradient, or are updated violently; and a loss that is not finite.

        Args:
            history: a history with this instrument's variables.

        Returns:
            Findings at the last step.
        """
        return read_vitals(history)

    def figures(self, history: xr.Dataset) -> Sequence[Figure]:
        """Draw dead units and updates over training.

        Args:
            history: a history with this instrument's variables.

        Returns:
            One figure a quantity that was measured.
        """
        figures = []
        if "update_ratio" in history and np.isfinite(history["update_ratio"]).any():
            figures.append(
                Figure(
                    "update_ratio",
                    "How much each layer's weights move in a step",
                    "Size of one optimizer step relative to the weights. Layers far below the others hardly learn; above "
                    "0.1 a step rewrites the layer.",
                    figure_over_steps(history, "update_ratio", "update / weights", logarithmic=True),
                )
            )
        if float(history["dead_fraction"].max()) > 0:
            figures.append(
                Figure(
                    "dead_fraction",
                    "Units that do not respond to the data",
                    "Share of units with the same value for every probe sample. They pass nothing on.",
                    figure_over_steps(history, "dead_fraction", "share of units", logarithmic=False),
                )
            )
        return figures


class _VitalsMeter:
    def __init__(self, layers: LayerChoice) -> None:
        self._names = layers.names
        self._squares: dict[str, list[Tensor | float]] = {name: [] for name in self._names}
        self._backward_squares: dict[str, list[Tensor | float]] = {name: [] for name in self._names}
        self._count = dict.fromkeys(self._names, 0)
        self._samples = dict.fromkeys(self._names, 0)
        self._units: dict[str, _LiveUnits] = {}

    def on_features(self, layer: str, features: Tensor, chunk: Chunk) -> None:
        self._squares[layer].append(squared_norm(features))
        self._count[layer] += features.numel()
        self._samples[layer] += len(features) if features.ndim > 0 else 0
        if features.ndim > 0 and features.numel() > 0:
            rows = features.reshape(len(features), -1)
            if layer not in self._units:
                self._units[layer] = _LiveUnits(rows[0])
            self._units[layer].update(rows)

    def on_backward(self, layer: str, gradient: Tensor, chunk: Chunk) -> None:
        self._backward_squares[layer].append(squared_norm(gradient))

    def compute(self, snapshot: Snapshot) -> Mapping[str, Any]:
        norms = self._norms(self._squares)
        counts = np.array([self._count[name] for name in self._names])
        tensors = dict(snapshot.model.named_parameters())
        weights = self._joint(tensors, snapshot)
        finite_layers = zip(self._names, np.isfinite(norms), strict=True)
        values: dict[str, Any] = {
            "activation_rms": np.divide(norms, np.sqrt(counts), where=counts > 0, out=np.full(len(norms), np.nan)),
            "dead_fraction": np.array([self._dead(name) if finite else np.nan for name, finite in finite_layers]),
            "weight_norm": weights,
        }
        if snapshot.gradients:
            values["gradient_norm"] = self._joint(snapshot.gradients, snapshot)
            values["leverage"] = self._norms(self._backward_squares) * norms
        if snapshot.updates:
            updates = self._joint(snapshot.updates, snapshot)
            values["update_ratio"] = np.divide(
                updates, weights, where=weights > 0, out=np.where(np.isnan(updates), np.nan, np.inf)
            )
        return values

    def _dead(self, name: str) -> float:
        return self._units[name].dead_fraction() if self._samples[name] > 1 and name in self._units else np.nan

    def _norms(self, squares: Mapping[str, list[Tensor | float]]) -> np.ndarray:
        return roots_of_sums([squares[name] for name in self._names])

    def _joint(self, tensors: Mapping[str, Tensor], snapshot: Snapshot) -> np.ndarray:
        """Norm of each layer's tensors together; NaN where there are none (frozen, or no parameters)."""
        return joint_norms(
            [[tensors[member] for member in snapshot.parameters[name] if member in tensors] for name in self._names]
        )


class _LiveUnits:
    """Which units have given at least two different values so far."""

    def __init__(self, first: Tensor) -> None:
        self._first = first.clone()
        self._alive = torch.zeros_like(first, dtype=torch.bool)

    def update(self, rows: Tensor) -> None:
        """Most units show themselves alive within a few samples; only the others are searched further."""
        start, stop = 0, _GLANCE
        suspects = torch.nonzero(~self._alive).squeeze(1)
        while len(suspects) > 0 and start < len(rows):
            block = rows[start:stop]
            block = block if len(suspects) == rows.shape[1] else block[:, suspects]
            self._alive[suspects] = (block != self._first[suspects]).any(dim=0)
            suspects = suspects[~self._alive[suspects]]
            start, stop = stop, 4 * stop

    def dead_fraction(self) -> float:
        return 1 - float(self._alive.double().mean())
