"""Many two-layer ReLU nets trained as one computation: forward pass, gradients by hand, gradient descent."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

CPU_BLOCK = 2**17
"""Numbers in a hidden layer that are worked on at once on a CPU, so that they stay in its cache."""
GPU_BLOCK = 2**28


@dataclass(eq=False)
class TwoLayerStack:
    r"""Nets :math:`f(x) = c \sum_i a_i \max(w_i \cdot x, 0)` on the data of their seed.

    Attributes:
        hidden: :math:`w` (seeds, members, neurons, d), trained in place.
        output: :math:`a` (seeds, members, neurons), trained in place.
        output_scale: :math:`c` of each member (members,); the loss is divided by :math:`c^2`.
        rates: learning rate of each member (members,).
        inputs: training inputs (seeds, samples, d).
        targets: their targets (seeds, samples).
    """

    hidden: Float[Tensor, "seeds members neurons inputs"]
    output: Float[Tensor, "seeds members neurons"]
    output_scale: Float[Tensor, " members"]
    rates: Float[Tensor, " members"]
    inputs: Float[Tensor, "seeds samples inputs"]
    targets: Float[Tensor, "seeds samples"]

    def blocks(self, samples: int | None = None) -> Iterator[tuple[slice, slice]]:
        """Divide seeds and members so that a block's hidden layer fits the cache.

        Args:
            samples: samples that the block is run on; None for the training samples.

        Yields:
            Slices of seeds and of members.
        """
        seeds, members, neurons = self.output.shape
        limit = CPU_BLOCK if self.output.device.type == "cpu" else GPU_BLOCK
        at_once = max(1, limit // (neurons * (self.inputs.shape[1] if samples is None else samples)))
        wide = min(members, at_once)
        high = max(1, at_once // members) if wide == members else 1
        for seed in range(0, seeds, high):
            for member in range(0, members, wide):
                yield slice(seed, seed + high), slice(member, member + wide)

    def descend(self, steps: int) -> Iterator[int]:
        r"""Take steps of full-batch gradient descent on :math:`\frac{1}{c^2 n}\sum_j (f(x_j) - y_j)^2`.

        Args:
            steps: how many.

        Yields:
            Steps of single nets that were taken since the last time, now and then.
        """
        for seeds, members in self.blocks():
            yield from _descend_block(
                self.hidden[seeds, members],
                self.output[seeds, members],
                self.output_scale[members],
                self.rates[members],
                self.inputs[seeds],
                self.targets[seeds],
                steps,
            )


def _descend_block(
    hidden: Tensor, output: Tensor, scale: Tensor, rates: Tensor, inputs: Tensor, targets: Tensor, steps: int
) -> Iterator[int]:
    seeds, members, neurons, dimension = hidden.shape
    samples = inputs.shape[1]
    weights = hidden.reshape(seeds, members * neurons, dimension).clone()
    outer = output.reshape(seeds * members, neurons).clone()
    transposed = inputs.transpose(1, 2).contiguous()
    target = (targets[:, None, :] / scale[None, :, None]).reshape(seeds * members, 1, samples)
    # f = c g, so the gradient of (c g - y)^2 / (c^2 n) is 2/n (g - y/c) dg.
    factor = (2 / samples * rates).repeat(seeds)[:, None]
    reported = 0
    for step in range(steps):
        before = torch.bmm(weights, transposed).view(seeds * members, neurons, samples)
        features = before.clamp(min=0)
        residual = torch.baddbmm(target, outer[:, None, :], features, beta=-1)
        outer_gradient = torch.bmm(features, residual.transpose(1, 2))[..., 0]
        passed = torch.ops.aten.threshold_backward(residual.expand(-1, neurons, -1), before, 0)
        moved = torch.bmm(passed.view(seeds, members * neurons, samples), inputs)
        weights -= (factor * outer).view(seeds, members * neurons, 1) * moved
        outer = outer - factor * outer_gradient
        if (step + 1) % 100 == 0 or step + 1 == steps:
            yield (step + 1 - reported) * seeds * members
            reported = step + 1
    hidden.copy_(weights.view_as(hidden))
    output.copy_(outer.view_as(output))
