"""Picture of a scan: every quantity over depth and over width, with the slopes that were claimed."""

from typing import TYPE_CHECKING, Any

import numpy as np

from learnmech.figures import FAINT, INK, PAPER, SECOND, depth_colours
from learnmech.speed.scan_claims import QUANTITIES

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from learnmech.speed.scan_result import ScanResult

_TITLES = {
    "speed_rms": "speed of last feature",
    "sensitivity": "sensitivity",
    "loss_decay": "loss decay",
    "activation_rms": "size of last feature",
}


def draw_scan(result: "ScanResult") -> "go.Figure":
    """Draw a row of panels for each quantity: over depth with a line for each width, over width with one for each depth.

    Points are geometric means over seeds at the judged step, bars reach from the smallest to the largest; dashed lines have
    the claimed power and go through the middle of the points. Both axes are logarithmic, a factor is as long in every row.

    Args:
        result: the scan.

    Returns:
        The figure.
    """
    from plotly.subplots import make_subplots

    axes = [axis for axis in ("depth", "width") if result.history.sizes[axis] > 1] or ["depth"]
    rows, columns = len(QUANTITIES), len(axes)
    figure = make_subplots(rows=rows, cols=columns, shared_xaxes=True, vertical_spacing=0.03, horizontal_spacing=0.1)
    figure.update_layout(
        height=200 * rows + 120,
        margin={"l": 75, "r": 20, "t": 60, "b": 60},
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        font={"family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", "size": 13, "color": INK},
        hovermode="closest",
    )
    spans = {quantity: _span(result, quantity) for quantity in QUANTITIES}
    length = max(high - low for low, high in spans.values()) + 0.3
    for row, quantity in enumerate(QUANTITIES, start=1):
        middle = sum(spans[quantity]) / 2
        ticks = _ticks(middle - length / 2, middle + length / 2)
        for column, axis in enumerate(axes, start=1):
            _add_lines(figure, result, quantity, axis, row, column)
            _add_claim(figure, result, quantity, axis, row, column)
            style = {
                "showline": True,
                "linecolor": FAINT,
                "gridcolor": "#e9edf1",
                "zeroline": False,
                "ticks": "outside",
            }
            sizes = result.history[axis].values.tolist()
            figure.update_xaxes(
                type="log", tickvals=sizes, ticktext=[str(size) for size in sizes], row=row, col=column, **style
            )
            figure.update_yaxes(
                type="log",
                range=[middle - length / 2, middle + length / 2],
                tickvals=ticks,
                ticktext=[f"{tick:g}" for tick in ticks],
                title={"text": _TITLES[quantity] if column == 1 else ""},
                row=row,
                col=column,
                **style,
            )
    for column, axis in enumerate(axes, start=1):
        figure.update_xaxes(title={"text": axis}, row=rows, col=column)
        place = {"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": (column - 1) * 0.55, "font": {"size": 12}}
        figure.update_layout({"legend" if column == 1 else f"legend{column}": place})
    return figure


def _span(result: "ScanResult", quantity: str) -> tuple[float, float]:
    """Give the decimal logarithms of the smallest and the largest number."""
    values = result.history[quantity].isel(step=result.judged_step).values
    logs = np.log10(values[np.isfinite(values) & (values > 0)])
    return (float(logs.min()), float(logs.max())) if len(logs) else (0.0, 0.0)


def _ticks(low: float, high: float) -> list[float]:
    """Choose round numbers between two decimal logarithms."""
    steps = (1, 2, 5) if high - low < 2.5 else (1,)
    values = [step * 10.0**power for power in range(int(np.floor(low)), int(np.ceil(high)) + 1) for step in steps]
    return [value for value in values if low <= np.log10(value) <= high]


def _add_lines(figure: "go.Figure", result: "ScanResult", quantity: str, axis: str, row: int, column: int) -> None:
    other = "width" if axis == "depth" else "depth"
    values = result.history[quantity].isel(step=result.judged_step).transpose(other, axis, "seed")
    data = np.where(np.isfinite(values.values) & (values.values > 0), values.values, np.nan)
    sizes = result.history[other].values.tolist()
    for size, colour, lines in zip(sizes, depth_colours(len(sizes)), data, strict=True):
        there = np.isfinite(lines).any(axis=1)
        if not there.any():
            continue
        seen = lines[there]
        centre = np.exp(np.nanmean(np.log(seen), axis=1))
        figure.add_scatter(
            x=result.history[axis].values[there].tolist(),
            y=centre.tolist(),
            error_y={
                "type": "data",
                "symmetric": False,
                "array": (np.nanmax(seen, axis=1) - centre).tolist(),
                "arrayminus": (centre - np.nanmin(seen, axis=1)).tolist(),
                "thickness": 1,
                "width": 3,
            },
            name=f"{other} {size}",
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"size": 6},
            showlegend=row == 1,
            legend="legend" if column == 1 else f"legend{column}",
            row=row,
            col=column,
        )


def _add_claim(figure: "go.Figure", result: "ScanResult", quantity: str, axis: str, row: int, column: int) -> None:
    claims: list[Any] = [check for check in result.checks if (check.quantity, check.axis) == (quantity, axis)]
    if not claims or claims[0].claimed[0] != claims[0].claimed[1]:
        return
    sizes = result.history[axis].values.astype(float)
    values = result.history[quantity].isel(step=result.judged_step).transpose(axis, ...).values.reshape(len(sizes), -1)
    good = np.isfinite(values) & (values > 0)
    if not good.any():
        return
    power = claims[0].claimed[0]
    offset = np.mean((np.log(np.where(good, values, 1.0)) - power * np.log(sizes)[:, None])[good])
    figure.add_scatter(
        x=sizes.tolist(),
        y=np.exp(offset + power * np.log(sizes)).tolist(),
        name=f"{result.claim} claims",
        mode="lines",
        line={"color": SECOND, "width": 2, "dash": "dash"},
        showlegend=row == 1,
        legend="legend" if column == 1 else f"legend{column}",
        row=row,
        col=column,
    )
