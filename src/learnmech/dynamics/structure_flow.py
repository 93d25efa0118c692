"""What a forward pass did, as far as symmetries need it: forms of all values, uses of all parameters, steps."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from learnmech.dynamics.structure_forms import Forms
from learnmech.dynamics.structure_records import Contribution, Part, Step, Writer

LARGEST_ELEMENTWISE = 100_000
"""A parameter with more numbers that is added or multiplied elementwise is taken not to be scaled."""


class Flow:
    """Forms of the values of one pass, and what parameters must do so that nothing changes in the end.

    Args:
        model: the model, unwrapped.
    """

    def __init__(self, model: nn.Module) -> None:
        self.forms = Forms()
        self.parameters = dict(model.named_parameters())
        self.contributions: list[Contribution] = []
        self.steps: list[Step] = []
        self.writers: dict[int, Writer] = {}
        self.uses: dict[str, int] = dict.fromkeys(self.parameters, 0)
        self._parts: dict[int, Part] = {
            id(tensor): Part(name, tuple(tensor.shape), tuple(range(tensor.ndim)))
            for name, tensor in self.parameters.items()
        }
        self._keys: dict[int, int] = {}
        self._ids: dict[int, Tensor] = {}
        self._alive: list[Tensor] = []
        self._graph: dict[Any, int] = {}
        self._storages: dict[int, set[int]] = {}
        self._elementwise: dict[str, Tensor] = {}
        self._weights: dict[str, list[tuple[Part, Tensor, Tensor]]] = {}
        self._blocked: set[str] = set()

    # ------------------------------------------------------------------ values
    def part(self, value: Any) -> Part | None:
        """Give the part of a parameter that a tensor is, if it is one."""
        return self._parts.get(id(value)) if isinstance(value, Tensor) else None

    def key(self, value: Tensor) -> int | None:
        """Give the key of a value, if it is known."""
        return self._keys.get(id(value))

    def ids(self, value: Tensor) -> Tensor:
        """Give the forms of a tensor: a value of the pass, a parameter, or something that does not depend on them."""
        part = self.part(value)
        if part is not None:
            return self.elementwise(part)
        key = self.key(value)
        if key is None:
            self.reveal(value)
            return torch.zeros(value.shape, dtype=torch.int64)
        reduced = self.forms.reduced(self._ids[key])
        self._ids[key] = reduced
        return reduced

    def record(self, value: Tensor, ids: Tensor | None, *, part: Part | None = None, in_place: bool = False) -> int:
        """Remember what an operation gave.

        Args:
            value: the tensor.
            ids: its forms; None for zeros.
            part: if it is still a part of a parameter.
            in_place: whether an existing tensor was overwritten.

        Returns:
            Its key.
        """
        key = len(self._alive)
        self._alive.append(value)
        if part is not None:
            self._parts[id(value)] = part
            return key
        given = torch.zeros(value.shape, dtype=torch.int64) if ids is None else ids.expand(value.shape)
        before = self._keys.get(id(value))
        self._keys[id(value)], self._ids[key] = key, given
        if value.grad_fn is not None:
            self._graph[value.grad_fn] = key
        memory = _memory(value)
        if memory is not None:
            same = self._storages.setdefault(memory, set())
            if in_place and (same - {before} or id(value) in self._parts):
                for other in same:
                    self.forms.zero(self._ids[other])
                self.forms.zero(given)
                self._block(id(value))
            same.discard(before if before is not None else -1)
            same.add(key)
        return key

    def reveal(self, value: Tensor) -> None:
        """Handle a tensor that no recorded operation made: forbid scalings of all that it was made of."""
        waiting: list[Any] = [value.grad_fn]
        seen: set[Any] = set()
        while waiting:
            vertex = waiting.pop()
            if vertex is None or vertex in seen:
                continue
            seen.add(vertex)
            if vertex in self._graph:
                self.forms.zero(self._ids[self._graph[vertex]])
                continue
            if hasattr(vertex, "variable"):
                self._block(id(vertex.variable))
            waiting.extend(parent for parent, _ in vertex.next_functions)

    def close(self, outputs: Sequence[Tensor]) -> set[int]:
        """End the pass: outputs must not change, and what was never used promises nothing.

        Args:
            outputs: what the model returned.

        Returns:
            Keys of the outputs.
        """
        used = {source for step in self.steps for source in step.sources}
        for output in outputs:
            self.forms.zero(self.ids(output))
        for made, ids in self._ids.items():
            if made not in used:
                self.forms.zero(ids)
        return {key for output in outputs if (key := self.key(output)) is not None}

    # -------------------------------------------------------------- parameters
    def elementwise(self, part: Part) -> Tensor:
        """Give the forms of a parameter that is added or multiplied elementwise: an unknown for each of its numbers."""
        parameter = self.parameters[part.name]
        if part.name not in self._elementwise:
            fixed = not parameter.requires_grad or part.name in self._weights or part.name in self._blocked
            if fixed or not 0 < parameter.numel() <= LARGEST_ELEMENTWISE:
                self._block(id(parameter))
                ids = torch.zeros((), dtype=torch.int64).expand(parameter.shape)
            else:
                rows = parameter.numel() // (parameter.shape[-1] if parameter.ndim else 1)
                ids = self.forms.fresh(parameter.numel(), blocks=rows).reshape(parameter.shape)
                split = tuple(parameter.shape) or (1,)
                self.contributions.append(Contribution(part.name, split, ids.reshape(split)))
            self._elementwise[part.name] = ids
        self.uses[part.name] += 1
        ids = self._elementwise[part.name]
        if ids.ndim:
            end = ids.shape[part.dimension] if part.stop is None else part.stop
            ids = ids.narrow(part.dimension, part.start, end - part.start).permute(part.order)
        return self.forms.reduced(ids)

    def weigh(self, part: Part, rows: Tensor, columns: Tensor, *, groups: int = 1) -> None:
        """Say that a parameter is the weight of a linear map from ``columns`` to ``rows``.

        Args:
            part: axes (rows, columns, ...); of a grouped convolution (rows, columns of a group, ...).
            rows: forms of what comes out.
            columns: forms of what goes in.
            groups: groups of a convolution.
        """
        name, parameter = part.name, self.parameters[part.name]
        self.uses[name] += 1
        before = self._weights.setdefault(name, [])
        if not parameter.requires_grad or name in self._elementwise or name in self._blocked:
            self._block(id(parameter))
            self.forms.zero(rows)
            self.forms.zero(columns)
            return
        for other, other_rows, other_columns in before:
            if other == part and other_rows.shape == rows.shape and other_columns.shape == columns.shape:
                self.forms.equate(rows, other_rows)
                self.forms.equate(columns, other_columns)
                return
            if not _apart(part, other):
                for ids in (rows, columns, other_rows, other_columns):
                    self.forms.zero(ids)
        before.append((part, rows, columns))
        place = part.dimension, part.start, part.stop
        shape = [part.shape[part.order.index(axis)] for axis in range(len(part.shape))]
        split: tuple[int, ...]
        if groups > 1:
            split = (groups, shape[0] // groups, *shape[1:])
            row_shape = [groups, shape[0] // groups] + [1] * (len(shape) - 1)
            column_shape = [groups, 1, shape[1]] + [1] * (len(shape) - 2)
        else:
            split = tuple(shape)
            row_shape, column_shape = [1] * len(shape), [1] * len(shape)
            row_shape[part.order[0]], column_shape[part.order[1]] = len(rows), len(columns)
        self.contributions.append(Contribution(name, split, rows.reshape(row_shape), 1.0, *place))
        self.contributions.append(Contribution(name, split, columns.reshape(column_shape), -1.0, *place))

    def part_of_view(self, part: Part, value: Tensor) -> Part | None:
        """Find out which part of a parameter a view of it is, from its memory.

        Args:
            part: what was viewed.
            value: the view.

        Returns:
            The part; None if it is reshaped, expanded, sliced twice, or a copy.
        """
        parameter = self.parameters[part.name]
        memory = _memory(value)
        if (
            memory is None
            or memory != _memory(parameter)
            or value.ndim != parameter.ndim
            or value.ndim < 2
            or 1 in parameter.shape
        ):
            return None
        strides = parameter.stride()
        if len(set(strides)) < len(strides) or sorted(value.stride()) != sorted(strides):
            return None
        order = tuple(strides.index(stride) for stride in value.stride())
        sliced = [axis for place, axis in enumerate(order) if value.shape[place] < parameter.shape[axis]]
        offset = value.storage_offset() - parameter.storage_offset()
        if not sliced:
            return Part(part.name, tuple(value.shape), order) if offset == 0 else None
        start, rest = divmod(int(offset), int(strides[sliced[0]]))
        if len(sliced) > 1 or rest:
            return None
        stop = start + value.shape[order.index(sliced[0])]
        return Part(part.name, tuple(value.shape), order, sliced[0], start, stop)

    def map_ids(self, value: Any, change: Callable[[Tensor], Tensor]) -> Any:
        """Replace floating tensors in a function's arguments by their forms."""
        if isinstance(value, Tensor):
            return change(value) if value.is_floating_point() else value
        if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
            return type(value)(self.map_ids(item, change) for item in value)
        return value

    def _block(self, identity: int) -> None:
        part = self._parts.get(identity)
        if part is None:
            return
        self.uses[part.name] += 2  # so that it counts as shared
        self._blocked.add(part.name)
        if part.name in self._elementwise:
            self.forms.zero(self._elementwise[part.name])
        for _, rows, columns in self._weights.get(part.name, []):
            self.forms.zero(rows)
            self.forms.zero(columns)


def _memory(value: Tensor) -> int | None:
    """Give the address of a tensor's memory; None for those without one of their own, as inside vmap."""
    try:
        return value.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):
        return None


def _apart(one: Part, other: Part) -> bool:
    """Tell whether two slices of a parameter have nothing in common."""
    if one.dimension != other.dimension or one.stop is None or other.stop is None:
        return False
    return one.stop <= other.start or other.stop <= one.start
