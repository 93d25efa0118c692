"""A progress bar for long work, shown only where a person is looking."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def terminal_bar(label: str, total: int, *, least: int = 0) -> Iterator[Callable[[int], None]]:
    """Show progress on standard error if that is a terminal and the work is long.

    Args:
        label: what is being done.
        total: how many units of work there are.
        least: work of fewer units is too short for a bar.

    Yields:
        A function to call with the number of units done since its last call.
    """
    if total < least or not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.advance(task, done)
