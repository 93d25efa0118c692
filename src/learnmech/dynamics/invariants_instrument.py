"""The invariants instrument: do gradients obey the symmetries of the layers, and how far do their charges move."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from learnmech.dynamics.invariants_findings import draw_invariants, read_invariants
from learnmech.dynamics.invariants_of_probe import KnownSymmetries
from learnmech.monitor.instrument import Figure, Finding, Level, Variable
from learnmech.monitor.layers import LayerChoice
from learnmech.monitor.memory import ProbeMemory
from learnmech.monitor.probe import Probe
from learnmech.monitor.snapshot import Chunk, Snapshot

_SOURCE = "Kunin et al. 2020, section on symmetries; the test of one gradient: learnmech"
_LAYER = {
    "charge_drift": Variable(
        ("layer",),
        "how far the layer's conserved charges moved since the first probe, over the size of the parts that cancel in them",
        "0 under gradient flow, NaN for layers without a symmetry; the largest of the layer's symmetries",
        _SOURCE,
    ),
    "symmetry_violation": Variable(
        ("layer",),
        "<g, T theta> of the probe's gradient over its parts before they cancel",
        "rounding (1e-7 in float32) if the gradient obeys the layer's symmetries, 1 if there is none; NaN where it cannot be tested",
        _SOURCE,
    ),
    "step_violation": Variable(
        ("layer",),
        "<u, T theta> of the latest step u over its parts before they cancel",
        "0 for a step along the gradient, of order the learning rate for momentum; up to 1 for Adam; NaN where no step was watched",
        _SOURCE,
    ),
    "symmetry_broken": Variable(
        ("layer",), "whether the gradient violates a symmetry of the layer beyond rounding", "1 or 0", _SOURCE
    ),
}
_SCALARS = {
    "charge_count": Variable((), "how many numbers gradient flow would conserve", "a count", _SOURCE),
}


class InvariantsInstrument:
    """Tests the symmetries of a model on the probe's gradient, and measures how its charges move.

    Symmetries are found once for a probe, from the structure of the model (:func:`learnmech.dynamics.find_symmetries`), with the
    train/eval flags of training. The probe itself runs in evaluation mode; what holds in training only (scales in front of batch
    normalisation) is not tested on its gradient. The watch sees one step in many, so the exact laws of every step are
    :class:`learnmech.dynamics.ConservationMonitor`'s. Drifts count from the first probe of this instrument.

    Args:
        level: the instrument has one level; it is in the preset ``full``.
    """

    name = "invariants"
    citations = ("kunin2020", "du2018")
    needs_backward = True
    needs_updates = True
    held_out = False
    columns: Mapping[str, str] = {"charge_drift": "charge drift"}

    def __init__(self, level: Level = "full") -> None:
        self.memory = ProbeMemory(lambda probe: KnownSymmetries())

    def variables(self) -> Mapping[str, Variable]:
        """Describe what is measured."""
        return {**_LAYER, **_SCALARS}

    @property
    def attributes(self) -> dict[str, Any]:
        """What was found, and why nothing was."""
        known = next(iter(self.memory.every()), None)
        if known is None:
            return {}
        return {
            "symmetries": known.descriptions,
            "symmetries_failure": known.failure,
            "symmetries_left_out": known.left_out,
        }

    def start(self, probe: Probe, layers: LayerChoice) -> "_InvariantsMeter":
        """Begin one probe."""
        return _InvariantsMeter(self.memory.of(probe))

    def read(self, history: xr.Dataset) -> Sequence[Finding]:
        """Say whether gradients obey the symmetries, and how far charges moved.

        Args:
            history: a history with this instrument's variables.

        Returns:
            Findings.
        """
        return read_invariants(history)

    def figures(self, history: xr.Dataset) -> Sequence[Figure]:
        """Draw how charges drift.

        Args:
            history: a history with this instrument's variables.

        Returns:
            Up to two figures.
        """
        return draw_invariants(history)


class _InvariantsMeter:
    def __init__(self, known: KnownSymmetries) -> None:
        self._known = known

    def on_features(self, layer: str, features: Tensor, chunk: Chunk) -> None:
        """Features are not needed."""

    def on_backward(self, layer: str, gradient: Tensor, chunk: Chunk) -> None:
        """Backward signals are not needed."""

    def compute(self, snapshot: Snapshot) -> Mapping[str, Any]:
        readings = self._known.read(snapshot)
        if readings is None:
            return {}
        columns = {name: np.full(len(snapshot.layers.names), np.nan) for name in _LAYER}
        for position, layer in enumerate(snapshot.layers.names):
            own = set(snapshot.parameters.get(layer, ()))
            here = [reading for reading in readings if own & set(reading.parameters)]
            for name in _LAYER:
                values = [value for value in (reading.numbers[name] for reading in here) if np.isfinite(value)]
                if values:
                    columns[name][position] = max(values)
        return {**columns, "charge_count": float(sum(reading.count for reading in readings))}
