"""What figures with several panels of networks share: the levels of noise, and the panels."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from learnmech.experiments.drawing import new_figure
from learnmech.experiments.reproduction import Scale
from learnmech.experiments.shi2024.phase_diagrams import PAPER, SMOKE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOISES: Mapping[Scale, tuple[float, ...]] = {
    "smoke": (0.0, 0.2, 0.7),
    "reduced": (0.0, 0.2, 0.4, 0.7),
    "paper": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
}
BASE: Mapping[Scale, Mapping[str, Any]] = {"smoke": SMOKE, "reduced": PAPER, "paper": PAPER}
ALL_SCALES: tuple[Scale, ...] = ("smoke", "reduced", "paper")


def make_panels(count: int) -> "Figure":
    """Make a figure with a number of equal panels.

    Args:
        count: how many.

    Returns:
        The figure; its first ``count`` axes are the panels.
    """
    columns = min(count, 4)
    rows = -(-count // columns)
    figure = new_figure(rows, columns, width=3.1 * columns, height=2.7 * rows + 0.2, squeeze=False)
    for axes in figure.axes[count:]:
        axes.set_visible(False)
    return figure
