"""Data for a prediction: inputs and targets in float64, whether they come as tensors or from a loader."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader

from learnmech.dynamics.agf.modular_utility import spectrum
from learnmech.errors import InputError

_SAME = 1e-6
_MOST_NUMBERS = 50_000_000


@dataclass(frozen=True)
class TrainingData:
    """All samples that a model is trained on.

    Attributes:
        inputs: a tensor, or a tuple of them.
        targets: samples first.
        batch_size: of a loader; None if none came.
    """

    inputs: Any
    targets: Tensor
    batch_size: int | None

    @property
    def samples(self) -> int:
        """How many there are."""
        return len(self.targets)


def training_data(data: Any) -> TrainingData:
    """Read data.

    Args:
        data: (inputs, targets), inputs being a tensor or a tuple of tensors; or a loader that gives such pairs.

    Returns:
        Copies on the CPU in float64.

    Raises:
        InputError: for anything else, numbers that are not finite, unequal numbers of samples, or more than 50 million numbers.
    """
    batch_size = None
    if isinstance(data, DataLoader):
        batch_size = data.batch_size
        state = torch.get_rng_state()
        try:
            batches = [_pair(batch) for batch in data]
        finally:
            torch.set_rng_state(state)
        if not batches:
            raise InputError("the loader gives no batches.")
        targets = torch.cat([batch[1] for batch in batches])
        first = batches[0][0]
        if isinstance(first, tuple):
            inputs: Any = tuple(torch.cat([batch[0][part] for batch in batches]) for part in range(len(first)))
        else:
            inputs = torch.cat([batch[0] for batch in batches])
    else:
        inputs, targets = _pair(data)
    parts = inputs if isinstance(inputs, tuple) else (inputs,)
    if any(len(part) != len(targets) for part in parts) or not len(targets):
        raise InputError(
            f"inputs and targets must have as many samples, got {[len(part) for part in parts]} and {len(targets)}."
        )
    if not all(bool(part.isfinite().all()) for part in (*parts, targets)):
        raise InputError("inputs and targets must be finite.")
    if sum(part.numel() for part in (*parts, targets)) > _MOST_NUMBERS:
        raise InputError("more than 50 million numbers: give a sample of the data that stands for the rest.")
    return TrainingData(inputs, targets, batch_size)


def _pair(data: Any) -> tuple[Any, Tensor]:
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise InputError(
            f"data must be (inputs, targets) or a loader of such pairs, got {type(data).__name__}"
            f"{f' of {len(data)}' if hasattr(data, '__len__') else ''}."
        )
    inputs, targets = data
    if isinstance(inputs, tuple | list) and all(isinstance(part, Tensor | np.ndarray) for part in inputs):
        return tuple(_tensor(part, "inputs") for part in inputs), _tensor(targets, "targets")
    return _tensor(inputs, "inputs"), _tensor(targets, "targets")


def _tensor(values: Any, name: str) -> Tensor:
    try:
        tensor = torch.as_tensor(values).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} must be tensors of numbers, got {type(values).__name__}: {error}.") from error
    if tensor.ndim == 0 or tensor.is_complex():
        raise InputError(f"{name} must be real, with samples first, got shape {tuple(tensor.shape)} {tensor.dtype}.")
    if name == "targets" and not tensor.is_floating_point():
        raise InputError(
            "targets must be numbers to regress on, but are integers: classes have no squared loss; encode them first, one-hot for instance."
        )
    return tensor.double().clone()


def modular_template(
    X: Float[np.ndarray, "samples inputs"], Y: Float[np.ndarray, "samples outputs"]
) -> Float[np.ndarray, " p"] | None:
    """Recognise the complete table of modular addition.

    Args:
        X: inputs.
        Y: targets.

    Returns:
        The template x, if each pair (a, b) is there once as the row (x rolled by a, x rolled by b) with the target x rolled by a + b,
        and x has mean 0; else None.
    """
    length = Y.shape[1]
    if X.shape != (length**2, 2 * length) or length < 3:
        return None
    halves = X.reshape(-1, 2, length)
    base = halves[0, 0]
    tolerance = _SAME * max(float(np.abs(X).max()), 1e-300)
    if abs(float(base.mean())) > tolerance:
        return None
    turned = np.stack([np.roll(base, shift) for shift in range(length)])
    gaps = np.abs(halves[:, :, None, :] - turned).max(axis=3)
    shifts = gaps.argmin(axis=2)
    if gaps.min(axis=2).max() > tolerance or len(np.unique(shifts[:, 0] * length + shifts[:, 1])) != length**2:
        return None
    for offset in range(length):
        expected = turned[(shifts.sum(axis=1) + offset) % length]
        if np.abs(expected - Y).max() <= tolerance:
            template: np.ndarray = np.roll(base, -offset)
            spectrum(template)
            return template
    return None
