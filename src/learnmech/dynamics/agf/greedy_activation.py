"""Homogeneous activations of one number: all of them are a power with one factor on either side of 0."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from learnmech.errors import InputError

ActivationName = Literal["relu", "leaky_relu", "abs", "linear", "square"]
_PROBES = (-3.7, -2.0, -1.0, -0.3, 0.0, 0.3, 1.0, 2.0, 3.7)


@dataclass(frozen=True)
class Homogeneous:
    r"""A positively homogeneous function of one number, :math:`\sigma(s z) = s^q\sigma(z)` for s > 0.

    There are no others than

    .. math:: \sigma(z) = |z|^q \cdot (c_+ \text{ for } z > 0,\; c_- \text{ for } z < 0),

    so that three numbers say all: ReLU is q = 1 with (1, 0), the absolute value (1, 1), the identity (1, -1), the square q = 2 with
    (1, 1).

    Attributes:
        degree: q, at least 1.
        positive: the value at 1.
        negative: the value at -1.
        name: for people.
    """

    degree: float
    positive: float
    negative: float
    name: str

    @property
    def linear(self) -> bool:
        """Whether it is a line through 0."""
        return self.degree == 1 and self.negative == -self.positive

    @property
    def even_square(self) -> bool:
        """Whether it is a multiple of the square."""
        return self.degree == 2 and self.negative == self.positive

    def value(self, projections: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Give the function.

        Args:
            projections: where.

        Returns:
            Of the same shape.
        """
        if self.degree == 1:
            if self.negative == 0:
                return self.positive * projections.clamp(min=0)
            return self.slope(projections) * projections
        if self.even_square:
            return self.positive * projections.square()
        return choose(projections > 0, self.positive, self.negative, projections) * projections.abs() ** self.degree

    def slope(self, projections: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Give the derivative; at a kink in 0, that from the left.

        Args:
            projections: where.

        Returns:
            Of the same shape.
        """
        if self.degree == 1:
            return choose(projections > 0, self.positive, -self.negative, projections)
        if self.even_square:
            return 2 * self.positive * projections
        sides = choose(projections > 0, self.positive, -self.negative, projections)
        return self.degree * sides * projections.abs() ** (self.degree - 1)


def choose(where: Bool[Tensor, "..."], yes: float, no: float, like: Tensor) -> Float[Tensor, "..."]:
    """Give one of two numbers at each place, in the precision of a tensor; ``torch.where`` of two numbers rounds to float32.

    Args:
        where: the places of the first.
        yes: the first.
        no: the second.
        like: of the dtype wanted.

    Returns:
        Of the shape of ``where``.
    """
    return torch.where(where, like.new_tensor(yes), like.new_tensor(no))


class HomogeneousActivation(nn.Module):
    """The same as a layer.

    Args:
        function: what it computes.
    """

    def __init__(self, function: Homogeneous) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Apply it.

        Args:
            inputs: of any shape.

        Returns:
            Of the same shape.
        """
        return self.function.value(inputs)

    def extra_repr(self) -> str:
        """Name it in the printed network.

        Returns:
            The name.
        """
        return self.function.name


_NAMED = {
    "relu": Homogeneous(1.0, 1.0, 0.0, "relu"),
    "leaky_relu": Homogeneous(1.0, 1.0, -0.01, "leaky_relu"),
    "abs": Homogeneous(1.0, 1.0, 1.0, "abs"),
    "linear": Homogeneous(1.0, 1.0, -1.0, "linear"),
    "square": Homogeneous(2.0, 1.0, 1.0, "square"),
}


def read_activation(activation: str | Callable[[Tensor], Tensor]) -> tuple[Homogeneous, Callable[[], nn.Module]]:
    """Recognise an activation, and say how to make a layer of it.

    A function is recognised by its values at nine numbers: if they are those of a homogeneous one, that one is taken for it.

    Args:
        activation: "relu", "leaky_relu" (slope 0.01), "abs", "linear", "square", a layer, or a function of a tensor.

    Returns:
        The function, and a maker of layers: ``nn.ReLU``, ``nn.LeakyReLU`` or ``nn.Identity`` for the names, a copy of your own layer.

    Raises:
        InputError: if the name is unknown, or the function is 0, not finite or not homogeneous of a degree of at least 1.

    Example:
        >>> read_activation(lambda z: z.clamp(min=0) ** 3)[0].degree
        3.0
        >>> read_activation(torch.tanh)
        Traceback (most recent call last):
        ...
        learnmech.errors.InputError: activation must be homogeneous, f(s z) = s^q f(z) for s > 0 and one q of at least 1, ...
    """
    if isinstance(activation, str):
        if activation not in _NAMED:
            raise InputError(
                f"activation must be one of {', '.join(_NAMED)}, or a homogeneous function, got {activation!r}."
            )
        found = _NAMED[activation]
        layers: dict[str, Callable[[], nn.Module]] = {
            "relu": nn.ReLU,
            "leaky_relu": nn.LeakyReLU,
            "linear": nn.Identity,
        }
        return found, layers.get(activation, lambda: HomogeneousActivation(found))
    if not callable(activation):
        raise InputError(f"activation must be a name or a function, got a {type(activation).__name__}.")
    probes = torch.tensor(_PROBES, dtype=torch.float64)
    with torch.no_grad():
        values = torch.as_tensor(activation(probes.clone()), dtype=torch.float64)
    name = getattr(activation, "__name__", type(activation).__name__)
    made = _fit_power(probes, values, name) if values.shape == probes.shape else None
    if made is None:
        raise InputError(
            f"activation must be homogeneous, f(s z) = s^q f(z) for s > 0 and one q of at least 1, and not 0 everywhere; {name} is "
            'not. Take "relu", "square" or another power.'
        )
    if isinstance(activation, nn.Module):
        return made, lambda: copy.deepcopy(activation)
    return made, lambda: HomogeneousActivation(made)


def _fit_power(probes: Tensor, values: Tensor, name: str) -> Homogeneous | None:
    by_probe = dict(zip(_PROBES, values.tolist(), strict=True))
    positive, negative = by_probe[1.0], by_probe[-1.0]
    side = 1.0 if abs(positive) >= abs(negative) else -1.0
    if not bool(values.isfinite().all()) or by_probe[side] == 0 or by_probe[2 * side] / by_probe[side] <= 0:
        return None
    degree = math.log2(by_probe[2 * side] / by_probe[side])
    degree = round(degree) if abs(degree - round(degree)) < 1e-6 else degree
    if degree < 1:
        return None
    made = Homogeneous(float(degree), positive, negative, name)
    expected = made.value(probes)
    return made if bool(((expected - values).abs() <= 1e-6 * (values.abs() + abs(by_probe[side]))).all()) else None
