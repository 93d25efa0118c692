"""Phase diagrams of networks over any two settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from learnmech import history as histories
from learnmech.errors import InputError
from learnmech.experiments.drawing import as_png, as_svg, require_matplotlib
from learnmech.experiments.networks import CURVES
from learnmech.experiments.page import render_page
from learnmech.experiments.reproduction import Context
from learnmech.experiments.shi2024.phase_diagrams import AXIS_TITLES, draw_networks
from learnmech.experiments.sweeping import train_grid
from learnmech.files import require_writable_folder, write_atomically


@dataclass(frozen=True)
class PhaseDiagram:
    """What came out of :func:`phase_diagram`.

    Attributes:
        history: every network's curves and accuracies over both axes and ``seed``.
        files: what was written: ``history``, ``png``, ``html``; nothing while cells are missing.
        missing_cells: cells still to come, because only a share was run.
    """

    history: xr.Dataset
    files: dict[str, Path]
    missing_cells: int = 0


def phase_diagram(
    columns: tuple[str, Sequence[Any]],
    rows: tuple[str, Sequence[Any]],
    *,
    out: str | Path,
    seeds: Sequence[int] = (0, 1),
    curve: str = "load",
    executor: Any = None,
    workers: int | None = None,
    retry: bool = False,
    shard: tuple[int, int] | None = None,
    **settings: Any,
) -> PhaseDiagram:
    """Train networks over two settings and draw accuracy and load curves, as in the spring-block paper's Fig. 1.

    Args:
        columns: setting and values along the horizontal axis, from the left, such as ``("dropout", [0.2, 0.1, 0.0])``.
        rows: setting and values along the vertical axis, from the top.
        out: folder of the sweep and the figure; a second call re-uses what is there.
        seeds: seeds of every cell; the figure shows means.
        curve: which load is drawn: ``load``, ``load_held_out`` or ``load_pinv``.
        executor: see :class:`learnmech.Sweep`.
        workers: processes of the executor.
        retry: whether cells that failed earlier are tried again.
        shard: ``(i, n)`` to run a share of the cells only.
        **settings: all other settings, names of :class:`~learnmech.experiments.WatchSettings`, or ``noise`` for label noise
            and data noise together; what is not given is as in the paper.

    Returns:
        The history and the files.

    Raises:
        InputError: for unknown settings, both axes the same, or an unknown curve.
    """
    if columns[0] == rows[0] or "seed" in (columns[0], rows[0]):
        raise InputError(
            f"the axes must be two different settings other than seed, got {columns[0]!r} and {rows[0]!r}."
        )
    if "depth" in (columns[0], rows[0]) or "net" in (columns[0], rows[0]):
        raise InputError(
            "nets along an axis must have the same layers, so depth and net cannot be an axis; run one diagram each."
        )
    if curve not in CURVES:
        raise InputError(f"curve must be one of {', '.join(CURVES)}, got {curve!r}.")
    require_matplotlib()
    folder = require_writable_folder(out)
    grid = {rows[0]: list(rows[1]), columns[0]: list(columns[1]), "seed": list(seeds)}
    history = train_grid(grid, settings, Context("paper", folder, executor, workers, retry, shard))
    missing = int(history.attrs["cells_missing"])
    if missing:
        return PhaseDiagram(history, {}, missing)
    drawing = draw_networks(history, rows[0], columns[0], curve=curve)
    heading = f"{AXIS_TITLES.get(columns[0], columns[0])} against {AXIS_TITLES.get(rows[0], rows[0])}"
    page = render_page(
        heading,
        as_svg(drawing),
        history,
        caption="Colour: mean test accuracy, white is high. Small curves: mean load curves from the input to the last hidden layer, each "
        "scaled to its own box; above the dashed chord lazy, below it active.",
        settings={**settings, **grid},
    )
    files = {
        "history": histories.save(history, folder / "history.nc"),
        "png": write_atomically(folder / "figure.png", as_png(drawing)),
        "html": write_atomically(folder / "figure.html", page),
    }
    return PhaseDiagram(history, files)
