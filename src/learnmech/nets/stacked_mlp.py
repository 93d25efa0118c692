"""Several multilayer perceptrons of one shape as one net, with its gradients written out by hand."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.nets.mlp import MLP
from learnmech.nets.stacked_activation import StackedActivation
from learnmech.nets.stacked_dropout import StackedDropout
from learnmech.nets.stacked_norm import StackedNorm
from learnmech.nets.stacked_plan import NetPlan
from learnmech.nets.stacked_state import StackedState, Workspace


class StackedMLP:
    r"""M networks of the class :class:`~learnmech.nets.MLP` in training mode: batched products in place of M loops.

    Features are (members, samples, units), layers :math:`z_l = h_{l-1} W_l^T` are one batched product each, and
    BatchNorm, activation and dropout work in place on memory that is used again in every step.

    Two things are done in another way than in the plain net, and give the same numbers up to rounding. The bias of a
    layer before BatchNorm shifts a mean that is taken away again: it is added to the running mean only, and its
    gradient is exactly zero, where a plain net sums up rounding errors. And the weight :math:`\gamma` and bias
    :math:`\beta` of the input's BatchNorm are multiplied into the first layer,
    :math:`W_1(\gamma \hat x + \beta) = (W_1 \gamma)\hat x + W_1 \beta`, so that members that see the same batch share one
    normalised copy of it, and no gradient of the inputs is needed.

    Args:
        models: the models: those without dropout first, and then those of equal slope next to each other.
        plans: what :func:`~learnmech.nets.stacked_plan.read_plan` says of each.
        generators: the stream of each member's dropout.

    Attributes:
        state: weights, gradients and buffers.
    """

    def __init__(self, models: Sequence[MLP], plans: Sequence[NetPlan], generators: Sequence[torch.Generator]) -> None:
        self.state = StackedState(models)
        self._plans = list(plans)
        self._depth = len(models[0].hidden) + 1
        self._dropout = StackedDropout([plan.dropout for plan in plans], generators)
        self._workspace = Workspace()
        self._bind()

    def forward(self, inputs: Float[Tensor, "stack samples *features"]) -> Float[Tensor, "members samples outputs"]:
        """Compute the outputs of all members, and update the running statistics of their BatchNorm layers.

        Args:
            inputs: a batch for each member, or one (stack 1) for all.

        Returns:
            The outputs; the memory is used again in the next step.
        """
        features, weight, shift = self._enter(inputs.flatten(2))
        members, samples = len(self.state), features.shape[1]
        masks = self._draw_masks(samples, inputs)
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = []
        self._masks = masks
        self._features = features
        for layer in range(self._depth - 1):
            weight, shift = (weight, shift) if layer == 0 else (self._weight(layer), self._bias(layer))
            shape = (members, samples, weight.shape[1])
            values = self._workspace.take(f"values {layer}", shape, weight)
            torch.bmm(features, weight.transpose(1, 2), out=values)
            norm = self._norms[layer]
            if norm is not None:
                out = norm.forward(values, self._workspace.take(f"out {layer}", shape, weight), shift)
            else:
                out = values if shift is None else values.add_(shift[:, None])
            seen = self._activation.apply_(out)
            if masks:
                out[self._dropout.first :].mul_(masks[layer])
            self._kept.append((values, seen, out))
            features = out
        last = self._depth - 1
        weight, shift = (weight, shift) if last == 0 else (self._weight(last), self._bias(last))
        outputs = torch.bmm(features, weight.transpose(1, 2))
        return outputs if shift is None else outputs.add_(shift[:, None])

    def backward(self, gradient: Float[Tensor, "members samples outputs"]) -> None:
        """Fill in the gradients of all weights.

        Args:
            gradient: the gradient on the outputs of the last :meth:`forward`.
        """
        for layer in range(self._depth - 1, -1, -1):
            norm = self._norms[layer]
            if norm is not None:
                gradient = norm.backward_(gradient, self._kept[layer][0], self._workspace)
            total = None if norm is not None else gradient.sum(dim=1)
            bias_slope = self._bias_slopes[layer]
            if norm is not None and bias_slope is not None:
                torch.mul(norm.weight_slope, 0, out=bias_slope)  # zero, or nan in a member that has diverged
            elif total is not None and bias_slope is not None:
                bias_slope.copy_(total)
            if layer == 0:
                self._leave(gradient, total)
                return
            _, _, features = self._kept[layer - 1]
            torch.bmm(gradient.transpose(1, 2), features, out=self._weight_slopes[layer])
            below = self._workspace.take(f"gradient {layer % 2}", tuple(features.shape), features)
            gradient = torch.bmm(gradient, self._weight(layer), out=below)
            if self._masks:
                gradient[self._dropout.first :].mul_(self._masks[layer - 1])
            self._activation.backward_(gradient, self._kept[layer - 1][1])

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
        norm = self._plans[0].norm
        prefixes = [*(f"hidden.{number}.linear" for number in range(self._depth - 1)), "readout"]
        names = [*(f"hidden.{number}.norm" for number in range(self._depth - 1))]
        state = self.state
        self._weights = [state.parameters[f"{prefix}.weight"] for prefix in prefixes]
        self._weight_slopes = [state.slopes[f"{prefix}.weight"] for prefix in prefixes]
        self._biases = [state.parameters.get(f"{prefix}.bias") for prefix in prefixes]
        self._bias_slopes = [state.slopes.get(f"{prefix}.bias") for prefix in prefixes]
        self._norms = [*(None if norm is None else StackedNorm(state, name, *norm) for name in names), None]
        self._input_norm = None if norm is None else StackedNorm(state, "input_norm", *norm)
        self._activation = StackedActivation([plan.slope for plan in self._plans])
        self._kept, self._masks = [], []

    def _weight(self, layer: int) -> Tensor:
        return self._weights[layer]

    def _bias(self, layer: int) -> Tensor | None:
        return self._biases[layer]

    def _draw_masks(self, samples: int, like: Tensor) -> list[Tensor]:
        if self._depth == 1 or self._dropout.first == len(self.state):
            return []
        shapes = [(samples, weight.shape[1]) for weight in self._weights[:-1]]
        return self._dropout.draw(shapes, like)

    def _enter(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        # The inputs as the first product takes them, its weights, and the constant to be added to its result.
        members = len(self.state)
        weight, bias = self._weights[0], self._biases[0]
        if self._input_norm is None:
            return inputs.expand(members, -1, -1), weight, bias
        norm = self._input_norm
        normalised = self._workspace.take("inputs", tuple(inputs.shape), inputs).copy_(inputs)
        squares = self._workspace.take("product", tuple(inputs.shape), inputs)
        normalised.mul_(norm.centre_(normalised, squares, None))
        folded = self._workspace.take("first weight", tuple(weight.shape), weight)
        torch.mul(weight, norm.weight[:, None], out=folded)
        shift = torch.bmm(weight, norm.bias[:, :, None])[:, :, 0]
        return normalised.expand(members, -1, -1), folded, shift if bias is None else shift + bias

    def _leave(self, gradient: Tensor, total: Tensor | None) -> None:
        # The gradients of the first weights and of the input's BatchNorm.
        norm, weight, slope = self._input_norm, self._weights[0], self._weight_slopes[0]
        torch.bmm(gradient.transpose(1, 2), self._features, out=slope)
        if norm is None:
            return
        folded = self._workspace.take("first weight", tuple(weight.shape), weight)
        torch.sum(torch.mul(slope, weight, out=folded), dim=1, out=norm.weight_slope)
        slope.mul_(norm.weight[:, None])
        torch.mul(norm.weight_slope, 0, out=norm.bias_slope)
        if total is not None:
            torch.bmm(total[:, None], weight, out=norm.bias_slope[:, None])
            slope.addcmul_(total[:, :, None], norm.bias[:, None])
