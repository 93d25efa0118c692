"""The picture that all figures of this paper share: a measured loss over time, and the predicted staircase on it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from learnmech.figures import FAINT, INK, SECOND

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_predicted(
    axes: "Axes",
    times: Float[np.ndarray, " jumps"],
    levels: Float[np.ndarray, " plateaus"],
    end: float,
    *,
    start: float = 0.0,
    names: Sequence[str] = (),
    colour: str = INK,
    label: str = "predicted",
) -> None:
    """Draw predicted levels as steps, and the names of what is learned at each jump.

    Args:
        axes: where.
        times: of the jumps; those beyond the end are left out.
        levels: one more than there are jumps.
        end: of the time axis.
        start: of the time axis, more than 0 on a logarithmic one.
        names: of what is learned, one a jump.
        colour: of the steps.
        label: in the legend.
    """
    seen = times <= end
    edges = np.concatenate([[start], times[seen], [end]])
    heights = levels[: int(seen.sum()) + 1]
    axes.stairs(heights, edges, baseline=None, color=colour, linewidth=1.2, linestyle="--", label=label)
    for time, above, below, name in zip(times[seen], heights[:-1], heights[1:], names, strict=False):
        axes.annotate(
            name,
            (time, (above + below) / 2),
            xytext=(5, 0),
            textcoords="offset points",
            fontsize=7,
            color=colour,
            va="center",
        )


def draw_measured(
    axes: "Axes",
    times: Float[np.ndarray, " points"],
    losses: Float[np.ndarray, " points"],
    *,
    colour: str = SECOND,
    label: str = "gradient flow",
    faint: bool = False,
) -> None:
    """Draw a measured loss.

    Args:
        axes: where.
        times: of the points.
        losses: at each.
        colour: of the curve.
        label: in the legend.
        faint: whether it stands in the background.
    """
    axes.plot(times, losses, color=FAINT if faint else colour, linewidth=1.0 if faint else 1.8, label=label)
