"""Running a figure of a paper: its history, its claims with verdicts, its drawing and a page, in one folder."""

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from learnmech import history as histories
from learnmech.errors import LearnmechError, LearnmechWarning, StorageError
from learnmech.experiments.drawing import as_png, as_svg, require_matplotlib
from learnmech.experiments.page import render_page
from learnmech.experiments.registry import FIGURES, find
from learnmech.experiments.reproduction import Claim, Context, Reproduction, require_scale
from learnmech.files import require_writable_folder, write_atomically
from learnmech.sweep import status


@dataclass(frozen=True)
class Outcome:
    """What came out of :func:`reproduce`.

    Attributes:
        name: the figure.
        scale: the scale.
        claims: each claim with its verdict.
        history: everything measured.
        files: what was written, by kind: ``history``, ``claims``, ``png``, ``html``.
        missing_cells: cells of its sweeps that are still to come, because only a share was run; then nothing is checked.
    """

    name: str
    scale: str
    claims: tuple[Claim, ...]
    history: xr.Dataset
    files: dict[str, Path]
    missing_cells: int = 0

    @property
    def failed_cells(self) -> int:
        """How many cells of its sweeps failed."""
        return len(json.loads(self.history.attrs.get("failures", "[]")))

    def __str__(self) -> str:
        if self.missing_cells:
            return (
                f"{self.name} at scale {self.scale}: {self.missing_cells} cells are still to come; nothing was checked."
            )
        counts = {verdict: sum(claim.verdict == verdict for claim in self.claims) for verdict in ("pass", "fail")}
        lines = [str(claim) for claim in self.claims]
        open_claims = len(self.claims) - sum(counts.values())
        lines.append(
            f"{self.name} at scale {self.scale}: {counts['pass']} claims hold, {counts['fail']} fail, "
            f"{open_claims} not tested at this scale"
        )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Give the outcome as plain values.

        Returns:
            ``name``, ``scale``, ``claims``, ``files``, ``missing_cells`` and ``failed_cells``.
        """
        return {
            "name": self.name,
            "scale": self.scale,
            "claims": [claim.to_dict() for claim in self.claims],
            "files": {kind: str(path) for kind, path in self.files.items()},
            "missing_cells": self.missing_cells,
            "failed_cells": self.failed_cells,
        }


def reproduce(
    name: str,
    *,
    scale: str = "smoke",
    out: str | Path | None = None,
    executor: Any = None,
    workers: int | None = None,
    retry: bool = False,
    shard: tuple[int, int] | None = None,
    say: Callable[[str], object] | None = None,
    **overrides: Any,
) -> Outcome:
    """Run a figure of a paper, check its claims one by one, draw it, and keep everything.

    A second call with the same folder re-uses what is finished, so a run that was stopped goes on.

    Args:
        name: such as ``shi2024/fig1a``; :func:`list_figures` gives all.
        scale: ``smoke`` (under a minute, embedded data), ``reduced`` (minutes) or ``paper`` (the paper's settings).
        out: folder; ``runs/reproduce/NAME-SCALE`` if not given.
        executor: of its sweeps, see :class:`learnmech.Sweep`.
        workers: processes of the executor.
        retry: whether cells that failed in an earlier call are tried again.
        shard: ``(i, n)`` to run only a share of the cells; nothing is checked or drawn until all are there.
        say: called with a line of text now and then.
        **overrides: settings that replace those of the scale in every cell, such as ``data`` or ``epochs``.

    Returns:
        What came out. An unknown figure or scale raises :class:`~learnmech.errors.InputError`, a folder that cannot be
        written :class:`~learnmech.errors.StorageError`.

    Raises:
        LearnmechError: if every cell of its sweeps failed, or matplotlib is missing.
    """
    require_matplotlib()
    figure = find(name)
    checked = require_scale(scale)
    folder = require_writable_folder(out or Path("runs/reproduce") / f"{name.replace('/', '-')}-{scale}")
    context = Context(checked, folder, executor, workers, retry, shard, overrides)
    if say is not None:
        say(f"{figure.name}: {figure.title} ({scale})")
    history = figure.run(context)
    standings = [status(path.parent) for path in sorted(folder.glob("sweep*/sweep.json"))]
    missing = sum(standing.missing for standing in standings)
    if missing:
        return Outcome(figure.name, scale, (), history, {}, missing)
    failures = [failure for standing in standings for failure in standing.failures]
    if failures and not any(standing.done for standing in standings):
        raise LearnmechError(
            f"all {len(failures)} cells of {figure.name} failed, the first with {failures[0]['error']}; the tracebacks are "
            f"in {folder}. Mend the cause and run it again with retry=True (--retry)."
        )
    history.attrs["failures"] = json.dumps(failures)
    history.attrs["citations"] = json.dumps(list(figure.citations))
    claims = tuple(figure.check(history, checked))
    return _finish(figure, checked, claims, history, folder)


def list_figures() -> dict[str, str]:
    """List the figures that can be reproduced.

    Returns:
        Name to title.
    """
    return {name: find(name).title for name in FIGURES}


def _finish(figure: Reproduction, scale: str, claims: Sequence[Claim], history: xr.Dataset, folder: Path) -> Outcome:
    drawing = figure.draw(history)
    picture = as_svg(drawing) if figure.page is None else figure.page(history)
    outcome = {"name": figure.name, "scale": scale, "claims": [claim.to_dict() for claim in claims]}
    writers: dict[str, Callable[[], Path]] = {
        "history": lambda: histories.save(history, folder / "history.nc"),
        "claims": lambda: write_atomically(folder / "claims.json", json.dumps(outcome, indent=1)),
        "png": lambda: write_atomically(folder / "figure.png", as_png(drawing)),
        "html": lambda: write_atomically(
            folder / "figure.html",
            render_page(
                f"{figure.name}: {figure.title}",
                picture,
                history,
                note=f"Scale: {scale}",
                caption=figure.caption,
                settings=figure.settings[require_scale(scale)],
                claims=claims,
            ),
        ),
    }
    files = {}
    for kind, write in writers.items():
        try:
            files[kind] = write()
        except StorageError as error:
            warnings.warn(f"{error} The claims are printed all the same.", LearnmechWarning, stacklevel=3)
    return Outcome(figure.name, scale, tuple(claims), history, files)
