"""The formulas that a two-layer module may have, each a sum of parts with unknown constant factors."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Formula:
    """A formula.

    Attributes:
        words: it in symbols.
        parts: from parameters by role and inputs, the parts whose sum with constant factors is the output, (outputs, parts).
        power: of the activation; 0 if there is none.
    """

    words: str
    parts: Callable[[Mapping[str, Tensor], Any], Tensor]
    power: int = 0

    def biased(self, roles: Collection[str]) -> bool:
        """Whether the last part is a bias of the outputs.

        Args:
            roles: of the parameters.

        Returns:
            Whether it is.
        """
        return self.power > 0 and "outer_bias" in roles


def as_tokens(inputs: Any) -> bool:
    """Tell whether inputs could be tokens of in-context regression, (batch, pairs and a query, x and y).

    Args:
        inputs: a tensor.

    Returns:
        Whether they have three dimensions and the last y, that of the query, is 0 everywhere.
    """
    if not isinstance(inputs, Tensor) or inputs.ndim != 3 or inputs.shape[1] < 2 or inputs.shape[2] < 2:
        return False
    return not bool(inputs[:, -1, -1].any())


def decode_attention(inputs: Any) -> tuple[Tensor, Tensor, Tensor] | None:
    """Read contexts and queries.

    Args:
        inputs: (pairs x, pairs y, query), or tokens.

    Returns:
        Shapes (batch, pairs, dimension), (batch, pairs), (batch, dimension); None for anything else.
    """
    if as_tokens(inputs):
        return inputs[:, :-1, :-1], inputs[:, :-1, -1], inputs[:, -1, :-1]
    if not isinstance(inputs, tuple) or len(inputs) != 3 or inputs[0].ndim != 3:
        return None
    shown, answers, query = inputs
    batch, pairs, size = shown.shape
    if answers.numel() != batch * pairs or query.numel() != batch * size:
        return None
    return shown, answers.reshape(batch, pairs), query.reshape(batch, size)


@cache
def activation_parts(power: int) -> Formula:
    """Give a two-layer net whose activation is a power on either side of 0, with any two factors.

    Args:
        power: of the activation.

    Returns:
        The formula, with parts for either side, and for the bias of the outputs if there is one.
    """

    def parts(roles: Mapping[str, Tensor], inputs: Any) -> Tensor:
        inner, outer = roles["w"], roles["a"].reshape(-1, len(roles["w"]))
        heights = inputs.reshape(len(inputs), -1) @ inner.T
        if "inner_bias" in roles:
            heights = heights + roles["inner_bias"].reshape(-1)
        sides = [(side.clamp_min(0) ** power @ outer.T).reshape(-1) for side in (heights, -heights)]
        if "outer_bias" in roles:
            sides.append(roles["outer_bias"].reshape(-1).expand(len(inputs), -1).reshape(-1))
        return torch.stack(sides, dim=1)

    return Formula("A s(W x)", parts, power)


def _diagonal(roles: Mapping[str, Tensor], inputs: Any) -> Tensor:
    found: Tensor = inputs.reshape(len(inputs), -1) @ (roles["u"].reshape(-1) * roles["v"].reshape(-1))
    return found[:, None]


def _squares(roles: Mapping[str, Tensor], inputs: Any) -> Tensor:
    found: Tensor = inputs.reshape(len(inputs), -1) @ (roles["u"].reshape(-1) ** 2 - roles["v"].reshape(-1) ** 2)
    return found[:, None]


def _heads(roles: Mapping[str, Tensor], inputs: Any) -> Tensor:
    decoded = decode_attention(inputs)
    assert decoded is not None
    shown, answers, query = decoded
    summed = torch.einsum("bnd,bn->bd", shown, answers)
    found: Tensor = ((query @ roles["q"].T) * (summed @ roles["k"].T)) @ roles["v"].reshape(-1)
    return found[:, None]


product_of_vectors = Formula("(u * v) . x", _diagonal)
difference_of_squares = Formula("(p * p - m * m) . x", _squares)
heads = Formula("sum over heads of v (q . query) (k . sum of y x)", _heads)
