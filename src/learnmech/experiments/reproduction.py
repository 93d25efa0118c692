"""What a reproduced figure is: settings by scale, a run, claims that are checked one by one, and a drawing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import xarray as xr

from learnmech.errors import InputError
from learnmech.sweep import Sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Scale = Literal["smoke", "reduced", "paper"]
SCALES: tuple[Scale, ...] = get_args(Scale)
Verdict = Literal["pass", "fail", "not tested at this scale"]


@dataclass(frozen=True)
class Claim:
    """One sentence of a paper about a figure, held against what was measured.

    Attributes:
        key: its number, such as ``N2``.
        text: the claim.
        expected: the condition that was checked, fixed before measuring.
        measured: the numbers found.
        verdict: whether the condition holds; a claim that does not hold is reported as failed, whatever the reason.
    """

    key: str
    text: str
    expected: str
    measured: str
    verdict: Verdict

    def to_dict(self) -> dict[str, str]:
        """Give the claim as plain text by name.

        Returns:
            All attributes.
        """
        return dict(self.__dict__)

    def __str__(self) -> str:
        marks = {"pass": "PASS", "fail": "FAIL", "not tested at this scale": "----"}
        return f"{marks[self.verdict]}  {self.key:4} {self.text}\n          expected {self.expected}\n          measured {self.measured}"


def judge(key: str, text: str, expected: str, measured: str, holds: bool, *, tested: bool = True) -> Claim:
    """Make a claim from the outcome of its check.

    Args:
        key: its number.
        text: the claim.
        expected: the condition.
        measured: the numbers found.
        holds: whether the condition holds.
        tested: whether the scale of the run allows a test; if not, the numbers are shown without a verdict.

    Returns:
        The claim.
    """
    verdict: Verdict = "not tested at this scale" if not tested else "pass" if holds else "fail"
    return Claim(key, text, expected, measured, verdict)


def untested(key: str, text: str, reason: str) -> Claim:
    """Make a claim that this run says nothing about.

    Args:
        key: its number.
        text: the claim.
        reason: what is missing.

    Returns:
        The claim.
    """
    return Claim(key, text, reason, "-", "not tested at this scale")


@dataclass(frozen=True)
class Context:
    """How a figure is to be run.

    Attributes:
        scale: which of its settings.
        out: folder for everything that is kept.
        executor: of its sweeps, see :class:`learnmech.Sweep`; None runs in this process.
        workers: processes of the executor; None for one a core.
        retry: whether cells that failed earlier are tried again.
        shard: ``(i, n)`` to run only a share of the cells, for job arrays.
        overrides: settings that replace those of the scale, such as ``data`` or ``data_dir``.
    """

    scale: Scale
    out: Path
    executor: Any = None
    workers: int | None = None
    retry: bool = False
    shard: tuple[int, int] | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def run(self, sweep: Sweep, folder: str = "sweep") -> xr.Dataset:
        """Run a sweep as this context says.

        Args:
            sweep: the sweep.
            folder: where inside ``out``; its name must begin with ``sweep``.

        Returns:
            Its collected history.
        """
        return sweep.run(self.executor, self.out / folder, workers=self.workers, retry=self.retry, shard=self.shard)

    def run_grid(self, cell: Callable[..., xr.Dataset], settings: Mapping[str, Any], axes: Sequence[str]) -> xr.Dataset:
        """Run a sweep over some of a figure's settings, the others fixed; every one of them can be replaced.

        Args:
            cell: what is run for each combination.
            settings: by name, those of the axes lists.
            axes: names of the axes.

        Returns:
            Its collected history.

        Raises:
            InputError: if a replaced setting is unknown, or an axis is replaced by one value.
        """
        chosen = dict(settings)
        self.require_overrides(*chosen)
        for name in set(axes) & set(self.overrides):
            if not isinstance(self.overrides[name], list | tuple):
                raise InputError(f"{name} must be a list of values, got {self.overrides[name]!r}.")
        chosen.update(self.overrides)
        grid = {name: chosen.pop(name) for name in axes}
        return self.run(Sweep(cell, grid, fixed=chosen))

    def require_overrides(self, *known: str) -> None:
        """Refuse overrides that the figure would not heed.

        Args:
            *known: settings of the figure that can be replaced.

        Raises:
            InputError: naming the others.
        """
        unknown = sorted(set(self.overrides) - set(known))
        if unknown:
            raise InputError(
                f"this figure has no settings {', '.join(unknown)} that could be replaced"
                + (f"; it has {', '.join(known)}." if known else ".")
            )


@dataclass(frozen=True)
class Reproduction:
    """A figure of a paper that can be run, checked and drawn.

    Attributes:
        name: ``paper/figure``.
        title: what it shows, in one line.
        caption: how to read it, and where this differs from the paper.
        settings: what is run at each scale, for people and for the page.
        run: makes the history.
        check: gives the claims, each with a verdict.
        draw: draws the history with matplotlib.
        page: for figures that move: the HTML of the animation, put in the place of the drawing.
        citations: works behind it.
    """

    name: str
    title: str
    caption: str
    settings: Mapping[Scale, Mapping[str, Any]]
    run: Callable[[Context], xr.Dataset]
    check: Callable[[xr.Dataset, Scale], Sequence[Claim]]
    draw: Callable[[xr.Dataset], "Figure"]
    page: Callable[[xr.Dataset], str] | None = None
    citations: tuple[str, ...] = ("shi2024",)


def require_scale(scale: str) -> Scale:
    """Check the name of a scale.

    Args:
        scale: the name.

    Returns:
        The same name.

    Raises:
        InputError: if there is no such scale.
    """
    if scale not in SCALES:
        raise InputError(f"scale must be one of {', '.join(SCALES)}, got {scale!r}.")
    return scale
