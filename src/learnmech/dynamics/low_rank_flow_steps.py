"""Gradient flow of a factor, U' = -grad_U L(U U^T), integrated with error control."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.integrate import DOP853, LSODA

from learnmech.dynamics.low_rank_tasks import Landscape
from learnmech.errors import LearnmechError

_MOST_STEPS = 100_000
_LARGE = 300


def follow(
    landscape: Landscape,
    start: Float[np.ndarray, "dimension columns"],
    end: float,
    look: Callable[[float, np.ndarray, Callable[[float], np.ndarray]], bool],
    tolerance: float,
) -> bool:
    """Integrate the flow from time 0.

    LSODA, which turns implicit where the flow is stiff, for up to 300 unknowns; an explicit method of order 8 beyond.

    Args:
        landscape: the loss.
        start: U at time 0.
        end: time at which to end.
        look: called after each step with the time, U, and a function that gives U at times within the step; True ends the run.
        tolerance: relative; absolute it is this times the root mean square of the start's smallest column.

    Returns:
        Whether ``look`` ended it.

    Raises:
        LearnmechError: if the integrator fails or needs too many steps.
    """
    shape = start.shape

    def slope(_: float, flat: np.ndarray) -> np.ndarray:
        factor = flat.reshape(shape)
        return np.asarray(-2 * (landscape.at(factor @ factor.T)[1] @ factor)).ravel()

    smallest = float(np.sqrt((start**2).mean(0)).min())
    method = LSODA if start.size <= _LARGE else DOP853
    solver = method(slope, 0.0, start.ravel(), end, rtol=tolerance, atol=tolerance * max(smallest, 1e-300))
    for _ in range(_MOST_STEPS):
        solver.step()
        if solver.status == "failed":
            raise LearnmechError(f"the integrator failed at time {solver.t:.3g}; take a larger tolerance.")
        interpolate: Callable[[float], np.ndarray] | None = None

        def inside(moment: float) -> np.ndarray:
            nonlocal interpolate
            if interpolate is None:
                interpolate = solver.dense_output()
            return np.asarray(interpolate(moment)).reshape(shape)

        if look(float(solver.t), solver.y.reshape(shape), inside):
            return True
        if solver.status == "finished":
            return False
    raise LearnmechError(f"the integrator took {_MOST_STEPS} steps to time {solver.t:.3g}; end earlier.")
