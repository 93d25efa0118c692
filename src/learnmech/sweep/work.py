"""What a worker does: compute the cells of one job and write them to the folder of the sweep."""

import random
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr

from learnmech import history as histories
from learnmech.errors import HistoryError
from learnmech.sweep.grid import Cell
from learnmech.sweep.plan import Job
from learnmech.sweep.reference import Experiment, resolve
from learnmech.sweep.staging import commit
from learnmech.sweep.store import Failure, Record, cell_state


class Outcome(NamedTuple):
    """How one cell ended.

    Attributes:
        name: the cell.
        state: "done", "failed", or "unwritten" if the disk did not take it.
        message: what went wrong.
    """

    name: str
    state: str
    message: str = ""


def run_job(
    experiment: str | Experiment, reference: str, job: Job, out: str, redo: frozenset[str], threads: int
) -> list[Outcome]:
    """Compute what is missing of a job and write it; what is done already is left alone.

    Of a stack of which a cell is missing all are computed, so that the numbers are those of an uninterrupted sweep.

    Args:
        experiment: the experiment, or its name where it can be imported.
        reference: name of the experiment.
        job: the cells.
        out: the folder of the sweep, on a disk that client and workers share.
        redo: failed cells to repeat.
        threads: threads for torch.

    Returns:
        The outcome of each cell. Raises what :func:`learnmech.sweep.reference.resolve` and
        :func:`learnmech.sweep.staging.commit` raise; errors of the experiment are recorded, not raised.
    """
    root = Path(out)
    states = {cell.name: cell_state(root, cell.name) for cell in job.cells}
    wanted = {name for name, state in states.items() if state is None or (state == "failed" and name in redo)}
    if wanted:
        call = resolve(experiment) if isinstance(experiment, str) else experiment
        with _torch_threads(threads):
            records = _compute(call, reference, job)
        problems = commit(root, job.name, [record for record in records if record.name in wanted])
        for record in records:
            if record.name in wanted:
                states[record.name] = cell_state(root, record.name)
    else:
        problems = {}
    return [
        Outcome(name, "unwritten", problems[name]) if name in problems else Outcome(name, state or "unwritten")
        for name, state in states.items()
    ]


def record_failure(reference: str, job: Job, out: Path, error: str) -> list[Outcome]:
    """Record all missing cells of a job as failed, from outside: the worker died.

    Args:
        reference: name of the experiment.
        job: the cells.
        out: the folder of the sweep.
        error: what happened.

    Returns:
        The outcome of each cell.
    """
    failure = Failure(error, error + "\n")
    missing = [cell for cell in job.cells if cell_state(out, cell.name) is None]
    commit(out, job.name, [Record(cell.name, reference, cell.config, failure, 0.0) for cell in missing])
    return [Outcome(cell.name, cell_state(out, cell.name) or "unwritten", error) for cell in job.cells]


def _compute(call: Experiment, reference: str, job: Job) -> list[Record]:
    if job.stacked:
        started = time.perf_counter()
        results = _run_stack(call, reference, job)
        if results is not None:
            share = (time.perf_counter() - started) / len(job.cells)
            return [
                Record(cell.name, reference, cell.config, result, share, len(job.cells))
                for cell, result in zip(job.cells, results, strict=True)
            ]
    records = []
    for cell in job.cells:
        started = time.perf_counter()
        result = _run_cell(call, reference, cell)
        records.append(Record(cell.name, reference, cell.config, result, time.perf_counter() - started))
    return records


def _run_cell(call: Experiment, reference: str, cell: Cell) -> xr.Dataset | Failure:
    try:
        with _own_randomness(cell.name):
            return _as_history(call(dict(cell.config)), reference, cell)
    except Exception as error:
        return _failure(error)


def _run_stack(call: Any, reference: str, job: Job) -> list[xr.Dataset | Failure] | None:
    """Compute a stack; None if it failed as a whole, so that each cell is then tried on its own."""
    try:
        with _own_randomness(job.name):
            returned: Sequence[Any] = list(call.run_stacked([dict(cell.config) for cell in job.cells]))
    except Exception:
        return None
    if len(returned) != len(job.cells):
        error = HistoryError(f"run_stacked returned {len(returned)} results for {len(job.cells)} configurations.")
        return [_failure(error)] * len(job.cells)
    results: list[xr.Dataset | Failure] = []
    for cell, result in zip(job.cells, returned, strict=True):
        try:
            if isinstance(result, Exception):
                raise result
            results.append(_as_history(result, reference, cell))
        except Exception as error:
            results.append(_failure(error))
    return results


def _as_history(returned: Any, reference: str, cell: Cell) -> xr.Dataset:
    if isinstance(returned, Mapping) and not isinstance(returned, xr.Dataset):
        returned = _from_numbers(returned, reference, cell.config)
    history = histories.validate(returned)
    taken = sorted(set(map(str, [*history.dims, *history.data_vars])) & set(cell.point))
    if taken:
        raise HistoryError(f"the history of a cell already has {taken}, the name of an axis of the sweep; rename one.")
    return history


def _from_numbers(values: Mapping[str, Any], reference: str, config: Mapping[str, Any]) -> xr.Dataset:
    variables = {}
    for name, value in values.items():
        plain = value.item() if hasattr(value, "item") else value
        if not isinstance(plain, Real):
            raise HistoryError(
                f"an experiment returns a history or a mapping of names to numbers; {name!r} is {value!r}."
            )
        meaning = {"long_name": str(name), "scale": "as returned", "source": reference}
        variables[str(name)] = ((), plain, meaning)
    return histories.build(variables, {}, config=config)


def _failure(error: Exception) -> Failure:
    return Failure(
        " ".join(f"{type(error).__name__}: {error}".split())[:500],
        "".join(traceback.format_exception(error)),
    )


@contextmanager
def _own_randomness(name: str) -> Iterator[None]:
    """Seed the global generators from the name, so that what ran before in this process makes no difference."""
    seed = int(name, 16) % 2**32
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # asking for its state would start CUDA
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if started else []):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002


class _Threads:
    lock = threading.Lock()
    users = 0
    before = 1


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """Set the threads of torch; several jobs of one process, in threads of their own, share the setting."""
    with _Threads.lock:
        if _Threads.users == 0:
            _Threads.before = torch.get_num_threads()
        _Threads.users += 1
    torch.set_num_threads(count)
    try:
        yield
    finally:
        with _Threads.lock:
            _Threads.users -= 1
            if _Threads.users == 0:
                torch.set_num_threads(_Threads.before)
