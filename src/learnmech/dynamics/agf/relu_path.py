"""What a two-layer ReLU net learns from a vanishing start: directions one after the other, with their times and levels."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from learnmech.bars import terminal_bar
from learnmech.dynamics.agf.predictions import Prediction
from learnmech.dynamics.agf.problems import as_array
from learnmech.dynamics.agf.relu_directions import ReluDirections, extremal_directions
from learnmech.dynamics.agf.relu_frozen import Frozen, frozen_flow, place
from learnmech.dynamics.agf.relu_inputs import relu_data
from learnmech.dynamics.agf.relu_refined import refine_times
from learnmech.dynamics.agf.relu_stages import minimise
from learnmech.errors import InputError

_SMALL = 1e-3
_GONE = 1e-4
_SAME_CONE = 0.3
_NO_DROP = 1e-6


@dataclass(frozen=True, kw_only=True)
class ReluPrediction(Prediction):
    r"""The staircase of a two-layer ReLU net.

    Attributes:
        directions: unit vector w of the neuron that leads each jump, when it becomes active (jumps, dimension).
        signs: of its output weight.
        utilities: :math:`\hat U` there, half its rate of growth.
        refined_times: when the loss crosses the mean of two levels, with the growth during transitions and the sum over neurons
            counted; not a number where it doesn't, empty if not asked for.
        neurons: the active neurons (a, w) at the end.
        candidates: the attracting directions of the first residual, which give their names to ``order``.
    """

    directions: Float[np.ndarray, "jumps dimension"]
    signs: Float[np.ndarray, " jumps"]
    utilities: Float[np.ndarray, " jumps"]
    refined_times: Float[np.ndarray, " refined"]
    neurons: Float[np.ndarray, "neurons size"]
    candidates: ReluDirections

    @property
    def crossing_times(self) -> Float[np.ndarray, " jumps"]:
        """The refined times, and ``times`` where there are none."""
        if self.crossings is not None:
            return self.crossings
        if len(self.refined_times) != len(self.times):
            return self.times
        return np.where(np.isnan(self.refined_times), self.times, self.refined_times)


def relu(
    X: Any,
    y: Any,
    scale: float | None = None,
    *,
    init: Any = None,
    leak: float = 0.0,
    bias: bool = False,
    refine: bool = True,
    most: int = 20,
    stop: float = 1e-3,
    starts: int = 100,
    seed: int = 0,
) -> ReluPrediction:
    r"""Predict what a two-layer ReLU net learns, when, and down to which levels.

    Dormant neurons move under the frozen residual, into an extremal direction, and grow there by :math:`2\hat U = |D|`; one
    whose accumulated :math:`S = \int 2\hat U dt` reaches :math:`-\log|\theta_0|` becomes active, with all others of its cone
    and sign; the active neurons run to a critical point at once; the residual changes, and so on. Every dormant neuron keeps its S and its
    direction through all stages.

    Source: Kunin et al. 2025 (arXiv 2506.06489), the general framework. Derived here: the exact flow of dormant neurons from kink to
    kink (:func:`~learnmech.dynamics.agf.relu_frozen.frozen_flow`), the activation of a whole cone, ``refined_times``. Unlike
    the paper's pseudo-code, cost minimisation begins at norm 1e-3 and not at 1: so it follows the path that gradient flow takes from the saddle.

    How to read it: ``times`` differ from gradient flow's by a constant in time as the scale shrinks, so by
    :math:`O(1/|\log|\theta_0||)` relatively. ``refined_times`` do not: neurons that gather in one direction act as one neuron
    of norm :math:`R = (\sum_i \rho_i^2)^{1/2}`, with :math:`\rho_i e^{|D| t}` the growth of each after its alignment; it reaches the
    size where it matters at :math:`(\log\epsilon - \log R)/|D|`, and the transition from there is integrated with all dormant neurons in tow.

    When it isn't valid: for starts that aren't small, or where two directions mature together. With ``scale`` alone,
    a direction that only attracts in a later stage has no neuron unless one drifts there.

    Neurons that become active without lowering the loss by a millionth of its first level join the net and count as no jump.

    Ties: neurons that mature at the same moment become active one after the other, with equal times, those with larger utility at the
    start, then of smaller index, first. A target of 0, neurons that no sample activates, and neurons that shrink for ever
    give a prediction without jumps.

    Args:
        X: inputs (samples, inputs).
        y: targets (samples,).
        scale: norm of each :math:`(a_i, w_i)` at the start, below 0.1: one balanced neuron lies in each attracting direction. Not with ``init``.
        init: the neurons themselves, rows (a, w), of norms below 1.
        leak: slope of the activation below 0.
        bias: whether a column of ones is appended to the inputs.
        refine: whether to compute ``refined_times``.
        most: largest number of jumps.
        stop: share of the first level at which to stop; small remainders of the loss are learned late, and are slow to compute.
        starts: see :func:`extremal_directions`.
        seed: likewise.

    Returns:
        The prediction; ``order`` names the nearest of the first residual's attracting directions: in the plane by its angle in
        degrees and the sign of a, such as "48.6+", else by its index, such as "0+"; None if none is near.

    Raises:
        InputError: for wrong arguments.

    Example:
        One sample at distance 1 and the target 1: :math:`|D| = 1`, so the neuron of norm 1e-4 matures at :math:`\log 10^4`. Its
        strength :math:`\beta = |\theta|^2/2` obeys :math:`\beta' = 2\beta(1-\beta)`, and the loss is halved at :math:`\beta = 1 - \sqrt{1/2}`.

        >>> found = relu([[1.0, 0.0]], [1.0], 1e-4)
        >>> found.times.round(4).tolist(), found.levels.round(9).tolist(), found.order
        ([9.2103], [0.5, 0.0], ('0+',))
        >>> beta = 1 - math.sqrt(0.5)
        >>> bool(abs(found.refined_times[0] - 0.5 * math.log(beta / (1 - beta) / 0.5e-8)) < 1e-4)
        True
    """
    points, values, leak = relu_data(X, y, leak, bias)
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        raise InputError(f"most must be a positive integer, the largest number of jumps, got {most!r}.")
    if not 0 < stop < 1:
        raise InputError(f"stop must lie between 0 and 1, a share of the first level, got {stop!r}.")
    if (scale is None) == (init is None):
        raise InputError("give either scale, the norm of ideal neurons at the start, or init, the neurons themselves.")
    candidates = extremal_directions(points, values, leak=leak, starts=starts, seed=seed).attracting()
    if init is None:
        start, logs = _ideal(candidates, scale)
    else:
        start, logs = _given(points, init)
    jumps, levels, active, notes = _stages(points, values, leak, start, logs, most, stop)
    times = np.array([jump.moment for jump in jumps])
    refined = refine_times(points, values, leak, start, logs, levels) if refine and jumps else np.zeros(0)
    return ReluPrediction(
        times=times,
        levels=np.array(levels),
        order=tuple(candidates.nearest(jump.direction, jump.sign) for jump in jumps),
        model="two-layer ReLU net",
        notes=tuple(notes),
        directions=np.array([jump.direction for jump in jumps]).reshape(len(jumps), points.shape[1]),
        signs=np.array([jump.sign for jump in jumps]).reshape(len(jumps)),
        utilities=np.array([jump.utility for jump in jumps]).reshape(len(jumps)),
        refined_times=refined,
        neurons=active,
        candidates=candidates,
    )


@dataclass(frozen=True)
class _Jump:
    moment: float
    direction: np.ndarray
    sign: float
    utility: float


def _ideal(candidates: ReluDirections, scale: Any) -> tuple[np.ndarray, np.ndarray]:
    if not (isinstance(scale, int | float) and not isinstance(scale, bool) and 0 < scale <= 0.1):
        raise InputError(
            f"scale must be above 0 and at most 0.1, the norm of a neuron at the start, got {scale!r}: at 0 no flow leaves."
        )
    rows = math.sqrt(0.5) * np.column_stack([candidates.signs, candidates.directions])
    return rows, np.full(len(candidates), math.log(scale))


def _given(points: np.ndarray, init: Any) -> tuple[np.ndarray, np.ndarray]:
    neurons = as_array("init", init, 2)
    if neurons.shape[1] != 1 + points.shape[1] or not len(neurons):
        raise InputError(f"init must have shape (neurons, {1 + points.shape[1]}), rows (a, w), got {neurons.shape}.")
    norms = np.linalg.norm(neurons, axis=1)
    if not norms.any() or norms.max() >= 1:
        raise InputError(
            f"init must hold neurons with norms below 1 that aren't all 0, got norms from {norms.min():.3g} to "
            f"{norms.max():.3g}: the theory is of small starts."
        )
    norms, neurons = norms[norms > 0], neurons[norms > 0]
    return neurons / norms[:, None], np.log(norms)


def _stages(
    points: np.ndarray, values: np.ndarray, leak: float, start: np.ndarray, logs: np.ndarray, most: int, stop: float
) -> tuple[list[_Jump], list[float], np.ndarray, list[str]]:
    count = len(values)
    active = np.zeros((0, start.shape[1]))
    dormant, logs = start.copy(), logs.copy()
    levels = [float(values @ values) / (2 * count)]
    jumps: list[_Jump] = []
    notes: list[str] = []
    moment, rest = 0.0, values
    with terminal_bar("alternating flow", most, least=3) as advance:
        while len(jumps) < most and len(dormant) and levels[-1] > stop * levels[0]:
            pulls = rest / count
            neurons = [place(points, pulls, leak, row[0], row[1:], log) for row, log in zip(dormant, logs, strict=True)]
            waits = [_wait(points, pulls, leak, neuron) for neuron in neurons]
            first = int(np.argmin(waits)) if waits else 0
            if waits[first] == math.inf:
                break
            moved = [frozen_flow(points, pulls, leak, neuron, duration=waits[first])[0] for neuron in neurons]
            leader = frozen_flow(points, pulls, leak, neurons[first], limit=0.0)[0]
            moved[first] = leader
            moment += waits[first]
            width = float(np.linalg.norm(leader.weights))
            direction = leader.weights / width
            utility = leader.output * float(leader.weights @ leader.drift.pull)
            jump = _Jump(moment, direction, leader.sign, utility)
            group = np.array([_joins(leader, neuron) for neuron in moved])
            rows = np.stack([np.append(neuron.output, neuron.weights) for neuron in moved])
            logs = np.array([neuron.log_norm for neuron in moved])
            small = _SMALL * min(
                1.0, math.sqrt(np.abs(values).max() / max(np.linalg.norm(points, axis=1).max(), 1e-300))
            )
            entering = small * rows[group] * np.exp(logs[group] - leader.log_norm)[:, None]
            active, rests = minimise(points, values, leak, np.concatenate([active, entering]))
            if not rests:
                notes.append(f"The active neurons did not come to rest after the jump at {moment:.4g}.")
            norms = np.linalg.norm(active, axis=1)
            gone = norms < _GONE * norms.max()
            back = active[gone & (norms > 0)] / norms[gone & (norms > 0), None]
            active = active[~gone]
            dormant = np.concatenate([rows[~group], back])
            logs = np.concatenate([logs[~group], np.zeros(len(back))])
            heights = active[:, 1:] @ points.T
            rest = values - active[:, 0] @ np.where(heights > 0, heights, leak * heights)
            rest = np.where(np.abs(rest) <= 1e-13 * np.abs(values).max(), 0.0, rest)
            level = float(rest @ rest) / (2 * count)
            if levels[-1] - level > _NO_DROP * levels[0]:
                jumps.append(jump)
                levels.append(level)
            else:
                levels[-1] = min(level, levels[-1])
            advance(1)
    return jumps, levels, active, notes


def _wait(points: np.ndarray, pulls: np.ndarray, leak: float, neuron: Frozen) -> float:
    end, passed = frozen_flow(points, pulls, leak, neuron, limit=0.0)
    return passed if end.end == "limit" else math.inf


def _joins(leader: Frozen, neuron: Frozen) -> bool:
    """Whether a neuron lies in the leader's cone with the same sign, close to it."""
    if neuron is leader:
        return True
    lengths = float(np.linalg.norm(leader.weights) * np.linalg.norm(neuron.weights))
    if neuron.sign != leader.sign or lengths == 0:
        return False
    near = float(leader.weights @ neuron.weights) >= math.cos(_SAME_CONE) * lengths
    return near and bool(np.allclose(leader.drift.gates, neuron.drift.gates, atol=1e-6))
