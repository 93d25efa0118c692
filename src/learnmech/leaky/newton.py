"""The last digits: Newton steps from near a smooth critical point, where L-BFGS stops at the round-off of the cost."""

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, minres
from torch import Tensor

from learnmech.leaky.criticality import stacked_stationarity
from learnmech.leaky.objective import StackedObjective

_STEPS = 6
_PRODUCTS = 300
_NEAR = 1e-3  # stationarity residual from which the cost is smooth enough around the point; at kinks it stays above


def sharpen(objective: StackedObjective, values: Tensor) -> Tensor:
    """Take Newton steps while they lower the norm of the gradient.

    Products with the Hessian are central differences of the gradient, the equation is solved by MINRES. Nothing is done where the
    median stationarity residual is above 1e-3: those points lie on kinks.

    Args:
        objective: one net with its data, in float64.
        values: its vector (1, numbers).

    Returns:
        A vector whose gradient is no larger.
    """
    if not float(stacked_stationarity(objective, values).median()) < _NEAR:
        return values
    best, gradient = values, _gradient(objective, values)
    for _ in range(_STEPS):
        size = float(np.linalg.norm(gradient))
        if size == 0:
            return best
        scale = float(torch.linalg.vector_norm(best)) or 1.0
        centre = best

        def curve(direction: np.ndarray, centre: Tensor = centre, scale: float = scale) -> np.ndarray:
            length = float(np.linalg.norm(direction))
            if length == 0:
                return np.zeros_like(direction)
            step = 1e-5 * scale / length
            shift = torch.from_numpy(step * direction.ravel()).to(centre)[None]
            difference = _gradient(objective, centre + shift) - _gradient(objective, centre - shift)
            return np.asarray(difference / (2 * step))

        operator = LinearOperator((gradient.size, gradient.size), matvec=curve, dtype=np.float64)
        solution, _ = minres(operator, -gradient, rtol=1e-6, maxiter=_PRODUCTS)
        moved = best + torch.from_numpy(solution).to(best)[None]
        new = _gradient(objective, moved)
        if not np.linalg.norm(new) < 0.5 * size:
            return best
        best, gradient = moved, new
    return best


def _gradient(objective: StackedObjective, values: Tensor) -> np.ndarray:
    return objective.cost_and_gradient(values)[1][0].cpu().numpy()
