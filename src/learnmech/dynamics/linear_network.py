"""A deep linear network on a regression task: start, product, loss, gradient, and tangent kernel, in plain matrices."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float

from learnmech.errors import InputError

Weights = list[np.ndarray]


@dataclass(frozen=True)
class LinearTask:
    r"""Learn a matrix: :math:`L(P) = \frac12 \mathrm{tr}((P - T)\,\Sigma\,(P - T)^T) = \frac12 E|Px - Tx|^2`.

    This is the loss convention "mean" without the noise floor: for data X (n, d) and targets Y (n, c) take
    :math:`\Sigma = X^TX/n` and T the least-squares solution.

    Attributes:
        target: T, shape (outputs, inputs).
        covariance: second moments of the inputs.
    """

    target: Float[np.ndarray, "outputs inputs"]
    covariance: Float[np.ndarray, "inputs inputs"]

    def loss(self, product: Float[np.ndarray, "outputs inputs"]) -> float:
        """Give the loss of a product of weights.

        Args:
            product: P.

        Returns:
            The loss.
        """
        error = product - self.target
        return 0.5 * float((error @ self.covariance * error).sum())

    def gradients(self, weights: Weights) -> Weights:
        r"""Give the gradient by each weight, :math:`(W_L \cdots W_{l+1})^T (P - T)\Sigma\,(W_{l-1} \cdots W_1)^T`.

        Args:
            weights: first layer first.

        Returns:
            One gradient a weight.
        """
        below, above = partial_products(weights)
        error = (weights[-1] @ below[-1] - self.target) @ self.covariance
        return [over.T @ error @ under.T for over, under in zip(above, below, strict=True)]

    def modes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        r"""Give the singular vectors and values of :math:`T\Sigma`, strongest first.

        Returns:
            Output vectors (outputs, modes), values (modes,) and input vectors (modes, inputs).
        """
        left, values, right = np.linalg.svd(self.target @ self.covariance, full_matrices=False)
        return left, values, right


def make_task(target: Any, covariance: Any = None) -> LinearTask:
    """Check a task.

    Args:
        target: T (outputs, inputs).
        covariance: of the inputs, positive definite; the identity if not given.

    Returns:
        The task.

    Raises:
        InputError: if a matrix has the wrong shape, is not finite, or the covariance is not positive definite.
    """
    target = as_matrix(target, "target")
    inputs = target.shape[1]
    if not target.any():
        raise InputError("target is zero: there is nothing to learn.")
    matrix = np.eye(inputs) if covariance is None else as_matrix(covariance, "covariance")
    if matrix.shape != (inputs, inputs) or not np.allclose(matrix, matrix.T):
        raise InputError(f"covariance must be symmetric of shape {(inputs, inputs)}, got shape {matrix.shape}.")
    if np.linalg.eigvalsh(matrix).min() <= 0:
        raise InputError("covariance must be positive definite; leave out input directions that never vary.")
    return LinearTask(target, matrix)


def as_matrix(value: Any, name: str) -> Float[np.ndarray, "rows columns"]:
    """Check a matrix.

    Args:
        value: what came.
        name: of the argument, for the message.

    Returns:
        The matrix in float64.

    Raises:
        InputError: if it is not a finite, non-empty matrix.
    """
    try:
        matrix = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be a matrix of numbers: {error}") from error
    if matrix.ndim != 2 or matrix.size == 0:
        raise InputError(f"{name} must be a matrix, got shape {matrix.shape}.")
    if not np.isfinite(matrix).all():
        raise InputError(f"{name} must be finite, but holds NaN or infinity.")
    return matrix


def draw_weights(
    inputs: int, outputs: int, depth: int, width: int, *, gamma: float = 1.0, scale: float = 1.0, seed: int = 0
) -> Weights:
    r"""Draw weights with entries :math:`N(0, \text{scale}^2\, w^{-\gamma})`, as Jacot et al. 2021 (arXiv 2106.15933).

    Args:
        inputs: number of inputs.
        outputs: number of outputs.
        depth: number of weights L.
        width: hidden width w.
        gamma: exponent of the variance.
        scale: factor on all weights.
        seed: of the draw.

    Returns:
        The weights, first layer first.

    Raises:
        InputError: if a number is out of range.
    """
    for name, value, least in (
        ("inputs", inputs, 1),
        ("outputs", outputs, 1),
        ("depth", depth, 2),
        ("width", width, 1),
    ):
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
            raise InputError(f"{name} must be an integer of at least {least}, got {value!r}.")
    if not (math.isfinite(gamma) and math.isfinite(scale) and scale > 0):
        raise InputError(f"gamma must be finite and scale finite and positive, got {gamma!r} and {scale!r}.")
    generator = np.random.default_rng(seed)
    sizes = [inputs, *[width] * (depth - 1), outputs]
    deviation = scale * width ** (-gamma / 2)
    return [deviation * generator.standard_normal((out, into)) for into, out in pairwise(sizes)]


def read_weights(weights: Sequence[Any], task: LinearTask) -> Weights:
    """Check weights that the user gave.

    Args:
        weights: first layer first.
        task: what they are to learn.

    Returns:
        Copies in float64.

    Raises:
        InputError: if they do not chain from the inputs to the outputs.
    """
    read = [as_matrix(weight, f"weights[{number}]") for number, weight in enumerate(weights)]
    sizes = [weight.shape for weight in read]
    chained = all(after[1] == before[0] for before, after in pairwise(sizes))
    if len(read) < 2 or not chained or sizes[0][1] != task.target.shape[1] or sizes[-1][0] != task.target.shape[0]:
        raise InputError(
            f"weights must be at least two matrices that chain from {task.target.shape[1]} inputs to "
            f"{task.target.shape[0]} outputs, first layer first, each (out, in); got the shapes {sizes}."
        )
    return read


def partial_products(weights: Weights) -> tuple[Weights, Weights]:
    r"""Give what lies below and above each weight.

    Args:
        weights: first layer first.

    Returns:
        For each layer l the product :math:`W_{l-1} \cdots W_1` (the identity for the first) and
        :math:`W_L \cdots W_{l+1}` (the identity for the last).
    """
    below = [np.eye(weights[0].shape[1])]
    for weight in weights[:-1]:
        below.append(weight @ below[-1])
    above = [np.eye(weights[-1].shape[0])]
    for weight in weights[:0:-1]:
        above.append(above[-1] @ weight)
    return below, above[::-1]


def product_of(weights: Weights) -> Float[np.ndarray, "outputs inputs"]:
    """Multiply the weights, from the side that is cheaper.

    Args:
        weights: first layer first.

    Returns:
        The matrix that the network applies.
    """
    if weights[0].shape[1] <= weights[-1].shape[0]:
        product = weights[0]
        for weight in weights[1:]:
            product = weight @ product
        return product
    product = weights[-1]
    for weight in weights[-2::-1]:
        product = product @ weight
    return product


def trace_kernel(weights: Weights, root: Float[np.ndarray, "inputs probes"] | None = None) -> np.ndarray:
    r"""Give the tangent kernel summed over outputs, :math:`\sum_l |W_L \cdots W_{l+1}|_F^2\; Z_{l-1}^T Z_{l-1}`.

    Here :math:`Z_{l-1} = W_{l-1} \cdots W_1 Z` for probe inputs Z. It is the kernel of all layers at learning rate 1,
    :math:`K_{ij} = \sum_c \sum_p \partial_p f_c(z_i)\, \partial_p f_c(z_j)`.

    Args:
        weights: first layer first.
        root: probe inputs, one a column; unit vectors if not given.

    Returns:
        The kernel (probes, probes).
    """
    below, above = partial_products(weights)
    kernel = np.zeros((weights[0].shape[1],) * 2)
    for under, over in zip(below, above, strict=True):
        kernel += (over * over).sum() * (under.T @ under)
    return kernel if root is None else root.T @ kernel @ root
