"""A progress bar for downloads, shown only where a person is looking."""

import sys
from typing import Any


class DownloadBar:
    """What pooch asks of a progress bar, drawn by rich on standard error.

    Args:
        label: what is being fetched.

    Attributes:
        total: bytes to come, set by pooch.
    """

    def __init__(self, label: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(label, total=None)
        self.total = 0
        self._bar.start()

    def update(self, count: int) -> None:
        """Count bytes that have come.

        Args:
            count: how many since the last call.
        """
        self._bar.update(self._task, total=self.total or None, advance=count)

    def reset(self) -> None:
        """Set the count to zero, as pooch does once before the end."""
        self._bar.update(self._task, completed=0)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.stop()


def download_bar(label: str) -> Any:
    """Give a progress bar if standard error is a terminal.

    Args:
        label: what is being fetched.

    Returns:
        The bar, or False for none, as pooch wants it.
    """
    return DownloadBar(label) if sys.stderr.isatty() else False
