"""Weights and buffers of several models of one shape, side by side in memory."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

_ALIGNMENT = 16  # numbers: every parameter of a row starts on a cache line if the row does


class StackedState:
    """The weights of M models in the rows of one matrix, so that an optimizer can treat a model as one vector.

    Args:
        models: models with the same names, shapes and types of parameters and buffers, on one device.

    Attributes:
        values: the trained parameters, a row a member.
        gradients: their gradients, in the same places.
        parameters: views into ``values`` by the name of the parameter, each (M, ...).
        slopes: views into ``gradients`` by the name of the parameter, each (M, ...).
        frozen: parameters that need no gradient, by name, each (M, ...).
        buffers: buffers by name, each (M, ...).

    Example:
        >>> state = StackedState([nn.Linear(2, 3), nn.Linear(2, 3)])
        >>> state.parameters["weight"].shape, state.values.shape
        (torch.Size([2, 3, 2]), torch.Size([2, 32]))
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self._places: dict[str, tuple[int, torch.Size]] = {}
        rows = [dict(model.named_parameters()) for model in models]
        kept = [dict(model.named_buffers()) for model in models]
        length = 0
        for name, parameter in rows[0].items():
            if parameter.requires_grad:
                self._places[name] = length, parameter.shape
                length += -(-parameter.numel() // _ALIGNMENT) * _ALIGNMENT
        first = next(parameter for parameter in rows[0].values() if parameter.requires_grad)
        self.values: Float[Tensor, "members length"] = first.detach().new_zeros(len(models), length)
        with torch.no_grad():
            for name, view in self._views(self.values).items():
                for member, row in zip(view, rows, strict=True):
                    member.copy_(row[name])
            self.frozen = {
                name: torch.stack([row[name].detach() for row in rows]) for name in rows[0] if name not in self._places
            }
            self.buffers = {name: torch.stack([buffers[name] for buffers in kept]) for name in kept[0]}
        self._bind()

    def __len__(self) -> int:
        return len(self.values)

    def keep(self, positions: Tensor) -> None:
        """Drop all members but some.

        Args:
            positions: which to keep, and in which order.
        """
        self.values = self.values[positions]
        self.frozen = {name: values[positions] for name, values in self.frozen.items()}
        self.buffers = {name: values[positions] for name, values in self.buffers.items()}
        self._bind()

    def copy_to(self, position: int, model: nn.Module) -> None:
        """Write the weights and buffers of a member into its model, whose gradients are dropped.

        Args:
            position: the member.
            model: its model.
        """
        buffers = dict(model.named_buffers())
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in self.parameters:
                    parameter.copy_(self.parameters[name][position])
                    parameter.grad = None
            for name, values in self.buffers.items():
                buffers[name].copy_(values[position])

    def _bind(self) -> None:
        self.gradients: Float[Tensor, "members length"] = torch.zeros_like(self.values)
        self.parameters = self._views(self.values)
        self.slopes = self._views(self.gradients)

    def _views(self, rows: Tensor) -> dict[str, Tensor]:
        return {
            name: rows[:, start : start + shape.numel()].view(len(rows), *shape)
            for name, (start, shape) in self._places.items()
        }


class Workspace:
    """Memory that is used again in every step; where it is large, asking for it anew costs as much as filling it."""

    def __init__(self) -> None:
        self._blocks: dict[str, Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Give the memory of a name; what an earlier call of the same name gave is overwritten.

        Args:
            name: what it is for.
            shape: its shape.
            like: a tensor of the wanted type and device.

        Returns:
            A contiguous tensor without defined content.
        """
        count = 1
        for size in shape:
            count *= size
        block = self._blocks.get(name)
        if block is None or block.numel() < count:
            block = self._blocks[name] = like.new_empty(count)
        return block[:count].view(shape)
