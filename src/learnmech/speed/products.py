"""Passes over large tensors: sums of products in double precision without a double-precision copy, and quick checks."""

import numpy as np
import torch
from torch import Tensor

from learnmech.monitor.norms import SAFE

_BLOCK = 1 << 15
"""Entries that are widened at a time on a CPU: a few of them fit into its cache."""
_FIRST = 1024


def gram(*tensors: Tensor) -> np.ndarray:
    r"""Compute all inner products :math:`\langle t_i, t_j \rangle` over all entries.

    Args:
        *tensors: k real tensors of the same number of entries.

    Returns:
        Shape (k, k), float64. Squares do not overflow where the entries are finite float32 numbers.
    """
    flat = [tensor.detach().reshape(-1) for tensor in tensors]
    if flat[0].device.type == "mps":  # no float64 there
        flat = [tensor.cpu() for tensor in flat]
    count = flat[0].numel()
    size = _BLOCK if flat[0].device.type == "cpu" else 1 << 22
    total = torch.zeros(len(flat), len(flat), dtype=torch.float64, device=flat[0].device)
    wide = torch.empty(len(flat), min(size, count), dtype=torch.float64, device=flat[0].device)
    for start in range(0, count, size):
        length = min(size, count - start)
        for row, tensor in enumerate(flat):
            wide[row, :length] = tensor[start : start + length]
        part = wide[:, :length]
        total += part @ part.T
    return total.cpu().numpy()


def inner(first: Tensor, second: Tensor) -> float:
    r"""Compute :math:`\langle a, b \rangle` over all entries of two large tensors, such as parameters and their gradients.

    On a CPU float32 tensors are multiplied in their own precision block by block, and blocks are added in double precision:
    several times faster than widening, with an error of about 1e-7 of :math:`\|a\| \|b\|`. Where that could overflow or lose
    small terms, and elsewhere, everything is done in double precision.

    Args:
        first: real numbers.
        second: as many.

    Returns:
        The sum of products.
    """
    if first.device.type == "cpu" and first.dtype == second.dtype == torch.float32:
        one, other = first.detach().reshape(-1), second.detach().reshape(-1)
        pairs = zip(torch.split(one, _BLOCK), torch.split(other, _BLOCK), strict=True)
        quick = sum(float(torch.dot(a, b)) for a, b in pairs)
        if SAFE[0] < abs(quick) < SAFE[1]:
            return quick
    return float(gram(first, second)[0, 1])


def all_finite(tensor: Tensor) -> bool:
    """Tell whether all entries are finite.

    Args:
        tensor: real numbers.

    Returns:
        Whether they are. The sum tells it in most cases, and much faster than entry by entry.
    """
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def any_nonzero(tensor: Tensor) -> bool:
    """Tell whether any entry is not zero; NaN counts as such.

    Args:
        tensor: real numbers.

    Returns:
        Whether one is not.
    """
    flat = tensor.reshape(-1)
    return bool(flat[:_FIRST].any()) or bool(flat.any())
