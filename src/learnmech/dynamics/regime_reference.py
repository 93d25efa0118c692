"""The start of a watch, that later kernels and parameters are compared with."""

from collections.abc import Mapping
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from learnmech.dynamics.kernel_statistics import kernel_distance
from learnmech.dynamics.regime_samples import blocks_of

_KEPT_ENTRIES = 2**20
"""Entries of one parameter tensor that are remembered; of larger ones evenly spaced entries."""


def distance_with_error(first: np.ndarray, second: np.ndarray, *, centred: bool = False) -> tuple[float, float]:
    r"""Compute the distance of two kernels of the same samples, and its standard error over the samples.

    The error is a jackknife over eight disjoint blocks of samples :math:`b`, leaving out one at a time:
    :math:`\mathrm{se}^2 = \frac{7}{8}\sum_b(S_{-b} - \bar S)^2`. Source: Tukey 1958.

    Args:
        first: kernel.
        second: kernel.
        centred: whether to take both around their means first, in each part anew.

    Returns:
        Distance, and error; NaN where a kernel is zero, and the error for fewer than 16 samples.
    """
    whole = _distance(first, second, centred=centred)
    without = np.array(
        [
            _distance(first[part], second[part], centred=centred)
            for part in (np.ix_(r, r) for r in blocks_of(len(first)))
        ]
    )
    if not len(without):
        return whole, np.nan
    return whole, float(np.sqrt((len(without) - 1) / len(without) * np.sum((without - without.mean()) ** 2)))


def _distance(first: np.ndarray, second: np.ndarray, *, centred: bool) -> float:
    sizes = [np.abs(matrix).max() for matrix in (first, second)]
    if centred:
        first, second = (_around_mean(matrix) for matrix in (first, second))
    rounding = 1e-6 if centred else 0.0
    if any(np.abs(matrix).max() <= rounding * size for matrix, size in zip((first, second), sizes, strict=True)):
        return np.nan
    return kernel_distance(first, second)


def _around_mean(matrix: np.ndarray) -> np.ndarray:
    rows = matrix - matrix.mean(axis=0, keepdims=True)
    return np.asarray(rows - rows.mean(axis=1, keepdims=True))


class StartingParameters:
    """The trainable parameters of one time, to measure how far later ones are from them.

    Args:
        model: the model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._start = {
            name: _some(tensor).clone()
            for name, tensor in model.named_parameters()
            if tensor.requires_grad and tensor.is_floating_point()
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Make them anew.

        Args:
            state: what :meth:`state_dict` gave.

        Returns:
            The same parameters.
        """
        made = cls(nn.Module())
        made._start = dict(state)
        return made

    def state_dict(self) -> dict[str, Tensor]:
        """Give them for a checkpoint.

        Returns:
            Those entries that are remembered, by name.
        """
        return {name: start.cpu() for name, start in self._start.items()}

    def relative_distance(self, model: nn.Module) -> float:
        r"""Measure :math:`|\theta - \theta_0|/|\theta_0|`.

        Args:
            model: the same model, later.

        Returns:
            The distance; NaN if the parameters are others, or were zero.
        """
        moved, size = 0.0, 0.0
        now = dict(model.named_parameters())
        for name, start in self._start.items():
            if name not in now or now[name].numel() == 0 or _some(now[name]).shape != start.shape:
                return np.nan
            weight = now[name].numel() / start.numel()
            moved += weight * float(torch.linalg.vector_norm(_some(now[name]).to(start.device) - start)) ** 2
            size += weight * float(torch.linalg.vector_norm(start)) ** 2
        return float(np.sqrt(moved / size)) if size > 0 else np.nan


def _some(tensor: Tensor) -> Tensor:
    flat = tensor.detach().reshape(-1)
    step = -(-flat.numel() // _KEPT_ENTRIES)
    return flat[:: max(1, step)].float()
