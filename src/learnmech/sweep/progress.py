"""How far a running sweep is: a count, a bar on a terminal, and the caller's function."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from learnmech.sweep.work import Outcome


@dataclass
class Tally:
    """A count of cells.

    Attributes:
        total: all cells.
        states: cell to "done" or "failed".
    """

    total: int = 0
    states: dict[str, str] = field(default_factory=dict)

    @property
    def settled(self) -> int:
        """Cells that are done or failed."""
        return len(self.states)

    @property
    def failed(self) -> int:
        """Cells that failed."""
        return sum(state == "failed" for state in self.states.values())

    def take(self, states: Mapping[str, str]) -> None:
        """Count cells; those in no final state are left out.

        Args:
            states: cell to state.
        """
        self.states.update({name: state for name, state in states.items() if state in ("done", "failed")})


@contextmanager
def show_progress(
    label: str, tally: Tally, on_cell: Callable[[int, int], None] | None
) -> Iterator[Callable[[list[Outcome]], None]]:
    """Show a bar on standard error, if that is a terminal, and call the caller's function.

    Args:
        label: name of the sweep.
        tally: the count so far; kept up to date.
        on_cell: called with cells settled and all cells, or None.

    Yields:
        The function to be told the outcomes of a job.
    """
    with _bar(label, tally) as redraw:

        def report(outcomes: list[Outcome]) -> None:
            tally.take({outcome.name: outcome.state for outcome in outcomes})
            redraw()
            if on_cell is not None:
                on_cell(tally.settled, tally.total)

        report([])
        yield report


@contextmanager
def _bar(label: str, tally: Tally) -> Iterator[Callable[[], None]]:
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("cells{task.fields[failed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=tally.total, completed=tally.settled, failed="")

        def redraw() -> None:
            failed = f", {tally.failed} failed" if tally.failed else ""
            bar.update(task, completed=tally.settled, failed=failed)

        yield redraw
