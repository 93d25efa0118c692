"""The sweep: an experiment over a grid of settings."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from learnmech.errors import InputError
from learnmech.files import require_writable_folder
from learnmech.sweep.assembly import collect
from learnmech.sweep.driver import Driver
from learnmech.sweep.executors import open_backend
from learnmech.sweep.grid import Cell, read_grid, read_settings, span_cells
from learnmech.sweep.plan import Job, plan_jobs, take_shard
from learnmech.sweep.progress import Tally, show_progress
from learnmech.sweep.reference import refer
from learnmech.sweep.staging import recover
from learnmech.sweep.store import cell_state, read_description, write_description
from learnmech.sweep.work import record_failure, run_job


class Sweep:
    """An experiment over a grid of settings: one folder a cell, on any executor, collected to one history.

    Args:
        experiment: called with one configuration, a mapping; returns a history, or a mapping of names to numbers. A
            function, or an instance of a dataclass with ``__call__``, at the top level of a module, or its name
            ``"module:qualname"``. With the attributes ``stackable`` (names of the axes that may be computed as one) and
            ``run_stacked(configs)`` (returns a history or an exception for each, in order), and maybe ``group_size``
            (most cells in one stack; 64), it computes many cells at once.
        grid: axis to its values: numbers or strings, all different.
        fixed: settings that all cells share.
        name: what the sweep is called in progress bars and histories.

    Attributes:
        axes: axis to its values.
        fixed: the fixed settings, as JSON holds them.
        cells: all cells.
        name: the name.

    Raises:
        InputError: if the grid, the settings or the experiment do not fit.

    Example:
        >>> import tempfile
        >>> def area(config):
        ...     return {"area": config["width"] * config["height"]}
        >>> sweep = Sweep(area, {"width": [1, 2, 3], "height": [10, 20]})
        >>> sweep.run(out=tempfile.mkdtemp())["area"].values.tolist()
        [[10, 20], [20, 40], [30, 60]]
    """

    def __init__(
        self,
        experiment: Any,
        grid: Mapping[str, Iterable[Any]],
        *,
        fixed: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        self.experiment, self.reference = refer(experiment)
        self.axes = read_grid(grid)
        self.fixed = read_settings(fixed)
        self.cells: tuple[Cell, ...] = span_cells(self.reference.text, self.axes, self.fixed)
        self.name = name or self.reference.base.rpartition(":")[2]

    def __repr__(self) -> str:
        axes = " x ".join(f"{name} ({len(values)})" for name, values in self.axes.items())
        return f"<Sweep {self.name!r} of {self.reference.text}: {axes} = {len(self.cells)} cells>"

    @classmethod
    def stored(cls, out: str | Path) -> "Sweep":
        """Read back the sweep that a folder holds.

        Args:
            out: the folder.

        Returns:
            The sweep.

        Raises:
            InputError: if there is none, or its experiment cannot be imported.
        """
        description = read_description(out)
        if description.get("obstacle"):
            raise InputError(
                f"the experiment {description['experiment']!r} of the sweep in {out} cannot be run from its stored name: "
                f"{description['obstacle']}. Run it again from the program that made it: Sweep(...).run(out=...) goes on."
            )
        return cls(
            description["experiment"],
            dict(description["grid"]),
            fixed=description["fixed"],
            name=description.get("name"),
        )

    def prepare(self, out: str | Path, *, stack: bool = True) -> Path:
        """Store what is to be swept without computing anything, so that ``learnmech sweep run`` can.

        Args:
            out: the folder of the sweep.
            stack: compute stackable cells as one.

        Returns:
            The folder. Raises what :meth:`run` raises for a folder that does not fit.
        """
        root = require_writable_folder(Path(out).absolute())
        write_description(root, self._description(stack))
        return root

    def run(
        self,
        executor: Any = None,
        out: str | Path | None = None,
        *,
        shard: tuple[int, int] | None = None,
        retry: bool = False,
        stack: bool = True,
        workers: int | None = None,
        threads: int = 1,
        on_cell: Callable[[int, int], None] | None = None,
    ) -> xr.Dataset:
        """Compute the cells that are missing and collect all.

        Called again it goes on: after Ctrl-C, after a crash, or with a larger grid. Cells are written by the workers, into
        a folder that all of them must see.

        Args:
            executor: None runs the jobs here, one after another; "processes" in processes of this machine; "dask" on a
                Dask cluster started here; "tcp://host:port" on a running one; or any object with
                ``submit(function, *arguments)`` that returns a future.
            out: the folder of the sweep.
            shard: (i, n) with 0 <= i < n: run only the i-th of n shares of the jobs.
            retry: also repeat the cells that failed.
            stack: compute stackable cells as one.
            workers: processes for "processes" and "dask"; by default one a usable CPU.
            threads: threads for torch in each job, in this process too; sums may round differently on another number.
            on_cell: called with the cells settled and all cells, those of the shard, at the start and after each job.

        Returns:
            The cells that are there, see :func:`learnmech.sweep.collect`.

        Raises:
            InputError: if an argument does not fit, or ``out`` holds a sweep of another experiment.
            KeyboardInterrupt: on Ctrl-C; jobs that have not begun are cancelled, finished cells are safe.
        """
        if out is None:
            raise InputError("out is missing: name the folder that the cells go to, such as out='runs/sweep'.")
        if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
            raise InputError(f"threads must be a positive integer, got {threads!r}.")
        root = Path(out).absolute()
        jobs = take_shard(plan_jobs(self.cells, self.experiment, stack=stack), shard)
        self.prepare(root, stack=stack)
        recover(root)
        todo, tally, redo = self._sort(root, jobs, retry=retry)
        with show_progress(self.name, tally, on_cell) as report:
            try:
                if todo:
                    self._drive(todo, redo, root, executor, workers, threads, report)
            except KeyboardInterrupt as interrupt:
                interrupt.add_note(
                    f"{tally.settled} of {tally.total} cells are in {root}; run the sweep again to go on."
                )
                raise
        return collect(root)

    def _drive(
        self,
        jobs: list[Job],
        redo: frozenset[str],
        root: Path,
        executor: Any,
        workers: int | None,
        threads: int,
        report: Callable[[list[Any]], None],
    ) -> None:
        text = self.reference.text
        call = self.experiment if self.reference.obstacle else text
        with open_backend(executor, workers, threads, len(jobs)) as backend:
            Driver(
                backend,
                lambda job: backend.submit(run_job, call, text, job, str(root), redo, threads),
                report,
                lambda job, error: record_failure(text, job, root, error),
            ).drive(jobs)

    def _sort(self, root: Path, jobs: list[Job], *, retry: bool) -> tuple[list[Job], Tally, frozenset[str]]:
        tally, todo, redo = Tally(), [], set()
        for job in jobs:
            states = {cell.name: cell_state(root, cell.name) for cell in job.cells}
            again = {name for name, state in states.items() if state == "failed"} if retry else set()
            redo |= again
            open_cells = again | {name for name, state in states.items() if state is None}
            tally.total += len(states)
            tally.take({name: state or "" for name, state in states.items() if name not in open_cells})
            if open_cells:
                todo.append(job)
        return todo, tally, frozenset(redo)

    def _description(self, stack: bool) -> dict[str, Any]:
        from learnmech import __version__

        return {
            "name": self.name,
            "experiment": self.reference.text,
            "obstacle": self.reference.obstacle,
            "grid": [[name, list(values)] for name, values in self.axes.items()],
            "fixed": self.fixed,
            "stack": stack,
            "learnmech_version": __version__,
        }


def retry(out: str | Path, executor: Any = None, *, workers: int | None = None, threads: int = 1) -> xr.Dataset:
    """Repeat the failed cells of a stored sweep, and run those that are missing.

    Args:
        out: the folder of the sweep.
        executor: see :meth:`Sweep.run`.
        workers: see :meth:`Sweep.run`.
        threads: see :meth:`Sweep.run`.

    Returns:
        The cells that are there.
    """
    stack = bool(read_description(out).get("stack", True))
    return Sweep.stored(out).run(executor, out, retry=True, stack=stack, workers=workers, threads=threads)
