"""Results on their way to their place, so that being killed at any moment loses no finished cell and leaves no half of one.

All cells of a job are written into ``staging/<job>.<host>.<process>.<random>.part``; this folder is renamed to end in
``.ready``, and its cells are moved to ``cells/`` one by one. Whoever starts next moves on what is ready, and removes parts
that no living process owns.
"""

import contextlib
import os
import re
import secrets
import shutil
import socket
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from learnmech.errors import StorageError
from learnmech.sweep.store import CONFIG, Failure, Record, cell_state, cells_folder, write_cell

_ABANDONED_SECONDS = 3600.0


def commit(root: Path, job_name: str, records: Sequence[Record]) -> dict[str, str]:
    """Write what came out of a job, all of it in one step.

    A finished cell is never overwritten; a recorded failure is, by a newer result.

    Args:
        root: the folder of the sweep.
        job_name: name of the job.
        records: what came out.

    Returns:
        Cell to what went wrong, for the cells that could not be written.

    Raises:
        StorageError: if none could be written.
    """
    problems = {}
    part = root / "staging" / f"{job_name}.{_host()}.{os.getpid()}.{secrets.token_hex(4)}.part"
    with _storage_errors(root):
        try:
            part.mkdir(parents=True)
            for record in records:
                try:
                    _stage(part / record.name, record)
                except StorageError as error:
                    problems[record.name] = str(error)
                    shutil.rmtree(part / record.name, ignore_errors=True)
            ready = part.with_suffix(".ready")
            part.rename(ready)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        _publish(root, ready)
    return problems


def _stage(folder: Path, record: Record) -> None:
    try:
        write_cell(folder, record)
    except StorageError:
        raise
    except Exception as error:  # the history cannot be written as netCDF: the experiment's fault
        shutil.rmtree(folder, ignore_errors=True)
        failure = Failure(f"{type(error).__name__}: {error}", traceback.format_exc())
        write_cell(
            folder, Record(record.name, record.experiment, record.config, failure, record.seconds, record.stack_size)
        )


def recover(root: Path) -> None:
    """Finish or clear away what an earlier process left on its way.

    Args:
        root: the folder of the sweep.

    Raises:
        StorageError: if a finished cell cannot be moved to its place.
    """
    staging = root / "staging"
    if not staging.is_dir():
        return
    with _storage_errors(root):
        for entry in sorted(staging.iterdir()):
            if entry.suffix == ".ready":
                _publish(root, entry)
            elif entry.suffix == ".old" or (entry.suffix == ".part" and _abandoned(entry)):
                shutil.rmtree(entry, ignore_errors=True)


def _publish(root: Path, ready: Path) -> None:
    cells_folder(root).mkdir(parents=True, exist_ok=True)
    try:
        folders = sorted(ready.iterdir())
    except FileNotFoundError:  # another process was faster
        return
    for folder in folders:
        _place(root, folder)
    with contextlib.suppress(OSError):
        ready.rmdir()


def _place(root: Path, folder: Path) -> None:
    target = cells_folder(root) / folder.name
    while True:
        try:
            folder.rename(target)
            return
        except FileNotFoundError:  # another process moved it
            return
        except OSError:
            if not target.exists():
                raise
        if cell_state(root, folder.name) == "done" or not (folder / CONFIG).is_file():
            shutil.rmtree(folder, ignore_errors=True)
            return
        aside = root / "staging" / f"{folder.name}.{secrets.token_hex(4)}.old"
        with contextlib.suppress(FileNotFoundError):
            target.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def _abandoned(part: Path) -> bool:
    """Tell whether no living process writes into a part: by its owner on this machine, else by its age."""
    pieces = part.name.split(".")
    if len(pieces) == 5 and pieces[1] == _host() and pieces[2].isdigit() and os.name == "posix":
        try:
            os.kill(int(pieces[2]), 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
    try:
        return time.time() - part.stat().st_mtime > _ABANDONED_SECONDS
    except FileNotFoundError:
        return False


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname()) or "host"


@contextmanager
def _storage_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"could not write cells into {root}: {error.strerror or error}. Finished cells are intact; free some space "
            "and run the sweep again, it goes on from there."
        ) from error
