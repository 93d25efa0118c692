"""The feature-speed instrument: how the watched step moved every layer's features, and what that says about the knobs."""

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from learnmech.monitor.instrument import Figure, Finding, Level, Variable
from learnmech.monitor.layers import LayerChoice
from learnmech.monitor.paths import Paths, PathTracer
from learnmech.monitor.probe import Probe
from learnmech.monitor.snapshot import Chunk, ProbePass, Snapshot
from learnmech.speed.advice import findings_of
from learnmech.speed.expected import expected_cosine
from learnmech.speed.figures import draw_all
from learnmech.speed.products import all_finite, any_nonzero
from learnmech.speed.readings import layer_numbers, read_parameters
from learnmech.speed.segment_dispersion import segment_dispersions
from learnmech.speed.speed_history import LAYER_VARIABLES, PARAMETER_VARIABLES, SCALARS
from learnmech.speed.step_reading import Keeper, Method, Step, StepSums, read_step

_FORWARD = ("speed_rms", "real_speed_rms", "relative_speed")
_BACKWARD = ("backward_norm", "cosine", "loss_decay", "share", "sensitivity", "identity_error")
_PARAMETERS = ("parameter_share", "relative_update", "effective_learning_rate")


class SpeedInstrument:
    """Measures how fast features move in the optimizer's steps, from forward-mode passes and the real step.

    ``standard`` measures the first-order and the real change of every layer's features on the probe. ``full`` differentiates
    where the step began, too: backward signals, angles with their expected values, loss decay, shares, sensitivities, and the
    effective learning rate of each parameter. Probes without a watched step (the first, and those made by hand) have NaN.

    Args:
        level: ``standard`` or ``full``.
    """

    name = "speed"
    citations = ("chizat2023",)
    needs_backward = False  # the backward pass that it needs is one at the parameters before the step
    needs_updates = True
    held_out = False

    def __init__(self, level: Level = "standard") -> None:
        self._full = level == "full"
        self._known: WeakKeyDictionary[Probe, _Known] = WeakKeyDictionary()
        self.columns: Mapping[str, str] = {"relative_speed": "speed"}
        if self._full:
            self.columns = {
                **self.columns,
                "share": "share",
                "cosine": "cosine",
                "cosine_expected": "expected",
                "sensitivity": "sensitivity",
            }

    def variables(self) -> Mapping[str, Variable]:
        """Describe what is measured."""
        names = [*_FORWARD, *(_BACKWARD if self._full else ())]
        found = {name: Variable(("layer",), *LAYER_VARIABLES[name]) for name in names}
        found["step_linearity"] = Variable(("layer",), *LAYER_VARIABLES["linearity"])
        if self._full:
            found["cosine_expected"] = Variable(
                ("layer",),
                "cosine to expect there, for random weights with these shares and dispersions, at the level of this batch",
                "as the cosine; NaN where it is not known",
                "learnmech, from free probability",
            )
            found["is_cut"] = Variable(
                ("layer",),
                "whether every path from the parameters before to the loss passes the layer",
                "1 or 0",
                "learnmech",
            )
            for name in _PARAMETERS:
                found[name] = Variable(("parameter",), *PARAMETER_VARIABLES[name], "learnmech")
            found["total_decay"] = Variable((), *SCALARS["total_decay"])
            found["loss_before"] = Variable(
                (), "loss on the probe before the step", "as the loss function gives it", "learnmech"
            )
        return found

    @property
    def attributes(self) -> dict[str, str]:
        """How the first-order changes were found."""
        methods = {known.method for known in self._known.values() if known.used}
        return {"speed_method": ", ".join(sorted(methods))} if methods else {}

    def start(self, probe: Probe, layers: LayerChoice) -> "_SpeedMeter":
        """Begin one probe.

        Args:
            probe: the batch.
            layers: the layers that will come.

        Returns:
            A meter.
        """
        return _SpeedMeter(probe, self._known.setdefault(probe, _Known()), full=self._full)

    def read(self, history: xr.Dataset) -> Sequence[Finding]:
        """Say how features move at the last watched step, and which knob would change it.

        Args:
            history: a history with this instrument's variables.

        Returns:
            Findings.
        """
        return findings_of(history)

    def figures(self, history: xr.Dataset) -> Sequence[Figure]:
        """Draw speeds, angles, shares and learning rates.

        Args:
            history: a history with this instrument's variables.

        Returns:
            Two figures for ``standard``, more for ``full``.
        """
        return draw_all(history)


class _Known:
    """What is found once for a probe, at its first watched step."""

    def __init__(self) -> None:
        self.method: Method = "forward-mode"
        self.used = False
        self.paths: dict[str, Paths] | None = None
        self.dispersions: dict[str, float] = {}
        self._trained: frozenset[str] | None = None

    def look(self, source: ProbePass, probe: Probe, before: Mapping[str, Tensor], paths: dict[str, Paths]) -> None:
        """Keep the paths, and find dispersions again when other parameters are trained."""
        self.paths = None if source.reentrant else paths
        trained = frozenset(name for name, value in source.model.named_parameters() if value.requires_grad)
        if trained != self._trained:
            self.dispersions = segment_dispersions(source, probe, cut_blocks(source.layers, self.paths), before)
            self._trained = trained


def cut_blocks(layers: LayerChoice, paths: Mapping[str, Paths] | None) -> list[str]:
    """List the cut nodes behind trained parameters, in order.

    Args:
        layers: the layers.
        paths: where they lie; None if unknown.

    Returns:
        Their names.
    """
    if paths is None:
        return []
    return [
        layer.name
        for layer in layers.layers
        if layer.role != "input" and paths[layer.name].cut and paths[layer.name].upstream
    ]


class _SpeedMeter:
    """Keeps the features after the step, and reads the step when the probe is done."""

    def __init__(self, probe: Probe, known: _Known, *, full: bool) -> None:
        self._probe, self._known, self._full = probe, known, full
        self._after: dict[str, Tensor] = {}

    def on_features(self, layer: str, features: Tensor, chunk: Chunk) -> None:
        if chunk.start == 0 and chunk.stop == self._probe.samples:  # else a second pass, to save memory
            self._after[layer] = features.clone()

    def on_backward(self, layer: str, gradient: Tensor, chunk: Chunk) -> None:
        """The backward signal is wanted where the step began, not here."""

    def compute(self, snapshot: Snapshot) -> Mapping[str, Any]:
        moved = {name: change for name, change in snapshot.updates.items() if any_nonzero(change)}
        finite = all(all_finite(change) for change in moved.values())
        if not moved or not finite or snapshot.source is None:
            return {}
        parameters = dict(snapshot.model.named_parameters())
        with torch.inference_mode(False):
            before = {
                name: (parameters[name].detach() - change).requires_grad_(self._full) for name, change in moved.items()
            }
        names = snapshot.layers.names
        if not self._full:
            sums = self._read(snapshot.source, Step(before, {}, moved), snapshot.chunk_size, backward=False)
            return _renamed(layer_numbers(names, sums.layers, None, None))
        return self._read_full(snapshot.source, Step(before, {}, moved), snapshot)

    def _read_full(self, source: ProbePass, step: Step, snapshot: Snapshot) -> Mapping[str, Any]:
        whole = len(self._probe.chunk_bounds(snapshot.chunk_size)) == 1
        keeper, tracer = Keeper(backward=whole), PathTracer(snapshot.layers.layers)
        start = source.run(
            self._probe,
            [keeper],
            step=0,
            backward=True,
            chunk_size=snapshot.chunk_size,
            values=step.before,
            tracer=tracer,
        )
        parameters = {**dict(snapshot.model.named_parameters()), **step.before}
        numbers = read_parameters(parameters, start.gradients, step.displacements)
        known_backward = keeper.kept if whole else None
        sums = self._read(source, step, snapshot.chunk_size, backward=True, known_backward=known_backward)
        self._known.look(source, self._probe, step.before, tracer.paths)
        decays = {name: item.decay for name, item in numbers.items()}
        total = sum(decays.values())
        values = layer_numbers(snapshot.layers.names, sums.layers, decays, self._known.paths, source.parameters)
        result = _renamed(values)
        result["cosine_expected"] = self._expected(snapshot.layers, values, sums)
        paths = self._known.paths
        result["is_cut"] = np.array(
            [paths is not None and paths[name].cut for name in snapshot.layers.names], dtype=float
        )
        result["total_decay"], result["loss_before"] = total, start.loss
        columns = {name: np.full(len(parameters), np.nan) for name in _PARAMETERS}
        for position, name in enumerate(dict(snapshot.model.named_parameters())):
            if name in numbers:
                item = numbers[name]
                columns["parameter_share"][position] = item.decay / total if total != 0 else np.nan
                columns["relative_update"][position] = item.relative_update
                columns["effective_learning_rate"][position] = item.effective_learning_rate
        return {**result, **columns}

    def _read(
        self,
        source: ProbePass,
        step: Step,
        chunk_size: int | None,
        *,
        backward: bool,
        known_backward: Mapping[str, Tensor] | None = None,
    ) -> StepSums:
        sums = read_step(
            source,
            self._probe,
            step,
            chunk_size=chunk_size,
            backward=backward,
            known_backward=known_backward,
            known_after=self._after or None,
            method=self._known.method,
        )
        self._known.method, self._known.used = sums.method, True
        return sums

    def _expected(self, layers: LayerChoice, values: Mapping[str, np.ndarray], sums: StepSums) -> np.ndarray:
        chosen = cut_blocks(layers, self._known.paths)
        position = [layers.names.index(name) for name in chosen]
        result = np.full(len(layers.names), np.nan)
        if position:
            result[position] = expected_cosine(
                chosen,
                [layers.layers[index].kinds for index in position],
                values["cosine"][position],
                values["share"][position],
                np.array([sums.layers[name].entries / self._probe.samples for name in chosen]),
                self._known.dispersions,
            )
        return result


def _renamed(values: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Give the measured variables under the names that they have beside other instruments'."""
    kept = {name: values[name] for name in (*_FORWARD, *_BACKWARD) if name in values}
    return {**kept, "step_linearity": values["linearity"]}
