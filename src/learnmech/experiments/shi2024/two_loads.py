"""Figures S10 and S11: the load by trace and the load by pseudo-inverse."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import xarray as xr

from learnmech.experiments.drawing import draw_curves, new_figure
from learnmech.experiments.networks import without_readout
from learnmech.experiments.reproduction import Claim, Reproduction, Scale, judge
from learnmech.experiments.shi2024.network_claims import (
    check_flat_pinv,
    check_rising,
    nearest,
    rank_correlation,
)
from learnmech.experiments.shi2024.panels import BASE, NOISES
from learnmech.experiments.shi2024.phase_diagrams import Diagram

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _draw_both_loads(history: xr.Dataset) -> "Figure":
    hidden = without_readout(history)
    slopes = history["slope"].values
    figure = new_figure(2, len(slopes), width=3.3 * len(slopes) + 0.4, height=5.4, squeeze=False)
    panels = iter(figure.axes)
    labels = [f"noise {float(level):g}" for level in history["noise"].values]
    for name, y_title in (("load", "load D by trace"), ("load_pinv", "load D by pseudo-inverse")):
        for slope in slopes:
            curves = hidden[name].sel(slope=slope).mean("seed").transpose("noise", "layer").values
            draw_curves(next(panels), list(curves), labels, title=f"slope {slope:g}", y_title=y_title)
    # All panels span as many units, so that a flat curve looks flat.
    limits = [axes.get_ylim() for axes in figure.axes]
    span = max(high - low for low, high in limits)
    for axes, (low, high) in zip(figure.axes, limits, strict=True):
        axes.set_ylim((low + high - span) / 2, (low + high + span) / 2)
    return figure


def _check_both_loads(history: xr.Dataset, scale: Scale) -> list[Claim]:
    relu = {"slope": nearest(history, "slope", 0.0)}
    c, other = history["end_difference"].mean("seed"), history["end_difference_pinv"].mean("seed")
    order = rank_correlation(c.values, other.transpose(*c.dims).values)
    return [
        check_rising(
            "S10",
            "the load by pseudo-inverse bends with noise as the load by trace does",
            history,
            scale,
            "noise",
            (0.0, 0.2, 0.7),
            variable="end_difference_pinv",
            symbol="c of tr(S_w pinv(S_b))",
            **relu,
        ),
        judge(
            "S10b",
            "in nets with nonlinearity both loads order the runs alike",
            "Spearman correlation of the two c above 0.7",
            f"{order:+.2f} over {c.size} cells",
            order > 0.7,
            tested=scale != "smoke",
        ),
    ]


def _two_loads(name: str, title: str, slopes: Mapping[Scale, Sequence[float]], check: Any) -> Reproduction:
    diagram = Diagram(
        name=name,
        title=title,
        caption="Top: the load by trace, ln(tr S_w / tr S_b). Bottom: the load by pseudo-inverse, ln tr(S_w pinv(S_b)). All panels "
        "span as many units.",
        axis="noise",
        values=NOISES,
        check=check,
        fixed=BASE,
        slopes=slopes,
    )
    return diagram.declare(_draw_both_loads)


FIGS10 = _two_loads(
    "shi2024/figS10",
    "two measures of separation compared",
    {"smoke": (0.0, 0.4), "reduced": (0.0, 0.4), "paper": (0.0, 0.2, 0.4)},
    _check_both_loads,
)
FIGS11 = _two_loads(
    "shi2024/figS11",
    "two measures of separation in linear nets",
    {"smoke": (1.0,), "reduced": (1.0,), "paper": (1.0,)},
    check_flat_pinv,
)
