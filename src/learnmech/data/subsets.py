"""The fixed choice of samples that all seeds of an experiment share."""

import torch
from torch import Tensor

from learnmech.data.checks import require_integer


def choose_samples(available: int, wanted: int | None, split_seed: int, name: str, minimum: int = 1) -> Tensor:
    """Choose which samples to keep: ``randperm(available)[:wanted]`` from a generator seeded with ``split_seed``.

    The spring-block paper trains on the same 2560 samples for every seed; its split generator is seeded with 1, and this
    is the choice that ``torch.utils.data.random_split`` makes.

    Args:
        available: how many samples there are.
        wanted: how many to keep, or None for all of them in their own order.
        split_seed: the seed of the choice, not of the training.
        name: the argument's name, for the message.
        minimum: the fewest that make sense.

    Returns:
        (wanted,) int64 positions.

    Raises:
        InputError: if ``wanted`` is not an integer from ``minimum`` to ``available``.

    Example:
        >>> choose_samples(10, None, 1, "train_samples").tolist() == list(range(10))
        True
        >>> len(set(choose_samples(10, 4, 1, "train_samples").tolist()))
        4
    """
    if wanted is None:
        return torch.arange(available)
    require_integer(name, wanted, minimum, available, advice=f"The data set has {available} samples in this part.")
    return torch.randperm(available, generator=torch.Generator().manual_seed(split_seed))[:wanted]
