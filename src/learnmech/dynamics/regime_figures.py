"""The picture of a regime: how far the kernel turned while the loss fell."""

import numpy as np
import xarray as xr

from learnmech.dynamics.regime_findings import LAZY, RICH
from learnmech.figures import ACCENT, FAINT, SECOND, THIRD, make_figure
from learnmech.monitor.instrument import Figure


def draw_all(history: xr.Dataset) -> list[Figure]:
    """Draw what a history of the regime instrument holds.

    Args:
        history: the history.

    Returns:
        One figure; none with fewer than two measured probes.
    """
    distance = history["centred_kernel_distance"].values
    rows = np.flatnonzero(np.isfinite(distance))
    if len(rows) < 2:
        return []
    figure = make_figure("optimizer step", "distance, alignment, loss / first loss")
    steps, middle = history["step"].values[rows], distance[rows]
    error = np.nan_to_num(history["centred_kernel_distance_error"].values[rows])
    figure.add_scatter(
        x=[*steps, *steps[::-1]],
        y=[*(middle + 2 * error), *np.maximum(middle - 2 * error, 0)[::-1]],
        fill="toself",
        fillcolor="rgba(27, 108, 168, 0.2)",
        line={"width": 0},
        name="two standard errors",
        hoverinfo="skip",
    )
    loss = history["loss"].values[rows]
    lines = [
        ("kernel distance, centred", middle, ACCENT, "solid"),
        ("kernel distance, plain", history["kernel_distance"].values[rows], ACCENT, "dot"),
        ("alignment with the labels", history["kernel_alignment"].values[rows], THIRD, "solid"),
        ("loss / first loss", loss / loss[0] if loss[0] > 0 else np.full(len(rows), np.nan), SECOND, "solid"),
    ]
    for name, values, colour, dash in lines:
        if np.isfinite(values).any():
            figure.add_scatter(
                x=steps,
                y=[float(value) if np.isfinite(value) else None for value in values],
                name=name,
                mode="lines+markers" if len(rows) < 30 else "lines",
                line={"color": colour, "dash": dash},
            )
    for height, label in ((LAZY, "lazy below"), (RICH, "rich above")):
        figure.add_hline(
            y=height,
            line={"color": FAINT, "width": 1, "dash": "dash"},
            annotation={"text": label, "font": {"size": 11}},
        )
    figure.update_yaxes(rangemode="tozero")
    return [
        Figure(
            "kernel_distance",
            "How far the tangent kernel turned while the loss fell",
            "A kernel that stays near the one at the first probe while the loss falls is a lazy network, which learns no features. "
            "One that turns as the loss falls is rich; one that turns only after the loss has fallen is delayed rich.",
            figure,
        )
    ]
