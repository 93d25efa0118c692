"""Two-layer linear networks as a problem of homogeneous neurons, on data or on covariances."""

from typing import Any, Self

import numpy as np
from jaxtyping import Float

from learnmech.dynamics.agf.problems import Block, Problem, as_array
from learnmech.errors import InputError

_RANK = 1e-12


class LinearProblem(Problem):
    r"""A two-layer linear network :math:`f(x) = A W x` and its population loss.

    .. math::
        L = \tfrac12 E|y - AWx|^2, \qquad U(a, w) = a^T(\Sigma_{yx} - AW\Sigma_{xx})\,w .

    A neuron is a column of A and the row of W that belongs to it. Features are :math:`a\,(\Sigma_{xx}^{1/2}w)^T`. Without
    ``sigma_yy`` the loss is counted from the least that a linear map can reach, so its floor is 0.

    Source: Kunin et al. 2025 (arXiv 2506.06489), fully connected linear networks.

    Args:
        sigma_yx: cross-covariance E y x^T (outputs, inputs).
        sigma_xx: covariance E x x^T (inputs, inputs); the identity if not given. It may be singular, if nothing of ``sigma_yx``
            lies in its null space.
        sigma_yy: covariance of the targets (outputs, outputs), for the part of the loss that no linear map removes.

    Raises:
        InputError: for wrong shapes, numbers that are not finite, or covariances that no data have.

    Example:
        >>> problem = LinearProblem([[2.0, 0.0], [0.0, 1.0]])
        >>> problem.loss(problem.neurons([[1.0], [0.0]], [[2.0, 0.0]])), problem.loss(np.zeros((1, 4)))
        (0.5, 2.5)
    """

    name = "two-layer linear network"
    degree = 2

    def __init__(self, sigma_yx: Any, sigma_xx: Any = None, sigma_yy: Any = None):
        self.sigma_yx, self.sigma_xx, root, inverse = covariances(sigma_yx, sigma_xx)
        self.outputs, self.inputs = self.sigma_yx.shape
        self.size = self.outputs + self.inputs
        self.blocks = (Block(0, self.outputs), Block(self.outputs, self.size))
        self._root = root
        whole = self.sigma_yx @ inverse
        self.target = whole.ravel()
        self.floor = unexplained(sigma_yy, whole)
        left_singular, strengths, right_singular = np.linalg.svd(self.sigma_yx, full_matrices=False)
        self._modes = left_singular, strengths, right_singular

    @classmethod
    def from_data(cls, X: Any, Y: Any) -> Self:
        """Make the problem of data, with means over samples for expectations.

        Args:
            X: inputs (samples, inputs).
            Y: targets (samples, outputs), or (samples,).

        Returns:
            The problem, with its floor.

        Raises:
            InputError: for wrong shapes.
        """
        inputs = as_array("X", X, 2)
        targets = as_array("Y", Y, np.ndim(Y) if np.ndim(Y) in (1, 2) else 2)
        if len(targets) != len(inputs) or not len(inputs):
            raise InputError(f"X and Y must have as many rows, got {inputs.shape} and {np.shape(Y)}.")
        count = len(inputs)
        targets = targets.reshape(count, -1)
        return cls(targets.T @ inputs / count, inputs.T @ inputs / count, targets.T @ targets / count)

    def neurons(self, A: Any, W: Any) -> Float[np.ndarray, "neurons size"]:
        """Put weights into rows, one a neuron.

        Args:
            A: (outputs, hidden).
            W: (hidden, inputs).

        Returns:
            (a, w) in each row.

        Raises:
            InputError: for wrong shapes.
        """
        first, second = two_matrices(A, W, self.sigma_yx)
        return np.hstack([first.T, second])

    def features(self, neurons: Float[np.ndarray, "neurons size"]) -> Float[np.ndarray, "neurons outputs"]:
        """Give a times the whitened w of each neuron, flat."""
        out, inside = neurons[:, : self.outputs], neurons[:, self.outputs :] @ self._root
        return np.asarray((out[:, :, None] * inside[:, None, :]).reshape(len(neurons), -1))

    def output(self, neurons: Float[np.ndarray, "neurons size"]) -> Float[np.ndarray, " outputs"]:
        """Give A W times the root of the covariance, flat."""
        return np.asarray(neurons[:, : self.outputs].T @ (neurons[:, self.outputs :] @ self._root)).ravel()

    def pull(
        self, neurons: Float[np.ndarray, "neurons size"], residual: Float[np.ndarray, " outputs"]
    ) -> Float[np.ndarray, "neurons size"]:
        """Give the gradient of a^T C w."""
        cross = residual.reshape(self.outputs, -1) @ self._root
        return np.hstack([neurons[:, self.outputs :] @ cross.T, neurons[:, : self.outputs] @ cross])

    def label(self, neuron: Float[np.ndarray, " size"]) -> int:
        """Give the index of the mode that the neuron is most of, by decreasing singular value of the cross-covariance."""
        left, strengths, right = self._modes
        share = np.abs((neuron[: self.outputs] @ left) * (right @ neuron[self.outputs :]))
        return int((share * strengths).argmax())


def covariances(
    sigma_yx: Any, sigma_xx: Any
) -> tuple[np.ndarray, Float[np.ndarray, "inputs inputs"], np.ndarray, np.ndarray]:
    """Check covariances.

    Args:
        sigma_yx: (outputs, inputs).
        sigma_xx: (inputs, inputs), or None for the identity.

    Returns:
        Both, the root of the second, and the inverse of that root (of the part that is not zero).

    Raises:
        InputError: for wrong shapes, numbers that are not finite, a covariance that is not symmetric and non-negative, or a
            cross-covariance with inputs that have no variance.
    """
    cross = as_array("sigma_yx", sigma_yx, 2)
    if 0 in cross.shape:
        raise InputError(f"sigma_yx must have outputs and inputs, got shape {cross.shape}.")
    side = cross.shape[1]
    if sigma_xx is None:
        return cross, np.eye(side), np.eye(side), np.eye(side)
    spread = as_array("sigma_xx", sigma_xx, 2)
    if spread.shape != (side, side):
        raise InputError(f"sigma_xx must have shape {(side, side)}, got {spread.shape}.")
    size = max(float(np.abs(spread).max()), 1e-300)
    if np.abs(spread - spread.T).max() > 1e-9 * size:
        raise InputError("sigma_xx must be symmetric.")
    spread = (spread + spread.T) / 2
    values, vectors = np.linalg.eigh(spread)
    if values.min() < -1e-9 * size:
        raise InputError(f"sigma_xx must not have negative eigenvalues, but has {values.min():.3g}.")
    kept = values > _RANK * size
    lost = cross @ vectors[:, ~kept]
    if np.abs(lost).max(initial=0.0) > 1e-6 * np.abs(cross).max():
        raise InputError(
            "sigma_yx depends on directions in which sigma_xx has no variance; no data have these covariances."
        )
    roots = np.sqrt(np.where(kept, values, 0.0))
    inverses = np.divide(1.0, roots, out=np.zeros_like(roots), where=kept)
    return cross, spread, (vectors * roots) @ vectors.T, (vectors * inverses) @ vectors.T


def unexplained(sigma_yy: Any, explained: Float[np.ndarray, "outputs inputs"]) -> float:
    """Give the part of the loss that no linear map removes.

    Args:
        sigma_yy: covariance of the targets (outputs, outputs), or None.
        explained: the cross-covariance with whitened inputs.

    Returns:
        Half of the variance that is left; 0 for None.

    Raises:
        InputError: for a wrong shape, or less variance than is explained.
    """
    if sigma_yy is None:
        return 0.0
    total = as_array("sigma_yy", sigma_yy, 2)
    outputs = len(explained)
    if total.shape != (outputs, outputs):
        raise InputError(f"sigma_yy must have shape {(outputs, outputs)}, got {total.shape}.")
    variance = float(np.trace(total))
    left = variance - float((explained**2).sum())
    if left < -1e-9 * max(variance, 1e-300):
        raise InputError("no data have these covariances: sigma_yx explains more than the variance in sigma_yy.")
    return max(left, 0.0) / 2


def two_matrices(A: Any, W: Any, cross: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Check the weights of a network.

    Args:
        A: (outputs, hidden).
        W: (hidden, inputs).
        cross: (outputs, inputs).

    Returns:
        Both in float64.

    Raises:
        InputError: for wrong shapes.
    """
    first, second = as_array("A", A, 2), as_array("W", W, 2)
    outputs, inputs = cross.shape
    hidden = first.shape[1]
    if first.shape != (outputs, hidden) or second.shape != (hidden, inputs) or hidden < 1:
        raise InputError(
            f"A must have shape ({outputs}, hidden) and W (hidden, {inputs}), got {first.shape} and {second.shape}."
        )
    return first, second
