"""Data of the greedy training: read, checked, and put on a common scale."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.errors import InputError


@dataclass(frozen=True)
class Scaling:
    """An affine map of inputs, each by itself, and of targets, all outputs by one factor so that the loss is only rescaled.

    Attributes:
        input_mean: subtracted from the inputs.
        input_scale: what they are divided by.
        target_mean: subtracted from the targets.
        target_scale: what they are divided by.
    """

    input_mean: Float[Tensor, " inputs"]
    input_scale: Float[Tensor, " inputs"]
    target_mean: Float[Tensor, " outputs"]
    target_scale: float

    def inputs(self, raw: Float[Tensor, "samples inputs"], bias: bool) -> Float[Tensor, "samples columns"]:
        """Scale inputs.

        Args:
            raw: inputs.
            bias: whether to append a column of ones.

        Returns:
            What neurons see.
        """
        scaled = (raw - self.input_mean) / self.input_scale
        return torch.cat([scaled, scaled.new_ones(len(scaled), 1)], 1) if bias else scaled

    def targets(self, raw: Float[Tensor, "samples outputs"]) -> Float[Tensor, "samples outputs"]:
        """Scale targets.

        Args:
            raw: targets.

        Returns:
            What the network fits.
        """
        return (raw - self.target_mean) / self.target_scale


def measure_scaling(
    inputs: Float[Tensor, "samples inputs"], targets: Float[Tensor, "samples outputs"], standardize: bool
) -> Scaling:
    """Give the map under which inputs have mean 0 and variance 1, and targets mean 0 and a mean variance of 1.

    Args:
        inputs: of the training samples; a constant one is only centred.
        targets: of the training samples; if all are constant they are only centred.
        standardize: False for the map that changes nothing.

    Returns:
        The map.
    """
    if not standardize:
        return Scaling(torch.zeros_like(inputs[0]), torch.ones_like(inputs[0]), torch.zeros_like(targets[0]), 1.0)
    constant = inputs.amin(0) == inputs.amax(0)
    mean = torch.where(constant, inputs[0], inputs.mean(0))
    scale = torch.where(constant, 1.0, inputs.std(0, correction=0))
    still = targets.amin(0) == targets.amax(0)
    target_mean = torch.where(still, targets[0], targets.mean(0))
    spread = float((targets - target_mean).square().mean().sqrt())
    return Scaling(mean, scale, target_mean, spread or 1.0)


def read_pair(inputs: Any, targets: Any, what: str = "") -> tuple[Tensor, Tensor, bool]:
    """Read samples and check them.

    Args:
        inputs: (samples, inputs), tensors or what converts to an array.
        targets: (samples,) or (samples, outputs).
        what: a word before X and y in messages.

    Returns:
        Inputs and targets of one dtype (at least float32) and device, two-dimensional, and whether the targets had one dimension.

    Raises:
        InputError: if shapes do not fit together, there are no samples or inputs, or a number is not finite.
    """
    read_inputs, read_targets = _tensor(f"{what}X", inputs), _tensor(f"{what}y", targets)
    flat = read_targets.ndim == 1
    if read_inputs.ndim != 2 or not read_inputs.numel():
        raise InputError(f"{what}X must have shape (samples, inputs), none of them 0, got {tuple(read_inputs.shape)}.")
    if read_targets.ndim not in (1, 2) or len(read_targets) != len(read_inputs) or not read_targets.numel():
        raise InputError(
            f"{what}y must have shape ({len(read_inputs)},) or ({len(read_inputs)}, outputs), one row a sample of X, got "
            f"{tuple(read_targets.shape)}."
        )
    for name, values in ((f"{what}X", read_inputs), (f"{what}y", read_targets)):
        if not bool(values.isfinite().all()):
            raise InputError(f"{name} must be finite, but {int((~values.isfinite()).sum())} of its numbers are not.")
    return read_inputs, (read_targets[:, None] if flat else read_targets).to(read_inputs), flat


def read_inputs(inputs: Any, size: int, like: Tensor) -> Float[Tensor, "samples inputs"]:
    """Read inputs of a network that is there.

    Args:
        inputs: (samples, inputs).
        size: how many inputs it has.
        like: of its dtype and device.

    Returns:
        A tensor of that dtype and device.

    Raises:
        InputError: for another shape, or numbers that are not finite.
    """
    read = _tensor("X", inputs)
    if read.ndim != 2 or read.shape[1] != size:
        raise InputError(f"X must have shape (samples, {size}), as in fit, got {tuple(read.shape)}.")
    if not bool(read.isfinite().all()):
        raise InputError(f"X must be finite, but {int((~read.isfinite()).sum())} of its numbers are not.")
    return read.to(like)


def set_aside(
    inputs: Float[Tensor, "samples inputs"], targets: Float[Tensor, "samples outputs"], validation: Any, seed: int
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]:
    """Part training from validation samples.

    Args:
        inputs: of all samples given for training.
        targets: of the same.
        validation: None, samples (X, y), or the share of samples to set aside.
        seed: of the split.

    Returns:
        Training inputs and targets, and those for validation or None.

    Raises:
        InputError: if the validation samples do not fit, or the share leaves none on either side.
    """
    if validation is None:
        return inputs, targets, None
    if isinstance(validation, int | float) and not isinstance(validation, bool):
        held = int(validation * len(inputs)) if 0 < validation < 1 else 0
        if not 0 < held < len(inputs):
            raise InputError(
                f"validation must be samples (X, y), or a share between 0 and 1 of the {len(inputs)} samples that leaves some on "
                f"either side, got {validation!r}."
            )
        order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed)).to(inputs.device)
        return (
            inputs[order[held:]],
            targets[order[held:]],
            (inputs[order[:held]], targets[order[:held]]),
        )
    if not isinstance(validation, tuple | list) or len(validation) != 2:
        raise InputError(f"validation must be (X, y) or a share, got a {type(validation).__name__}.")
    held_inputs, held_targets, _ = read_pair(validation[0], validation[1], "validation ")
    if held_inputs.shape[1] != inputs.shape[1] or held_targets.shape[1] != targets.shape[1]:
        raise InputError(
            f"validation must have {inputs.shape[1]} inputs and {targets.shape[1]} outputs as the training samples, got "
            f"{held_inputs.shape[1]} and {held_targets.shape[1]}."
        )
    return inputs, targets, (held_inputs.to(inputs), held_targets.to(inputs))


def _tensor(name: str, values: Any) -> Tensor:
    try:
        read = values.detach() if isinstance(values, Tensor) else torch.as_tensor(np.array(values))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} must be numbers, got {type(values).__name__}: {error}.") from error
    if read.is_complex():
        raise InputError(f"{name} must be real, got {read.dtype}.")
    if read.dtype not in (torch.float32, torch.float64):
        read = read.to(torch.float32 if read.is_floating_point() else torch.get_default_dtype())
    return read
