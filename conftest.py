"""The Python blocks of README.md and docs/*.md are tests: each page runs from top to bottom in a folder of its own."""

import os
import signal
import tempfile
from pathlib import Path
from typing import Any

from sybil import Sybil
from sybil.parsers.myst import PythonCodeBlockParser, SkipParser

# Files that take a minute and more come first, so that no worker is left alone with one at the end.
LONG = (
    "test_benchmarks.py",
    "test_cli.py",
    "test_examples.py",
    "test_sweep_processes.py",
    "test_sweep_dask.py",
    "test_twin.py",
)

collect_ignore = ["docs/_build"]  # holds copies of the examples


def _enter_empty_folder(namespace: dict[str, Any]) -> None:
    namespace["_folder"], namespace["_home"] = tempfile.TemporaryDirectory(), Path.cwd()
    os.chdir(namespace["_folder"].name)


def _leave_folder(namespace: dict[str, Any]) -> None:
    os.chdir(namespace["_home"])
    namespace["_folder"].cleanup()


def pytest_configure() -> None:
    """Take Ctrl-C again where the suite was started in the background, which ignores it: many tests send it to themselves."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Put long files first; the order inside a file stays."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/*.md"],
    setup=_enter_empty_folder,
    teardown=_leave_folder,
).pytest()
