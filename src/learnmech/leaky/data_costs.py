"""The cost of the outputs: squared errors summed over outputs, or cross-entropy, each a mean over samples."""

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from learnmech.errors import InputError

CostName = Literal["squared_error", "cross_entropy"]
COSTS: tuple[CostName, ...] = get_args(CostName)


def prepare_targets(name: str, targets: Tensor, samples: int, outputs: int) -> Tensor:
    """Check targets and bring them into the form in which costs are computed.

    Args:
        name: ``squared_error`` or ``cross_entropy``.
        targets: numbers (samples, outputs), or class indices (samples,).
        samples: how many inputs there are.
        outputs: how many outputs the net has.

    Returns:
        Columns (outputs, samples) of numbers, or class indices (samples,).

    Raises:
        InputError: if shape, type or values do not fit.
    """
    if name == "cross_entropy":
        if tuple(targets.shape) != (samples,) or targets.is_floating_point() or targets.is_complex():
            raise InputError(
                f"cross_entropy expects class indices of shape ({samples},) and integer type, got {tuple(targets.shape)} "
                f"{targets.dtype}."
            )
        if samples and not (int(targets.min()) >= 0 and int(targets.max()) < outputs):
            raise InputError(
                f"class indices must lie in 0 .. {outputs - 1} for {outputs} outputs, got "
                f"{int(targets.min())} .. {int(targets.max())}."
            )
        return targets.long()
    if tuple(targets.shape) != (samples, outputs):
        hint = " For class indices use loss='cross_entropy', or one_hot(targets).float()." if targets.ndim == 1 else ""
        raise InputError(
            f"squared_error expects targets of shape ({samples}, {outputs}), as the outputs, got {tuple(targets.shape)}."
            + hint
        )
    if targets.is_complex() or not bool(torch.isfinite(targets).all()):
        raise InputError("targets must be finite real numbers, but hold NaN, infinity or complex numbers.")
    return targets.mT


def stacked_cost(name: str, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    r"""Compute the cost of each member and its gradient on the outputs.

    .. math::
        C = \frac1N \lVert Y - f \rVert_F^2 \quad\text{or}\quad C = -\frac1N \sum_j \log \mathrm{softmax}(f_j)_{y_j}.

    Args:
        name: ``squared_error`` or ``cross_entropy``.
        outputs: outputs (members, outputs, samples).
        targets: as :func:`prepare_targets` gives them; numbers may have a dimension of members in front.

    Returns:
        Costs (members,) in float64, and gradients (members, outputs, samples).
    """
    samples = outputs.shape[-1]
    if name == "squared_error":
        errors = outputs - targets
        return errors.square().sum((1, 2), dtype=torch.float64) / samples, errors * (2 / samples)
    logarithms = torch.log_softmax(outputs, dim=1)
    index = targets.expand(len(outputs), samples)[:, None]
    costs = -logarithms.gather(1, index).sum((1, 2), dtype=torch.float64) / samples
    gradients = logarithms.exp_()
    gradients.scatter_add_(1, index, gradients.new_full((1, 1, 1), -1.0).expand_as(index))
    return costs, gradients.div_(samples)


def cost_of(name: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """Compute the cost of one net, for torch to differentiate.

    Args:
        name: ``squared_error`` or ``cross_entropy``.
        outputs: outputs (samples, outputs).
        targets: as :func:`prepare_targets` gives them.

    Returns:
        The cost, without dimensions.
    """
    if name == "cross_entropy":
        return functional.cross_entropy(outputs, targets)
    return (outputs.mT - targets).square().sum() / len(outputs)
