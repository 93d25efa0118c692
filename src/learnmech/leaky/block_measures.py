r"""What a layer's features cost and how many dimensions they keep, gathered chunk by chunk in float64.

Features are read as a representation A, (width, columns): what the layer that follows would have to produce. With N columns,
:math:`\sigma(A) = [\max(A, 0); 1^T]` and :math:`K = \sigma(A)^T\sigma(A)`, the numbers are those of :class:`BlockNumbers`.

All of them follow from sums over columns of products of features, so chunks add up exactly and no sample is left out, as long as
the layer is not wider than it has columns. Otherwise its columns are kept, and K is small itself. Only layers with more than
``LARGEST`` features *and* more than ``LARGEST`` columns are thinned: they keep ``LARGEST`` columns, evenly spaced.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.leaky.ranks import bottleneck_rank
from learnmech.monitor.snapshot import Chunk

RELATIVE_RIDGE = 1e-3
"""The ridge, in units of the largest eigenvalue of K: directions below 3 % of the largest singular value are not paid for."""
LARGEST = 256
"""Largest matrix that is decomposed: about 20 ms a layer on one core. Twice as much would cost eight times as long."""
_BLOCK = 1 << 15
"""Numbers that are widened to float64 at a time on a CPU: some of them fit into its cache."""
_ZERO = 1e-13
"""Share of the largest eigenvalue below which an eigenvalue of features in float64 is round-off."""


@dataclass(frozen=True)
class BlockNumbers:
    r"""What the features of one layer show.

    Attributes:
        identity_cost: :math:`\mathrm{Tr}[A (K + \gamma)^{-1} A^T] = \min_W \lVert W \rVert_F^2 + \lVert A - W\sigma(A)
            \rVert_F^2 / \gamma` with :math:`\gamma` = 1e-3 times the largest eigenvalue of K: the least squared size of a ReLU
            layer that gives out what it gets in.
        stable_rank: :math:`(\sum_i s_i)^2 / \sum_i s_i^2` over the singular values of A.
        bottleneck_dimension: how many singular values of that least layer W lie above half of its largest one.
        negativity: :math:`\lVert \min(A, 0) \rVert_F / \lVert A \rVert_F`.
        columns: how many columns these numbers rest on.
    """

    identity_cost: float
    stable_rank: float
    bottleneck_dimension: float
    negativity: float
    columns: int


NOTHING = BlockNumbers(math.nan, math.nan, math.nan, math.nan, 0)


class FeatureColumns:
    """Gathers the features of one layer.

    Args:
        samples: samples of the whole probe.
        axis: which axis of the features is the width.
    """

    def __init__(self, samples: int, axis: int) -> None:
        self._samples, self._axis = samples, axis
        self._sums: _Products | None = None
        self._kept: list[Tensor] | None = None
        self.columns = 0

    def add(self, features: Tensor, chunk: Chunk) -> None:
        """Take a chunk of features, samples first.

        Args:
            features: what the layer gave, (samples of the chunk, ...) or (samples times tokens, width). What does not divide into
                samples is left out.
            chunk: which samples they belong to.
        """
        if features.device.type == "mps":  # no float64 there
            features = features.cpu()
        rows = features.unsqueeze(-1) if features.ndim == 1 else features.movedim(self._axis, -1)
        count = chunk.stop - chunk.start
        if rows.numel() % (count * rows.shape[-1]):
            return
        rows = rows.reshape(count, -1, rows.shape[-1])
        width, total = rows.shape[-1], rows.shape[1] * self._samples
        if min(width + 1, total) > LARGEST:
            rows = self._thinned(rows, chunk)
            total = LARGEST
        rows = rows.reshape(-1, width)
        self.columns += len(rows)
        if width < total:
            self._sums = _Products(width, rows.device) if self._sums is None else self._sums
            size = max(1, (_BLOCK if rows.device.type == "cpu" else 1 << 22) // width)
            for start in range(0, len(rows), size):
                self._sums.add(rows[start : start + size].double())
        else:
            self._kept = [*(self._kept or []), rows.double()]

    def numbers(self) -> BlockNumbers:
        """Give the numbers of everything that was taken.

        Returns:
            The numbers; NaN if there were no features, a NaN or an infinity among them, or fewer than two columns.
        """
        if self.columns < 2:
            return NOTHING
        if self._sums is not None:
            return self._sums.numbers(self.columns)
        return NOTHING if self._kept is None else _numbers_of_columns(torch.cat(self._kept))

    def _thinned(self, rows: Tensor, chunk: Chunk) -> Tensor:
        """Keep the same positions of every sample, and of many samples evenly spaced ones."""
        samples = _evenly(self._samples, min(self._samples, LARGEST), rows.device)
        positions = _evenly(rows.shape[1], max(1, LARGEST // len(samples)), rows.device)
        inside = samples[(samples >= chunk.start) & (samples < chunk.stop)] - chunk.start
        return rows[inside][:, positions]


def _evenly(length: int, wanted: int, device: torch.device) -> Tensor:
    wanted = min(length, wanted)
    return torch.arange(wanted, device=device) * length // wanted


class _Products:
    """Sums over columns: P P^T, P M^T, M M^T and P 1, where A = P - M with P = max(A, 0) and M = max(-A, 0)."""

    def __init__(self, width: int, device: torch.device) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self._active, self._crossed, self._negative = zeros(width, width), zeros(width, width), zeros(width, width)
        self._sums, self._negative_sums = zeros(width), zeros(width)

    def add(self, rows: Float[Tensor, "columns width"]) -> None:
        if bool(rows.min() >= 0):  # NaN goes the other way, and is seen in the end
            self._active.addmm_(rows.mT, rows)
            self._sums += rows.sum(0)
            return
        active, negative = rows.clamp(min=0), (-rows).clamp(min=0)
        self._active.addmm_(active.mT, active)
        self._crossed.addmm_(active.mT, negative)
        self._negative.addmm_(negative.mT, negative)
        self._sums += active.sum(0)
        self._negative_sums += negative.sum(0)

    def numbers(self, columns: int) -> BlockNumbers:
        width = len(self._sums)
        negative = self._negative.diagonal().sum()
        if not bool(torch.isfinite(self._active.diagonal().sum() + negative)):
            return NOTHING
        # sigma sigma^T, and sigma M^T.
        products = torch.empty(width + 1, width + 1, dtype=torch.float64, device=self._sums.device)
        products[:width, :width], products[width, width] = self._active, columns
        products[width, :width] = products[:width, width] = self._sums
        ridge = RELATIVE_RIDGE * torch.linalg.eigvalsh(products)[-1]
        factor = torch.linalg.cholesky(
            products + ridge * torch.eye(width + 1, dtype=torch.float64, device=ridge.device)
        )
        least = torch.cholesky_solve(products[:, :width], factor)  # the least W, transposed
        # P (K + g)^-1 = [I 0] (sigma sigma^T + g)^-1 sigma, so only the part of M with itself needs a difference, and that one
        # loses three digits at most, as the ridge is relative.
        cost = least.diagonal().sum()
        squares = self._active
        if bool(negative > 0):
            crossed = torch.cat([self._crossed, self._negative_sums[None]])
            solved = torch.cholesky_solve(crossed, factor)
            cost = cost - 2 * solved.diagonal().sum() + (negative - (crossed * solved).sum()) / ridge
            least = least - solved
            squares = self._active - self._crossed - self._crossed.mT + self._negative
        return _finish(cost, squares, least.mT @ least, negative, columns)


def _numbers_of_columns(rows: Float[Tensor, "columns width"]) -> BlockNumbers:
    """The same by the small matrix K, for more features than columns."""
    if not bool(torch.isfinite(rows).all()):
        return NOTHING
    active = rows.clamp(min=0)
    values, vectors = torch.linalg.eigh(active @ active.mT + 1)
    values = values.clamp(min=0)
    ridge = RELATIVE_RIDGE * values[-1]
    products = rows @ rows.mT
    turned = vectors.mT @ products @ vectors
    cost = (turned.diagonal() / (values + ridge)).sum()
    scale = values.sqrt() / (values + ridge)
    negative = rows.clamp(max=0).square().sum()
    return _finish(cost, products, scale[:, None] * turned * scale, negative, len(rows))


def _finish(cost: Tensor, squares: Tensor, least: Tensor, negative: Tensor, columns: int) -> BlockNumbers:
    size = squares.diagonal().sum()
    if float(size) == 0:  # a dead layer: nothing is the cheapest layer for it
        return BlockNumbers(0.0, float("nan"), 0.0, float("nan"), columns)
    singular = _singular_values(squares)
    return BlockNumbers(
        float(cost),
        float(singular.sum().square() / singular.square().sum()),
        float(bottleneck_rank(_singular_values(least))),
        float((negative / size).sqrt()),
        columns,
    )


def _singular_values(squares: Float[Tensor, "size size"]) -> Float[Tensor, " size"]:
    """Singular values of a matrix from its product with its transpose, falling; those lost in round-off are zero."""
    values = torch.linalg.eigvalsh((squares + squares.mT) / 2).flip(0)
    kept: Tensor = values.where(values > _ZERO * values[0], 0.0)
    return kept.sqrt()
