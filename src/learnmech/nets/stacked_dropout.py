"""Dropout of several members at once, each with a rate and a random stream of its own."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.nets.dropout import _LEVELS
from learnmech.nets.stacked_state import Workspace

_LOWEST, _PAST_HIGHEST = -(2**63), 2**63 - 1


class StackedDropout:
    """Masks of a stack of members; those without dropout come first and are left alone.

    On a CPU each member draws what :class:`~learnmech.nets.Dropout` would draw in a net of its own, so masks are the
    same bit for bit; the draws of all layers of a step are made in one call, which gives the same numbers. On another
    device all masks are drawn together: there they agree with those of separate nets in distribution only.

    Args:
        rates: the probability of dropping of each member, zeros first.
        generators: the random stream of each member, on its device.

    Attributes:
        first: the position of the first member with dropout.

    Example:
        >>> generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
        >>> dropout = StackedDropout([0.0, 0.5], generators)
        >>> (mask,) = dropout.draw([(3, 4)], like=torch.empty(0))
        >>> mask.shape, sorted(set(mask.flatten().tolist()))
        (torch.Size([1, 3, 4]), [0.0, 2.0])
    """

    def __init__(self, rates: Sequence[float], generators: Sequence[torch.Generator]) -> None:
        self.first = sum(rate == 0 for rate in rates)
        self._members = list(zip(rates, generators, strict=True))
        self._workspace = Workspace()
        self._exact = all(generator.device.type == "cpu" for generator in generators)
        active = [rate for rate, _ in self._members[self.first :]]
        device = generators[0].device
        dropped = [min(max(round(rate * _LEVELS), 1), _LEVELS - 1) for rate in active]
        kept = [1 - count / _LEVELS for count in dropped] if self._exact else [1 - rate for rate in active]
        self._limits = torch.tensor([count - _LEVELS // 2 for count in dropped], dtype=torch.int16)[:, None]
        self._rates = torch.tensor(active, dtype=torch.float64, device=device)[:, None]
        self._factors = torch.tensor([1 / part for part in kept], dtype=torch.float64, device=device)[:, None]

    def draw(self, shapes: Sequence[tuple[int, ...]], like: Tensor) -> list[Float[Tensor, "members samples *features"]]:
        """Draw the masks of one step.

        Args:
            shapes: the shape of each layer's features (samples, ...), in the order in which a net would drop them.
            like: a tensor of the wanted type and device.

        Returns:
            For each layer the factors of the members with dropout, 0 for what is dropped. The memory is used again in
            the next step.
        """
        counts = [math.prod(shape) for shape in shapes]
        levels = self._draw_levels([(count + 3) // 4 for count in counts]) if self._exact else []
        factors = self._factors.to(like.dtype)
        masks = []
        for layer, (shape, count) in enumerate(zip(shapes, counts, strict=True)):
            mask = self._workspace.take(f"mask {layer}", (len(factors), count), like)
            if self._exact:
                torch.ge(levels[layer][:, :count], self._limits, out=mask)
            else:
                generator = self._members[self.first][1]
                torch.ge(torch.rand(mask.shape, generator=generator, device=like.device), self._rates, out=mask)
            masks.append(mask.mul_(factors).view(len(factors), *shape))
        return masks

    def keep(self, positions: Sequence[int]) -> "StackedDropout":
        """Give the dropout of some of the members, which go on with their streams.

        Args:
            positions: which, in increasing order.

        Returns:
            A new object.
        """
        kept = [self._members[position] for position in positions]
        return StackedDropout([rate for rate, _ in kept], [generator for _, generator in kept])

    def _draw_levels(self, words: Sequence[int]) -> list[Tensor]:
        # Uniform on -32768 .. 32767, four of them in each 64-bit word.
        active = self._members[self.first :]
        total = sum(words)
        drawn = self._workspace.take("words", (len(active), total), self._limits.to(torch.int64))
        for row, (_, generator) in zip(drawn, active, strict=True):
            torch.randint(_LOWEST, _PAST_HIGHEST, (total,), dtype=torch.int64, generator=generator, out=row)
        return [part.view(torch.int16) for part in torch.split(drawn, list(words), dim=1)]
