"""Means and scatter of groups of samples, gathered in a stream: the one state behind every separation measure."""

import threading
from collections.abc import Iterator
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Below this share of the total scatter a part of it is rounding: (100 units in the last place)^2 of float64.
ROUNDING = (100 * torch.finfo(torch.float64).eps) ** 2
# Share of the sum of squares that must be scatter for the difference of sums to be exact to 1e-11 of it.
_CANCELLATION = 1e-3
# Numbers in a block that is worked on at a time: a megabyte in float64.
_BLOCK = 2**17
_LOCAL = threading.local()  # one such block for each thread, made when first needed


class GroupStatistics:
    r"""Count, mean and scatter of each of ``groups`` groups, exact under any split into updates and merges.

    For group :math:`g` with samples :math:`h_i`: :math:`n_g`, :math:`m_g = \sum h_i / n_g` and
    :math:`W_g = \sum |h_i - m_g|^2`. Two disjoint sets merge by
    :math:`W = W_a + W_b + \frac{n_a n_b}{n_a + n_b} |m_a - m_b|^2` (Chan, Golub, LeVeque 1983), which does not cancel
    as sums of squares do. Means are kept relative to ``reference``, the first sample seen, so that features that do not
    vary give a scatter of exactly zero.

    Attributes:
        counts: samples in each group, shape (groups,), float64.
        means: group means minus ``reference``, shape (groups, features), float64.
        scatters: summed squared distances to the group mean, shape (groups,), float64.
        reference: the point that means are relative to, shape (features,), float64.
        factor: None, or blocks of rows :math:`R` with :math:`R^T R = \sum_g \sum_i (h_i - m_g)(h_i - m_g)^T`: the
            deviations themselves, and, once merging makes them more than twice the features, a triangular factor of them.
    """

    counts: Float[Tensor, "groups"]
    means: Float[Tensor, "groups features"]
    scatters: Float[Tensor, "groups"]
    reference: Float[Tensor, "features"]
    factor: tuple[Float[Tensor, "rows features"], ...] | None

    def __init__(self, groups: int, features: int, *, reference: Tensor) -> None:
        device = reference.device
        self.counts = torch.zeros(groups, dtype=torch.float64, device=device)
        self.means = torch.zeros(groups, features, dtype=torch.float64, device=device)
        self.scatters = torch.zeros(groups, dtype=torch.float64, device=device)
        self.reference = reference.to(torch.float64, copy=True)  # the features may be overwritten in place later
        self.factor = None

    @classmethod
    def of(
        cls,
        samples: Float[Tensor, "samples features"],
        group: Int[Tensor, "samples"],
        groups: int,
        *,
        keep_factor: bool = False,
    ) -> Self:
        """Gather the statistics of one batch.

        Args:
            samples: one row a sample, any real dtype, at least one row.
            group: the group of each row, in ``0 .. groups - 1``.
            groups: how many groups there are.
            keep_factor: whether to keep what the scatter in single directions needs.

        Returns:
            The statistics of this batch.
        """
        statistics = cls(groups, samples.shape[1], reference=samples[0])
        statistics.counts = torch.bincount(group, minlength=groups).to(torch.float64)
        if keep_factor or not statistics._gather_quickly(samples, group):
            statistics._gather(samples, group, keep_factor=keep_factor)
        return statistics

    def _gather_quickly(self, samples: Tensor, group: Tensor) -> bool:
        """Gather plain sums and sums of squares in one pass; say whether that was exact enough."""
        sums, squares = torch.zeros_like(self.means), torch.zeros_like(self.scatters)
        for part, rows in _blocks(samples):
            sums.index_add_(0, group[part], rows)
            squares.index_add_(0, group[part], torch.linalg.vector_norm(rows, dim=1).square_())
        means = sums.div_(self.counts.clamp(min=1)[:, None])
        scatters = squares - self.counts * torch.linalg.vector_norm(means, dim=1).square_()
        if not bool(scatters.sum() > _CANCELLATION * squares.sum()):
            return False
        self.means = means.sub_(self.reference).mul_((self.counts > 0)[:, None])
        self.scatters = scatters.clamp_(min=0)
        return True

    def _gather(self, samples: Tensor, group: Tensor, *, keep_factor: bool) -> None:
        """Gather deviations from the group means, in two passes: exact however small the scatter is."""
        for part, rows in _blocks(samples):
            self.means.index_add_(0, group[part], rows.sub_(self.reference))
        self.means.div_(self.counts.clamp(min=1)[:, None])
        deviations = []
        for part, rows in _blocks(samples):
            rows.sub_(self.reference).sub_(self.means.index_select(0, group[part]))
            self.scatters.index_add_(0, group[part], torch.linalg.vector_norm(rows, dim=1).square_())
            if keep_factor:
                deviations.append(rows.clone())
        if keep_factor:
            self.factor = tuple(deviations)

    def merge(self, other: "GroupStatistics") -> Self:
        """Add the samples of ``other``, group by group.

        Args:
            other: statistics of samples that are not yet in here, over the same groups and features.

        Returns:
            This object.
        """
        theirs = other.means + (other.reference - self.reference)
        total = self.counts + other.counts
        safe = total.clamp(min=1)
        difference = theirs - self.means
        difference[(self.counts == 0) | (other.counts == 0)] = 0
        weights = self.counts * other.counts / safe
        self.scatters = self.scatters + other.scatters + weights * torch.linalg.vecdot(difference, difference)
        if self.factor is not None and other.factor is not None:
            self.factor = _compressed((*self.factor, *other.factor, weights.sqrt()[:, None] * difference))
        self.means = torch.where(
            (self.counts == 0)[:, None], theirs, self.means + (other.counts / safe)[:, None] * difference
        )
        self.counts = total
        return self

    def pool(self, target: Int[Tensor, "groups"], groups: int) -> "GroupStatistics":
        """Unite groups: the statistics as if the samples had been gathered under coarser labels.

        Args:
            target: the new group of each present group; -1 leaves a group out.
            groups: how many new groups there are.

        Returns:
            New statistics over ``groups`` groups.
        """
        kept = target >= 0
        target, counts, means = target[kept], self.counts[kept], self.means[kept]
        pooled = GroupStatistics(groups, means.shape[1], reference=self.reference)
        pooled.counts.index_add_(0, target, counts)
        pooled.means.index_add_(0, target, counts[:, None] * means).div_(pooled.counts.clamp(min=1)[:, None])
        deviations = means - pooled.means.index_select(0, target)
        pooled.scatters.index_add_(
            0, target, self.scatters[kept] + counts * torch.linalg.vecdot(deviations, deviations)
        )
        if self.factor is not None and bool(kept.all()):
            pooled.factor = (*self.factor, counts.sqrt()[:, None] * deviations)
        return pooled

    def between(self) -> Float[Tensor, "groups features"]:
        r"""Compute the rows :math:`B_k = \sqrt{n_k / N} (m_k - m)`, so that :math:`S_b = B^T B`.

        Returns:
            One row a group; rows of empty groups are zero.
        """
        weights = self.counts / self.counts.sum().clamp(min=1)
        return weights.sqrt()[:, None] * (self.means - weights @ self.means)

    def log_trace_ratio(self) -> Float[Tensor, ""]:
        r"""Compute :math:`\ln(\mathrm{tr} S_w / \mathrm{tr} S_b)`.

        Returns:
            A float64 scalar: ``-inf`` if no group varies inside itself, ``inf`` if all group means coincide, NaN if
            nothing varies at all.
        """
        within = self.scatters.sum() / self.counts.sum().clamp(min=1)
        between = self.between().square().sum()
        return log_ratio(within, between)

    def log_pinv_trace(self) -> Float[Tensor, ""]:
        r"""Compute :math:`\ln \mathrm{tr}(S_w S_b^+)`; the statistics must have been gathered with ``keep_factor``.

        With the thin singular value decomposition :math:`B = U \Sigma V^T` of :meth:`between` and the factor :math:`R`
        of the scatter within groups, :math:`\mathrm{tr}(S_w S_b^+) = |R V \Sigma^{-1}|_F^2 / N`.

        Returns:
            A float64 scalar with the same special values as :meth:`log_trace_ratio`.
        """
        assert self.factor is not None
        within, between = self.scatters.sum(), self.between()
        total = self.counts.sum().clamp(min=1)
        singular, directions = torch.linalg.svd(between, full_matrices=False)[1:]
        # The rows of B, weighted, sum to zero, so at most groups - 1 directions are real; the rest is rounding.
        most = max(int((self.counts > 0).sum()) - 1, 0)
        kept = singular > max(between.shape) * torch.finfo(torch.float64).eps * singular.max().clamp(min=0)
        kept[most:] = False
        if bool(singular.square().sum() <= ROUNDING * within / total) or not bool(kept.any()):
            return log_ratio(within, torch.zeros_like(within))
        projection = (directions[kept] / singular[kept][:, None]).T
        ratio = torch.stack([(rows @ projection).square().sum() for rows in self.factor]).sum() / total
        return torch.where(ratio <= ROUNDING, torch.zeros_like(ratio), ratio).log()


def _blocks(samples: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Give the rows in float64, block by block, in memory that the next block overwrites."""
    # Fresh memory for a float64 copy would cost several times the arithmetic (page faults), and double a probe's memory.
    width = samples.shape[1]
    rows = max(1, _BLOCK // max(width, 1))
    if samples.device.type == "cpu" and width <= _BLOCK:
        if not hasattr(_LOCAL, "scratch"):
            _LOCAL.scratch = torch.empty(_BLOCK, dtype=torch.float64, device="cpu")
        scratch = _LOCAL.scratch[: rows * width].view(rows, width)
    else:
        rows *= 64
        scratch = torch.empty(min(rows, len(samples)), width, dtype=torch.float64, device=samples.device)
    for start in range(0, len(samples), rows):
        part = slice(start, min(start + rows, len(samples)))
        yield part, scratch[: part.stop - start].copy_(samples[part])


def _compressed(blocks: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Replace rows by a triangular factor with the same product R^T R where that is much smaller."""
    if sum(map(len, blocks)) <= 2 * blocks[0].shape[1]:
        return blocks
    return (torch.linalg.qr(torch.cat(blocks), mode="r").R,)


def log_ratio(within: Tensor, between: Tensor) -> Tensor:
    """Compute ``ln(within / between)`` with parts that are only rounding taken as zero.

    Args:
        within: scatter within classes, at least zero.
        between: scatter between classes, at least zero.

    Returns:
        The logarithm: ``-inf`` for zero within, ``inf`` for zero between, NaN for both.
    """
    floor = ROUNDING * (within + between)
    within = torch.where(within <= floor, torch.zeros_like(within), within)
    between = torch.where(between <= floor, torch.zeros_like(between), between)
    return within.log() - between.log()
