"""The directions into which a residual pulls ReLU neurons: all of them in the plane, those that attract in any dimension."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from learnmech.bars import terminal_bar
from learnmech.dynamics.agf.relu_frozen import frozen_flow, place
from learnmech.dynamics.agf.relu_inputs import relu_data
from learnmech.errors import InputError

ATTRACTING, REPELLING, DEAD = "attracting", "repelling", "dead"
_CLOSE = 1e-7
_ZERO = 1e-12


@dataclass(frozen=True, kw_only=True)
class ReluDirections:
    r"""Directions in which a ReLU neuron stands still while the residual is frozen.

    Attributes:
        directions: unit vectors w, shape (directions, dimension).
        signs: of the output weight, 1 or -1.
        utilities: :math:`\hat U`, of the balanced neuron of norm 1; it grows like :math:`e^{2 \hat U t}`.
        kinds: "attracting", "repelling" (nearby balanced neurons leave it, to one side at least), or "dead" (an edge of a region
            without any pull, at which neurons end and stop growing).
        gates: derivative of the activation at each sample (directions, samples): 1, the leak, or in between on a kink that
            holds the direction; not a number on a kink that repels.
        boundary: whether it lies on a kink.
        complete: whether these are all there are, proven: in the plane and on the line.
    """

    directions: Float[np.ndarray, "directions dimension"]
    signs: Float[np.ndarray, " directions"]
    utilities: Float[np.ndarray, " directions"]
    kinds: tuple[str, ...]
    gates: Float[np.ndarray, "directions samples"]
    boundary: Bool[np.ndarray, " directions"]
    complete: bool

    def __len__(self) -> int:
        return len(self.signs)

    @property
    def angles(self) -> Float[np.ndarray, " directions"]:
        """Angles of the directions from 0 to 2 pi, in two dimensions.

        Raises:
            InputError: in another dimension.
        """
        if self.directions.shape[1] != 2:
            raise InputError(f"angles need two dimensions, these directions have {self.directions.shape[1]}.")
        return np.asarray(np.arctan2(self.directions[:, 1], self.directions[:, 0]) % (2 * np.pi))

    def attracting(self) -> "ReluDirections":
        """Give those along which neurons gather and grow: attracting, with positive utility.

        Returns:
            The same fields, of fewer directions; that with the largest utility first.
        """
        good = [index for index, kind in enumerate(self.kinds) if kind == ATTRACTING and self.utilities[index] > 0]
        return self._take(sorted(good, key=lambda index: -self.utilities[index]))

    def name(self, index: int) -> str:
        """Name a direction.

        Args:
            index: of it.

        Returns:
            In the plane its angle in degrees and the sign of a, such as "48.6+"; else its index and the sign, such as "0+".
        """
        sign = "-" if self.signs[index] < 0 else "+"
        if self.directions.shape[1] != 2:
            return f"{index}{sign}"
        return f"{round(math.degrees(self.angles[index]), 1) % 360:g}{sign}"

    def nearest(self, weights: Float[np.ndarray, " dimension"], sign: float) -> str | None:
        """Name the direction that is nearest to a neuron's.

        Args:
            weights: w, of any length.
            sign: of its output weight.

        Returns:
            The name; None if none with the same sign lies within 1 rad.
        """
        length = float(np.linalg.norm(weights))
        if not len(self) or length == 0:
            return None
        close = np.where(self.signs * sign > 0, self.directions @ weights / length, -2.0)
        best = int(close.argmax())
        return self.name(best) if close[best] >= math.cos(1.0) else None

    def _take(self, chosen: list[int]) -> "ReluDirections":
        return ReluDirections(
            directions=self.directions[chosen],
            signs=self.signs[chosen],
            utilities=self.utilities[chosen],
            kinds=tuple(self.kinds[index] for index in chosen),
            gates=self.gates[chosen],
            boundary=self.boundary[chosen],
            complete=self.complete,
        )


def extremal_directions(
    X: Any, residual: Any, *, leak: float = 0.0, bias: bool = False, starts: int = 100, seed: int = 0
) -> ReluDirections:
    r"""Find where a frozen residual pulls ReLU neurons.

    The utility of a balanced neuron of norm 1 with output weight of sign s is

    .. math:: \hat U(w) = \frac{s}{2n}\sum_j r_j\,\sigma(w \cdot x_j) = \frac{s}{2}\, w \cdot D_m, \qquad D_m = \frac1n\sum_j g_j r_j x_j,

    with one constant :math:`D_m` for each cone m of the data's kinks. So :math:`w = sD_m/|D_m|` attracts if it lies in its own cone,
    with :math:`\hat U = |D_m|/2`, and :math:`-sD_m/|D_m|` repels if that does. On a kink a neuron stands still where both sides push
    towards it, or both away.

    In the plane, the kinks cut the circle into at most 2n arcs, each of which is looked at together with its ends: the list is complete.
    In higher dimension, the exact flow of a neuron is followed from ``starts`` random directions of each sign, and the ends are
    merged: only attracting directions, exact to rounding, but one with a small basin may be missed.

    Source: Kunin et al. 2025 (arXiv 2506.06489) for interior ones; kinks, enumeration and exact flow are derived here.

    How to read it: from a small start neurons gather in few attracting directions ("quantisation"). The one with the largest utility is
    learned first, at about :math:`-\log|\theta_0| / (2\hat U)`. A neuron that is active on no sample feels nothing and has no
    direction; a residual of 0, or inputs that are all 0, leave no direction at all.

    When it isn't valid: neurons with :math:`|a| < |w|` may change the sign of a on their way. Samples that are exactly equal,
    collinear or 0 are handled; kinks closer than 1e-12 rad count as one.

    Args:
        X: inputs (samples, dimension).
        residual: r, targets minus output (samples,).
        leak: slope of the activation below 0, from 0 to below 1.
        bias: whether a column of ones is appended.
        starts: random starts of each sign, beyond the plane.
        seed: of the starts.

    Returns:
        Directions, in the plane by sign and angle, else by utility.

    Raises:
        InputError: for wrong shapes or numbers.

    Example:
        >>> found = extremal_directions([[1.0, 0.0], [0.0, 1.0]], [3.0, 1.0]).attracting()
        >>> found.directions.round(6).tolist(), found.utilities.round(6).tolist()
        ([[0.948683, 0.316228]], [0.790569])
    """
    points, rest, leak = relu_data(X, residual, leak, bias)
    if not isinstance(starts, int) or isinstance(starts, bool) or starts < 1:
        raise InputError(f"starts must be a positive integer, got {starts!r}.")
    pulls = rest / len(rest)
    if points.shape[1] == 1:
        return _line(points, pulls, leak)
    if points.shape[1] == 2:
        return _plane(points, pulls, leak)
    return _cluster(points, pulls, leak, starts, seed)


Found = tuple[np.ndarray, float, float, str, np.ndarray, bool]


def _collect(found: list[Found], points: np.ndarray, complete: bool) -> ReluDirections:
    count = len(found)
    return ReluDirections(
        directions=np.array([entry[0] for entry in found]).reshape(count, points.shape[1]),
        signs=np.array([entry[1] for entry in found]).reshape(count),
        utilities=np.array([entry[2] for entry in found]).reshape(count),
        kinds=tuple(entry[3] for entry in found),
        gates=np.array([entry[4] for entry in found]).reshape(count, len(points)),
        boundary=np.array([entry[5] for entry in found], bool).reshape(count),
        complete=complete,
    )


def _line(points: np.ndarray, pulls: np.ndarray, leak: float) -> ReluDirections:
    found: list[Found] = []
    size = float(np.abs(pulls) @ np.abs(points[:, 0]))
    for sign in (1.0, -1.0):
        for direction in (1.0, -1.0):
            gates = np.where(points[:, 0] * direction > 0, 1.0, leak)
            pull = float((gates * pulls) @ points[:, 0])
            if abs(pull) > _ZERO * size:
                kind = ATTRACTING if sign * direction * pull > 0 else REPELLING
                found.append((np.array([direction]), sign, sign * direction * pull / 2, kind, gates, False))
    return _collect(found, points, True)


def _plane(points: np.ndarray, pulls: np.ndarray, leak: float) -> ReluDirections:
    lengths = np.linalg.norm(points, axis=1)
    real = lengths > 0
    size = float(np.abs(pulls) @ lengths)
    if size == 0:
        return _collect([], points, True)
    heading = np.arctan2(points[real, 1], points[real, 0])
    kinks = np.sort(np.concatenate([heading - np.pi / 2, heading + np.pi / 2]) % (2 * np.pi))
    kinks = kinks[np.concatenate([[True], np.diff(kinks) > _ZERO])]
    if len(kinks) > 1 and kinks[0] + 2 * np.pi - kinks[-1] <= _ZERO:
        kinks = kinks[:-1]
    widths = np.diff(np.append(kinks, kinks[0] + 2 * np.pi))
    middles = kinks + widths / 2
    arcs = np.where(points @ np.stack([np.cos(middles), np.sin(middles)]) > 0, 1.0, leak).T
    arcs[:, ~real] = leak
    drifts = (arcs * pulls) @ points
    found: list[Found] = []
    for sign in (1.0, -1.0):
        for index, drift in enumerate(drifts):
            found += _inside(sign, drift, arcs[index], kinks[index], widths[index], size)
            found += _edge(sign, kinks[index], (drifts[index - 1], drift), (arcs[index - 1], arcs[index]), size)
    found.sort(key=lambda entry: (-entry[1], math.atan2(entry[0][1], entry[0][0]) % (2 * math.pi)))
    return _collect(found, points, True)


def _inside(sign: float, drift: np.ndarray, gates: np.ndarray, start: float, width: float, size: float) -> list[Found]:
    length = float(np.linalg.norm(drift))
    if length <= _ZERO * size:
        return []
    found: list[Found] = []
    for side, kind in ((1.0, ATTRACTING), (-1.0, REPELLING)):
        direction = side * sign * drift / length
        place_in_arc = (math.atan2(direction[1], direction[0]) - start) % (2 * math.pi)
        if _ZERO < place_in_arc < width - _ZERO:
            found.append((direction, sign, side * length / 2, kind, gates, False))
    return found


def _edge(
    sign: float, angle: float, drifts: tuple[np.ndarray, np.ndarray], arcs: tuple[np.ndarray, np.ndarray], size: float
) -> list[Found]:
    """A kink, with the drifts and gates in the arcs before and after it."""
    before, after = drifts
    direction = np.array([math.cos(angle), math.sin(angle)])
    tangent = np.array([-direction[1], direction[0]])
    utility = sign * float((before + after) @ direction) / 4
    utility = utility if abs(utility) > _ZERO * size else 0.0
    pushes, dead = [], []
    for drift, outward in ((before, 1.0), (after, -1.0)):
        push = sign * float(drift @ tangent)
        dead.append(bool(np.linalg.norm(drift) <= _ZERO * size))
        if abs(push) <= _ZERO * size:
            push = 0.0 if dead[-1] else outward * math.copysign(1.0, sign * float(drift @ direction))
        pushes.append(push * outward)
    kinks = arcs[0] != arcs[1]
    gates = np.where(kinks, np.nan, arcs[0])
    if any(dead):
        if not all(dead) and max(pushes) > 0:
            return [(direction, sign, 0.0, DEAD, gates, True)]
        return []
    if min(pushes) > 0:
        both = np.stack([before @ tangent, after @ tangent])
        share = float(both[1] / (both[1] - both[0])) if both[0] != both[1] else 1.0
        held = share * arcs[0] + (1 - share) * arcs[1]
        return [(direction, sign, utility, ATTRACTING, held, True)]
    return [(direction, sign, utility, REPELLING, gates, True)] if max(pushes) < 0 else []


def _cluster(points: np.ndarray, pulls: np.ndarray, leak: float, starts: int, seed: int) -> ReluDirections:
    generator = np.random.default_rng(seed)
    found: list[Found] = []
    half = math.sqrt(0.5)
    with terminal_bar("extremal directions", 2 * starts, least=1000) as advance:
        for sign in (1.0, -1.0):
            for _ in range(starts):
                start = generator.standard_normal((1, points.shape[1]))[0]
                weights = half * start / float(np.linalg.norm(start))
                neuron, _ = frozen_flow(points, pulls, leak, place(points, pulls, leak, sign * half, weights, 0.0))
                advance(1)
                if neuron.end != "growth" or neuron.sign != sign:
                    continue
                direction = neuron.weights / np.linalg.norm(neuron.weights)
                known = (entry for entry in found if entry[1] == sign)
                if not any(np.linalg.norm(entry[0] - direction) <= _CLOSE for entry in known):
                    utility = float(np.linalg.norm(neuron.drift.pull)) / 2
                    edge = bool(neuron.drift.held.any())
                    found.append((direction, sign, utility, ATTRACTING, neuron.drift.gates, edge))
    found.sort(key=lambda entry: -entry[2])
    return _collect(found, points, False)
