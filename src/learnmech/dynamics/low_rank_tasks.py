"""Losses of a symmetric matrix: matrix sensing, or any differentiable function, as value and gradient in float64."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.errors import InputError

MatrixLoss = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class MatrixSensing:
    r"""Recover a symmetric matrix from linear measurements: :math:`L(X) = \frac{1}{2m}\sum_i (\langle A_i, X\rangle - y_i)^2`.

    Attributes:
        measurements: symmetric A_i (m, dimension, dimension).
        values: y_i (m,).
        truth: the matrix that was measured.
    """

    measurements: Float[np.ndarray, "measurements dimension dimension"]
    values: Float[np.ndarray, " measurements"]
    truth: Float[np.ndarray, "dimension dimension"]

    def __call__(self, matrix: Tensor) -> Tensor:
        """Give the loss.

        Args:
            matrix: X.

        Returns:
            The loss, differentiable.
        """
        seen = (torch.as_tensor(self.measurements, dtype=matrix.dtype) * matrix).sum((1, 2))
        return ((seen - torch.as_tensor(self.values, dtype=matrix.dtype)) ** 2).mean() / 2


def matrix_sensing(dimension: int = 6, *, measurements: int = 18, rank: int = 3, seed: int = 0) -> MatrixSensing:
    r"""Draw a matrix-sensing task.

    The truth is :math:`\sum_{k \le r} \lambda_k v_k v_k^T` for random orthonormal v with :math:`\lambda = r, r-1, \ldots, 1`; the
    measurements are symmetrised matrices of independent normal numbers, of unit variance on the diagonal and 1/2 off it.

    Args:
        dimension: of the matrix.
        measurements: how many.
        rank: of the truth.
        seed: of the draw.

    Returns:
        The task.

    Raises:
        InputError: if a number is out of range.
    """
    for name, value in (("dimension", dimension), ("measurements", measurements), ("rank", rank)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{name} must be a positive integer, got {value!r}.")
    if rank > dimension:
        raise InputError(f"rank must be at most the dimension {dimension}, got {rank}.")
    generator = np.random.default_rng(seed)
    raw = generator.standard_normal((measurements, dimension, dimension))
    matrices = (raw + raw.transpose(0, 2, 1)) / 2
    basis = np.linalg.qr(generator.standard_normal((dimension, dimension)))[0][:, :rank]
    truth = (basis * np.arange(rank, 0, -1.0)) @ basis.T
    return MatrixSensing(matrices, (matrices * truth).sum((1, 2)), truth)


class Landscape:
    """A loss of a symmetric matrix X, and of a factor U with X = U U^T.

    Args:
        loss: a differentiable function of a (dimension, dimension) float64 tensor that gives one number.
        dimension: of X; None asks a :class:`MatrixSensing`.

    Raises:
        InputError: if the dimension is missing or the loss does not give a finite number with a gradient.
    """

    def __init__(self, loss: MatrixLoss, dimension: int | None) -> None:
        if not callable(loss):
            raise InputError(f"loss must be a function of a symmetric matrix, got a {type(loss).__name__}.")
        if isinstance(loss, MatrixSensing):
            own = loss.truth.shape[0]
            if dimension not in (None, own):
                raise InputError(f"the matrix-sensing task has dimension {own}, got dimension={dimension!r}.")
            dimension = own
        if not isinstance(dimension, int) or isinstance(dimension, bool) or dimension < 1:
            raise InputError(f"dimension must be a positive integer, the side of the matrix, got {dimension!r}.")
        self.loss, self.dimension = loss, dimension
        self.at(np.zeros((dimension, dimension)))

    def at(self, matrix: Float[np.ndarray, "dimension dimension"]) -> tuple[float, np.ndarray]:
        """Give value and gradient.

        Args:
            matrix: X.

        Returns:
            L(X) and the symmetric part of its gradient.

        Raises:
            InputError: if the loss is not one finite number, or has no gradient.
        """
        if isinstance(self.loss, MatrixSensing):
            task = self.loss
            flat = task.measurements.reshape(len(task.values), -1)
            error = flat @ matrix.ravel() - task.values
            return 0.5 * float((error**2).mean()), (error @ flat).reshape(matrix.shape) / len(error)
        with torch.enable_grad():
            point = torch.tensor(matrix, dtype=torch.float64, requires_grad=True)
            value: Any = self.loss(point)
            if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
                raise InputError(
                    "loss must give one number that depends differentiably on the matrix, as a torch tensor."
                )
            (gradient,) = torch.autograd.grad(value.sum(), point)
        slope = gradient.numpy()
        if not (bool(torch.isfinite(value).all()) and np.isfinite(slope).all()):
            raise InputError("loss or its gradient is not finite; the flow left the region where the loss is defined.")
        return float(value.detach()), (slope + slope.T) / 2

    def growth(self, matrix: Float[np.ndarray, "dimension dimension"]) -> tuple[float, np.ndarray]:
        """Give the direction in which a new column would grow fastest.

        Args:
            matrix: X.

        Returns:
            The top eigenvalue of minus the gradient, and its unit eigenvector with its largest entry positive.
        """
        values, vectors = np.linalg.eigh(-self.at(matrix)[1])
        top = vectors[:, -1]
        return float(values[-1]), top * np.sign(top[np.abs(top).argmax()])
