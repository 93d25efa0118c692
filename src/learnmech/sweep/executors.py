"""Where jobs run: here, in processes of this machine, on a Dask cluster, or on any object with ``.submit``."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from learnmech.errors import InputError


@dataclass
class Backend:
    """An executor as the driver sees it.

    Attributes:
        submit: called with a function and its arguments, returns a future.
        at_once: jobs to keep submitted; None submits all.
        died: kinds of error that say that the worker died, not that the job failed.
        attempts: how often a job may end so before it is given up.
        remake: starts new workers after that, at most as many as given; None if the executor does so itself.
        close: called at the end, with whether the sweep was broken off.
    """

    submit: Callable[..., Any]
    at_once: int | None = None
    died: tuple[type[BaseException], ...] = ()
    attempts: int = 3
    remake: Callable[[int], None] | None = None
    close: Callable[[bool], None] = lambda broken_off: None


@contextmanager
def open_backend(executor: Any, workers: int | None, threads: int, jobs: int) -> Iterator[Backend]:
    """Start or join an executor, and stop what was started.

    Args:
        executor: None, "processes", "dask", the address of a scheduler, or an object with ``submit``.
        workers: processes to start, for "processes" and "dask"; None takes one a usable CPU.
        threads: threads for torch in each.
        jobs: jobs to come; no more processes than that are started.

    Yields:
        The backend.

    Raises:
        InputError: if there is no such executor, or ``workers`` means nothing to it.
    """
    backend = _make(executor, workers, threads, jobs)
    broken_off = True
    try:
        yield backend
        broken_off = False
    finally:
        backend.close(broken_off)


def _make(executor: Any, workers: int | None, threads: int, jobs: int) -> Backend:
    if workers is not None:
        if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
            raise InputError(f"workers must be a positive integer, got {workers!r}.")
        if executor not in ("processes", "dask"):
            raise InputError(
                f"workers={workers} means something for executor='processes' and 'dask' only, not for {executor!r}."
            )
    if executor is None:
        return Backend(_run_here, at_once=1)
    if executor == "processes":
        from learnmech.sweep.processes import open_processes

        return open_processes(min(workers or usable_cpus(), jobs), threads)
    if executor == "dask":
        from learnmech.sweep.dask_cluster import start_cluster

        return start_cluster(min(workers or usable_cpus(), jobs), threads)
    if isinstance(executor, str) and "://" in executor:
        from learnmech.sweep.dask_cluster import join_cluster

        return join_cluster(executor)
    if isinstance(executor, str) or not callable(getattr(executor, "submit", None)):
        raise InputError(
            "executor must be None, 'processes', 'dask', the address of a Dask scheduler such as 'tcp://host:8786', or an "
            f"object with submit(function, *arguments) that returns a future; got {executor!r}."
        )
    if type(executor).__module__.partition(".")[0] == "distributed":
        from learnmech.sweep.dask_cluster import use_client

        return use_client(executor)
    return Backend(executor.submit)


def usable_cpus() -> int:
    """Count the CPUs that this process may use: affinity and container limits are respected.

    Returns:
        At least 1.
    """
    from joblib.externals.loky import cpu_count

    return int(cpu_count())


def _run_here(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
    future: Future[Any] = Future()
    try:
        future.set_result(function(*arguments))
    except Exception as error:
        future.set_exception(error)
    return future


def cancel(future: Any) -> None:
    """Ask a future not to begin, if it has not.

    Args:
        future: the future.
    """
    with contextlib.suppress(Exception):
        future.cancel()
