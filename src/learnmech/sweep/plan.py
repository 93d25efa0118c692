"""Jobs: which cells are computed together. It follows from the grid alone, never from what is done or missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from learnmech.errors import InputError
from learnmech.fingerprint import canonical_json, fingerprint_config
from learnmech.sweep.grid import Cell

_GROUP_SIZE = 64


@dataclass(frozen=True)
class Job:
    """What one call on one worker computes.

    Attributes:
        cells: one cell, or those of a stack.
        stacked: whether the experiment computes them as one.
    """

    cells: tuple[Cell, ...]
    stacked: bool = False

    @property
    def name(self) -> str:
        """16 hexadecimal digits of its cells."""
        return fingerprint_config([cell.name for cell in self.cells])


def plan_jobs(cells: Sequence[Cell], experiment: Any, *, stack: bool) -> list[Job]:
    """Group cells into jobs.

    Cells that differ only in axes named by ``experiment.stackable`` form stacks of at most ``experiment.group_size``
    (64 if it has none), in the order of the grid; without ``stackable`` and ``run_stacked`` each cell is a job.

    Args:
        cells: all cells of the grid.
        experiment: the experiment.
        stack: False for a job a cell.

    Returns:
        The jobs, in the order of their first cells.

    Raises:
        InputError: if ``group_size`` is not a positive integer.
    """
    stackable = frozenset(getattr(experiment, "stackable", ()) or ())
    if not stack or not stackable or not callable(getattr(experiment, "run_stacked", None)):
        return [Job((cell,)) for cell in cells]
    size = getattr(experiment, "group_size", _GROUP_SIZE)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise InputError(f"group_size must be a positive integer, the most cells in one stack, got {size!r}.")
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        apart: Mapping[str, Any] = {name: value for name, value in cell.point.items() if name not in stackable}
        groups.setdefault(canonical_json(apart), []).append(cell)
    return [
        Job(tuple(group[start : start + size]), stacked=True)
        for group in groups.values()
        for start in range(0, len(group), size)
    ]


def take_shard(jobs: Sequence[Job], shard: tuple[int, int] | None) -> list[Job]:
    """Take the share of one process of a job array.

    Args:
        jobs: all jobs.
        shard: (i, n): every n-th job from the i-th on, 0 <= i < n; None takes all.

    Returns:
        The share; the n shares are disjoint and together they are everything.

    Raises:
        InputError: if it is not such a pair.
    """
    if shard is None:
        return list(jobs)
    try:
        number, count = shard
    except (TypeError, ValueError):
        number, count = None, None
    if not isinstance(number, int) or not isinstance(count, int) or not 0 <= number < count:
        raise InputError(
            f"shard must be (i, n) with 0 <= i < n, such as (0, 4) to (3, 4) for four shares, got {shard!r}."
        )
    return list(jobs)[number::count]
