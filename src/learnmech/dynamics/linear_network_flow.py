"""Gradient flow of one deep linear network, integrated to a tolerance and read on the way."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.integrate import DOP853

from learnmech.dynamics.linear_network import LinearTask, Weights, product_of
from learnmech.errors import LearnmechError

MOST_STEPS = 200_000


def choose_times(steps: list[float], records: int) -> Float[np.ndarray, " time"]:
    """Choose times at which to record, close together where the integrator took small steps.

    Args:
        steps: times of its steps, of one run or several.
        records: how many.

    Returns:
        Increasing times from 0 to the last.
    """
    ordered = np.unique(steps)
    return np.unique(np.interp(np.linspace(0, len(ordered) - 1, records), np.arange(len(ordered)), ordered))


@dataclass(frozen=True)
class Flow:
    """How one network is to be trained.

    Attributes:
        task: what is learned.
        tolerance: of the integrator, relative; absolute it is this times the size of the smallest layer at the start.
        learning_rate: None for gradient flow, or the step of gradient descent.
    """

    task: LinearTask
    tolerance: float
    learning_rate: float | None

    def find_end(self, weights: Weights, stop: float, longest: float) -> tuple[list[float], bool]:
        """Find when the loss has fallen far enough, and how finely the time until then must be cut.

        Args:
            weights: at the start.
            stop: share of the first loss.
            longest: time at which to give up.

        Returns:
            The times of the steps, 0 first, and whether the loss got there.
        """
        goal = stop * self.task.loss(product_of(weights))
        moments, there = [0.0], False

        def look(moment: float, now: Weights, advance: Callable[[float], Weights]) -> bool:
            nonlocal there
            moments.append(moment)
            there = self.task.loss(product_of(now)) <= goal
            return there

        self._run(weights, longest, look)
        return moments, there

    def at(self, weights: Weights, times: Float[np.ndarray, " time"], read: Callable[[int, Weights], None]) -> None:
        """Train and read the network at some times.

        Args:
            weights: at time 0.
            times: increasing, from 0 on. Gradient descent is read at the latest step that is due.
            read: called with the number of each time and the weights then.
        """
        done = 0
        while done < len(times) and times[done] <= 0:
            read(done, weights)
            done += 1

        def look(moment: float, now: Weights, inside: Callable[[float], Weights]) -> bool:
            nonlocal done
            while done < len(times) and times[done] <= moment:
                read(done, inside(float(times[done])))
                done += 1
            return done == len(times)

        if done < len(times):
            self._run(weights, float(times[-1]), look)

    def _run(
        self, weights: Weights, end: float, look: Callable[[float, Weights, Callable[[float], Weights]], bool]
    ) -> None:
        if self.learning_rate is not None:
            self._descend(weights, end, self.learning_rate, look)
            return
        shapes = [weight.shape for weight in weights]
        cuts = np.cumsum([weight.size for weight in weights])[:-1]

        def unpack(flat: np.ndarray) -> Weights:
            return [part.reshape(shape) for part, shape in zip(np.split(flat, cuts), shapes, strict=True)]

        def slope(_: float, flat: np.ndarray) -> np.ndarray:
            return -np.concatenate([part.ravel() for part in self.task.gradients(unpack(flat))])

        smallest = min(float(np.sqrt((weight**2).mean())) for weight in weights)
        start = np.concatenate([weight.ravel() for weight in weights])
        solver = DOP853(slope, 0.0, start, end, rtol=self.tolerance, atol=self.tolerance * max(smallest, 1e-300))
        for _ in range(MOST_STEPS):
            solver.step()
            if solver.status == "failed":
                raise LearnmechError(f"the integrator failed at time {solver.t:.3g}; take a larger tolerance.")
            interpolate = None

            def inside(moment: float) -> Weights:
                nonlocal interpolate
                if moment == solver.t:
                    return unpack(solver.y)
                interpolate = interpolate or solver.dense_output()
                return unpack(interpolate(moment))

            if look(float(solver.t), unpack(solver.y), inside) or solver.status == "finished":
                return
        raise LearnmechError(
            f"the integrator took {MOST_STEPS} steps and reached time {solver.t:.3g}; take a smaller end or larger tolerance."
        )

    def _descend(
        self,
        weights: Weights,
        end: float,
        rate: float,
        look: Callable[[float, Weights, Callable[[float], Weights]], bool],
    ) -> None:
        now = weights
        for step in range(1, int(np.ceil(end / rate * (1 - 1e-12))) + 1):
            before = now
            with np.errstate(over="ignore", invalid="ignore"):
                now = [weight - rate * slope for weight, slope in zip(now, self.task.gradients(now), strict=True)]
            if not all(np.isfinite(weight).all() for weight in now):
                raise LearnmechError(
                    f"gradient descent diverged at step {step}; take a smaller learning_rate than {rate:g}."
                )

            def inside(moment: float, before: Weights = before, now: Weights = now, step: int = step) -> Weights:
                return now if moment >= step * rate * (1 - 1e-12) else before

            if look(step * rate * (1 + 1e-12), now, inside):
                return
