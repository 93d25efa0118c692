"""Which samples of a probe the regime instrument looks at, and the blocks of them that its standard error rests on."""

import hashlib
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from learnmech.monitor.tensors import tensors_in

MOST = 48
"""Samples of a large probe. The price of a kernel grows with them, its standard error falls as their root."""
_LEAST = 16
_SHARE = 4
BLOCKS = 8


def choose_samples(inputs: Any, probe_samples: int, labels: Tensor | None) -> Int[np.ndarray, " chosen"]:
    """Choose a fixed subset by content, so that the order of the probe plays no part: all classes in turn.

    Args:
        inputs: of the probe.
        probe_samples: how many the probe has.
        labels: the class of each sample; None for real targets, or several labels a sample.

    Returns:
        At most 48 indices, a quarter of a small probe but at least 16, or all of fewer. Every eighth of them makes a block, so
        that blocks have the same classes.
    """
    count = min(probe_samples, MOST, max(_LEAST, probe_samples // _SHARE))
    order = _order(inputs, probe_samples)
    given = np.zeros(probe_samples, dtype=int)
    if labels is not None and labels.ndim == 1 and len(labels) == probe_samples and bool((labels >= 0).any()):
        given = labels.numpy()
    classes = [order[given[order] == value] for value in np.unique(given) if value >= 0]
    turns = [members[turn] for turn in range(count) for members in classes if turn < len(members)]
    return np.array(turns[:count])


def _order(inputs: Any, samples: int) -> Int[np.ndarray, " samples"]:
    """Sort samples by a hash of their numbers: an order that looks random and depends on nothing else."""
    tensors = [tensor.detach().cpu() for _, tensor in tensors_in(inputs)]
    parts = [tensor.reshape(samples, -1) for tensor in tensors if tensor.ndim > 0 and len(tensor) == samples]
    rows = [np.ascontiguousarray((part.float() if part.dtype == torch.bfloat16 else part).numpy()) for part in parts]
    names = [hashlib.blake2b(b"".join(row[index].tobytes() for row in rows)).digest() for index in range(samples)]
    return np.array(sorted(range(samples), key=names.__getitem__))


def blocks_of(count: int) -> list[Int[np.ndarray, " kept"]]:
    """List what is left when one block of samples after the other is taken out.

    Args:
        count: samples of the subset.

    Returns:
        Eight sets of positions; none for fewer than 16 samples.
    """
    if count < 2 * BLOCKS:
        return []
    return [np.flatnonzero(np.arange(count) % BLOCKS != block) for block in range(BLOCKS)]
