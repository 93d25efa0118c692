"""Ends that no weights reach, as far as that can be told beforehand."""

from itertools import pairwise

import numpy as np
from jaxtyping import Float

from learnmech.errors import InputError
from learnmech.leaky.geodesic_passes import LeakyPasses

Array = np.ndarray
_ALIKE, _SAME_END = 1e-13, 1e-9


def require_reachable(passes: LeakyPasses, goal: Float[Array, "width samples"]) -> None:
    """Refuse ends that no weights reach, for each of three reasons.

    Every column goes through the same net, so that equal columns stay equal. Without bias the net is homogeneous: positive
    multiples of a column stay so, and a column without positive entries only leaks.

    Args:
        passes: the net and its start.
        goal: representation that the path should end at.

    Raises:
        InputError: naming the columns.
    """
    start = passes.start
    scales = np.ones(passes.samples)
    if not passes.bias:
        lengths = np.linalg.norm(start, axis=0)
        scales = np.where(lengths > 0, lengths, 1.0)
        dead = ~(start > 0).any(axis=0)
        leaked = float(np.prod(passes.skips)) * start
        wrong = dead & (np.abs(goal - leaked).max(axis=0) > _SAME_END * max(float(np.abs(start).max()), 1e-300))
        if wrong.any():
            raise InputError(
                f"without a bias, columns of A0 without a positive entry only leak, by the factor {float(np.prod(passes.skips)):.4g}, "
                f"and can not end elsewhere: columns {np.flatnonzero(wrong)[:8].tolist()}. Allow a bias, or change these columns."
            )
    directions, ends = start / scales, goal / scales
    order = np.lexsort(directions)
    for left, right in pairwise(order.tolist()):
        alike = np.abs(directions[:, left] - directions[:, right]).max() <= _ALIKE * np.abs(directions[:, left]).max()
        apart = np.abs(ends[:, left] - ends[:, right]).max() > _SAME_END * max(
            np.abs(ends[:, [left, right]]).max(), 1e-300
        )
        if alike and apart:
            relation = "are equal" if passes.bias else "are equal or positive multiples"
            raise InputError(
                f"columns {min(left, right)} and {max(left, right)} of A0 {relation}, and so they stay through the net, but A1 parts "
                "them. Merge these samples, or change one of them."
            )
