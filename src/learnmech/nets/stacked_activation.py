"""LeakyReLU of several members at once, each with a slope of its own, in place."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor


class StackedActivation:
    """ReLU, Identity or LeakyReLU for each member, by torch's own kernels on runs of members with equal slope.

    Args:
        slopes: the negative slope of each member; equal ones should stand next to each other.

    Example:
        >>> values = torch.full((3, 1, 1), -2.0)
        >>> StackedActivation([0.0, 0.5, 1.0]).apply_(values).flatten().tolist()
        [0.0, -1.0, -2.0]
    """

    def __init__(self, slopes: Sequence[float]) -> None:
        self._runs: list[tuple[slice, float]] = []
        start = 0
        for slope, run in itertools.groupby(slopes):
            stop = start + len(list(run))
            self._runs.append((slice(start, stop), slope))
            start = stop
        self._inverted = any(slope < 0 for slope in slopes)

    def apply_(self, values: Tensor) -> Tensor:
        """Apply it in place.

        Args:
            values: pre-activations, members first.

        Returns:
            What :meth:`backward_` wants to see: the same tensor, which now holds the activations; or, if a slope is
            negative, so that the sign of the input cannot be told from the output, a copy of the pre-activations.
        """
        seen = values.clone() if self._inverted else values
        for run, slope in self._runs:
            if slope == 0:
                torch.relu_(values[run])
            elif slope != 1:
                torch.nn.functional.leaky_relu_(values[run], slope)
        return seen

    def backward_(self, gradient: Tensor, seen: Tensor) -> None:
        """Turn the gradient on the activations into that on the pre-activations, in place.

        Args:
            gradient: the gradient, members first.
            seen: what :meth:`apply_` returned.
        """
        for run, slope in self._runs:
            part = gradient[run]
            if slope == 0:
                torch.ops.aten.threshold_backward.grad_input(part, seen[run], 0, grad_input=part)
            elif slope != 1:
                kernel = torch.ops.aten.leaky_relu_backward.grad_input
                kernel(part, seen[run], slope, not self._inverted, grad_input=part)
