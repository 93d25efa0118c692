"""Utility maximisation: dormant neurons under a frozen residual, as directions and log-norms, up to the first that wakes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.integrate import DOP853
from scipy.optimize import brentq

from learnmech.dynamics.agf.problems import Problem
from learnmech.errors import LearnmechError

_RELATIVE = {2: 5e-14}
_RELATIVE_ABOVE = 1e-10
_ABSOLUTE = 1e-15
_ABSOLUTE_LOG = 1e-11
_KINKED_STEP = 0.01
_MOST_STEPS = 100_000
_WINDOW = 200
_AT_REST = 3e-16
_NEARLY_AT_REST = 1e-13
_LONG_WINDOW = 1000
_GROWN = 1.5
_TINY = 1e-10
_TIE = 1e-9
_PROBES = 16


@dataclass
class Dormant:
    """What one phase of utility maximisation found.

    Attributes:
        moment: at which the phase ended.
        directions: of the neurons, (neurons, size).
        logs: log-norms.
        awake: which reached norm 1, more than one for ties.
        ended: why there is none: ``"at rest"``, ``"longest"``, ``"too many steps"``, ``"interrupted"``; empty if there is one.
    """

    moment: float
    directions: Float[np.ndarray, "neurons size"]
    logs: Float[np.ndarray, " neurons"]
    awake: Bool[np.ndarray, " neurons"]
    ended: str = ""


def thresholds(logs: Float[np.ndarray, " neurons"], degree: int) -> Float[np.ndarray, " neurons"]:
    r"""Give the accumulated utility at which each neuron has norm 1.

    Args:
        logs: log-norms at the start.
        degree: :math:`\kappa`.

    Returns:
        :math:`-\log|\theta_0|` for degree 2, else :math:`(|\theta_0|^{2-\kappa}-1)/(\kappa-2)`; 0 for norms of 1 and more.
    """
    logs = np.minimum(logs, 0.0)
    if degree == 2:
        return -logs
    with np.errstate(over="ignore"):
        return np.asarray(np.expm1((2 - degree) * logs) / (degree - 2))


def growth_scale(
    problem: Problem, residual: Float[np.ndarray, " outputs"], directions: Float[np.ndarray, "neurons size"]
) -> float:
    """Give the largest gradient of the utility at the given directions and at some random ones: how fast anything could grow.

    Args:
        problem: the model.
        residual: frozen.
        directions: unit vectors.

    Returns:
        A norm; 0 if there is nothing to learn.
    """
    random = np.random.default_rng(0).standard_normal((_PROBES, problem.size))
    probes = np.vstack([directions, random / np.linalg.norm(random, axis=1, keepdims=True)])
    return float(np.linalg.norm(problem.pull(probes, residual), axis=1).max())


class Slopes:
    r"""The flow of directions and log-norms, :math:`d' = |\theta|^{\kappa-2}P_\perp\nabla U(d)`, :math:`(\log|\theta|)' = \kappa|\theta|^{\kappa-2}U(d)`.

    Args:
        problem: the model.
        residual: frozen.
    """

    def __init__(self, problem: Problem, residual: Float[np.ndarray, " outputs"]):
        self.problem, self.residual = problem, residual

    def parts(self, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Give the turning and the growth at norm 1, and the speed at the neurons' own norms, (neurons, size), (neurons,), (neurons,)."""
        directions, logs = unpack(flat, self.problem.size)
        units = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        pulls = self.problem.pull(units, self.residual)
        growth = np.asarray((units * pulls).sum(axis=1))
        speed = np.exp((self.problem.degree - 2) * np.minimum(logs, 1.0))
        return np.asarray(pulls - growth[:, None] * units), growth, speed

    def __call__(self, moment: float, flat: np.ndarray) -> np.ndarray:
        """Give the derivative of the packed state."""
        turning, growth, speed = self.parts(flat)
        return np.column_stack([turning * speed[:, None], growth * speed]).ravel()


def unpack(flat: np.ndarray, size: int) -> tuple[Float[np.ndarray, "neurons size"], Float[np.ndarray, " neurons"]]:
    """Split the packed state into directions and log-norms."""
    rows = flat.reshape(-1, size + 1)
    return rows[:, :size], rows[:, size]


def wait(
    problem: Problem,
    residual: Float[np.ndarray, " outputs"],
    directions: Float[np.ndarray, "neurons size"],
    logs: Float[np.ndarray, " neurons"],
    start: float,
    longest: float,
    stopped: Callable[[], bool] = lambda: False,
) -> Dormant:
    """Follow dormant neurons under a frozen residual until the first has norm 1.

    An explicit method of order 8 with error control where the gradient is smooth; steps of one hundredth of the time scale with an
    explicit method of order 2 where it has kinks, since error control chatters there.

    Args:
        problem: the model.
        residual: frozen.
        directions: unit vectors.
        logs: log-norms, finite and at most 0.
        start: moment at which the phase begins.
        longest: moment at which it ends at the latest.
        stopped: asked after each step, true to end.

    Returns:
        The state at the first activation, with all that reach norm 1 within a billionth of their way; or at the end.

    Raises:
        LearnmechError: if the integrator fails.
    """
    slopes = Slopes(problem, residual)
    state = np.column_stack([directions, logs]).ravel()
    scale = growth_scale(problem, residual, directions)
    _, growth, _ = slopes.parts(state)
    ready = (logs >= -_TIE) & (growth > _TINY * scale)
    if ready.any():
        return Dormant(start, directions, logs, ready)
    if scale == 0:
        return Dormant(start, directions, logs, ready, "at rest")
    step = (
        _SmoothSteps(slopes, state, start, longest) if problem.smooth else _KinkedSteps(slopes, state, start, longest)
    )
    window, turned = state, np.zeros(len(logs))
    resting = np.zeros(len(logs), dtype=bool)
    for count in range(_MOST_STEPS):
        before, old = step.moment, step.state
        if before >= longest:
            return _end(step.moment, step.state, problem.size, "longest")
        step.advance()
        crossing = _crossing(step.inside, before, step.moment, old, step.state, problem.size)
        if crossing is not None:
            moment, at = crossing
            found = _end(moment, at, problem.size, "")
            way = np.maximum(1.0, np.abs(logs))
            found.awake = found.logs >= -_TIE * way
            return found
        if stopped():
            return _end(step.moment, step.state, problem.size, "interrupted")
        turning, growth, _ = slopes.parts(step.state)
        speeds = np.linalg.norm(turning, axis=1)
        if count % _LONG_WINDOW == _LONG_WINDOW - 1:
            resting = (speeds <= _NEARLY_AT_REST * scale) & (speeds <= _GROWN * turned)
            turned = speeds
        moving = (speeds > _AT_REST * scale) & ~(resting & (speeds <= _NEARLY_AT_REST * scale))
        if not problem.smooth and count % _WINDOW == _WINDOW - 1:
            moved = np.linalg.norm((step.state - window).reshape(-1, problem.size + 1)[:, :-1], axis=1)
            if not ((growth > _TINY * scale) | (moved > 1e-4)).any():
                return _end(step.moment, step.state, problem.size, "at rest")
            window = step.state
        if not ((growth > _TINY * scale) | moving).any():
            return _end(step.moment, step.state, problem.size, "at rest")
    return _end(step.moment, step.state, problem.size, "too many steps")


class _SmoothSteps:
    def __init__(self, slopes: Slopes, state: np.ndarray, start: float, end: float):
        absolute = np.full(state.reshape(-1, slopes.problem.size + 1).shape, _ABSOLUTE)
        absolute[:, -1] = _ABSOLUTE_LOG
        relative = _RELATIVE.get(slopes.problem.degree, _RELATIVE_ABOVE)
        method: Any = DOP853
        self._solver = method(slopes, start, state, end, rtol=relative, atol=absolute.ravel())
        self.moment, self.state = start, state
        self.inside: Callable[[float], np.ndarray] = lambda moment: state

    def advance(self) -> None:
        self._solver.step()
        if self._solver.status == "failed":
            raise LearnmechError(
                f"the utility flow failed at time {self._solver.t:.6g}: its gradient is not smooth there."
            )
        self.moment, self.state = float(self._solver.t), self._solver.y.copy()
        self.inside = self._solver.dense_output()


class _KinkedSteps:
    def __init__(self, slopes: Slopes, state: np.ndarray, start: float, end: float):
        self._slopes, self._end = slopes, end
        self.moment, self.state = start, state
        self.inside: Callable[[float], np.ndarray] = lambda moment: state

    def advance(self) -> None:
        old, before, slope = self.state, self.moment, self._slopes(self.moment, self.state)
        rows = slope.reshape(-1, self._slopes.problem.size + 1)
        fastest = float(np.linalg.norm(rows, axis=1).max())
        step = min(_KINKED_STEP / max(fastest, 1e-300), self._end - before)
        slope = (slope + self._slopes(before + step, old + step * slope)) / 2
        self.moment, self.state = before + step, old + step * slope
        self.inside = lambda moment: old + (moment - before) * slope


def _crossing(
    inside: Callable[[float], np.ndarray], before: float, after: float, old: np.ndarray, new: np.ndarray, size: int
) -> tuple[float, np.ndarray] | None:
    """The first moment in a step at which a log-norm passes 0 upwards."""
    passed = np.flatnonzero(unpack(new, size)[1] >= 0)
    if not len(passed):
        return None
    moments = np.linspace(before, after, 17)
    states = [old, *(inside(moment) for moment in moments[1:-1]), new]
    first = after
    for neuron in passed:
        logs = np.array([unpack(state, size)[1][neuron] for state in states])
        below = np.flatnonzero(logs < 0)
        if not len(below):
            return before, old
        last = int(below[-1])

        def gap(moment: float, neuron: int = int(neuron)) -> float:
            return float(unpack(inside(moment), size)[1][neuron])

        low, high = moments[last], moments[last + 1]
        found = (
            float(brentq(gap, low, high, xtol=1e-15 * max(after, 1e-300), rtol=1e-14))
            if gap(high) > 0 > gap(low)
            else high
        )
        first = min(first, found)
    return first, new if first == after else inside(first)


def _end(moment: float, state: np.ndarray, size: int, ended: str) -> Dormant:
    directions, logs = unpack(state.copy(), size)
    units = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return Dormant(float(moment), units, np.minimum(logs, 0.0), np.zeros(len(logs), dtype=bool), ended)


def log_norms(neurons: Float[np.ndarray, "neurons size"]) -> Float[np.ndarray, " neurons"]:
    """Give log-norms without underflow, minus infinity for zeros.

    Args:
        neurons: any number of them.

    Returns:
        One number a neuron.
    """
    largest = np.abs(neurons).max(axis=1, initial=0.0)
    safe = np.where(largest > 0, largest, 1.0)
    inner = np.linalg.norm(neurons / safe[:, None], axis=1)
    with np.errstate(divide="ignore"):
        return np.asarray(np.where(largest > 0, np.log(safe) + np.log(np.maximum(inner, 1.0)), -math.inf))
