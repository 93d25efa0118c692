"""How a stored sweep stands, read from its folder alone."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from learnmech.sweep.grid import read_grid, span_cells
from learnmech.sweep.store import CONFIG, FAILURE, cell_state, cells_folder, read_description, read_json


@dataclass(frozen=True)
class SweepStatus:
    """How a sweep stands.

    Attributes:
        name: the sweep.
        experiment: what is swept.
        total: cells of the grid.
        done: cells with a history.
        failed: cells whose experiment raised, or whose worker died each time.
        missing: cells to come; those that are running now among them.
        seconds: computing time of the cells that are done.
        seconds_left: the same for those to come, if they take as long on average; None before the first is done.
        failures: ``cell``, ``point`` and ``error`` of each failed cell.
    """

    name: str
    experiment: str
    total: int
    done: int
    failed: int
    missing: int
    seconds: float
    seconds_left: float | None
    failures: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain values.

        Returns:
            The attributes by name.
        """
        return dict(self.__dict__)

    def __str__(self) -> str:
        lines = [
            f"{self.name}: {self.done} of {self.total} cells done, {self.failed} failed, {self.missing} to come",
            f"computing time {_duration(self.seconds)} so far"
            + (f", about {_duration(self.seconds_left)} to come" if self.seconds_left else ""),
        ]
        for failure in self.failures[:10]:
            point = ", ".join(f"{name}={value}" for name, value in failure["point"].items())
            lines.append(f"  failed: {point}: {failure['error']}  (cells/{failure['cell']}/error.txt)")
        if len(self.failures) > 10:
            lines.append(f"  and {len(self.failures) - 10} more")
        return "\n".join(lines)


def status(out: str | Path) -> SweepStatus:
    """Say how the sweep in a folder stands; it may be running, here or elsewhere.

    Args:
        out: the folder.

    Returns:
        The status, for the grid of the latest run.
    """
    root = Path(out)
    description = read_description(root)
    cells = span_cells(description["experiment"], read_grid(dict(description["grid"])), description["fixed"])
    seconds, failures = [], []
    for cell in cells:
        state = cell_state(root, cell.name)
        if state == "done":
            seconds.append(float(read_json(cells_folder(root) / cell.name / CONFIG).get("seconds", 0.0)))
        elif state == "failed":
            error = read_json(cells_folder(root) / cell.name / FAILURE).get("error", "")
            failures.append({"cell": cell.name, "point": cell.point, "error": error})
    missing = len(cells) - len(seconds) - len(failures)
    return SweepStatus(
        name=str(description.get("name", "")),
        experiment=str(description["experiment"]),
        total=len(cells),
        done=len(seconds),
        failed=len(failures),
        missing=missing,
        seconds=sum(seconds),
        seconds_left=missing * sum(seconds) / len(seconds) if seconds else None,
        failures=failures,
    )


def _duration(seconds: float | None) -> str:
    seconds = seconds or 0.0
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
