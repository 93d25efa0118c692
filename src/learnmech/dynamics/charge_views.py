"""How a parameter's numbers are laid out for a symmetry: groups, the units that a generator acts on, and features."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.errors import InputError


@dataclass(frozen=True)
class View:
    """One parameter (or some of its rows), laid out as (groups, units, features).

    A generator acts on units, in each group by itself, and on all features alike. The rows ``start`` to ``stop`` are reshaped
    to ``split``; of its axes ``groups`` become groups, ``units`` units, and those left are features.

    Attributes:
        parameter: name, as in ``model.named_parameters()``.
        split: shape to which the rows are reshaped.
        units: axes of ``split`` that are units; none if the whole group is one unit.
        groups: axes of ``split`` that are groups; none if there is one group.
        weight: factor of this parameter in the charge, such as -1 for what enters a neuron.
        start: first row.
        stop: one past the last row; None for all.
        dimension: the axis of the parameter whose entries are the rows.
    """

    parameter: str
    split: tuple[int, ...]
    units: tuple[int, ...] = (0,)
    groups: tuple[int, ...] = ()
    weight: float = 1.0
    start: int = 0
    stop: int | None = None
    dimension: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """How many groups there are, and units in each."""
        return math.prod(self.split[axis] for axis in self.groups), math.prod(self.split[axis] for axis in self.units)

    def lay_out(self, values: Mapping[str, Tensor]) -> Float[Tensor, "groups units features"]:
        """Lay a tensor of the parameter's shape (the parameter, its gradient, its momentum) out.

        Args:
            values: tensors by name of parameter.

        Returns:
            It in float64, (groups, units, features).

        Raises:
            InputError: if the parameter is missing or has a shape that does not fit.
        """
        if self.parameter not in values:
            raise InputError(
                f"the symmetry acts on {self.parameter!r}, which is not among the {len(values)} tensors that came: give "
                "one tensor for every parameter of the symmetry."
            )
        rows = values[self.parameter].detach()
        if rows.ndim:
            stop = rows.shape[self.dimension] if self.stop is None else min(self.stop, rows.shape[self.dimension])
            rows = rows.narrow(self.dimension, min(self.start, stop), max(stop - self.start, 0))
        split = self.split
        if math.prod(split) != rows.numel():
            raise InputError(
                f"{self.parameter!r} should have {math.prod(split)} numbers {split} in rows {self.start} to {self.stop}, "
                f"but a tensor of shape {tuple(values[self.parameter].shape)} came: is it of the same model?"
            )
        rows = rows.reshape(split)
        features = [axis for axis in range(len(split)) if axis not in self.units and axis not in self.groups]
        moved = rows.permute(*self.groups, *self.units, *features)
        return moved.reshape(*self.size, -1).to(torch.float64)
