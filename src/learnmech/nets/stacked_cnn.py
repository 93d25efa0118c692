"""Several convolutional nets of one shape as one net, by grouped convolutions."""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from learnmech.nets.cnn import CNN
from learnmech.nets.stacked_dropout import StackedDropout
from learnmech.nets.stacked_plan import NetPlan
from learnmech.nets.stacked_state import StackedState


class StackedCNN:
    """M networks of the class :class:`~learnmech.nets.CNN` in training mode.

    Features are images (samples, members x channels, height, width): a layer is one convolution with a group for each
    member, BatchNorm normalises the channels of all of them at once, and the read-out is one batched product. If all
    members see the same batch, the first layer is one convolution of it with the filters of all.

    As in :class:`~learnmech.nets.stacked_mlp.StackedMLP`, the bias of a layer before BatchNorm is added to the running
    mean only, and its gradient is exactly zero.

    Args:
        models: the models: those without dropout first, and then those of equal slope next to each other.
        plans: what :func:`~learnmech.nets.stacked_plan.read_plan` says of each.
        generators: the stream of each member's dropout.

    Attributes:
        state: weights, gradients and buffers.
    """

    def __init__(self, models: Sequence[CNN], plans: Sequence[NetPlan], generators: Sequence[torch.Generator]) -> None:
        self.state = StackedState(models)
        self._plans = list(plans)
        self._blocks = len(models[0].hidden)
        self._size = models[0].input_shape[1:]
        self._dropout = StackedDropout([plan.dropout for plan in plans], generators)
        self._bind()

    def forward(self, inputs: Float[Tensor, "stack samples c h w"]) -> Float[Tensor, "members samples outputs"]:
        """Compute the outputs of all members, and update the running statistics of their BatchNorm layers.

        Args:
            inputs: a batch for each member, or one (stack 1) for all.

        Returns:
            The outputs.
        """
        stack, samples = inputs.shape[:2]
        members = len(self.state)
        features = inputs.transpose(0, 1).flatten(1, 2).contiguous(memory_format=torch.channels_last)
        masks = self._draw_masks(samples, inputs)
        with torch.enable_grad():
            for block in range(self._blocks):
                features = self._convolve(features, block, groups=min(stack, members) if block == 0 else members)
                features = self._activate(features)
                features = functional.interpolate(functional.max_pool2d(features, 2), size=self._size, mode="nearest")
                if masks:
                    features = features * masks[block]
            if self._blocks == 0 and stack == 1:
                flat = features.flatten(1).expand(members, -1, -1)
            else:
                flat = features.contiguous().view(samples, members, -1).transpose(0, 1)
            self._outputs = torch.bmm(flat, self._leaves["readout.weight"].transpose(1, 2))
            bias = self._leaves.get("readout.bias")
            if bias is not None:
                self._outputs = self._outputs + bias[:, None]
        return self._outputs.detach()

    def backward(self, gradient: Float[Tensor, "members samples outputs"]) -> None:
        """Fill in the gradients of all weights.

        Args:
            gradient: the gradient on the outputs of the last :meth:`forward`.
        """
        found = torch.autograd.grad(self._outputs, list(self._leaves.values()), gradient)
        for name, value in zip(self._leaves, found, strict=True):
            self.state.slopes[name].copy_(value)
        for bias, norm in self._unseen.items():
            torch.mul(self.state.slopes[norm], 0, out=self.state.slopes[bias])  # zero, or nan in one that diverged
        del self._outputs

    def keep(self, positions: Sequence[int]) -> None:
        """Drop all members but some.

        Args:
            positions: which to keep, in increasing order.
        """
        self.state.keep(torch.tensor(positions, device=self.state.values.device))
        self._plans = [self._plans[position] for position in positions]
        self._dropout = self._dropout.keep(positions)
        self._bind()

    def _bind(self) -> None:
        parameters = self.state.parameters
        biases = {f"hidden.{block}.conv.bias": f"hidden.{block}.norm.weight" for block in range(self._blocks)}
        self._unseen = {bias: norm for bias, norm in biases.items() if bias in parameters and norm in parameters}
        self._leaves = {
            name: view.detach().requires_grad_() for name, view in parameters.items() if name not in self._unseen
        }

    def _convolve(self, features: Tensor, block: int, groups: int) -> Tensor:
        prefix, norm = f"hidden.{block}", self._plans[0].norm
        weight = self._leaves[f"{prefix}.conv.weight"].flatten(0, 1)
        bias = self.state.parameters.get(f"{prefix}.conv.bias")
        own_bias = self._leaves.get(f"{prefix}.conv.bias")
        added = None if own_bias is None else own_bias.flatten()
        values = functional.conv2d(features, weight, added, padding=1, groups=groups)
        if norm is None:
            return values
        epsilon, momentum = norm
        buffers = self.state.buffers
        mean, variance = buffers[f"{prefix}.norm.running_mean"], buffers[f"{prefix}.norm.running_var"]
        gamma, beta = self._leaves[f"{prefix}.norm.weight"].flatten(), self._leaves[f"{prefix}.norm.bias"].flatten()
        values = functional.batch_norm(
            values, mean.view(-1), variance.view(-1), gamma, beta, training=True, momentum=momentum, eps=epsilon
        )
        if bias is not None:
            mean.data.add_(bias, alpha=momentum)  # data: autograd keeps the mean, but does not use it in training mode
        buffers[f"{prefix}.norm.num_batches_tracked"] += 1
        return values

    def _activate(self, features: Tensor) -> Tensor:
        channels = features.shape[1] // len(self.state)
        runs = [(slope, len(list(run))) for slope, run in itertools.groupby(plan.slope for plan in self._plans)]
        parts = torch.split(features, [channels * count for _, count in runs], dim=1)
        done = [
            part if slope == 1 else functional.relu(part) if slope == 0 else functional.leaky_relu(part, slope)
            for part, (slope, _) in zip(parts, runs, strict=True)
        ]
        return done[0] if len(done) == 1 else torch.cat(done, dim=1)

    def _draw_masks(self, samples: int, like: Tensor) -> list[Tensor]:
        members, first = len(self.state), self._dropout.first
        if self._blocks == 0 or first == members:
            return []
        channels = self.state.parameters["hidden.0.conv.weight"].shape[1]
        shape = (samples, channels, *self._size)
        masks = []
        for drawn in self._dropout.draw([shape] * self._blocks, like):
            mask = like.new_ones(samples, members, *shape[1:])
            mask[:, first:] = drawn.transpose(0, 1)
            masks.append(mask.flatten(1, 2))
        return masks
