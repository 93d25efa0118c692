"""Records of a pass: parts of parameters, by how much they grow, operations, linear maps."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Part:
    """A parameter, or a slice of it, maybe transposed.

    Attributes:
        name: the parameter.
        shape: shape of the part.
        order: for each axis of the part, the axis of the parameter.
        dimension: axis of the parameter that is sliced.
        start: first index along it.
        stop: one past the last; None for all.
    """

    name: str
    shape: tuple[int, ...]
    order: tuple[int, ...]
    dimension: int = 0
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class Contribution:
    """By how much some numbers of a parameter grow.

    Attributes:
        parameter: its name.
        split: shape to which the slice is reshaped.
        ids: identities of forms, of as many axes as ``split``, 1 where they are the same along an axis.
        sign: factor of the forms: 1 for rows, which make outputs; -1 for columns, which take inputs.
        dimension: axis that is sliced.
        start: first index.
        stop: one past the last; None for all.
    """

    parameter: str
    split: tuple[int, ...]
    ids: Tensor
    sign: float = 1.0
    dimension: int = 0
    start: int = 0
    stop: int | None = None


@dataclass
class Step:
    """One operation of the pass.

    Attributes:
        name: of the function.
        arguments: what it was called with.
        keywords: the same, by name.
        sources: keys of the values that it took.
        results: keys of the values that it gave.
        shape: shape of its first result.
    """

    name: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    sources: list[int]
    results: list[int] = field(default_factory=list)
    shape: tuple[int, ...] = ()

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        """Give an argument, by place or by name."""
        if place < len(self.arguments):
            return self.arguments[place]
        return self.keywords.get(name, default)


@dataclass(frozen=True)
class Writer:
    """A linear map that made a value: its weight, its bias, and the axis of the value that its rows make."""

    weight: Part | None
    bias: Part | None
    axis: int
