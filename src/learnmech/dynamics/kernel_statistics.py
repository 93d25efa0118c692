"""Numbers of a kernel matrix: how far it turned, how well it fits the labels, its spectrum and effective rank."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from learnmech.errors import InputError

Matrix = Float[Tensor, "n m"] | Float[np.ndarray, "n m"]


def kernel_distance(first: Matrix, second: Matrix) -> float:
    r"""Compute how far a kernel has turned from another.

    .. math:: S = 1 - \frac{\langle K_0, K_1\rangle_F}{\|K_0\|_F\,\|K_1\|_F}

    0 for kernels that are equal up to a positive factor, 1 for orthogonal ones; never above 1 for two positive semi-definite
    matrices. Between the start and the end of training a value near 0 means lazy, one of order 1 rich; what counts as small
    depends on the samples, so compare with a net known to be lazy. A kernel that only grows has distance 0. Source: Fort et al.,
    arXiv 2010.15110 (kernel distance); Kunin et al., arXiv 2406.06158, use it for this purpose.

    Args:
        first: :math:`K_0`, a tensor or array of any real dtype, (n, n) or (n, m).
        second: :math:`K_1`, of the same shape.

    Returns:
        S; rounding below zero is put to 0. Computed in float64.

    Raises:
        InputError: for other shapes, NaN or infinite entries, or a kernel that is zero.

    Example:
        >>> kernel_distance(np.eye(2), np.ones((2, 2)))  # doctest: +ELLIPSIS
        0.29289...
    """
    one, two = _scaled(_matrix(first, "the first kernel")), _scaled(_matrix(second, "the second kernel"))
    if one.shape != two.shape:
        raise InputError(f"kernels must have the same shape, but have {one.shape} and {two.shape}.")
    one, two = one / np.linalg.norm(one), two / np.linalg.norm(two)
    # 1 - <u, v> = |u - v|^2 / 2 for unit vectors, which keeps its digits where the distance is small.
    return float(np.sum((one - two) ** 2) / 2)


def kernel_alignment(kernel: Matrix, targets: Any, *, centered: bool = True) -> float:
    r"""Compute how well a kernel fits the targets: its cosine with the kernel of the targets.

    .. math:: A = \frac{\langle K, YY^T\rangle_F}{\|K\|_F\,\|YY^T\|_F}

    1 if the kernel's only feature is the targets themselves. Centred, both matrices are first taken around their means,
    :math:`HKH` with :math:`H = I - 11^T/n`: without this a constant part of the kernel and of the labels counts as fit. Source:
    Cristianini et al. 2001 (kernel-target alignment); Cortes, Mohri and Rostamizadeh, arXiv 1203.0550 (centred).

    Args:
        kernel: K, symmetric (n, n).
        targets: n integer labels, which become one-hot rows, or real targets (n,) or (n, outputs).
        centered: whether to take out means.

    Returns:
        A, between 0 and 1 for a positive semi-definite kernel. NaN if nothing is left after centring, such as for one class.

    Raises:
        InputError: for a matrix that is not square, targets of another length, NaN or infinite entries, or a kernel of zero.

    Example:
        >>> kernel_alignment(np.eye(2), [0, 1])
        1.0
    """
    matrix = _scaled(_square(kernel))
    rows = target_rows(targets, len(matrix))
    similar = rows @ rows.T
    if centered:
        matrix, similar = _centred(matrix), _centred(similar)
    sizes = float(np.linalg.norm(matrix) * np.linalg.norm(similar))
    if sizes <= len(matrix) * np.finfo(float).eps * max(1.0, float(np.sum(rows**2))):
        return math.nan
    return float(np.clip(np.sum(matrix * similar) / sizes, -1.0, 1.0))


def kernel_spectrum(kernel: Matrix) -> Float[np.ndarray, " n"]:
    """Compute the eigenvalues of a kernel, which are the rates at which gradient flow on squares learns its eigenvectors.

    Args:
        kernel: symmetric (n, n); of a matrix that is symmetric up to rounding the symmetric part is taken.

    Returns:
        Eigenvalues from large to small; rounding below zero is put to 0, as no eigenvalue of a tangent kernel is negative.

    Raises:
        InputError: for a matrix that is not square or symmetric, with NaN or infinite entries, or with an eigenvalue that is
            negative beyond rounding.

    Example:
        >>> kernel_spectrum(np.ones((2, 2))).round(12).tolist()
        [2.0, 0.0]
    """
    matrix = _square(kernel)
    values = np.linalg.eigvalsh((matrix + matrix.T) / 2)[::-1]
    if values[-1] < -1e-5 * max(abs(values[0]), abs(values[-1])):
        raise InputError(
            f"a kernel has no negative eigenvalue, but this matrix has {values[-1]:.3g} beside {values[0]:.3g}."
        )
    return np.maximum(values, 0.0)


def effective_rank(kernel: Matrix) -> float:
    r"""Compute the participation ratio of a kernel's eigenvalues: how many features it has, counted by their weight.

    .. math:: r = \frac{(\mathrm{tr} K)^2}{\|K\|_F^2} = \frac{(\sum_k\lambda_k)^2}{\sum_k\lambda_k^2}

    1 if one feature is all there is, n for a multiple of the unit matrix; never above the rank. Not the entropy of the spectrum,
    which some call by this name too. No square roots: eigenvalues count, not singular values of the Jacobian.

    Args:
        kernel: symmetric (n, n).

    Returns:
        r, from 1 to n.

    Raises:
        InputError: for a matrix that is not square or symmetric, NaN or infinite entries, or a kernel of zero.

    Example:
        >>> effective_rank(np.eye(3))
        3.0
    """
    matrix = _scaled(_square(kernel))
    return float(np.trace(matrix) ** 2 / np.sum(matrix**2))


def target_rows(targets: Any, samples: int) -> Float[np.ndarray, "samples outputs"]:
    """Write targets as one row a sample: labels as one-hot rows.

    Args:
        targets: integer labels (samples,), or real targets (samples,) or (samples, outputs).
        samples: how many there must be.

    Returns:
        Rows in float64.

    Raises:
        InputError: for another length, or NaN or infinite entries.
    """
    given = targets.detach().cpu().numpy() if isinstance(targets, Tensor) else np.asarray(targets)
    if given.ndim == 0 or len(given) != samples or given.ndim > 2 or given.dtype.kind not in "biuf":
        raise InputError(
            f"targets must be {samples} labels or rows of real numbers, one a sample of the kernel, but have shape "
            f"{given.shape} and dtype {given.dtype}."
        )
    if given.dtype.kind in "biu" and given.ndim == 1:
        _, places = np.unique(given, return_inverse=True)
        return np.asarray(np.eye(int(places.max()) + 1)[places])
    rows = given.astype(np.float64).reshape(samples, -1)
    if not np.isfinite(rows).all():
        raise InputError(f"targets hold {int((~np.isfinite(rows)).sum())} NaN or infinite entries.")
    return rows


def _matrix(kernel: Any, name: str) -> np.ndarray:
    given = kernel.detach().cpu().numpy() if isinstance(kernel, Tensor) else np.asarray(kernel)
    if given.ndim != 2 or given.size == 0 or given.dtype.kind not in "biuf":
        raise InputError(
            f"{name} must be a matrix of real numbers, but has shape {given.shape} and dtype {given.dtype}."
        )
    matrix = given.astype(np.float64)
    if not np.isfinite(matrix).all():
        raise InputError(f"{name} holds {int((~np.isfinite(matrix)).sum())} NaN or infinite entries.")
    return matrix


def _square(kernel: Any) -> np.ndarray:
    matrix = _matrix(kernel, "the kernel")
    if matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"the kernel must be square, but has shape {matrix.shape}.")
    if np.abs(matrix - matrix.T).max() > 1e-4 * np.abs(matrix).max():
        raise InputError("the kernel must be symmetric: give that of one batch with itself.")
    return matrix


def _scaled(matrix: np.ndarray) -> np.ndarray:
    """Divide by the largest entry, so that squares neither overflow nor underflow."""
    peak = np.abs(matrix).max()
    if peak == 0:
        raise InputError("the kernel is zero: no parameter moves the outputs for these samples.")
    return np.asarray(matrix / peak)


def _centred(matrix: np.ndarray) -> np.ndarray:
    rows = matrix - matrix.mean(axis=0, keepdims=True)
    return np.asarray(rows - rows.mean(axis=1, keepdims=True))
