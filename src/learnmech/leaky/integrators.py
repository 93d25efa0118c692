"""One step of Hamilton's equations: Runge-Kutta of fourth order, and the symplectic Euler step that trained nets take."""

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, gmres
from torch import Tensor

from learnmech.leaky.hamilton_equations import plain_momentum_velocity, plain_velocity
from learnmech.leaky.representations import times_kernel

NEWTON_TOLERANCE = 1e-13
_NEWTON_ROUNDS, _INNER = 30, 200


def runge_kutta_step(
    representation: Tensor, momentum: Tensor, step: float, effective_depth: float, *, bias: bool
) -> tuple[Tensor, Tensor]:
    """Take a step of the classical Runge-Kutta method of fourth order.

    Args:
        representation: A in float64.
        momentum: B in float64.
        step: step size; negative steps go back.
        effective_depth: the leak.
        bias: whether a row of ones is appended to the activations.

    Returns:
        Representation and momentum after the step.
    """

    def slope(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        return plain_velocity(A, B, effective_depth, bias=bias), plain_momentum_velocity(A, B, effective_depth)

    a1, b1 = slope(representation, momentum)
    a2, b2 = slope(representation + step / 2 * a1, momentum + step / 2 * b1)
    a3, b3 = slope(representation + step / 2 * a2, momentum + step / 2 * b2)
    a4, b4 = slope(representation + step * a3, momentum + step * b3)
    return (
        representation + step / 6 * (a1 + 2 * a2 + 2 * a3 + a4),
        momentum + step / 6 * (b1 + 2 * b2 + 2 * b3 + b4),
    )


def symplectic_euler_step(
    representation: Tensor, momentum: Tensor, step: float, effective_depth: float, *, bias: bool
) -> tuple[Tensor, Tensor, float]:
    r"""Take the step of a trained net: the momentum first, implicitly, then the representation.

    .. math::
        B_{l-1} = B_l - \rho\,\dot B(A_{l-1}, B_l), \qquad A_l = A_{l-1} + \rho\,\dot A(A_{l-1}, B_l).

    The first equation is quadratic in :math:`B_l`; of its solutions the one near :math:`B_{l-1}` is found by Newton's method,
    its linear systems by GMRES.

    Args:
        representation: A before the step, in float64.
        momentum: B before the step, in float64.
        step: step size.
        effective_depth: the leak.
        bias: whether a row of ones is appended to the activations.

    Returns:
        Representation and momentum after the step, and the residual of the implicit equation relative to the momentum; if
        it is above ``NEWTON_TOLERANCE`` Newton's method did not converge.
    """
    after, residual = _implicit_momentum(representation, momentum, step * effective_depth)
    return representation + step * plain_velocity(representation, after, effective_depth, bias=bias), after, residual


def _implicit_momentum(representation: Tensor, momentum: Tensor, leak: float) -> tuple[Tensor, float]:
    active = representation.clamp(min=0)
    zero = torch.zeros((), dtype=torch.float64, device=momentum.device)

    def excess(B: Tensor) -> Tensor:
        return (1 - leak) * B + leak * torch.where(active > 0, times_kernel(active, B), zero) - momentum

    scale = float(torch.linalg.vector_norm(momentum))
    if scale == 0:
        return momentum.clone(), 0.0
    guess = momentum + leak * (momentum - torch.where(active > 0, times_kernel(active, momentum), zero))
    best, least = momentum, float(torch.linalg.vector_norm(excess(momentum))) / scale
    rounds_without_gain = 0
    for _ in range(_NEWTON_ROUNDS):
        left = excess(guess)
        size = float(torch.linalg.vector_norm(left)) / scale
        if not np.isfinite(size):
            break
        if size < least:
            rounds_without_gain = 0 if size < least / 2 else rounds_without_gain + 1
            best, least = guess, size
        else:
            rounds_without_gain += 1
        if least <= NEWTON_TOLERANCE / 10 or rounds_without_gain >= 5:
            break
        guess = guess - _solve(active, guess, leak, left)
    return best, least


def _solve(active: Tensor, B: Tensor, leak: float, right: Tensor) -> Tensor:
    shape, count = B.shape, B.numel()
    up = (active > 0).to(torch.float64)

    def derivative(flat: np.ndarray) -> np.ndarray:
        change = torch.from_numpy(np.ascontiguousarray(flat)).to(B.device).reshape(shape)
        bent = times_kernel(active, change, B) + times_kernel(active, B, change)
        result: np.ndarray = ((1 - leak) * change + leak * up * bent).reshape(-1).cpu().numpy()
        return result

    operator = LinearOperator((count, count), matvec=derivative, dtype=np.float64)
    solution, _ = gmres(operator, right.reshape(-1).cpu().numpy(), rtol=1e-10, restart=min(count, 60), maxiter=_INNER)
    return torch.from_numpy(solution).to(B.device).reshape(shape)
