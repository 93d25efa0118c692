"""Figures for paper, drawn with matplotlib (extra ``paper``): phase diagrams with small curves, and curves over depth."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from learnmech.errors import LearnmechError
from learnmech.figures import DIVERGING_SCALE, FAINT, INK, depth_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BOX = 0.13
"""Free edge of a cell around its curve, as a share of the cell."""


def require_matplotlib() -> None:
    """Check that figures can be drawn, so that a long run does not end without one.

    Raises:
        LearnmechError: if matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise LearnmechError(
            "drawing a paper's figure needs matplotlib; install it with pip install 'learnmech[paper]'."
        ) from error


def new_figure(rows: int = 1, columns: int = 1, *, width: float = 7.0, height: float = 4.5, **named: Any) -> "Figure":
    """Make a figure with a grid of axes, without touching matplotlib's global state.

    Args:
        rows: rows of axes.
        columns: columns of axes.
        width: in inches.
        height: in inches.
        **named: as for :meth:`matplotlib.figure.Figure.subplots`.

    Returns:
        The figure; its axes are ``figure.axes``, row by row.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.subplots(rows, columns, **named)
    for axes in figure.axes:
        axes.tick_params(colors=INK, labelsize=8)
        for name, spine in axes.spines.items():
            spine.set_color(FAINT)
            spine.set_visible(name in ("left", "bottom"))
    return figure


def label_axes(axes: "Axes", x_title: str, y_title: str, *, title: str = "") -> None:
    """Write the labels of axes.

    Args:
        axes: the axes.
        x_title: what is along the horizontal axis.
        y_title: what is along the vertical axis.
        title: heading.
    """
    axes.set_xlabel(x_title, color=INK, fontsize=9)
    axes.set_ylabel(y_title, color=INK, fontsize=9)
    if title:
        axes.set_title(title, color=INK, fontsize=10, loc="left")
    axes.grid(color=FAINT, alpha=0.25, linewidth=0.5)


def as_png(figure: "Figure") -> bytes:
    """Render a figure as PNG.

    Args:
        figure: the figure.

    Returns:
        The file's bytes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream)  # type: ignore[no-untyped-call]
    return stream.getvalue()


def as_svg(figure: "Figure") -> str:
    """Render a figure as SVG text that can stand inside an HTML page.

    Args:
        figure: the figure.

    Returns:
        The ``<svg>`` element.
    """
    from matplotlib import rc_context

    stream = io.StringIO()
    with rc_context({"svg.hashsalt": "learnmech"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def draw_phase_diagram(
    background: np.ndarray,
    curves: np.ndarray,
    *,
    rows: Sequence[Any],
    columns: Sequence[Any],
    row_title: str,
    column_title: str,
    colour_title: str,
    title: str = "",
    diverging: bool = False,
) -> "Figure":
    """Draw a phase diagram: a colour for every cell and, in it, a load curve that fills the cell's own box.

    Args:
        background: one number a cell, shape (rows, columns); NaN leaves the cell grey.
        curves: load curves, shape (rows, columns, points); NaN points at the end are left out, a cell without a curve too.
        rows: values along the vertical axis, top row first.
        columns: values along the horizontal axis, left column first.
        row_title: what is along the vertical axis.
        column_title: what is along the horizontal axis.
        colour_title: what the colour is.
        title: heading.
        diverging: whether the colour means below or above zero; otherwise white is high.

    Returns:
        The figure.
    """
    from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize

    count_rows, count_columns = background.shape
    figure = new_figure(width=max(4.8, 0.74 * count_columns + 2.3), height=max(3.0, 0.66 * count_rows + 1.5))
    axes = figure.axes[0]
    finite = background[np.isfinite(background)]
    if diverging:
        limit = float(np.abs(finite).max()) if len(finite) else 1.0
        scale = Normalize(-max(limit, 1e-12), max(limit, 1e-12))
        colours: Colormap = LinearSegmentedColormap.from_list("curvature", list(DIVERGING_SCALE))
    else:
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
        scale = Normalize(low, high if high > low else low + 1e-12)
        colours = LinearSegmentedColormap.from_list("accuracy", ["#08519c", "#6baed6", "#deebf7", "#ffffff"])
    colours = colours.with_extremes(bad="#d9dee4")
    image = axes.imshow(
        np.ma.masked_invalid(background),
        cmap=colours,
        norm=scale,
        extent=(0, count_columns, count_rows, 0),
        aspect="auto",
        interpolation="none",
    )
    axes.set_xticks(np.arange(count_columns) + 0.5, [_label(value) for value in columns])
    axes.set_yticks(np.arange(count_rows) + 0.5, [_label(value) for value in rows])
    axes.tick_params(length=0, labelsize=8, colors=INK)
    for edge in range(1, count_columns):
        axes.axvline(edge, color=FAINT, linewidth=0.4)
    for edge in range(1, count_rows):
        axes.axhline(edge, color=FAINT, linewidth=0.4)
    for spine in axes.spines.values():
        spine.set_visible(True)
    for row in range(count_rows):
        for column in range(count_columns):
            _draw_small(axes, curves[row, column], row, column, _ink_on(colours(scale(background[row, column]))))
    axes.set_xlabel(column_title, color=INK)
    axes.set_ylabel(row_title, color=INK)
    if title:
        axes.set_title(title, color=INK, fontsize=10)
    bar = figure.colorbar(image, ax=axes, pad=0.015, aspect=30)
    bar.set_label(colour_title, color=INK, fontsize=9)
    bar.ax.tick_params(labelsize=8, colors=INK)
    bar.outline.set_edgecolor(FAINT)
    return figure


def _draw_small(axes: "Axes", curve: np.ndarray, row: int, column: int, colour: str) -> None:
    kept = np.flatnonzero(np.isfinite(curve))
    if len(kept) < 2:
        return
    values = curve[kept]
    span = values.max() - values.min()
    height = (values.max() - values) / span if span > 0 else np.full(len(values), 0.5)
    inside = 1 - 2 * _BOX
    x = column + _BOX + inside * np.linspace(0, 1, len(values))
    y = row + _BOX + inside * height  # the vertical axis points down, as an image's does
    axes.plot([x[0], x[-1]], [y[0], y[-1]], color=colour, linewidth=0.6, alpha=0.45, linestyle=(0, (3, 2)))
    axes.plot(x, y, color=colour, linewidth=1.3, marker="o", markersize=1.8)


def _ink_on(colour: Sequence[float]) -> str:
    luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return INK if luminance > 0.45 else "#ffffff"


def _label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float | np.number) else str(value)


def draw_curves(
    axes: "Axes",
    curves: Sequence[np.ndarray],
    labels: Sequence[str],
    *,
    colours: Sequence[str] | None = None,
    dashed: Sequence[bool] | None = None,
    title: str = "",
    y_title: str = "load D",
    x_title: str = "layer",
) -> None:
    """Draw load curves over the layers, with their chords.

    Args:
        axes: where to draw.
        curves: one array of loads a curve.
        labels: what each is.
        colours: one a curve; shades of one colour if not given.
        dashed: whether to draw a curve dashed; none if not given.
        title: heading.
        y_title: label of the vertical axis.
        x_title: label of the horizontal axis.
    """
    shades = [_hexadecimal(colour) for colour in depth_colours(len(curves))] if colours is None else list(colours)
    styles = [False] * len(curves) if dashed is None else list(dashed)
    for curve, label, colour, dash in zip(curves, labels, shades, styles, strict=True):
        kept = np.flatnonzero(np.isfinite(curve))
        if len(kept) == 0:
            continue
        values = np.asarray(curve)[kept]
        if not dash and len(kept) > 1:
            ends = [kept[0], kept[-1]]
            axes.plot(ends, [values[0], values[-1]], color=colour, linewidth=0.7, alpha=0.5, linestyle=(0, (2, 2)))
        axes.plot(
            kept,
            values,
            color=colour,
            label=label,
            linewidth=1.6,
            marker="o",
            markersize=3,
            linestyle="--" if dash else "-",
        )
    axes.set_xlabel(x_title, color=INK, fontsize=9)
    axes.set_ylabel(y_title, color=INK, fontsize=9)
    if title:
        axes.set_title(title, color=INK, fontsize=10)
    if any(labels):
        axes.legend(fontsize=7, frameon=False)


def _hexadecimal(colour: str) -> str:
    channels = [int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    return "#" + "".join(f"{channel:02x}" for channel in channels)
