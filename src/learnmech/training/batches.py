"""Where one batch ends and the next begins."""

import itertools

from learnmech.errors import InputError


def steps_in_epoch(samples: int, batch_size: int | None) -> int:
    """Count the steps of an epoch; the last, smaller batch is one of them.

    Args:
        samples: the number of samples.
        batch_size: samples of a step; None for all of them.

    Returns:
        The number of steps.

    Example:
        >>> steps_in_epoch(7, 3), steps_in_epoch(7, None)
        (3, 1)
    """
    return -(-samples // (batch_size or samples))


def batch_bounds(samples: int, batch_size: int | None, *, allow_single: bool = True) -> list[tuple[int, int]]:
    """Cut a number of samples into batches; the last one is smaller if need be, none is dropped.

    Args:
        samples: the number of samples.
        batch_size: samples of a batch; None for all of them.
        allow_single: whether a batch of one sample is fine. BatchNorm cannot train on one: then a last batch of one
            sample is merged into the batch before it.

    Returns:
        First and past-the-last position of each batch.

    Raises:
        InputError: if there are no samples, or single-sample batches cannot be avoided where they are not allowed.

    Example:
        >>> batch_bounds(7, 3), batch_bounds(7, 3, allow_single=False)
        ([(0, 3), (3, 6), (6, 7)], [(0, 3), (3, 7)])
    """
    if samples < 1:
        raise InputError("there are no training samples; give the data set at least one.")
    size = samples if batch_size is None else min(batch_size, samples)
    if size == 1 and not allow_single:
        raise InputError(
            f"a model with BatchNorm cannot be trained on batches of one sample (batch_size={batch_size}, {samples} "
            "training samples); use a larger batch, or a model without BatchNorm."
        )
    edges = [*range(0, samples, size), samples]
    if not allow_single and edges[-1] - edges[-2] == 1:
        del edges[-2]
    return list(itertools.pairwise(edges))
