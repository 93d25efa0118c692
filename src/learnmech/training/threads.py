"""torch's number of threads, for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from learnmech.errors import InputError


@contextmanager
def thread_count(threads: int | None) -> Iterator[None]:
    """Run with a number of torch's threads, and put the caller's back.

    Args:
        threads: the number; None leaves it.

    Yields:
        Nothing.

    Raises:
        InputError: if it is not a positive integer.

    Example:
        >>> before = torch.get_num_threads()
        >>> with thread_count(1):
        ...     torch.get_num_threads()
        1
        >>> torch.get_num_threads() == before
        True
    """
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise InputError(f"threads must be a positive integer, or None to leave torch's number, got {threads!r}.")
    before = torch.get_num_threads()
    if threads is not None and threads != before:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
