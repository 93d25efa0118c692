"""What a gradient says of the generators that could act on a parameter from its two sides."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Generators = Literal["diagonal", "symmetric", "general", "translation"]


@dataclass(frozen=True)
class Side:
    """One side of a parameter on which generators act.

    Attributes:
        parameter: its name.
        axis: 0 if generators act on rows (what comes out), 1 for columns (what goes in), -1 for all numbers (translations).
        units: how many units it has.
        start: first feature.
        stop: one past the last.
    """

    parameter: str
    axis: int
    units: int
    start: int
    stop: int


def sides_of(shapes: dict[str, tuple[int, ...]], generators: Generators) -> list[Side]:
    """List the sides of all parameters, with the features of each.

    Args:
        shapes: of the parameters; those of one dimension (biases, gains) have one side.
        generators: which generators.

    Returns:
        Sides, features in order.
    """
    sides: list[Side] = []
    start = 0
    for name, shape in shapes.items():
        axes = (-1,) if generators == "translation" else (0, 1) if len(shape) > 1 else (0,)
        for axis in axes:
            units = torch.Size(shape).numel() if axis < 0 else (shape[axis] if shape else 1)
            size = {"symmetric": units * (units + 1) // 2, "general": units * units}.get(generators, units)
            sides.append(Side(name, axis, units, start, start + size))
            start += size
    return sides


def features_of(
    side: Side, values: Float[Tensor, "draws ..."], gradients: Float[Tensor, "draws ..."], generators: Generators
) -> Float[Tensor, "draws features"]:
    r"""Give :math:`\langle g, T\theta\rangle` for every generator T of one side (or g itself, for translations).

    Args:
        side: the side.
        values: the parameter at every draw.
        gradients: its gradient.
        generators: ``diagonal``, ``symmetric`` (rows and columns i <= j), ``general`` or ``translation``.

    Returns:
        One row for each draw.
    """
    if side.axis < 0:
        return gradients.reshape(len(gradients), -1)
    w, g = (_rows(tensor, side.axis) for tensor in (values, gradients))
    if generators == "diagonal":
        return (w * g).sum(-1)
    products = g @ w.mT
    if generators == "general":
        return products.flatten(1)
    rows, columns = torch.triu_indices(side.units, side.units)
    both = products + products.mT
    weights = torch.where(rows == columns, 0.5, 1.0).to(both)
    return both[:, rows, columns] * weights


def _rows(tensor: Tensor, axis: int) -> Tensor:
    """Lay draws of a parameter out as (draws, units, rest)."""
    if tensor.ndim == 1:
        return tensor[:, None, None]
    return tensor.movedim(axis + 1, 1).flatten(2) if tensor.ndim > 2 else tensor[..., None]
