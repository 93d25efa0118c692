"""A stabilised explicit integrator for gradient flows that are mildly stiff: the Chebyshev method of order 2."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from learnmech.bars import terminal_bar
from learnmech.dynamics.agf.problems import Problem
from learnmech.errors import LearnmechError

_MOST_STAGES = 200
_MOST_STEPS = 200_000
_DAMPING = 2 / 13
_REFRESH = 20
_AT_REST = 1e-8


@dataclass(frozen=True)
class StabilisedRun:
    """What a run went through.

    Attributes:
        times: increasing.
        states: neurons at each.
        losses: at each.
        steps: how many were accepted.
    """

    times: Float[np.ndarray, " time"]
    states: Float[np.ndarray, "time neurons size"]
    losses: Float[np.ndarray, " time"]
    steps: int


class Stepper:
    r"""Steps of the Runge-Kutta-Chebyshev method of order 2.

    A step with s stages is stable for eigenvalues from :math:`-0.65\,(s^2 - 1)/h` to 0, so a slow flow beside a fast decay of rate
    :math:`\rho` costs of order :math:`\sqrt{h\rho}` gradients a step in place of :math:`h\rho`. The rate is found by a power
    iteration on differences of the gradient, every 20 steps and after each step refused. Source: Sommeijer, Shampine and Verwer 1998
    (RKC: an explicit solver for parabolic PDEs), with their coefficients and error estimate.

    Args:
        problem: what gives the gradient.
        init: neurons at the start.
        tolerance: relative, of a step; the absolute one of a neuron is that times its norm at the start.
    """

    def __init__(self, problem: Problem, init: Float[np.ndarray, "neurons size"], tolerance: float):
        self._problem, self._tolerance = problem, tolerance
        norms = np.linalg.norm(init, axis=1, keepdims=True)
        self._absolute = np.maximum(norms / math.sqrt(init.shape[1]), 1e-3 * norms.max() / math.sqrt(init.shape[1]))
        self.state, self.time = init.copy(), 0.0
        self.slope = -problem.gradient(init)
        self._direction = self.slope + 1e-3 * np.random.default_rng(0).standard_normal(init.shape) * norms.max()
        self._radius = self._find_radius()
        size = float(np.abs(self.slope / self._weight(init)).max())
        self._step = 0.01 / max(size, 1e-300)
        self._age = 0

    def advance(self, end: float) -> None:
        """Take one step that meets the tolerance.

        Args:
            end: time beyond which not to step.

        Raises:
            LearnmechError: if the step shrinks to nothing.
        """
        if self._age >= _REFRESH:
            self._radius, self._age = self._find_radius(), 0
        while True:
            longest = 0.65 * (_MOST_STAGES**2 - 1) / max(self._radius, 1e-300)
            step = min(self._step, longest, end - self.time)
            if not step > 1e-14 * self.time:
                raise LearnmechError(f"the steps of the integrator shrank to nothing at time {self.time:.3g}.")
            stages = max(2, math.ceil(math.sqrt(1 + step * self._radius / 0.65)))
            new = self._try(step, stages)
            slope = -self._problem.gradient(new)
            error = 0.8 * (self.state - new) + 0.4 * step * (self.slope + slope)
            weight = np.maximum(self._weight(self.state), self._weight(new))
            size = float(np.sqrt(np.square(error / weight).mean())) if np.isfinite(new).all() else math.inf
            if size <= 1:
                self._step = step * min(3.0, 0.8 * max(size, 1e-9) ** (-1 / 3)) if step == self._step else self._step
                self.state, self.slope, self.time = new, slope, self.time + step
                self._age += 1
                return
            self._step = step * max(0.1, 0.8 * size ** (-1 / 3) if math.isfinite(size) else 0.1)
            if self._age:
                self._radius, self._age = self._find_radius(), 0

    def _weight(self, state: Float[np.ndarray, "neurons size"]) -> Float[np.ndarray, "neurons size"]:
        typical = np.sqrt(np.square(state).mean(axis=1, keepdims=True))
        return np.asarray(self._tolerance * (self._absolute + np.maximum(np.abs(state), typical)))

    def _find_radius(self) -> float:
        """The largest rate, with a fifth to spare."""
        size = 1e-6 * max(float(np.linalg.norm(self.state)), 1e-300)
        rate = 0.0
        for _ in range(50):
            length = float(np.linalg.norm(self._direction))
            if length == 0:
                break
            moved = self.state + self._direction * (size / length)
            change = -self._problem.gradient(moved) - self.slope
            before, rate = rate, float(np.linalg.norm(change)) / size
            self._direction = change
            if abs(rate - before) <= 0.02 * rate:
                break
        return 1.2 * rate

    def _try(self, step: float, stages: int) -> Float[np.ndarray, "neurons size"]:
        """One step, by the recursion of the method."""
        shift = 1 + _DAMPING / stages**2
        value, first, second = _chebyshev(shift, stages)
        rate = first[stages] / second[stages]
        share = np.empty(stages + 1)
        share[2:] = second[2:] / first[2:] ** 2
        share[0] = share[1] = share[2]
        offset = 1 - share * value
        before, now = self.state, self.state + share[1] * rate * step * self.slope
        for index in range(2, stages + 1):
            ratio = share[index] / share[index - 1]
            twice = -share[index] / share[index - 2]
            one = 2 * shift * ratio
            pace = 2 * rate * ratio
            new = (1 - one - twice) * self.state + one * now + twice * before
            new += step * pace * (-self._problem.gradient(now) - offset[index - 1] * self.slope)
            before, now = now, new
        return np.asarray(now)


def follow(
    problem: Problem,
    init: Float[np.ndarray, "neurons size"],
    end: float | None,
    stop: float,
    tolerance: float,
    records: int,
) -> StabilisedRun:
    """Follow a gradient flow.

    Args:
        problem: with a smooth gradient.
        init: neurons at the start.
        end: time; without, when the loss above the floor is ``stop`` times that of the start, or every neuron has stopped growing.
        stop: see ``end``.
        tolerance: relative, of a step.
        records: at most about so many times are kept.

    Returns:
        The times kept: even in a mean of steps and of the way that the loss went.

    Raises:
        LearnmechError: if the integrator fails, or takes more than 200 000 steps.
    """
    stepper = Stepper(problem, init, tolerance)
    first = problem.loss(init) - problem.floor
    times, states, losses = [0.0], [init.copy()], [first]
    fastest, steps, every = 0.0, 0, 1
    with terminal_bar("gradient flow", 100, least=3) as advance:
        shown = 0
        while steps < _MOST_STEPS:
            stepper.advance(math.inf if end is None else end)
            steps += 1
            now = problem.loss(stepper.state) - problem.floor
            if not math.isfinite(now):
                raise LearnmechError(f"the loss is not finite at time {stepper.time:.3g}; take a smaller tolerance.")
            sizes = np.maximum(np.square(stepper.state).sum(axis=1), 1e-300)
            rates = np.abs((stepper.state * stepper.slope).sum(axis=1)) / sizes
            fastest = max(fastest, float(rates.max()))
            done = (end is not None and stepper.time >= end * (1 - 1e-14)) or (
                end is None and (now <= stop * first or rates.max() <= _AT_REST * fastest)
            )
            if done or steps % every == 0 or abs(now - losses[-1]) > first / (0.5 * records):
                times.append(stepper.time)
                states.append(stepper.state.copy())
                losses.append(now)
            if len(times) >= records:
                keep = np.abs(np.diff(losses, prepend=losses[0])) > first / records
                keep[::2] = True
                keep[-1] = True
                every *= 2
                chosen = np.flatnonzero(keep)
                times, losses = [times[at] for at in chosen], [losses[at] for at in chosen]
                states = [states[at] for at in chosen]
            progress = max(stepper.time / end if end else 0.0, 1 - now / first)
            if int(100 * progress) > shown:
                advance(int(100 * progress) - shown)
                shown = int(100 * progress)
            if done:
                return StabilisedRun(np.array(times), np.stack(states), np.array(losses) + problem.floor, steps)
    raise LearnmechError(f"the integrator took {_MOST_STEPS} steps to time {stepper.time:.3g}; give an earlier end.")


def _chebyshev(point: float, stages: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Chebyshev polynomials of degree 0 to stages at a point, and two derivatives."""
    value, first, second = np.zeros(stages + 1), np.zeros(stages + 1), np.zeros(stages + 1)
    value[0], value[1], first[1] = 1.0, point, 1.0
    for index in range(2, stages + 1):
        value[index] = 2 * point * value[index - 1] - value[index - 2]
        first[index] = 2 * value[index - 1] + 2 * point * first[index - 1] - first[index - 2]
        second[index] = 4 * first[index - 1] + 2 * point * second[index - 1] - second[index - 2]
    return value, first, second
