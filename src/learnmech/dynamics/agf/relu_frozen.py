"""One ReLU neuron under a frozen residual, in closed form from kink to kink."""

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from learnmech.dynamics.agf.relu_kinks import Drift, on_kink, settle
from learnmech.errors import LearnmechError

_LONGEST = 30.0
_SAME = 1e-12
_NOTHING = 1e-13
_BALANCED = 1e-8


@dataclass(frozen=True)
class Frozen:
    r"""A neuron whose effect on the residual is neglected.

    Attributes:
        output: a, divided by the norm of (a, w).
        weights: w, divided likewise.
        log_norm: logarithm of that norm.
        drift: what pulls it.
        end: "rest" if nothing pulls it, "decay" if it shrinks for ever, "growth" if it has met its last kink or grows on,
            "limit" if its norm has reached the limit, "time" if the time is over.
    """

    output: float
    weights: Float[np.ndarray, " dimension"]
    log_norm: float
    drift: Drift
    end: str = "time"

    @property
    def sign(self) -> float:
        """Sign of the output weight; + for 0."""
        return -1.0 if self.output < 0 else 1.0


def place(
    points: Float[np.ndarray, "samples dimension"],
    pulls: Float[np.ndarray, " samples"],
    leak: float,
    output: float,
    weights: Float[np.ndarray, " dimension"],
    log_norm: float,
) -> Frozen:
    """Put a neuron under a frozen residual.

    Args:
        points: the data.
        pulls: residual times weight of each sample.
        leak: slope of the activation below 0.
        output: a, in any scale that it shares with the weights.
        weights: w.
        log_norm: logarithm of the true norm of (a, w).

    Returns:
        The neuron with its drift.
    """
    norm = math.sqrt(output * output + float(weights @ weights))
    if norm == 0.0:
        nothing = Drift(
            np.full(len(points), leak), np.zeros(len(points), bool), 0 * weights, np.zeros((len(weights), 0))
        )
        return Frozen(0.0, weights, -math.inf, nothing, "rest")
    output, weights = output / norm, weights / norm
    kinks = on_kink(points, weights)
    gates = np.where(~kinks & (points @ weights > 0), 1.0, leak)
    sign = -1.0 if output < 0 else 1.0
    drift = settle(points, pulls, sign, gates, kinks, leak)
    return Frozen(output, weights - drift.basis @ (drift.basis.T @ weights), log_norm, drift)


def frozen_flow(
    points: Float[np.ndarray, "samples dimension"],
    pulls: Float[np.ndarray, " samples"],
    leak: float,
    neuron: Frozen,
    *,
    duration: float = math.inf,
    limit: float = math.inf,
) -> tuple[Frozen, float]:
    r"""Follow :math:`a' = w \cdot D, w' = a D` with :math:`D = \sum_j c_j \sigma'(w \cdot x_j) x_j` exactly.

    Between kinks D is constant and, with :math:`p = w \cdot D / |D|`, both :math:`a \pm p` are exponentials
    :math:`e^{\pm |D| t}` while the rest of w stands still; a kink is met where a quadratic in :math:`e^{|D| t}` vanishes. What
    happens there, :func:`settle` decides. No step size, no error but rounding; the norm is kept as a logarithm, so no start
    is too small.

    Source: derived here.

    Args:
        points: the data.
        pulls: residual times weight of each sample.
        leak: slope of the activation below 0.
        neuron: from :func:`place` with the same residual.
        duration: time at which to stop.
        limit: stop when the logarithm of the norm has grown to this.

    Returns:
        The neuron, and the time that has passed: infinite if the neuron never meets another kink, limit or end. Then
        its direction is the limit, and its ``log_norm`` means nothing.

    Raises:
        LearnmechError: if it meets more kinks than is plausible.
    """
    passed = 0.0
    size = float(np.abs(pulls) @ np.linalg.norm(points, axis=1))
    for _ in range(1000 + 100 * len(points)):
        drift, weights = neuron.drift, neuron.weights
        speed = float(np.linalg.norm(drift.pull))
        if speed <= _NOTHING * size:
            return replace(neuron, end="rest"), duration
        if neuron.log_norm >= limit and neuron.output * float(weights @ drift.pull) > 0:
            return replace(neuron, end="limit"), passed
        along = drift.pull / speed
        part = float(weights @ along)
        across = weights - part * along
        up, down = (neuron.output + part) / 2, (neuron.output - part) / 2
        up, down = (0.0 if abs(value) <= 1e-14 else value for value in (up, down))
        if abs(up) <= _BALANCED * abs(down) and float(across @ across) <= _BALANCED**2:
            up, across = 0.0, 0.0 * across
        roots = _meetings(points, drift, leak, across, along, up, down)
        turn = math.sqrt(-down / up) if up * down < 0 and -down / up > 1 else math.inf
        full = _fills(neuron.log_norm, limit, float(across @ across), up, down)
        kink = float(roots.min(initial=math.inf))
        left = speed * (duration - passed)
        event = min(math.log(min(kink, turn)), full)
        if math.log(min(kink, turn)) == math.inf and min(full, left) > _LONGEST:
            if up == 0.0:
                return replace(neuron, end="decay", log_norm=-math.inf), duration
            half, sign = math.sqrt(0.5), math.copysign(1.0, up)
            grown = neuron.log_norm + min(full, left) + math.log(math.sqrt(2) * abs(up))
            end = "growth" if min(full, left) == math.inf else "limit" if full <= left else "time"
            neuron = replace(neuron, output=sign * half, weights=sign * half * along, log_norm=grown, end=end)
            return neuron, passed + min(full, left) / speed
        step = min(event, left, _LONGEST)
        grow = math.exp(step)
        output, part = up * grow + down / grow, up * grow - down / grow
        weights = across + part * along
        weights = weights - drift.basis @ (drift.basis.T @ weights)
        norm = math.sqrt(output * output + float(weights @ weights))
        passed += step / speed
        output, weights = (output / norm, weights / norm) if norm > 0 else (0.0, weights)
        neuron = replace(
            neuron, output=output, weights=weights, log_norm=neuron.log_norm + math.log(norm) if norm > 0 else -math.inf
        )
        if norm == 0.0:
            return replace(neuron, end="decay"), duration
        if step >= left:
            return replace(neuron, end="time"), duration
        if step < event:
            continue
        if full <= step:
            return replace(neuron, end="limit", log_norm=limit), passed
        neuron = _meet(points, pulls, leak, neuron, drift, roots <= kink * (1 + _SAME), kink, turn, up)
    raise LearnmechError("a neuron under a frozen residual met more kinks than is plausible; are samples almost equal?")


def _meet(
    points: np.ndarray,
    pulls: np.ndarray,
    leak: float,
    neuron: Frozen,
    drift: Drift,
    met: np.ndarray,
    kink: float,
    turn: float,
    up: float,
) -> Frozen:
    sign = neuron.sign if kink < turn else math.copysign(1.0, up)
    gates = drift.gates.copy()
    if turn <= kink:
        neuron = replace(neuron, output=math.copysign(1e-300, up))
        gates[drift.held] = leak
        kinks = drift.held | on_kink(points, neuron.weights)
    else:
        kinks = met | drift.held | on_kink(points, neuron.weights)
    after = settle(points, pulls, sign, gates, kinks, leak)
    weights = neuron.weights - after.basis @ (after.basis.T @ neuron.weights)
    return replace(neuron, weights=weights, drift=after)


def _meetings(
    points: np.ndarray, drift: Drift, leak: float, across: np.ndarray, along: np.ndarray, up: float, down: float
) -> np.ndarray:
    """First value of exp(speed * time), at least 1, at which each sample's kink is met from the side where it is."""
    slopes, shifts = points @ along, points @ across
    side = np.where(drift.gates == 1.0, 1.0, -1.0)
    first, last = slopes * up, -slopes * down
    result = np.full(len(points), math.inf)
    root = np.sqrt(np.maximum(shifts * shifts - 4 * first * last, 0.0))
    q = -0.5 * (shifts + np.where(shifts < 0, -1.0, 1.0) * root)
    real = (shifts * shifts >= 4 * first * last) & ~drift.held
    with np.errstate(divide="ignore", invalid="ignore"):
        for candidate in (q / first, last / q):
            good = real & np.isfinite(candidate) & (candidate >= 1 - 1e-12)
            safe = np.where(good, np.maximum(candidate, 1.0), 1.0)
            outward = side * slopes * (up + down / (safe * safe)) < 0
            result = np.where(good & outward, np.minimum(result, safe), result)
    return np.asarray(result)


def _fills(log_norm: float, limit: float, across: float, up: float, down: float) -> float:
    """Speed times time at which the norm reaches the limit."""
    if limit == math.inf or up == 0.0:
        return math.inf
    exponent = 2 * (limit - log_norm)
    if exponent > 60:
        return exponent / 2 - math.log(math.sqrt(2) * abs(up))
    rest = math.exp(exponent) - across
    inside = rest * rest - 16 * up * up * down * down
    if inside < 0 or rest <= 0:
        return math.inf
    return max(0.0, 0.5 * math.log((rest + math.sqrt(inside)) / (4 * up * up)))
