"""The second phase of training: L-BFGS in float64, one member at a time."""

from collections.abc import Callable

import numpy as np
import torch
from scipy import optimize

from learnmech.leaky.objective import StackedObjective
from learnmech.training.interrupt import InterruptFlag


def polish(
    objective: StackedObjective,
    values: torch.Tensor,
    *,
    iterations: int,
    memory: int,
    interrupt: InterruptFlag,
    on_iteration: Callable[[int], object],
) -> tuple[torch.Tensor, int]:
    """Minimise the cost of one net from a start.

    The line search gives up at kinks of the ReLU; then it starts again without memory, until that brings nothing.

    Args:
        objective: the net with its data, in float64.
        values: its vector (1, numbers).
        iterations: the most to take.
        memory: corrections kept.
        interrupt: says when to end.
        on_iteration: called after each with their number.

    Returns:
        The vector of the lowest cost, and the iterations taken.
    """
    taken = 0
    vector = torch.empty_like(values)
    gradient = torch.empty_like(values)

    def evaluate(point: np.ndarray) -> tuple[float, np.ndarray]:
        vector.copy_(torch.from_numpy(point)[None])
        costs, _ = objective.cost_and_gradient(vector, into=gradient)
        return float(costs[0]), gradient[0].cpu().numpy().copy()

    def follow(intermediate_result: optimize.OptimizeResult) -> None:
        nonlocal taken
        taken += 1
        on_iteration(taken)
        if interrupt.requested or taken >= iterations:
            raise StopIteration

    best, best_cost = values, float("inf")
    while taken < iterations and not interrupt.requested:
        before = taken
        result = optimize.minimize(
            evaluate,
            best[0].cpu().numpy(),
            jac=True,
            method="L-BFGS-B",
            callback=follow,
            options={"maxiter": iterations - taken, "maxfun": 4 * iterations, "maxcor": memory, "ftol": 0, "gtol": 0},
        )
        if not result.fun < best_cost:
            break
        gain = best_cost - result.fun
        best, best_cost = torch.from_numpy(np.array(result.x)).to(values)[None], float(result.fun)
        if taken - before < 2 or gain < 1e-13 * abs(best_cost):
            break
    return best, taken
