"""Euclidean norms that neither overflow nor underflow, without waiting for the device."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

SAFE = (1e-20, 1e30)
"""Sums of products of float32 numbers outside this range may have overflowed, or lost small terms."""


def squared_norm(tensor: Tensor) -> Tensor | float:
    """Sum the squares of all entries.

    On a CPU float32 tensors are first summed in their own precision (relative error about 1e-6), which is several times
    faster, and again in float64 if the result could have overflowed or underflowed; elsewhere float64 is used throughout.

    Args:
        tensor: any real or complex tensor.

    Returns:
        A number; on devices other than the CPU a float64 scalar there, so that nothing waits for it.
    """
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if tensor.device.type == "mps":  # no float64 there
        tensor = tensor.cpu()
    if tensor.device.type == "cpu" and tensor.dtype == torch.float32:
        quick = float(torch.linalg.vector_norm(tensor)) ** 2
        if SAFE[0] < quick < SAFE[1]:
            return quick
    norm: Tensor = torch.linalg.vector_norm(tensor, dtype=torch.float64)
    return float(norm.square()) if norm.device.type == "cpu" else norm.square()


def joint_norms(groups: Sequence[Iterable[Tensor]]) -> np.ndarray:
    """Compute the norm of each group of tensors taken together.

    Args:
        groups: tensors; they may lie on several devices.

    Returns:
        One norm a group; NaN for an empty group.
    """
    return roots_of_sums([[squared_norm(tensor.detach()) for tensor in group] for group in groups])


def roots_of_sums(groups: Sequence[Sequence[Tensor | float]]) -> np.ndarray:
    """Compute norms from squared norms, with one transfer for all that lie on a device.

    Args:
        groups: squared norms, as :func:`squared_norm` gives them.

    Returns:
        The root of the sum of each group; NaN for an empty group.
    """
    everything = [square for group in groups for square in group]
    waiting = [square for square in everything if isinstance(square, Tensor)]
    arrived = iter(torch.stack([square.to(waiting[0].device) for square in waiting]).tolist() if waiting else [])
    values = np.array([next(arrived) if isinstance(square, Tensor) else square for square in everything])
    ends = np.cumsum([len(group) for group in groups])
    return np.array(
        [
            np.sqrt(values[end - len(group) : end].sum()) if group else np.nan
            for group, end in zip(groups, ends, strict=True)
        ]
    )
