"""What the commands share: exit codes, common options, one line for each error.

Only typer is imported here, so that help answers at once.
"""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer

EXIT_INPUT, EXIT_DATA, EXIT_STORAGE, EXIT_DIVERGED, EXIT_FAILED_CELLS, EXIT_INTERRUPTED = 2, 3, 4, 5, 6, 130
EXIT_FAILED_CLAIM = 7

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else there.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads for torch; small nets are fastest on one.")]


@contextmanager
def show_status(text: str, *, quiet: bool) -> Iterator[None]:
    """Show on standard error, if that is a terminal, that something is going on.

    Args:
        text: what is going on.
        quiet: whether to be silent.

    Yields:
        Nothing.
    """
    if quiet or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


def say(quiet: bool, text: str) -> None:
    """Print a line, unless only JSON is wanted.

    Args:
        quiet: whether to be silent.
        text: the line.
    """
    if not quiet:
        typer.echo(text)


def set_threads(threads: int) -> None:
    """Set torch's number of threads in this process and those it starts.

    Args:
        threads: the number.
    """
    # Before torch is imported: spinning threads on busy cores make small nets many times slower.
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    import torch

    torch.set_num_threads(threads)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turn our own errors into one line and an exit code, and warnings into one line each.

    Yields:
        Nothing.

    Raises:
        Exit: with the exit code of the error.
    """
    from learnmech.errors import DataError, LearnmechError, LearnmechWarning, StorageError

    def show(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        typer.echo(f"{'note' if issubclass(category, LearnmechWarning) else category.__name__}: {message}", err=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        try:
            yield
        except DataError as error:
            _fail(error, EXIT_DATA)
        except StorageError as error:
            _fail(error, EXIT_STORAGE)
        except LearnmechError as error:
            _fail(error, EXIT_INPUT)
        except KeyboardInterrupt:
            typer.echo("stopped by Ctrl-C.", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None


def _fail(error: Exception, code: int) -> NoReturn:
    typer.echo(f"error: {error}", err=True)
    raise typer.Exit(code) from None


def plain(value: Any) -> Any:
    """Turn what JSON cannot hold, NaN and infinities, into None.

    Args:
        value: nested dictionaries, lists and plain values.

    Returns:
        The same without them.
    """
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if (isinstance(value, float) and value != value) or value in (float("inf"), float("-inf")):
        return None
    return value


def read_shard(text: str) -> tuple[int, int] | None:
    """Read ``I/N``, a share of a job array.

    Args:
        text: such as ``0/4``; empty for no shares.

    Returns:
        Both numbers.

    Raises:
        InputError: if it is not of this form, with I from 0 to N - 1.
    """
    from learnmech.errors import InputError

    if not text:
        return None
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise InputError(f"--shard must be I/N with 0 <= I < N, such as 0/4 to 3/4 for four shares, got {text!r}.")
    return int(number), int(count)
