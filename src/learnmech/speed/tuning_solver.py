"""Solving for learning rates and the size of the read-out on a copy of the model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from torch import Tensor
from torch.optim import Optimizer

from learnmech.errors import InputError
from learnmech.monitor.paths import trace_paths
from learnmech.monitor.snapshot import Snapshot
from learnmech.speed.measuring import SpeedMeasurement
from learnmech.speed.products import gram
from learnmech.speed.tuning_groups import TunedGroup, find_groups
from learnmech.speed.tuning_readout import Readout
from learnmech.speed.tuning_steps import UnitSteps

SMALLEST_COSINE = 1e-3
"""Groups whose step is closer to orthogonal to the gradient than this are not tuned: their learning rate would be arbitrary."""
_LONGEST_MOVE = math.log(100.0)


@dataclass(frozen=True)
class Targets:
    """What a step shall do.

    Attributes:
        speed: wanted root mean square of the feature update at the last hidden layer, or by layer.
        decay: wanted first-order decay of the loss.
        relative_speed: whether the speed is a share of the features' root mean square.
        relative_decay: whether the decay is a share of the loss.
        per_layer: whether every layer shall have its speed.
        maximum_learning_rate: no learning rate is larger.
    """

    speed: float | Mapping[str, float]
    decay: float
    relative_speed: bool = False
    relative_decay: bool = False
    per_layer: bool = False
    maximum_learning_rate: float = math.inf

    def of_loss(self, loss: float) -> float:
        """Give the wanted decay in units of the loss.

        Args:
            loss: the loss.

        Returns:
            The decay.

        Raises:
            InputError: if a share of a loss that is not positive is asked for.
        """
        if not self.relative_decay:
            return self.decay
        if not loss > 0:
            raise InputError(
                f"the loss is {loss:.6g}, of which no share can be asked for; give target_decay in units of the loss, "
                "with relative_decay=False."
            )
        return self.decay * loss


@dataclass(frozen=True)
class Look:
    """One step that was tried.

    Attributes:
        scale: factor of the read-out.
        wanted_decay: first-order loss decay asked for, in units of the loss.
        shares: share of it asked of each group; 0 for those that cannot be tuned.
        rates: learning rate of each group.
        skipped: group name to the reason why it is not tuned.
        clipped: groups whose rate would have been larger than allowed.
        history: the measurement.
        ratios: layer name to speed over wanted speed, for layers that move.
    """

    scale: float
    wanted_decay: float
    shares: np.ndarray
    rates: np.ndarray
    skipped: Mapping[str, str]
    clipped: tuple[str, ...]
    history: xr.Dataset
    ratios: Mapping[str, float]


@dataclass(frozen=True)
class Solution:
    """The step that was found.

    Attributes:
        look: it, with its real effect measured.
        factor: share of the wanted decay that was kept, 1 unless the read-out is left alone.
        iterations: steps tried.
        converged: whether the last was within the tolerance.
        loss: loss before the read-out was scaled.
    """

    look: Look
    factor: float
    iterations: int
    converged: bool
    loss: float


class Solver:
    """Tries steps on a copy of the model, which it may change.

    Args:
        measurement: of the copy.
        optimizer: of the copy.
        targets: what is wanted.
        readout: the copy's read-out; None to leave it.

    Attributes:
        groups: the groups of parameters, one a layer.
        last: the last layer before the read-out.
        tunable_layers: all layers before the read-out.
        frozen: whether the read-out is left alone.

    Raises:
        InputError: if the optimizer does not fit the model.
    """

    def __init__(
        self,
        measurement: SpeedMeasurement,
        optimizer: Optimizer,
        targets: Targets,
        readout: Readout | None,
    ) -> None:
        self._measurement, self._targets, self._readout = measurement, targets, readout
        self._parameters = dict(measurement.model.named_parameters())
        self._steps = UnitSteps(optimizer, self._parameters)
        self._start = {name: p.detach().clone() for name, p in readout.parameters.items()} if readout else {}
        self._paths = trace_paths(measurement.source, measurement.probe)
        self.groups: list[TunedGroup] = find_groups(
            measurement.layers, self._paths, measurement.source.parameters, self._steps.names
        )
        if not self.groups:
            raise InputError("the optimizer holds no parameter that requires a gradient: there is nothing to tune.")
        hidden = [layer.name for layer in measurement.layers.layers if layer.role == "block"]
        if not hidden:
            raise InputError("no layer before the read-out is read: with nodes='auto', the model has only one layer.")
        self.last = hidden[-1]
        self.tunable_layers = [layer.name for layer in measurement.layers.layers if layer.role != "readout"]
        self.frozen = readout is None

    def solve(self, max_iterations: int, tolerance: float) -> Solution:
        """Find the step that meets the targets as well as possible.

        Args:
            max_iterations: steps tried at most, the last measurement apart.
            tolerance: of the logarithm of the speed over the wanted speed.

        Returns:
            The solution.

        Raises:
            InputError: if no step can be measured at all.
        """
        shares = np.full(len(self.groups), 1 / len(self.groups))
        position, factor, first = 0.0, 1.0, math.nan
        tried: list[tuple[float, float]] = []
        best: tuple[float, Look, float] | None = None
        for _ in range(max_iterations):
            try:
                look = self._look(math.exp(position), shares, factor)
            except InputError:
                if best is None:
                    raise
                break  # too far: the loss overflows, say
            first = first if tried else float(look.history["loss"])
            error = math.log(self._need_motion(look))
            tried.append((position, error))
            miss = self._miss(look, error)
            if best is None or miss < best[0]:
                best = miss, look, factor
            if miss < tolerance:
                break
            if self._targets.per_layer:
                shares = self._flatten(look)
            factor = self._relief(look, factor)
            if self._readout is not None:
                position = _next_position(tried)
        assert best is not None
        _, look, factor = best
        final = self._look(look.scale, look.shares, self._relief(look, factor), real=True)
        return Solution(final, self._relief(look, factor), len(tried), best[0] < tolerance, first)

    def _look(self, scale: float, shares: np.ndarray, factor: float, *, real: bool = False) -> Look:
        if self._readout is not None:
            self._readout.rescale(self._start, scale)
        snapshot = self._measurement.gradients()
        wanted = self._targets.of_loss(snapshot.loss) * factor
        steps = self._steps.find(snapshot.gradients, snapshot.unused)
        decays, skipped = self._decays(snapshot, steps)
        del snapshot
        shares = np.where(decays > 0, shares, 0.0)
        if not shares.sum() > 0:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
            raise InputError(f"no group of parameters can be tuned on this batch. {reasons}.")
        shares = shares / shares.sum()
        rates = np.divide(wanted * shares, decays, out=np.zeros_like(shares), where=decays > 0)
        largest = self._targets.maximum_learning_rate
        clipped = tuple(
            group.name for group, rate in zip(self.groups, rates, strict=True) if rate > largest * (1 + 1e-9)
        )
        rates = np.minimum(rates, largest)
        update = {
            name: steps[name] * float(rate)
            for group, rate in zip(self.groups, rates, strict=True)
            for name in group.parameters
            if rate > 0 and name in steps
        }
        history = self._measurement.measure(update, real_step=real)
        return Look(scale, wanted, shares, rates, skipped, clipped, history, self._ratios(history))

    def _decays(self, snapshot: Snapshot, steps: Mapping[str, Tensor]) -> tuple[np.ndarray, dict[str, str]]:
        """Give <g, u> of each group, zero for those that are left out, and why they are."""
        decays, skipped = np.zeros(len(self.groups)), {}
        for position, group in enumerate(self.groups):
            products = np.zeros((2, 2))
            for name in group.parameters:
                if name in steps and name in snapshot.gradients:
                    products += gram(snapshot.gradients[name], steps[name])
            gradient, step, decay = math.sqrt(products[0, 0]), math.sqrt(products[1, 1]), -products[0, 1]
            if gradient == 0:
                skipped[group.name] = "its gradient is zero"
            elif step == 0:
                skipped[group.name] = "the optimizer does not move it"
            elif decay <= SMALLEST_COSINE * gradient * step:
                skipped[group.name] = (
                    "the optimizer's step does not go against its gradient (cosine "
                    f"{decay / (gradient * step):.2g}), so that no learning rate lowers the loss"
                )
            else:
                decays[position] = decay
        return decays, skipped

    def _ratios(self, history: xr.Dataset) -> dict[str, float]:
        ratios = {}
        for name in self._measurement.layers.names:
            row = history.sel(layer=name)
            wanted = self.wanted_speed(row)
            speed = float(row["speed_rms"])
            if wanted is not None and wanted > 0 and speed > 0 and name in self.tunable_layers:
                ratios[name] = speed / wanted
        return ratios

    def wanted_speed(self, row: xr.Dataset) -> float | None:
        """Give the speed that is wanted of a layer, in units of its features.

        Args:
            row: a history at one layer.

        Returns:
            The speed; None if none is wanted.
        """
        speed = self._targets.speed
        if isinstance(speed, Mapping):
            asked = speed.get(str(row["layer"].values))
            if asked is None:
                return None
            speed = asked
        return speed * float(row["activation_rms"]) if self._targets.relative_speed else speed

    def _need_motion(self, look: Look) -> float:
        ratio = look.ratios.get(self.last, 0.0)
        if not (ratio > 0 and math.isfinite(ratio)):
            row = look.history.sel(layer=self.last)
            raise InputError(
                f"the features of {self.last}, the last layer before the output, have the speed {float(row['speed_rms']):.3g} "
                f"and the size {float(row['activation_rms']):.3g} (root mean squares), so that no learning rate sets their speed. "
                "Are the layers before it frozen, or their units dead?"
            )
        return ratio

    def _relief(self, look: Look, factor: float) -> float:
        """Give the factor of the decay, at most 1, with which no layer exceeds its speed, where the read-out is left alone."""
        return 1.0 if self._readout is not None else min(1.0, factor / max(look.ratios.values()))

    def _miss(self, look: Look, error: float) -> float:
        """Say how far a step is from what can be had, as the logarithm of a ratio."""
        miss = abs(error) if self._readout is not None else 0.0
        if self._targets.per_layer:
            miss = max(miss, float(np.abs(self._flatten(look) - look.shares).max() / look.shares.max()))
        return miss

    def _flatten(self, look: Look) -> np.ndarray:
        """Give the shares with which every layer would have its speed if the angles stayed as they are."""
        index = {group.name: position for position, group in enumerate(self.groups)}
        cut = dict(zip(self._measurement.layers.names, look.history["is_cut"].values, strict=True))
        names = [name for name in look.ratios if name in index and cut[name]]
        reached, own = 0.0, []
        for name in names:  # C_(<=l) is proportional to the speed; it cannot fall from layer to layer
            wanted = float(look.history["loss_decay"].sel(layer=name)) / look.ratios[name]
            own.append(max(0.0, wanted - reached))
            reached += own[-1]
        shares = look.shares.copy()
        if reached > 0:
            positions = [index[name] for name in names]
            shares[positions] = np.array(own) / reached * shares[positions].sum()
        return shares


def _next_position(tried: Sequence[tuple[float, float]]) -> float:
    """Give the next logarithm of the read-out's factor: speed is inverse to it at first, then as the last two tries say."""
    position, error = tried[-1]
    slope = -1.0
    if len(tried) > 1:
        before, error_before = tried[-2]
        if position != before:
            measured = (error - error_before) / (position - before)
            slope = measured if 0.2 < abs(measured) < 5 else -1.0
    move = -error / slope
    return position + max(-_LONGEST_MOVE, min(_LONGEST_MOVE, move))
