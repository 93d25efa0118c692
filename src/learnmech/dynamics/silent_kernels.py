"""Silent alignment: whether the tangent kernel has its final shape before the loss falls."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from learnmech.errors import InputError


@dataclass(frozen=True)
class SilentAlignment:
    """How far the kernel had got when the loss had barely fallen.

    Attributes:
        cosine: between the kernel then and at the end, 1 for the same shape.
        scale: size of the kernel then over that at the end (Frobenius norms).
        index: position of the moment in the curve.
        share: loss then over the first loss.
    """

    cosine: float
    scale: float
    index: int
    share: float

    def __str__(self) -> str:
        return (
            f"when the loss was at {self.share:.0%} of its start, the kernel had a cosine of {self.cosine:.3f} with the final "
            f"one and {self.scale:.2g} of its size"
        )


def silent_alignment(kernels: Any, losses: Any, *, share: float = 0.9) -> SilentAlignment:
    r"""Measure silent alignment: compare the kernel at the first moment at which the loss is below a share of its start.

    .. math:: \cos = \frac{\langle K_t, K_\infty\rangle_F}{|K_t|_F\, |K_\infty|_F}, \qquad
        \text{scale} = |K_t|_F / |K_\infty|_F.

    From a small start on one direction the kernel first turns, at little loss of loss, and then grows in a fixed shape: a
    cosine near 1 and a small scale. A lazy run has both near 1. If several modes are learned one after another, the kernel
    turns again at each, and the cosine at the first is no sign of laziness.

    Source: Atanasov, Bordelon and Pehlevan 2021 (arXiv 2111.00034); the moment "90 % of the loss" is ours.

    Args:
        kernels: over time (time, samples, samples), the last one final: the run must have been trained to its end.
        losses: at the same times (time,).
        share: of the first loss, between 0 and 1.

    Returns:
        Cosine, scale and moment.

    Raises:
        InputError: if shapes do not fit, a number is not finite, a kernel is zero, or the loss never falls that far.

    Example:
        >>> early, final = np.diag([0.1, 0.0]), np.diag([2.0, 0.0])
        >>> silent_alignment(np.stack([np.eye(2) / 10, early, final]), [1.0, 0.85, 0.0]).cosine
        1.0
    """
    stack, curve = np.asarray(kernels, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    if stack.ndim != 3 or stack.shape[1] != stack.shape[2] or curve.shape != stack.shape[:1] or len(curve) < 2:
        raise InputError(
            f"expected kernels (time, samples, samples) and losses (time,), got shapes {stack.shape} and {curve.shape}."
        )
    if not (np.isfinite(stack).all() and np.isfinite(curve).all()):
        raise InputError("kernels and losses must be finite; leave out what came after divergence.")
    if not 0 < share < 1:
        raise InputError(f"share must lie between 0 and 1, got {share!r}.")
    reached = np.flatnonzero(curve <= share * curve[0])
    if len(reached) == 0:
        raise InputError(f"the loss never fell to {share:.0%} of its start: train longer or take a larger share.")
    index = int(reached[0])
    then, final = stack[index], stack[-1]
    sizes = float(np.linalg.norm(then)), float(np.linalg.norm(final))
    if min(sizes) == 0:
        raise InputError("a kernel is zero: no parameter changes the output there, so it has no shape.")
    cosine = min(float((then * final).sum()) / (sizes[0] * sizes[1]), 1.0)
    return SilentAlignment(cosine, sizes[0] / sizes[1], index, float(curve[index] / curve[0]))
