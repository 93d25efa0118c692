"""Reading one step of the parameters: features, backward signals, and how features move, as sums over the batch.

Chunk by chunk: the backward pass and the features after the real step are kept for the layers read, then one forward-mode pass
reduces everything to inner products the moment it reaches a layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from learnmech.monitor.criterion import out_of_memory
from learnmech.monitor.layers import Layer
from learnmech.monitor.norms import joint_norms
from learnmech.monitor.probe import Probe
from learnmech.monitor.snapshot import Chunk, ProbePass, RestartProbe, Snapshot
from learnmech.monitor.tangent import read_tangents
from learnmech.speed.products import gram

Method = Literal["forward-mode", "forward-mode, math attention", "central difference"]
METHODS: tuple[Method, ...] = ("forward-mode", "forward-mode, math attention", "central difference")
FEATURES, BACKWARD, CHANGE, REAL = range(4)


@dataclass
class LayerSums:
    """Inner products at one layer, over all samples and entries.

    Attributes:
        entries: numbers that the features hold.
        products: (4, 4), of the features, the backward signal dL/df, the first-order change df and the real change Df.
    """

    entries: int = 0
    products: np.ndarray = field(default_factory=lambda: np.zeros((4, 4)))


@dataclass
class StepSums:
    """What one step did.

    Attributes:
        layers: layer name to its sums.
        method: how the first-order change was found.
        loss_after: loss after the real step; NaN if that was not evaluated.
    """

    layers: dict[str, LayerSums]
    method: Method
    loss_after: float


@dataclass(frozen=True)
class Step:
    """A step of the parameters.

    Attributes:
        before: parameters before the step, in the place of the model's own, by name.
        after: parameters after it, in the same way.
        displacements: after minus before, for parameters that move.
    """

    before: Mapping[str, Tensor]
    after: Mapping[str, Tensor]
    displacements: Mapping[str, Tensor]


class Keeper:
    """Keeps what a pass shows of every layer, for a second look.

    Args:
        features: whether to copy features.
        backward: whether to keep backward signals.
    """

    def __init__(self, *, features: bool = False, backward: bool = False) -> None:
        self._features, self._backward = features, backward
        self.kept: dict[str, Tensor] = {}

    def on_features(self, layer: str, features: Tensor, chunk: Chunk) -> None:
        """Take a layer's features."""
        if self._features:
            self.kept[layer] = features.clone()  # a later operation in place would change it

    def on_backward(self, layer: str, gradient: Tensor, chunk: Chunk) -> None:
        """Take a layer's backward signal."""
        if self._backward:
            self.kept[layer] = gradient

    def compute(self, snapshot: Snapshot) -> Mapping[str, Any]:
        """Give nothing: what is kept is for others."""
        return {}


def read_step(
    source: ProbePass,
    probe: Probe,
    step: Step,
    *,
    chunk_size: int | None = None,
    backward: bool = True,
    known_backward: Mapping[str, Tensor] | None = None,
    known_after: Mapping[str, Tensor] | None = None,
    real: bool = True,
    method: Method = "forward-mode",
) -> StepSums:
    """Read a step.

    Args:
        source: the passes of the model.
        probe: the batch.
        step: the step.
        chunk_size: samples in one pass; None for all at once.
        backward: whether backward signals are wanted.
        known_backward: backward signals of the whole batch, if a pass has just kept them.
        known_after: features of the whole batch after the step, likewise.
        real: whether the real change is wanted; it costs a forward pass.
        method: with which method to begin; the next ones are tried where the model does not allow it.

    Returns:
        The sums, and the method that worked.

    Raises:
        Exception: what the model raises whatever the method.
    """
    chunks, whole_loss = probe.chunk_bounds(chunk_size), float("nan")
    if len(chunks) == 1:  # one look serves all attempts
        if backward and known_backward is None:
            known_backward = _keep(source, probe, chunks[0], step.before, backward=True)[0]
        if real and known_after is None:
            known_after, whole_loss = _keep(source, probe, chunks[0], step.after, backward=False)
    for attempt in METHODS[METHODS.index(method) :]:
        reading = _Reading(source, probe, step, attempt)
        try:
            loss_after = reading.run(chunks, backward, known_backward, known_after, real)
        except Exception as error:  # operations without forward mode raise many kinds; a fault of the model shows again
            if attempt == METHODS[-1] or isinstance(error, RestartProbe) or out_of_memory(error):
                raise
            continue
        break
    return StepSums(reading.sums, attempt, whole_loss if len(chunks) == 1 else loss_after)


def _keep(
    source: ProbePass, probe: Probe, bounds: tuple[int, int], values: Mapping[str, Tensor], *, backward: bool
) -> tuple[dict[str, Tensor], float]:
    """Run a pass; give its features or backward signals, and its part of the loss."""
    keeper = Keeper(features=not backward, backward=backward)
    loss = source.read(probe, *bounds, source.aliases(values, differentiable=backward), [keeper])[2]
    return keeper.kept, loss


class _Reading:
    def __init__(self, source: ProbePass, probe: Probe, step: Step, method: Method) -> None:
        self._source, self._probe, self._step, self._method = source, probe, step, method
        self.sums = {layer.name: LayerSums() for layer in source.layers.layers}
        self._backward: Mapping[str, Tensor] = {}
        self._after: Mapping[str, Tensor] = {}

    def run(
        self,
        chunks: Sequence[tuple[int, int]],
        backward: bool,
        known_backward: Mapping[str, Tensor] | None,
        known_after: Mapping[str, Tensor] | None,
        real: bool,
    ) -> float:
        loss_after = 0.0 if real and known_after is None else float("nan")
        for bounds in chunks:
            self._backward = known_backward or {}
            if backward and known_backward is None:
                self._backward = self._keep(bounds, self._step.before, backward=True)[0]
            self._after = known_after or {}
            if real and known_after is None:
                self._after, loss = self._keep(bounds, self._step.after, backward=False)
                loss_after += loss
            if self._method == "central difference":
                self._differences(bounds)
            else:
                read_tangents(
                    self._source,
                    self._probe,
                    bounds,
                    self._step.before,
                    self._step.displacements,
                    self._take,
                    plain_kernels=self._method != "forward-mode",
                )
        return loss_after

    def _keep(
        self, bounds: tuple[int, int], values: Mapping[str, Tensor], *, backward: bool
    ) -> tuple[dict[str, Tensor], float]:
        return _keep(self._source, self._probe, bounds, values, backward=backward)

    def _take(self, layer: Layer, features: Tensor, tangent: Tensor | None) -> None:
        sums = self.sums[layer.name]
        sums.entries += features.numel()
        rows = {FEATURES: features}
        if layer.name in self._backward:
            rows[BACKWARD] = self._backward[layer.name]
        if tangent is not None:
            rows[CHANGE] = tangent
        if layer.name in self._after:
            rows[REAL] = self._after[layer.name] - features
        index = list(rows)
        sums.products[np.ix_(index, index)] += gram(*rows.values())

    def _differences(self, bounds: tuple[int, int]) -> None:
        size = self._difference()
        moved = [self._keep(bounds, self._moved(sign * size), backward=False)[0] for sign in (0.0, -1.0, 1.0)]
        for layer in self._source.layers.layers:
            if layer.name in moved[0]:
                now, below, above = (features[layer.name] for features in moved)
                self._take(layer, now, (above - below) / (2 * size))

    def _moved(self, size: float) -> dict[str, Tensor]:
        values = {**dict(self._source.model.named_parameters()), **self._step.before}
        return {
            **self._step.before,
            **{
                name: values[name].detach() + size * displacement
                for name, displacement in self._step.displacements.items()
            },
        }

    def _difference(self) -> float:
        """Choose the length of finite differences, in steps, so that weights move by the 2/3 power of their precision."""
        # Relative to the weights, all together: one alone may be near zero. The power balances the two errors of networks with
        # kinks, round-off (precision over length) and units that switch (square root of the length).
        values = {**dict(self._source.model.named_parameters()), **self._step.before}
        names = list(self._step.displacements)
        moved, size = joint_norms([self._step.displacements.values(), [values[name] for name in names]])
        precision = max(torch.finfo(values[name].dtype).eps for name in names)
        return float(precision ** (2 / 3) * size / moved) if size > 0 else 1.0
