"""Cost minimisation: gradient flow of the active neurons to a critical point, in no time, and neurons that vanish on the way."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.integrate import DOP853, LSODA, RK23
from scipy.optimize import minimize

from learnmech.dynamics.agf.problems import Problem

_LARGE = 300
_MOST_STEPS = 3_000
_FLOW_TOLERANCE = 1e-7
_STALLED = 1e-5
_STALLS = 4
_NEAR = 1e-5
_AT_REST = 1e-9
_CLOSE = 1e-2
_CLOSE_EACH = 0.1
_WEAKEST = 1e-5
_VANISHED = 1e-3
_LARGEST_VANISHED = 0.3


@dataclass
class Settled:
    """Where cost minimisation ended.

    Attributes:
        neurons: parameters, (neurons, size); of one that vanished, those at which it did.
        vanished: which shrank to nothing.
        converged: whether it is a critical point to the tolerance.
        interrupted: whether it was stopped from outside.
    """

    neurons: Float[np.ndarray, "neurons size"]
    vanished: Bool[np.ndarray, " neurons"]
    converged: bool
    interrupted: bool = False


def settle(
    problem: Problem,
    neurons: Float[np.ndarray, "neurons size"],
    *,
    may_vanish: Bool[np.ndarray, " neurons"],
    reference: float = 0.0,
    tolerance: float = _AT_REST,
    stopped: Callable[[], bool] = lambda: False,
) -> Settled:
    """Follow the gradient flow of the active neurons to a critical point.

    A true flow with error control brings them near it, so that they end in the valley that the flow leads to. From there, Newton's
    method (many neurons: a quasi-Newton search) makes it exact; its result counts only if it is near and the loss is not
    higher. A neuron that shrinks below a thousandth (or, if that is more, twice the norm at which its conserved charges would turn
    it round) is taken out, and the others go on. Where the best loss needs infinite weights, the flow ends, not converged, once
    the loss falls by less than a hundred thousandth of its way while time doubles,
    four times in a row.

    A problem with a better way, as for gradients with kinks, has a method ``settle(neurons)`` that gives the neurons at the critical point
    and whether it was reached.

    Args:
        problem: the model.
        neurons: the active ones at the start.
        may_vanish: which may be taken out.
        reference: a gradient of the whole problem; one far below it (1e-5) counts as large as that.
        tolerance: on the gradient, relative to that at the start of the flow.
        stopped: asked after each step, true to end.

    Returns:
        The end, with ``converged`` false if the gradient stays larger.
    """
    neurons = neurons.copy()
    gone = np.zeros(len(neurons), dtype=bool)
    charges = problem.charges(neurons)
    turning = 2 * np.sqrt(np.abs(charges).max(axis=1, initial=0.0))
    smallest = np.where(may_vanish, np.clip(turning, _VANISHED, _LARGEST_VANISHED), 0.0)
    scale = max(float(np.linalg.norm(problem.gradient(neurons))), _WEAKEST * reference)
    own = getattr(problem, "settle", None)
    if own is not None and len(neurons):
        ends, converged = own(neurons)
        ends = np.asarray(ends, dtype=np.float64)
        return Settled(ends, np.linalg.norm(ends, axis=1) < smallest, bool(converged))
    while not gone.all():
        stay = np.flatnonzero(~gone)
        found = _follow(problem, neurons[stay], smallest[stay], scale, tolerance, stopped)
        neurons[stay] = found.neurons
        gone[stay] = found.vanished
        if not found.vanished.any():
            return Settled(neurons, gone, found.converged, found.interrupted)
    return Settled(neurons, gone, True)


def restored(
    problem: Problem,
    last: Float[np.ndarray, " size"],
    at_activation: Float[np.ndarray, " size"],
) -> Float[np.ndarray, " size"]:
    """Give the unit direction with which a neuron that vanished is dormant again.

    Where it vanished, the differences between the norms of its blocks, which gradient flow keeps, are lost to rounding, but decide how
    long the way to the opposite sign is. So the directions within blocks are the last ones, and the norms of the blocks follow
    from the charges at activation.

    Args:
        problem: the model.
        last: parameters where it vanished.
        at_activation: parameters when it became active, of norm 1.

    Returns:
        A unit vector; without blocks that of ``last``.
    """
    norm = float(np.linalg.norm(last))
    unit = last / norm if norm > 0 else at_activation / np.linalg.norm(at_activation)
    if not problem.blocks:
        return np.asarray(unit)
    degrees = np.array([part.degree for part in problem.blocks], dtype=np.float64)
    charges = np.concatenate([[0.0], problem.charges(at_activation[None])[0]])
    outside = np.ones(problem.size, dtype=bool)
    for part in problem.blocks:
        outside[part.start : part.stop] = False
    rest = float(np.square(unit[outside]).sum())
    shares = degrees * ((1 - rest - float(degrees @ charges)) / degrees.sum() + charges)
    result = unit.copy()
    for part, share in zip(problem.blocks, np.maximum(shares, 0.0), strict=True):
        block = unit[part.start : part.stop]
        size = float(np.linalg.norm(block))
        if size == 0:
            block = at_activation[part.start : part.stop]
            size = float(np.linalg.norm(block))
        result[part.start : part.stop] = block * (math.sqrt(share) / size) if size > 0 else 0.0
    return np.asarray(result / np.linalg.norm(result))


def _follow(
    problem: Problem,
    neurons: Float[np.ndarray, "neurons size"],
    smallest: Float[np.ndarray, " neurons"],
    scale: float,
    tolerance: float,
    stopped: Callable[[], bool],
) -> Settled:
    """Flow until at rest, or until the first neuron has vanished."""
    none, free = np.zeros(len(neurons), dtype=bool), _free(problem, neurons)

    def whole(flat: np.ndarray) -> np.ndarray:
        state = np.zeros_like(neurons)
        state[free] = flat
        return state

    def slope(_: float, flat: np.ndarray) -> np.ndarray:
        return np.asarray(-problem.gradient(whole(flat))[free])

    rests = float(np.linalg.norm(problem.gradient(neurons))) <= tolerance * scale
    if scale == 0 or rests:
        return Settled(neurons, none, True)
    method: Any = RK23 if not problem.smooth else LSODA if free.sum() <= _LARGE else DOP853
    rough = _FLOW_TOLERANCE if problem.smooth else 1e-6
    solver = method(slope, 0.0, neurons[free], math.inf, rtol=rough, atol=rough * 1e-2)
    state, near = neurons, _NEAR * scale
    begin = mark_loss = problem.loss(neurons)
    mark, stalls = 10 / scale, 0
    for _ in range(_MOST_STEPS):
        before = np.linalg.norm(state, axis=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            solver.step()
        if solver.status == "failed" or not np.isfinite(solver.y).all():
            break
        state = whole(solver.y)
        norms = np.linalg.norm(state, axis=1)
        vanished = (norms < smallest) & (norms < before)
        if vanished.any():
            return Settled(state, vanished, True)
        if stopped():
            return Settled(state, none, False, True)
        size = float(np.linalg.norm(problem.gradient(state)))
        if size <= tolerance * scale:
            return Settled(state, none, True)
        if size <= near:
            polished = _polish(problem, state, free, tolerance * scale, smallest)
            if polished is not None:
                return Settled(polished, none, True)
            near /= 10
        if solver.t >= 2 * mark:
            now = problem.loss(state)
            stalls = stalls + 1 if mark_loss - now <= _STALLED * (begin - now) else 0
            if stalls == _STALLS:
                break
            mark, mark_loss = float(solver.t), now
    polished = _polish(problem, state, free, tolerance * scale, smallest)
    return Settled(state if polished is None else polished, none, polished is not None)


def _polish(
    problem: Problem,
    state: Float[np.ndarray, "neurons size"],
    free: Bool[np.ndarray, "neurons size"],
    least: float,
    smallest: Float[np.ndarray, " neurons"],
) -> np.ndarray | None:
    """The critical point beside a state; None if there is none near, or the loss rises, or a neuron is about to vanish."""
    found = (_newton if free.sum() <= _LARGE else _search)(problem, state, free, least)
    if not np.isfinite(found).all() or np.linalg.norm(problem.gradient(found)) > least:
        return None
    if (np.linalg.norm(found, axis=1) < smallest).any():
        return None
    before = problem.loss(state)
    moved, sizes = np.linalg.norm(found - state, axis=1), np.linalg.norm(state, axis=1)
    near = np.linalg.norm(moved) <= _CLOSE * np.linalg.norm(sizes) and bool((moved <= _CLOSE_EACH * sizes).all())
    return found if near and problem.loss(found) <= before * (1 + 1e-12) else None


def _free(problem: Problem, neurons: Float[np.ndarray, "neurons size"]) -> Bool[np.ndarray, "neurons size"]:
    """The numbers that can move: zeros that the flow keeps zero whatever the others are would only pick up rounding, and grow."""
    random = np.random.default_rng(0)
    fixed = neurons == 0
    for _ in range(2 * len(neurons) + 4):
        if not fixed.any():
            break
        probe = np.where(fixed, 0.0, random.standard_normal(neurons.shape))
        fixed &= problem.gradient(probe) == 0
    return np.asarray(~fixed)


def _newton(
    problem: Problem, state: Float[np.ndarray, "neurons size"], free: Bool[np.ndarray, "neurons size"], least: float
) -> np.ndarray:
    """Newton's method on the gradient, with central differences and a pseudo-inverse for the directions of symmetries."""
    point = state
    for _ in range(8):
        gradient = problem.gradient(point)[free]
        if np.linalg.norm(gradient) <= least / 10:
            break
        width = 1e-5 * max(1.0, float(np.abs(point).max()))
        columns = []
        for index in np.flatnonzero(free):
            shift = np.zeros_like(point)
            shift.flat[index] = width
            columns.append((problem.gradient(point + shift) - problem.gradient(point - shift))[free] / (2 * width))
        hessian = np.stack(columns, axis=1)
        point = point.copy()
        point[free] -= np.linalg.lstsq((hessian + hessian.T) / 2, gradient, rcond=1e-7)[0]
        if not np.isfinite(point).all():
            break
    return point


def _search(
    problem: Problem, state: Float[np.ndarray, "neurons size"], free: Bool[np.ndarray, "neurons size"], least: float
) -> np.ndarray:
    def both(flat: np.ndarray) -> Any:
        point = np.zeros_like(state)
        point[free] = flat
        return problem.loss(point), problem.gradient(point)[free]

    options: Any = {"gtol": least / math.sqrt(state.size) / 10, "ftol": 0.0, "maxiter": 5000, "maxfun": 20_000}
    result = np.zeros_like(state)
    result[free] = minimize(both, state[free], jac=True, method="L-BFGS-B", options=options).x
    return result
