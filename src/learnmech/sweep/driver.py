"""Submitting jobs, waiting for them, and submitting again those whose worker died."""

import contextlib
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from queue import Empty, SimpleQueue
from typing import Any

from learnmech.errors import InputError, LearnmechError, StorageError
from learnmech.sweep.executors import Backend, cancel
from learnmech.sweep.plan import Job
from learnmech.sweep.work import Outcome

_UNWRITTEN_JOBS = 3
_WAIT_SECONDS = 0.5


class Driver:
    """Drives jobs to their end.

    A job whose worker died is submitted again, alone, so that none is blamed for another's deed; after some attempts it is
    given up.

    Args:
        backend: where jobs run.
        submit: submits a job to it.
        report: told the outcome of each job.
        give_up: called with a job that kills its workers, and the error; records it and returns its outcome.
    """

    def __init__(
        self,
        backend: Backend,
        submit: Callable[[Job], Any],
        report: Callable[[list[Outcome]], None],
        give_up: Callable[[Job, str], list[Outcome]],
    ) -> None:
        self._backend, self._submit, self._report, self._give_up = backend, submit, report, give_up
        self._waiting: deque[Job] = deque()
        self._suspects: deque[Job] = deque()
        self._running: dict[str, tuple[Any, Job]] = {}
        self._finished: SimpleQueue[str] = SimpleQueue()
        self._deaths: Counter[str] = Counter()
        self._broken = False
        self._unwritten: list[str] = []

    def drive(self, jobs: Sequence[Job]) -> None:
        """Run all jobs.

        Args:
            jobs: what to run.

        Raises:
            StorageError: at the end, if cells could not be written; at once after three such jobs.
            KeyboardInterrupt: on Ctrl-C here or in a worker; jobs that have not begun are cancelled.
        """
        self._waiting.extend(jobs)
        try:
            while self._waiting or self._suspects or self._running:
                self._fill()
                with contextlib.suppress(Empty):
                    name = self._finished.get(timeout=_WAIT_SECONDS if self._running else 0)
                    self._take(*self._running.pop(name))
        except BaseException:
            for future, _ in self._running.values():
                cancel(future)
            raise
        if self._unwritten:
            self._raise_storage_error()

    def _fill(self) -> None:
        if self._broken:
            if self._running:  # they all end with the error that says so
                return
            if self._backend.remake is not None:
                self._backend.remake(max(1, len(self._waiting)))
            self._broken = False
        limit = self._backend.at_once
        while self._waiting and (limit is None or len(self._running) < limit):
            if not self._start(self._waiting):
                return
        if self._suspects and not self._waiting and not self._running:
            self._start(self._suspects)

    def _start(self, jobs: deque[Job]) -> bool:
        job = jobs[0]
        name = job.name
        try:
            future = self._submit(job)
            future.add_done_callback(lambda _: self._finished.put(name))
        except self._backend.died:
            self._broken = True
            return False
        except Exception as error:
            raise _cannot_run(error) from error
        jobs.popleft()
        self._running[name] = (future, job)
        return True

    def _take(self, future: Any, job: Job) -> None:
        try:
            outcomes = future.result()
        except self._backend.died as error:
            self._died(job, error)
            return
        except CancelledError as error:
            raise LearnmechError(
                "the executor dropped a job: its scheduler or pool was closed. Finished cells are safe; run the sweep again."
            ) from error
        except InputError:  # the experiment cannot be imported there: no job can be run
            raise
        except StorageError as error:
            outcomes = [Outcome(cell.name, "unwritten", str(error)) for cell in job.cells]
        except Exception as error:
            raise _cannot_run(error) from error
        self._finish(outcomes)

    def _died(self, job: Job, error: BaseException) -> None:
        self._broken = self._backend.remake is not None
        self._deaths[job.name] += 1
        if self._deaths[job.name] >= self._backend.attempts:
            text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            self._finish(self._give_up(job, f"the worker died each time this cell was run: {text}"))
        else:
            self._suspects.append(job)

    def _finish(self, outcomes: list[Outcome]) -> None:
        outcomes = [Outcome(*outcome) for outcome in outcomes]
        self._report(outcomes)
        problems = [outcome.message for outcome in outcomes if outcome.state == "unwritten"]
        if problems:
            self._unwritten.append(problems[0])
            if len(self._unwritten) >= _UNWRITTEN_JOBS:
                self._raise_storage_error()

    def _raise_storage_error(self) -> None:
        raise StorageError(
            f"cells of {len(self._unwritten)} jobs could not be written: {self._unwritten[0]} Finished cells are safe; "
            "run the sweep again once there is room."
        )


def _cannot_run(error: Exception) -> LearnmechError:
    return LearnmechError(
        f"the executor could not run a job: {type(error).__name__}: {error}. Finished cells are safe; run the sweep again "
        "once this is mended. An experiment must be importable by the workers, or be sent by an executor that pickles "
        "functions by value ('processes' and Dask do)."
    )
