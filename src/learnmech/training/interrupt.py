"""Ctrl-C that waits for the end of a step."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class InterruptFlag:
    """Remember the first Ctrl-C instead of raising; a second one raises at once, as without this.

    In another thread than the main one, or where Ctrl-C is ignored or kills the process, nothing is changed.

    Example:
        >>> with InterruptFlag() as interrupt:
        ...     signal.raise_signal(signal.SIGINT)
        ...     interrupt.requested
        True
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: Any = None

    def deliver(self) -> None:
        """Send the Ctrl-C on to whoever handles it now."""
        signal.raise_signal(signal.SIGINT)

    def __enter__(self) -> "InterruptFlag":
        if threading.current_thread() is threading.main_thread():
            previous = signal.getsignal(signal.SIGINT)
            if callable(previous):
                self._previous = previous
                signal.signal(signal.SIGINT, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None
