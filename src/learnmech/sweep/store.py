"""The folder of a sweep: what stands in it, and how a finished cell gets there in one step.

``sweep.json`` says what is swept. ``cells/<name>/`` holds a finished cell: ``config.json`` and ``history.nc``, or
``failed.json`` and ``error.txt``. ``staging/`` holds results on their way.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import xarray as xr

from learnmech import history as histories
from learnmech.errors import HistoryError, InputError
from learnmech.files import write_atomically

State = Literal["done", "failed"]

DESCRIPTION, HISTORY, CONFIG, FAILURE, TRACEBACK = "sweep.json", "history.nc", "config.json", "failed.json", "error.txt"


@dataclass(frozen=True)
class Failure:
    """Why a cell has no history.

    Attributes:
        error: kind and message, one line.
        traceback: where it happened.
    """

    error: str
    traceback: str


@dataclass(frozen=True)
class Record:
    """What came out of one cell.

    Attributes:
        name: the cell.
        experiment: name of the experiment.
        config: what it was called with.
        result: its history, or why there is none.
        seconds: time it took; for one of a stack its share.
        stack_size: cells computed with it as one.
    """

    name: str
    experiment: str
    config: dict[str, Any]
    result: xr.Dataset | Failure
    seconds: float
    stack_size: int = 1


def cells_folder(root: Path) -> Path:
    """Give the folder of finished cells.

    Args:
        root: the folder of the sweep.

    Returns:
        The folder.
    """
    return root / "cells"


def cell_state(root: Path, name: str) -> State | None:
    """Say how a cell stands.

    Args:
        root: the folder of the sweep.
        name: the cell.

    Returns:
        "done", "failed", or None if it is missing.
    """
    folder = cells_folder(root) / name
    if (folder / HISTORY).is_file():
        return "done"
    return "failed" if (folder / FAILURE).is_file() else None


def write_cell(folder: Path, record: Record) -> None:
    """Write the files of one cell.

    Args:
        folder: where to.
        record: what came out. Raises what :func:`learnmech.files.write_atomically` and
            :func:`learnmech.history.save` raise.
    """
    about = {
        "experiment": record.experiment,
        "config": record.config,
        "seconds": record.seconds,
        "stack_size": record.stack_size,
    }
    if isinstance(record.result, Failure):
        write_atomically(folder / TRACEBACK, record.result.traceback)
        write_atomically(folder / FAILURE, _json({"error": record.result.error, **about}))
    else:
        history = record.result.assign_attrs(seconds=record.seconds, stack_size=record.stack_size)
        histories.save(history, folder / HISTORY)
    write_atomically(folder / CONFIG, _json(about))


def read_json(path: Path) -> dict[str, Any]:
    """Read one of the JSON files.

    Args:
        path: the file.

    Returns:
        What it holds.

    Raises:
        HistoryError: if it is not one JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HistoryError(f"{path} could not be read: {error}. Remove the folder {path.parent} to redo it.") from error
    if not isinstance(content, dict):
        raise HistoryError(f"{path} must hold one JSON object. Remove the folder {path.parent} to redo it.")
    return content


def write_description(root: Path, description: dict[str, Any]) -> None:
    """Write ``sweep.json`` if it says something else so far.

    Args:
        root: the folder of the sweep.
        description: what is swept.

    Raises:
        InputError: if the folder holds a sweep of another experiment.
    """
    path = root / DESCRIPTION
    if path.is_file():
        stored = read_description(root)
        before, now = (str(one["experiment"]).partition("#")[0] for one in (stored, description))
        if before != now:
            raise InputError(
                f"the folder {root} holds a sweep of {before!r}, not of {now!r}; give each experiment a folder of its own."
            )
        if stored == description:
            return
    write_atomically(path, _json(description))


def read_description(root: str | Path) -> dict[str, Any]:
    """Read ``sweep.json``.

    Args:
        root: the folder of a sweep.

    Returns:
        ``experiment``, ``obstacle``, ``name``, ``grid``, ``fixed`` and ``stack``.

    Raises:
        InputError: if there is none.
        HistoryError: if it cannot be read.
    """
    path = Path(root) / DESCRIPTION
    if not path.is_file():
        raise InputError(f"there is no sweep in {root}; expected a folder that Sweep(...).run(out=...) wrote.")
    description = read_json(path)
    missing = {"experiment", "grid", "fixed"} - set(description)
    if missing:
        raise HistoryError(f"{path} lacks {sorted(missing)}; it was not written by learnmech, or by another version.")
    return description


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1) + "\n"
