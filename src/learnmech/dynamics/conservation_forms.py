"""The quadratic forms behind charges, view by view: what the discrete conservation laws are made of."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.dynamics.charge_views import View
from learnmech.dynamics.symmetries import Symmetry

Laid = Sequence[Float[Tensor, "groups units features"]]
"""A tensor of each view, laid out."""


@dataclass(frozen=True)
class _Plan:
    """:meth:`View.lay_out` with everything that does not change worked out before, as it runs at every step."""

    name: str
    rows: slice | None
    split: tuple[int, ...]
    order: tuple[int, ...] | None
    shape: tuple[int, int, int]
    rest: tuple[int, ...]

    @classmethod
    def of(cls, view: View) -> "_Plan":
        rest = tuple(axis for axis in range(len(view.split)) if axis not in view.units and axis not in view.groups)
        order = (*view.groups, *view.units, *rest)
        return cls(
            view.parameter,
            None if view.start == 0 and view.stop is None else slice(view.start, view.stop),
            view.split,
            None if order == tuple(range(len(order))) else order,
            (*view.size, math.prod(view.split[axis] for axis in rest)),
            rest,
        )

    def lay_out(self, value: Tensor) -> Tensor:
        value = value if self.rows is None else value[self.rows]
        if self.order is not None:
            value = value.reshape(self.split).permute(self.order)
        return value.reshape(self.shape).to(torch.float64)

    def square(self, value: Tensor) -> Tensor:
        """Sum squares over features: products in the tensor's own precision, the sum in float64, nothing copied."""
        value = value if self.rows is None else value[self.rows]
        value = (value.float() if value.dtype.itemsize < 4 else value).reshape(self.split)
        squares = value.square()
        summed = squares.sum(self.rest, dtype=torch.float64) if self.rest else squares.to(torch.float64)
        kept = [axis for axis in range(len(self.split)) if axis not in self.rest]
        order = self.order or tuple(range(len(self.split)))
        return summed.permute([kept.index(axis) for axis in order if axis not in self.rest]).flatten()


class ViewForms:
    r"""Evaluates :math:`\langle x, T y\rangle` for each view of a symmetry by itself, from tensors laid out once.

    Args:
        symmetry: the symmetry; for a translation the form is :math:`\langle b, y\rangle`.

    Attributes:
        weights: the weight of each view, shape (views, 1), float64.
    """

    def __init__(self, symmetry: Symmetry) -> None:
        self._symmetry = symmetry
        self._plans = [_Plan.of(view) for view in symmetry.views]
        units = symmetry.views[0].size[1]
        self._pairs: Tensor | None = torch.triu_indices(units, units) if symmetry.mixing else None
        self.weights = torch.tensor([[view.weight] for view in symmetry.views], dtype=torch.float64)

    def lay_out(self, values: Mapping[str, Tensor]) -> list[Tensor]:
        """Lay out one tensor for every view.

        Args:
            values: tensors by name of parameter.

        Returns:
            Float64 tensors (groups, units, features), one a view.
        """
        return [plan.lay_out(values[plan.name]) for plan in self._plans]

    def form(self, left: Laid, right: Laid) -> Float[Tensor, "views count"]:
        r"""Give :math:`w_v\langle x, T y\rangle_v` of each view, symmetrised over units that mix.

        Args:
            left: one side, laid out.
            right: the other side, laid out.

        Returns:
            Float64 on the CPU.
        """
        parts = [self._contract(one, other) for one, other in zip(left, right, strict=True)]
        return torch.stack(parts).cpu() * self.weights

    def total(self, left: Laid, right: Laid, factors: Sequence[float]) -> Float[Tensor, " count"]:
        r"""Give :math:`\sum_v f_v w_v\langle x, T y\rangle_v`.

        Args:
            left: one side, laid out.
            right: the other side, laid out.
            factors: further factor of each view.

        Returns:
            Float64 on the CPU.
        """
        views = zip(left, right, factors, self._symmetry.views, strict=True)
        parts = [self._contract(one, other) * (factor * view.weight) for one, other, factor, view in views]
        return torch.stack(parts).sum(0).cpu() if len(parts) > 1 else parts[0].cpu()

    def squares(self, values: Mapping[str, Tensor], factors: Sequence[float]) -> Float[Tensor, " count"]:
        r"""Give :math:`\sum_v f_v w_v\langle x, T x\rangle_v`, without laying out what does not mix: cheap enough for every step.

        Args:
            values: tensors by name of parameter.
            factors: further factor of each view.

        Returns:
            Float64 on the CPU; off by one rounding of the tensors' own precision.
        """
        if self._pairs is not None:
            laid = self.lay_out(values)
            return self.total(laid, laid, factors)
        parts = [
            plan.square(values[plan.name]) * (factor * view.weight)
            for plan, factor, view in zip(self._plans, factors, self._symmetry.views, strict=True)
        ]
        return torch.stack(parts).sum(0).cpu() if len(parts) > 1 else parts[0].cpu()

    def linear(self, values: Laid) -> Float[Tensor, "views count"]:
        r"""Give :math:`w_v\langle b, x\rangle_v` of each view, for a translation.

        Args:
            values: laid out.

        Returns:
            Float64 on the CPU.
        """
        return torch.stack([one.sum(-1).flatten() for one in values]).cpu() * self.weights

    def charge(self, values: Laid) -> Float[Tensor, "views count"]:
        """Give what each view adds to the charges.

        Args:
            values: the parameters, laid out.

        Returns:
            Float64 on the CPU.
        """
        return self.linear(values) if self._symmetry.is_linear else self.form(values, values)

    def size(self, values: Laid, factors: Float[Tensor, "views 1"]) -> Float[Tensor, " count"]:
        """Give how large the parts of the charges are before they cancel: what rounding errors are relative to.

        Args:
            values: the parameters, laid out.
            factors: further factor of each view.

        Returns:
            Float64 on the CPU, at least the size of the charges.
        """
        parts = []
        for one in values:
            if self._symmetry.is_linear:
                parts.append(one.abs().sum(-1).flatten())
                continue
            norms = one.square().sum(-1)
            if self._pairs is None:
                parts.append(norms.flatten())
            else:
                norms = norms.sqrt()
                parts.append((norms[:, self._pairs[0]] * norms[:, self._pairs[1]]).flatten())
        return (torch.stack(parts).cpu() * (factors * self.weights).abs()).sum(0)

    def _contract(self, one: Tensor, other: Tensor) -> Tensor:
        if self._pairs is None:
            return (one * other).sum(-1).flatten()
        products = one @ other.mT
        if one is not other:
            products = (products + products.mT) / 2
        return products[:, self._pairs[0], self._pairs[1]].flatten()


def relative_violation(symmetry: Symmetry, values: Mapping[str, Tensor], direction: Mapping[str, Tensor]) -> float:
    r"""Say how far a direction is from obeying a symmetry, where that can be said relative to its own parts.

    Args:
        symmetry: the symmetry.
        values: parameters by name.
        direction: a gradient, velocity or step by name.

    Returns:
        As :meth:`Symmetry.violation`; NaN for the translation of single numbers, such as biases in front of batch normalisation:
        nothing cancels within them, so what remains is all there is.
    """
    if symmetry.is_linear and all(plan.shape[2] == 1 for plan in map(_Plan.of, symmetry.views)):
        return math.nan
    return symmetry.violation(values, direction)
