"""Gradient flow of a two-layer ReLU net: smooth between kinks, with every kink found and crossed or slid along."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.integrate import RK45
from scipy.optimize import brentq

from learnmech.dynamics.agf.relu_kinks import on_kink, settle
from learnmech.errors import LearnmechError

_MARGIN = 1e-12
_MOST_STEPS = 200_000
_STAGES = [
    (row[: index + 1], float(node)) for index, (row, node) in enumerate(zip(RK45.A[1:], RK45.C[1:], strict=True))
]


@dataclass
class Net:
    """Neurons (a, w) on data, and on which side of each kink, or in it, every one is.

    Attributes:
        points: the data.
        values: their targets.
        leak: slope of the activation below 0.
        neurons: rows (a, w).
        gates: derivative of the activation (neurons, samples).
        held: whether a neuron slides along a sample's kink (neurons, samples).
        planes: projection of each neuron's pull, None while none slides.
        signs: of a, at the last kink.
    """

    points: Float[np.ndarray, "samples dimension"]
    values: Float[np.ndarray, " samples"]
    leak: float
    neurons: Float[np.ndarray, "neurons size"]
    gates: Float[np.ndarray, "neurons samples"]
    held: Bool[np.ndarray, "neurons samples"]
    planes: Float[np.ndarray, "neurons dimension dimension"] | None
    signs: Float[np.ndarray, " neurons"]

    def residual(self, neurons: Float[np.ndarray, "neurons size"]) -> Float[np.ndarray, " samples"]:
        """Targets minus output, if the gates were as now."""
        heights = self.gates * (neurons[:, 1:] @ self.points.T)
        return np.asarray(self.values - neurons[:, 0] @ heights)

    def loss(self, neurons: Float[np.ndarray, "neurons size"]) -> float:
        """Half the mean squared error."""
        rest = self.residual(neurons)
        return float(rest @ rest) / (2 * len(rest))

    def velocity(self, neurons: Float[np.ndarray, "neurons size"]) -> Float[np.ndarray, "neurons size"]:
        """Minus the gradient, if the gates were as now."""
        pull = (self.gates * (self.residual(neurons) / len(self.values))) @ self.points
        if self.planes is not None:
            pull = np.einsum("idk,ik->id", self.planes, pull)
        result = np.empty_like(neurons)
        result[:, 0] = np.einsum("id,id->i", neurons[:, 1:], pull)
        result[:, 1:] = neurons[:, :1] * pull
        return result

    def room(self, neurons: Float[np.ndarray, "neurons size"]) -> float:
        """Least room to a kink that is still ahead, over the lengths of both vectors; below 0 behind it."""
        lengths = np.linalg.norm(neurons, axis=1)[:, None] * np.linalg.norm(self.points, axis=1)
        side = np.where(self.gates > (1 + self.leak) / 2, 1.0, -1.0)
        share = side * (neurons[:, 1:] @ self.points.T) / np.maximum(lengths, 1e-300)
        least = np.where(self.held | (lengths == 0), 1.0, share).min(initial=1.0)
        turned = self.signs * neurons[:, 0] / np.maximum(np.linalg.norm(neurons, axis=1), 1e-300)
        turned = np.where(self.held.any(axis=1), turned, 1.0)
        return float(min(least, turned.min(initial=1.0))) + _MARGIN


def make_net(
    points: Float[np.ndarray, "samples dimension"],
    values: Float[np.ndarray, " samples"],
    leak: float,
    neurons: Float[np.ndarray, "neurons size"],
) -> Net:
    """Find the cone, or the face of one, in which each neuron starts.

    Args:
        points: the data.
        values: targets.
        leak: slope of the activation below 0.
        neurons: rows (a, w).

    Returns:
        The net, to be given to :func:`follow_net`.
    """
    shape = (len(neurons), len(points))
    heights = neurons[:, 1:] @ points.T
    net = Net(
        points,
        values,
        leak,
        neurons.copy(),
        np.where(heights > 0, 1.0, leak),
        np.zeros(shape, bool),
        None,
        np.where(neurons[:, 0] < 0, -1.0, 1.0),
    )
    _settle_all(net, np.stack([on_kink(points, row[1:]) for row in neurons]))
    return net


def follow_net(
    net: Net,
    visit: Callable[[float, Float[np.ndarray, "neurons size"], float, float], bool],
    *,
    end: float = np.inf,
    tolerance: float = 1e-8,
    inside: int = 0,
) -> float:
    r"""Integrate :math:`a' = w\cdot D, w' = aD` of all neurons.

    A method of order 5 with an error estimate relative to each neuron's norm, on fields that are smooth since the gates are
    frozen within a step. A step that passes a kink is cut there; then :func:`settle` says whether the neuron crosses or slides. So
    there is no chattering at kinks, and no loss of order.

    Source: derived here.

    Args:
        net: is changed to the state at the end.
        visit: called with time, neurons, loss and speed (minus the derivative of the loss) after each step; true ends.
        end: time at which to end.
        tolerance: of a step, relative to each neuron's norm.
        inside: so many more visits within each step (their answer is ignored).

    Returns:
        The time at the end.

    Raises:
        LearnmechError: if the steps are exhausted.
    """
    moment, step = 0.0, 0.0
    state = net.neurons
    slope = net.velocity(state)
    for _ in range(_MOST_STEPS):
        norms = np.maximum(np.linalg.norm(state, axis=1, keepdims=True), 1e-300)
        if step <= 0:
            fastest = float((np.linalg.norm(slope, axis=1, keepdims=True) / norms).max(initial=0.0))
            step = 0.03 / fastest if fastest > 0 else 1.0
        step = min(step, end - moment)
        with np.errstate(over="ignore", invalid="ignore"):
            stages = np.empty((7, *state.shape))
            stages[0] = slope
            for index, (row, _node) in enumerate(_STAGES):
                stages[index + 1] = net.velocity(state + step * np.tensordot(row[: index + 1], stages[: index + 1], 1))
            after = state + step * np.tensordot(RK45.B, stages[:6], 1)
            stages[6] = net.velocity(after)
            larger = np.maximum(norms, np.linalg.norm(after, axis=1, keepdims=True))
            error = float((np.abs(step * np.tensordot(RK45.E, stages, 1)) / larger).max(initial=0.0)) / tolerance
        if not error <= 1:
            step *= max(0.2, 0.9 * error**-0.2) if math.isfinite(error) else 0.2
            if step <= 1e-14 * max(moment, 1e-290):
                raise LearnmechError(f"the flow of the ReLU net stalls at time {moment:.3g}; take a larger tolerance.")
            continue
        powers = np.tensordot(RK45.P.T, stages, 1)
        share = _cut(net, state, step, powers, after)
        for place in np.linspace(0, share, inside + 2)[1:-1]:
            between = _dense(state, step, powers, float(place))
            visit(moment + place * step, between, net.loss(between), _speed(net, between))
        if share < 1:
            after = _dense(state, step, powers, share)
        moment = end if share == 1 and step == end - moment else moment + share * step
        net.neurons = state = after
        if share < 1 or (net.planes is not None and _slips(net)):
            _settle_all(net, _behind(net))
            state = net.neurons
            slope = net.velocity(state)
        else:
            slope = stages[6]
        step *= min(5.0, 0.9 * max(error, 1e-10) ** -0.2)
        if visit(moment, state, net.loss(state), float(np.square(slope).sum())) or moment >= end:
            return moment
    raise LearnmechError(
        f"the flow of the ReLU net took {_MOST_STEPS} steps to time {moment:.3g}; give an earlier end."
    )


def _speed(net: Net, neurons: np.ndarray) -> float:
    return float(np.square(net.velocity(neurons)).sum())


def _dense(state: np.ndarray, step: float, powers: np.ndarray, share: float) -> np.ndarray:
    return np.asarray(state + step * np.tensordot(share ** np.arange(1, 5), powers, 1))


def _cut(net: Net, state: np.ndarray, step: float, powers: np.ndarray, after: np.ndarray) -> float:
    """Share of a step up to just behind the first kink in it."""
    if net.room(after) >= 0 and net.room(_dense(state, step, powers, 0.5)) >= 0:
        return 1.0
    high = 1.0 if net.room(after) < 0 else 0.5

    def room(share: float) -> float:
        return net.room(_dense(state, step, powers, share))

    return high if room(0.0) <= 0 else float(brentq(room, 0.0, high, xtol=1e-15, rtol=1e-15))


def _behind(net: Net) -> Bool[np.ndarray, "neurons samples"]:
    """Kinks that are being passed, in which neurons lie, or slide."""
    lengths = np.linalg.norm(net.neurons, axis=1)[:, None] * np.linalg.norm(net.points, axis=1)
    side = np.where(net.gates > (1 + net.leak) / 2, 1.0, -1.0)
    share = side * (net.neurons[:, 1:] @ net.points.T) / np.maximum(lengths, 1e-300)
    return np.asarray(net.held | ((share <= 0.0) & (lengths > 0)))


def _slips(net: Net) -> bool:
    """Whether a neuron that slides is pulled off its kink."""
    pulls = net.residual(net.neurons) / len(net.values)
    for index in np.flatnonzero(net.held.any(axis=1)):
        held = net.held[index]
        if (net.signs[index] * pulls[held] >= 0).any():
            return True
        columns = (pulls[held, None] * net.points[held]).T
        free = np.where(held, 0.0, net.gates[index])
        gates = np.linalg.lstsq(columns, -(free * pulls) @ net.points, rcond=None)[0]
        if gates.min() < net.leak or gates.max() > 1:
            return True
        net.gates[index, held] = gates
    return False


def _settle_all(net: Net, kinks: Bool[np.ndarray, "neurons samples"]) -> None:
    pulls = net.residual(net.neurons) / len(net.values)
    net.signs = np.where(net.neurons[:, 0] < 0, -1.0, 1.0)
    dimension = net.points.shape[1]
    if net.planes is None and not kinks.any():
        return
    planes = np.tile(np.eye(dimension), (len(net.neurons), 1, 1))
    for index in np.flatnonzero(kinks.any(axis=1)):
        drift = settle(net.points, pulls, net.signs[index], net.gates[index], kinks[index], net.leak)
        net.gates[index], net.held[index] = drift.gates, drift.held
        planes[index] -= drift.basis @ drift.basis.T
        net.neurons[index, 1:] = planes[index] @ net.neurons[index, 1:]
    net.planes = planes if net.held.any() else None
