"""Data separation: how far apart the classes are in a layer's features, as one number."""

import math
from typing import Literal, Self

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from learnmech.errors import InputError
from learnmech.springs.statistics import GroupStatistics

Kind = Literal["trace", "pinv"]
IGNORED_LABEL = -100
"""Samples with this label are left out, as :func:`torch.nn.functional.cross_entropy` does."""


def separation(
    features: Shaped[Tensor, "samples *features"], labels: Int[Tensor, "samples"], kind: Kind = "trace"
) -> Float[Tensor, ""]:
    r"""Measure how badly the classes are separated in ``features``: the smaller, the better separated.

    With class means :math:`m_k`, overall mean :math:`m`, :math:`N` samples,
    :math:`S_w = \frac1N \sum_k \sum_i (h_{ki}-m_k)(h_{ki}-m_k)^T` and
    :math:`S_b = \frac1N \sum_k n_k (m_k-m)(m_k-m)^T`:

    - ``trace``: :math:`D = \ln(\mathrm{tr} S_w / \mathrm{tr} S_b)`, the load of the spring-block theory
      (Shi, Pan, Dokmanić 2024, arXiv 2407.19353, Eq. 3);
    - ``pinv``: :math:`D = \ln \mathrm{tr}(S_w S_b^+)` (He, Su 2023, arXiv 2210.17020; Papyan, Han, Donoho 2020). It is
      almost constant over the depth of a linear net, so it cannot see what linear layers do.

    The mean subspace has at most C - 1 directions, so no (features x features) matrix is formed: the cost is
    O(samples * features) for ``trace`` and O(samples * features * classes) for ``pinv``. All sums are float64.

    Args:
        features: one entry a sample along the first dimension; further dimensions are flattened. If ``labels`` has more
            than one dimension (tokens, pixels), as many leading dimensions of ``features`` count as samples.
        labels: integer classes. Classes without samples do not matter; samples labelled -100 are left out.
        kind: which ratio, see above.

    Returns:
        D, natural logarithm, a float64 scalar on the device of ``features``. It does not change under rotation, shift and
        overall scale of the features. ``-inf``: no class varies inside itself (complete collapse onto the means);
        ``inf``: the class means coincide; NaN: the features do not vary at all (a dead layer).

    Raises:
        InputError: fewer than two classes, shapes that do not fit, labels that are not non-negative integers, NaN or
            infinite features.

    Example:
        Two classes at -1 and +1 with spread 1/2 about them: tr S_w = 1/4, tr S_b = 1.

        >>> import torch
        >>> features = torch.tensor([[-1.5], [-0.5], [0.5], [1.5]])
        >>> separation(features, torch.tensor([0, 0, 1, 1])).exp()
        tensor(0.2500, dtype=torch.float64)
    """
    return SeparationAccumulator(kind).update(features, labels).compute()


def as_samples(
    features: Shaped[Tensor, "..."], labels: Shaped[Tensor, "..."]
) -> tuple[Shaped[Tensor, "samples features"], Shaped[Tensor, "samples"]]:
    """Flatten features to (samples, features) where the shape of the labels says what a sample is.

    Args:
        features: any shape that begins with the shape of ``labels``.
        labels: one label a sample.

    Returns:
        Features (samples, features) and labels (samples,).

    Raises:
        InputError: if the leading shape of ``features`` is not that of ``labels``, or features are complex.
    """
    if labels.ndim == 0 or tuple(features.shape[: labels.ndim]) != tuple(labels.shape):
        raise InputError(
            f"features and labels do not fit: features have shape {tuple(features.shape)}, labels {tuple(labels.shape)}; "
            "the leading dimensions of features must be those of labels, one label a sample."
        )
    if features.is_complex():
        raise InputError("features are complex; pass their real and imaginary parts as separate features.")
    width = math.prod(features.shape[labels.ndim :])
    return features.detach().reshape(labels.numel(), width), labels.reshape(-1)


def check_labels(labels: Tensor, classes: int | None = None) -> None:
    """Refuse labels that are not classes.

    Args:
        labels: what came.
        classes: if given, labels must lie in ``0 .. classes - 1`` (or be -100).

    Raises:
        InputError: for labels that are not integers, are negative (-100 apart) or too large.
    """
    if labels.is_floating_point() or labels.is_complex():
        raise InputError(
            f"labels must be integers, one class a sample, but have dtype {labels.dtype}. For real-valued targets use "
            "learnmech.springs.regression_load."
        )
    if labels.numel() == 0:
        return
    bad = (labels < 0) & (labels != IGNORED_LABEL)
    if classes is not None:
        bad |= labels >= classes
    if bool(bad.any()):
        wanted = "at least 0" if classes is None else f"in 0 .. {classes - 1}"
        raise InputError(
            f"labels must be {wanted} (or -100 to leave a sample out), but {int(bad.sum())} of {labels.numel()} are not; "
            f"the first is {int(labels[bad][0])}."
        )


class SeparationAccumulator:
    """Gather :func:`separation` from a stream of batches, or from several workers, exactly.

    ``update`` takes a batch, ``merge`` takes another accumulator (of another worker or rank), ``compute`` gives the number
    over everything seen so far and may be called at any time. The result does not depend on how the samples were split.

    State per accumulator: classes x features numbers for ``trace``. ``pinv`` also needs the scatter within the subspace of
    the final class means, which is not known while streaming: it keeps the deviations of the samples, and a triangular
    factor of them once there are many, so never more than min(samples, 2 * features) rows.

    Args:
        kind: ``trace`` or ``pinv``, see :func:`separation`.
        classes: if given, labels of ``classes`` and above are refused.

    Raises:
        InputError: for an unknown kind.

    Example:
        >>> import torch
        >>> generator = torch.Generator().manual_seed(0)
        >>> features, labels = torch.randn(60, 5, generator=generator), torch.arange(60) % 3
        >>> one = SeparationAccumulator().update(features[:20], labels[:20])
        >>> two = SeparationAccumulator().update(features[20:], labels[20:])
        >>> torch.allclose(one.merge(two).compute(), separation(features, labels), rtol=1e-12)
        True
    """

    def __init__(self, kind: Kind = "trace", *, classes: int | None = None) -> None:
        if kind not in ("trace", "pinv"):
            raise InputError(f"unknown kind of separation {kind!r}: expected 'trace' or 'pinv'.")
        self.kind: Kind = kind
        self.classes = classes
        self._labels: Tensor | None = None  # the classes seen, sorted; group k of the statistics is class _labels[k]
        self._statistics: GroupStatistics | None = None

    @property
    def samples(self) -> int:
        """How many samples have been seen."""
        return 0 if self._statistics is None else int(self._statistics.counts.sum())

    def update(self, features: Shaped[Tensor, "samples *features"], labels: Int[Tensor, "samples"]) -> Self:
        """Add a batch.

        Args:
            features: as in :func:`separation`; the number of features must be that of earlier batches.
            labels: as in :func:`separation`.

        Returns:
            This accumulator.

        Raises:
            InputError: for labels or shapes that do not fit, NaN or infinite features.
        """
        samples, labels = as_samples(features, labels)
        check_labels(labels, self.classes)
        labels = labels.to(samples.device)
        kept = labels != IGNORED_LABEL
        if not bool(kept.all()):
            samples, labels = samples[kept], labels[kept]
        if len(labels) == 0:
            return self
        self._check_width(samples.shape[1])
        classes, group = torch.unique(labels, return_inverse=True)
        batch = GroupStatistics.of(samples, group, len(classes), keep_factor=self.kind == "pinv")
        if not bool(torch.isfinite(batch.scatters).all()):
            bad = int((~torch.isfinite(samples)).sum())
            raise InputError(
                f"features hold {bad} NaN or infinite entries of {samples.numel()}; look for the layer that made them."
                if bad
                else "features are so large that their squares overflow float64; rescale them."
            )
        self._absorb(batch, classes)
        return self

    def merge(self, other: "SeparationAccumulator") -> Self:
        """Add everything that another accumulator has seen; the other is left as it is.

        Args:
            other: an accumulator of the same kind over other samples.

        Returns:
            This accumulator.

        Raises:
            InputError: if the kinds or the numbers of features differ.
        """
        if other.kind != self.kind:
            raise InputError(f"cannot merge separation of kind {other.kind!r} into kind {self.kind!r}.")
        if other._statistics is not None and other._labels is not None:
            self._check_width(other._statistics.means.shape[1])
            self._absorb(other._statistics, other._labels)
        return self

    def compute(self) -> Float[Tensor, ""]:
        """Compute the separation of everything seen so far.

        Returns:
            D, see :func:`separation`.

        Raises:
            InputError: if fewer than two classes have been seen.
        """
        found = 0 if self._labels is None else len(self._labels)
        if self._statistics is None or found < 2:
            raise InputError(
                f"separation needs samples of at least two classes, but {found} came ({self.samples} samples in all)."
            )
        return self._statistics.log_trace_ratio() if self.kind == "trace" else self._statistics.log_pinv_trace()

    def _check_width(self, features: int) -> None:
        if self._statistics is not None and features != self._statistics.means.shape[1]:
            raise InputError(f"this batch has {features} features, earlier ones had {self._statistics.means.shape[1]}.")

    def _absorb(self, batch: GroupStatistics, classes: Tensor) -> None:
        """Merge statistics whose groups are ``classes`` into the state, growing the set of classes."""
        if self._statistics is None or self._labels is None:
            united, own = classes, batch
        else:
            united = torch.unique(torch.cat([self._labels, classes]))
            own = self._statistics.pool(torch.searchsorted(united, self._labels), len(united))
            own.merge(batch.pool(torch.searchsorted(united, classes), len(united)))
        self._labels, self._statistics = united, own
