"""Inputs and targets of a regression, checked and rotated into the space that the inputs span."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from learnmech.dynamics.agf.problems import as_array
from learnmech.errors import InputError

_EXACT = 1e-14
_NOISE = 1e-11


@dataclass(frozen=True)
class Regression:
    r"""Least squares :math:`\tfrac12|T - A\beta|^2 + L_\infty` with as many rows as the inputs have rank.

    With the singular value decomposition :math:`X/\sqrt n = U\,\mathrm{diag}(s)\,V^T`, the rows are
    :math:`A = \mathrm{diag}(s)V^T` and :math:`T = U^Ty/\sqrt n`, so that nothing that a network can do is lost.

    Attributes:
        strengths: s, the singular values above rounding, shape (rank,).
        basis: :math:`V^T`, orthonormal rows, shape (rank, dim).
        target: T, shape (rank,).
        floor: loss that no coefficients remove; 0 if that is rounding.
        samples: how many there were.
    """

    strengths: Float[np.ndarray, " rank"]
    basis: Float[np.ndarray, "rank dim"]
    target: Float[np.ndarray, " rank"]
    floor: float
    samples: int

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return int(self.basis.shape[1])

    @cached_property
    def matrix(self) -> Float[np.ndarray, "rank dim"]:
        """A, shape (rank, dim)."""
        return np.asarray(self.strengths[:, None] * self.basis)

    @cached_property
    def noise(self) -> Float[np.ndarray, " dim"]:
        """Below which size a derivative by each coordinate is rounding."""
        return np.asarray(_NOISE * np.linalg.norm(self.matrix, axis=0) * np.linalg.norm(self.target))

    def drive(self, beta: Float[np.ndarray, " dim"]) -> Float[np.ndarray, " dim"]:
        """Give minus the gradient by the coefficients.

        Args:
            beta: coefficients.

        Returns:
            One number a coordinate.
        """
        return np.asarray(self.matrix.T @ (self.target - self.matrix @ beta))

    def loss(self, beta: Float[np.ndarray, " dim"]) -> float:
        """Give the loss.

        Args:
            beta: coefficients.

        Returns:
            Half the mean squared error.
        """
        rest = self.target - self.matrix @ beta
        return float(rest @ rest) / 2 + self.floor


def diagonal_data(X: Any, y: Any) -> Regression:
    """Check a regression and rotate it.

    Args:
        X: inputs (samples, dim).
        y: targets (samples,), or (samples, 1).

    Returns:
        The same problem with as many rows as X has rank.

    Raises:
        InputError: for other shapes, no samples or coordinates, or numbers that are not finite.
    """
    inputs = as_array("X", X, 2)
    if getattr(y, "ndim", None) == 2 and y.shape[1] == 1:
        y = y[:, 0]
    targets = as_array("y", y, 1)
    if not inputs.size or len(targets) != len(inputs):
        raise InputError(
            f"X must be (samples, dim) and y (samples,), neither empty, got {inputs.shape} and {targets.shape}."
        )
    root = math.sqrt(len(inputs))
    left, strengths, basis = np.linalg.svd(inputs / root, full_matrices=False)
    kept = strengths > max(inputs.shape) * np.finfo(np.float64).eps * strengths[0]
    left, strengths, basis = left[:, kept], strengths[kept], basis[kept]
    scaled = targets / root
    target = left.T @ scaled
    rest = scaled - left @ target
    floor = float(rest @ rest) / 2
    if np.linalg.norm(rest) <= _EXACT * math.sqrt(max(inputs.shape)) * np.linalg.norm(scaled):
        floor = 0.0
    return Regression(strengths, basis, target, floor, len(inputs))
