r"""Formulas for the part of a tangent kernel that the parameters of one layer give.

A layer's part needs no Jacobian: with its inputs A and the gradients B of the model's outputs with respect to what it gives
out, the gradient of output r of sample i with respect to a linear layer's weight is :math:`\sum_t B_{irt}A_{it}^T`, the sum
going over positions (tokens, pixels). See :func:`learnmech.dynamics.kernel`.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

BUDGET = 2**25
"""Largest number of entries of a temporary tensor; 128 MiB in float32."""


class LayerPart(Protocol):
    """The part of one layer on a batch of samples."""

    def gram(self, other: "LayerPart", *, full: bool) -> Tensor:
        """Give this layer's part of the kernel between two batches."""


def inner_products(first: Tensor, second: Tensor, *, full: bool) -> Tensor:
    """Multiply per-sample gradients, (samples, outputs, entries), with each other.

    Args:
        first: of the one batch.
        second: of the other.
        full: whether to keep pairs of outputs apart, or else to add up those of the same output.

    Returns:
        (n, m) in float64, or (n, r, m, r).
    """
    if full:
        product = first.flatten(0, 1) @ second.flatten(0, 1).T
        return product.double().reshape(*first.shape[:2], *second.shape[:2])
    return (first.flatten(1) @ second.flatten(1).T).double()


@dataclass(frozen=True)
class AffinePart:
    """A linear layer or convolution.

    Attributes:
        inputs: (samples, groups, positions, in).
        gradients: (samples, outputs, groups, positions, out).
        weight_rate: learning rate of the weight; 0 leaves it out.
        bias_rate: that of the bias.
    """

    inputs: Float[Tensor, "n groups positions width"]
    gradients: Float[Tensor, "n r groups positions out"]
    weight_rate: float
    bias_rate: float

    def gram(self, other: "LayerPart", *, full: bool) -> Tensor:
        """Give this layer's part of the kernel between two batches."""
        assert isinstance(other, AffinePart)
        total: Tensor | float = 0.0
        if self.weight_rate:
            total = total + self.weight_rate * self._weights(other, full=full)
        if self.bias_rate:
            first, second = (part.gradients.sum(3).flatten(2) for part in (self, other))
            total = total + self.bias_rate * inner_products(first, second, full=full)
        assert isinstance(total, Tensor)
        return total

    def _weights(self, other: "AffinePart", *, full: bool) -> Tensor:
        groups, positions = self.inputs.shape[1:3]
        total: Tensor | float = 0.0
        for group in range(groups):
            first, second = (
                (part.inputs[:, group], part.gradients[:, :, group]) for part in (self, other)
            )  # (n, t, in) and (n, r, t, out)
            if positions == 1 and other.inputs.shape[2] == 1:
                similar = (first[0].squeeze(1) @ second[0].squeeze(1).T).double()
                signals = inner_products(first[1].squeeze(2), second[1].squeeze(2), full=full)
                total = total + (similar[:, None, :, None] if full else similar) * signals
            elif not full and _pairs_are_cheaper(first[1], second[1], first[0].shape[2]):
                total = total + _pair_sums(first[0], first[1], second[0], second[1])
            else:
                total = total + _gradient_products(first, second, full=full)
        assert isinstance(total, Tensor)
        return total


@dataclass(frozen=True)
class GradientPart:
    """A layer whose per-sample gradients are small: scales and shifts.

    Attributes:
        gradients: (samples, outputs, entries) of each parameter, with its learning rate.
    """

    gradients: tuple[tuple[Tensor, float], ...]

    def gram(self, other: "LayerPart", *, full: bool) -> Tensor:
        """Give this layer's part of the kernel between two batches."""
        assert isinstance(other, GradientPart)
        pairs = zip(self.gradients, other.gradients, strict=True)
        return torch.stack([rate * inner_products(a, b, full=full) for (a, rate), (b, _) in pairs]).sum(0)


@dataclass(frozen=True)
class LookupPart:
    """An embedding.

    Attributes:
        ids: (samples, positions).
        gradients: (samples, outputs, positions, width), zero where the padding is.
        rate: learning rate of the table.
    """

    ids: Int[Tensor, "n positions"]
    gradients: Float[Tensor, "n r positions width"]
    rate: float

    def gram(self, other: "LayerPart", *, full: bool) -> Tensor:
        """Give this layer's part of the kernel between two batches."""
        assert isinstance(other, LookupPart)
        known, places = torch.unique(torch.cat([self.ids.flatten(), other.ids.flatten()]), return_inverse=True)
        own, others = places[: self.ids.numel()], places[self.ids.numel() :]
        first, second = own.reshape(self.ids.shape), others.reshape(other.ids.shape)
        if not full and self.ids.shape[1] * other.ids.shape[1] < len(known):
            return self.rate * _pair_sums(first, self.gradients, second, other.gradients)
        rows, columns = _scatter(self.gradients, first, len(known)), _scatter(other.gradients, second, len(known))
        return self.rate * inner_products(rows, columns, full=full)


def _scatter(gradients: Tensor, places: Tensor, count: int) -> Tensor:
    """Add up the gradients of each word: (n, r, t, d) to (n, r, words * d)."""
    n, outputs, _, width = gradients.shape
    table = gradients.new_zeros(n, outputs, count, width)
    index = places[:, None, :, None].expand_as(gradients)
    return table.scatter_add_(2, index, gradients).flatten(2)


def _pairs_are_cheaper(first: Tensor, second: Tensor, width: int) -> bool:
    """Compare multiplications: over pairs of positions, or by writing out per-sample gradients (n, r, out, in)."""
    (n, outputs, positions, out), m = first.shape, len(second)
    pairs = n * m * positions * second.shape[2] * (width + outputs * out)
    gradients = outputs * out * width * (n * m + n * positions + (0 if first is second else m * second.shape[2]))
    return bool(pairs < gradients)


def _pair_sums(inputs: Tensor, gradients: Tensor, others: Tensor, other_gradients: Tensor) -> Tensor:
    # The sum over t and s of (A_it . A_js) sum_r (B_irt . B_jrs). Integer inputs are words: 1 for the same word, else 0.
    m, positions = len(others), others.shape[1]
    columns = other_gradients.transpose(1, 2).flatten(2).flatten(0, 1)
    rows = gradients.transpose(1, 2).flatten(2)
    step = max(1, BUDGET // max(1, inputs.shape[1] * m * positions))
    sums = []
    for start in range(0, len(inputs), step):
        part, signals = inputs[start : start + step], rows[start : start + step].flatten(0, 1) @ columns.T
        if part.is_floating_point():
            similar = part.flatten(0, 1) @ others.flatten(0, 1).T
        else:
            similar = (part.flatten()[:, None] == others.flatten()[None, :]).to(signals.dtype)
        sums.append((similar * signals).reshape(len(part), inputs.shape[1], m, positions).double().sum((1, 3)))
    return torch.cat(sums)


def _gradient_products(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], *, full: bool) -> Tensor:
    """Write out the gradients of some rows of the weight at a time, and multiply them."""
    same = all(a.data_ptr() == b.data_ptr() and a.shape == b.shape for a, b in zip(first, second, strict=True))
    n, outputs, _, out = first[1].shape
    largest, width = max(n, len(second[0])), first[0].shape[2]
    kept = outputs if full else max(1, min(outputs, BUDGET // max(1, largest * width * out)))
    step = max(1, BUDGET // max(1, largest * kept * width))
    total: Tensor | float = 0.0
    for output in range(0, outputs, kept):
        for start in range(0, out, step):
            piece = (slice(None), slice(output, output + kept), slice(None), slice(start, start + step))
            rows = _sum_over_positions(first[0], first[1][piece])
            columns = rows if same else _sum_over_positions(second[0], second[1][piece])
            total = total + inner_products(rows, columns, full=full)
    assert isinstance(total, Tensor)
    return total


def _sum_over_positions(inputs: Tensor, signals: Tensor) -> Tensor:
    n, outputs, positions, out = signals.shape
    merged = signals.permute(0, 1, 3, 2).reshape(n, outputs * out, positions)
    return torch.bmm(merged, inputs).reshape(n, outputs, -1)
