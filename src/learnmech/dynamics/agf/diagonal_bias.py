"""Where a diagonal network ends: the implicit bias of its start, from the l1 to the l2 norm."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from learnmech.dynamics.agf.diagonal_active_set import follow_saddles
from learnmech.dynamics.agf.diagonal_data import Regression, diagonal_data
from learnmech.dynamics.agf.problems import as_array
from learnmech.errors import InputError, LearnmechError

_STEPS = 200


def diagonal_potential(beta: Any, scale: float) -> float:
    r"""Give the hyperbolic entropy, which a diagonal network minimises among all that fit.

    .. math::
        Q(\beta) = \sum_i \beta_i\,\mathrm{asinh}\frac{\beta_i}{\alpha^2} - \sqrt{\beta_i^2 + \alpha^4} + \alpha^2

    for the start :math:`u = \sqrt2\,\alpha, v = 0`: :math:`\nabla Q = 2G`, the integral of minus twice the gradient, lies in
    the span of the inputs. Its limits are :math:`|\beta|_2^2/(2\alpha^2)` for large scales and
    :math:`-2\log(\alpha)\,|\beta|_1` for small ones.

    Source: Woodworth et al. 2020 (arXiv 2002.09277), whose scale for :math:`w_+^2 - w_-^2` is :math:`\alpha/\sqrt2`.

    Args:
        beta: coefficients (dim,).
        scale: :math:`\alpha`, positive.

    Returns:
        A number of at least 0.

    Raises:
        InputError: for wrong shapes, or a scale that is not positive.

    Example:
        >>> round(diagonal_potential([1.0], 1.0), 9) == round(math.asinh(1) - math.sqrt(2) + 1, 9)
        True
        >>> round(diagonal_potential([1.0, -3.0], 1e-50) / (100 * math.log(10)), 1)
        4.0
    """
    values = np.abs(as_array("beta", beta, 1))
    number = _require_positive(scale)
    square = number**2
    root = np.hypot(values, square)
    # values asinh(values / square), and root - square without cancellation
    curved = values * np.arcsinh(values / square) if square > 1e-300 else _small(values, math.log(number))
    return float((curved - values * (values / np.where(root + square > 0, root + square, 1.0))).sum())


def diagonal_limit(X: Any, y: Any, scale: float | None = None) -> Float[np.ndarray, " dim"]:
    r"""Give the coefficients at which the gradient flow of a diagonal network ends.

    Without a scale, the limit of vanishing starts: of all least-squares solutions that of least l1 norm (the end of
    :func:`~learnmech.dynamics.agf.diagonal`; if several have it, that of largest entropy). With one, the minimiser of
    :func:`~learnmech.dynamics.agf.diagonal_potential`, :math:`\beta = \alpha^2\sinh(2A^T\nu)` with :math:`\nu` found by Newton's
    method, along scales that shrink from where it is easy. For large scales it tends to the solution of least l2 norm.

    Source: Woodworth et al. 2020 (arXiv 2002.09277); the method is ours.

    Args:
        X: inputs (n, dim).
        y: targets (n,).
        scale: :math:`\alpha` of the start :math:`u = \sqrt2\,\alpha, v = 0`, positive, 1 or more too; None for the limit.

    Returns:
        Coefficients, shape (dim,).

    Raises:
        InputError: for wrong shapes, numbers that are not finite, a scale that is not positive.
        LearnmechError: if Newton's method does not reach 1e-10 of the target, as for very small scales where fewer coordinates
            than samples are active.

    Example:
        One equation in two unknowns, :math:`2\beta_1 + \beta_2 = 2`: the l1 norm takes the first only, the l2 norm both.

        >>> diagonal_limit([[2.0, 1.0]], [2.0]).round(6).tolist()
        [1.0, 0.0]
        >>> diagonal_limit([[2.0, 1.0]], [2.0], scale=100.0).round(6).tolist()
        [0.8, 0.4]
    """
    data = diagonal_data(X, y)
    if scale is None:
        ones = np.ones(data.dim)
        return np.asarray(follow_saddles(data, ones, ones).saddles[-1])
    aim = math.log(_require_positive(scale))
    if not len(data.target) or not data.target.any():
        return np.zeros(data.dim)
    size = float(np.abs(data.basis.T @ (data.target / data.strengths)).max())
    log_scale = max(aim, 0.5 * math.log(size))
    dual, beta = _newton(data, np.zeros(len(data.target)), log_scale)
    while log_scale > aim:
        step = max(aim - log_scale, -0.5)
        weights = 2 * np.hypot(beta, math.exp(2 * log_scale))
        dual = (
            dual
            + np.linalg.lstsq((data.basis * weights) @ data.basis.T, -2 * step * (data.basis @ beta), rcond=None)[0]
        )
        log_scale += step
        dual, beta = _newton(data, dual, log_scale)
    return np.asarray(beta)


def _newton(
    data: Regression, dual: Float[np.ndarray, " rank"], log_scale: float
) -> tuple[Float[np.ndarray, " rank"], Float[np.ndarray, " dim"]]:
    """Solve V^T beta = V^T beta_ls for beta = scale^2 sinh(2 V dual), the minimum of a convex function."""
    goal = data.target / data.strengths
    accuracy = float(np.linalg.norm(goal))

    def at(point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        turns = 2 * point @ data.basis
        size = np.exp(np.minimum(np.abs(turns) + 2 * log_scale, 600.0)) / 2
        shrunk = np.exp(-2 * np.abs(turns))
        return -np.sign(turns) * size * np.expm1(-2 * np.abs(turns)), 2 * size * (1 + shrunk)

    beta, weights = at(dual)
    for _ in range(_STEPS):
        miss = data.basis @ beta - goal
        if np.linalg.norm(miss) <= 1e-14 * accuracy:
            break
        step = np.linalg.lstsq((data.basis * weights) @ data.basis.T, miss, rcond=None)[0]
        height, size = weights.sum() / 4 - goal @ dual, 1.0
        while size > 1e-9:
            trial, bent = at(dual - size * step)
            lower = bent.sum() / 4 - goal @ (dual - size * step) <= height - 1e-4 * size * (miss @ step)
            closer = np.linalg.norm(data.basis @ trial - goal) <= (1 - 0.1 * size) * np.linalg.norm(miss)
            if lower or closer:
                break
            size /= 2
        else:
            break
        dual, beta, weights = dual - size * step, trial, bent
    if not np.linalg.norm(data.basis @ beta - goal) <= 1e-10 * accuracy:
        raise LearnmechError("Newton's method did not find the end point; take a larger scale, or none for the limit.")
    return dual, beta


def _small(values: Float[np.ndarray, " dim"], log_scale: float) -> Float[np.ndarray, " dim"]:
    safe = np.where(values > 0, values, 1.0)
    return np.asarray(values * (np.log(2 * safe) - 2 * log_scale))


def _require_positive(scale: Any) -> float:
    number = float(as_array("scale", scale, 0))
    if not number > 0:
        raise InputError(f"scale must be positive, got {scale!r}.")
    return number
