"""The preconditioner M of a linear neuron: its tangent kernel is X M X^T; and distances between kernels."""

import numpy as np
from jaxtyping import Float

Series = Float[np.ndarray, " time"]


def form_preconditioner(
    a: Series, w: Float[np.ndarray, "time dim"], eta_a: float, eta_w: float
) -> Float[np.ndarray, "time dim dim"]:
    r"""Form :math:`M = \eta_w a^2 I + \eta_a w w^T` at each time.

    Args:
        a: read-out weights.
        w: input weights.
        eta_a: learning rate of a.
        eta_w: learning rate of w.

    Returns:
        The matrices.
    """
    outer = np.einsum("ti,tj->tij", w, w)
    return np.asarray(eta_w * np.square(a)[:, None, None] * np.eye(w.shape[1]) + eta_a * outer)


def whitened_distance(
    a: Series,
    w: Float[np.ndarray, "time dim"],
    a_start: float,
    w_start: Float[np.ndarray, " dim"],
    eta_a: float,
    eta_w: float,
) -> Series:
    r"""Compute the kernel distance to the start for whitened inputs, without cancellation.

    .. math::
        S = 1 - \frac{\langle K_0, K_t\rangle}{|K_0||K_t|} = \tfrac12\big|\hat M_0 - \hat M_t\big|^2, \qquad
        \langle K_1, K_2\rangle \propto d\,\eta_w^2a_1^2a_2^2 + \eta_a\eta_w(a_1^2|w_2|^2 + a_2^2|w_1|^2) + \eta_a^2(w_1\cdot w_2)^2 .

    With :math:`\hat M = \hat\alpha I + \hat\gamma\,\hat w\hat w^T` of norm 1 the square is
    :math:`(\Delta\hat\alpha + \Delta\hat\gamma)^2 + (d-1)\Delta\hat\alpha^2 + 2\hat\gamma_0\hat\gamma_t\sin^2(w_0, w_t)`, a sum
    of terms that are not negative (derived here): distances far below the rounding of 1 keep their digits.

    Args:
        a: read-out weights.
        w: input weights.
        a_start: read-out weight of the first kernel.
        w_start: input weights of the first kernel.
        eta_a: learning rate of a.
        eta_w: learning rate of w.

    Returns:
        The distance in [0, 1]; NaN where a kernel is 0.
    """
    dim = w.shape[1]
    alpha, gamma, direction = _normalise(a, w, eta_a, eta_w)
    alpha0, gamma0, direction0 = (part[0] for part in _normalise(np.array([a_start]), w_start[None], eta_a, eta_w))
    cosine = direction @ direction0
    sine = np.square(direction - cosine[:, None] * direction0).sum(axis=1)
    difference = alpha - alpha0
    # gamma carries the sign of no direction: where w = 0 it is 0.
    total = np.square(difference + gamma - gamma0) + (dim - 1) * np.square(difference) + 2 * gamma * gamma0 * sine
    return np.asarray(np.minimum(total / 2, 1.0))


def _normalise(
    a: Series, w: Float[np.ndarray, "time dim"], eta_a: float, eta_w: float
) -> tuple[Series, Series, Float[np.ndarray, "time dim"]]:
    # Scale first, so that squares of squares neither overflow nor vanish.
    size = np.linalg.norm(w, axis=1)
    unit = np.maximum(np.sqrt(eta_w) * np.abs(a), np.sqrt(eta_a) * size)
    with np.errstate(invalid="ignore", divide="ignore"):
        alpha, gamma = eta_w * np.square(a / unit), eta_a * np.square(size / unit)
        norm = np.sqrt(w.shape[1] * alpha**2 + 2 * alpha * gamma + gamma**2)
        direction = np.where(size[:, None] > 0, w / size[:, None], 0.0)
        return alpha / norm, gamma / norm, direction


def gram_distance(
    gram: Float[np.ndarray, "dim dim"],
    a: Series,
    w: Float[np.ndarray, "time dim"],
    eta_a: float,
    eta_w: float,
) -> Series:
    r"""Compute the kernel distance to the first time for any inputs, from :math:`G = X^TX`.

    .. math::
        \langle K_1, K_2\rangle_F = \mathrm{Tr}[G M_1 G M_2] .

    Args:
        gram: G.
        a: read-out weights.
        w: input weights.
        eta_a: learning rate of a.
        eta_w: learning rate of w.

    Returns:
        The distance, right to about 1e-15 absolutely; NaN where a kernel is 0.
    """
    square = gram @ gram
    alpha = eta_w * np.square(a)
    trace = float(np.trace(square))
    across = eta_a * np.einsum("ti,ij,tj->t", w, square, w)
    own = eta_a * np.einsum("ti,ij,tj->t", w, gram, w)
    shared = eta_a * (w @ gram @ w[0])
    inner = alpha * alpha[0] * trace + alpha[0] * across + alpha * across[0] + np.square(shared)
    norms = np.sqrt(alpha**2 * trace + 2 * alpha * across + own**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.clip(1 - inner / (norms * norms[0]), 0.0, 1.0))
