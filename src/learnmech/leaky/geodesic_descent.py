"""Descent to an end point by an augmented Lagrangian, whose multiplier is the momentum at the end: robust, but not exact."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize

from learnmech.leaky.geodesic_passes import LeakyPasses, Point

Array = np.ndarray
_ROUNDS, _STALLED = 25, 6


def descend(
    passes: LeakyPasses,
    scaled: Float[Array, "layers width rows"],
    goal: Float[Array, "width samples"],
    *,
    tolerance: float,
    iterations: int,
    report: Callable[[float, float], None],
) -> Point:
    r"""Minimise :math:`\tfrac12\lVert U\rVert^2 - \langle\Lambda, A_L - A_1\rangle + \tfrac\mu2\lVert A_L - A_1\rVert^2`.

    After each minimisation by L-BFGS :math:`\Lambda \leftarrow \Lambda - \mu(A_L - A_1)`, which tends to the momentum at the
    end; :math:`\mu` grows where the end does not come nearer fast enough.

    Args:
        passes: the net.
        scaled: where to begin, scaled weights.
        goal: representation A_1 that the path should end at.
        tolerance: distance from the goal, relative to its size, at which to stop.
        iterations: at most so many in total.
        report: called with action and relative distance after each round.

    Returns:
        The path.
    """
    size = passes.size(goal)
    at = passes.point(scaled)
    multiplier = np.zeros_like(goal)
    # An error of the size of a tenth of the goal shall cost about as much as the action.
    pull = 100 * max(at.action, passes.leak / 2) / size**2
    error, used = float(np.linalg.norm(at.path[-1] - goal)) / size, 0
    shape, stalled = at.scaled.shape, 0

    for _ in range(_ROUNDS):

        def cost(flat: Array, multiplier: Array = multiplier, pull: float = pull) -> tuple[float, Array]:
            here = passes.point(flat.reshape(shape))
            gap = here.path[-1] - goal
            pulls = np.zeros_like(here.path)
            pulls[-1] = multiplier - pull * gap
            slope = here.scaled - passes.gradient(here, passes.momenta(here, here.up, pulls))
            value = here.action - float(np.vdot(multiplier, gap)) + pull / 2 * float(np.vdot(gap, gap))
            return value, slope.ravel()

        budget = min(300, iterations - used)
        if budget < 1:
            break
        found = minimize(
            cost,
            at.scaled.ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": budget, "maxcor": 30, "ftol": 1e-15, "gtol": 1e-7, "maxfun": 2 * budget + 20},
        )
        used += int(found.nit) + 1
        at = passes.point(np.asarray(found.x).reshape(shape))
        gap = at.path[-1] - goal
        multiplier = multiplier - pull * gap
        before, error = error, float(np.linalg.norm(gap)) / size
        report(at.action, error)
        stalled = stalled + 1 if error > before / 1.1 else 0
        if error <= tolerance or stalled >= _STALLED:
            break
        if error > before / 4:
            pull *= 5
    return at
