"""Figure 1 and its kin: networks over a source of noise and the slope of the LeakyReLU."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from learnmech.experiments.drawing import draw_phase_diagram
from learnmech.experiments.networks import without_readout
from learnmech.experiments.reproduction import Claim, Context, Reproduction, Scale
from learnmech.experiments.sweeping import train_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER_SLOPES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
SMOKE_SLOPES = (0.0, 0.4, 1.0)
PAPER_RATES = (2e-1, 1e-1, 5e-2, 1e-2, 5e-3, 1e-3, 5e-4, 1e-4)
PAPER_DROPOUTS = (0.28, 0.24, 0.20, 0.16, 0.12, 0.08, 0.04, 0.0)
SMOKE = {"data": "digits", "samples": None, "image_size": None, "epochs": 30}
"""Embedded data and few epochs: shows that everything runs; the paper's numbers are not to be expected."""
PAPER = {"data": "mnist", "samples": 2560, "image_size": 10, "epochs": 100}
"""The defaults of the paper: 8-layer MLP of width 100 with BatchNorm, Adam, learning rate 1e-3, full batch."""
SEEDS: Mapping[Scale, tuple[int, ...]] = {"smoke": (0,), "reduced": (0, 1), "paper": tuple(range(1, 11))}

AXIS_TITLES = {
    "slope": "slope of LeakyReLU (0: ReLU, 1: linear)",
    "noise": "label and data noise",
    "lr": "learning rate",
    "dropout": "dropout rate",
    "batch": "batch size",
    "depth": "weight layers",
    "width": "units of a layer",
}

Check = Callable[[xr.Dataset, Scale], Sequence[Claim]]


@dataclass(frozen=True)
class Diagram:
    """A phase diagram of networks: what varies, what does not, and what is claimed of it.

    Attributes:
        name: of the figure.
        title: of the figure.
        caption: how to read it.
        axis: the horizontal axis.
        values: its values at each scale.
        check: the claims.
        fixed: settings of each scale.
        slopes: values of the vertical axis at each scale.
        curve: which load is drawn.
    """

    name: str
    title: str
    caption: str
    axis: str
    values: Mapping[Scale, Sequence[float]]
    check: Check
    fixed: Mapping[Scale, Mapping[str, Any]]
    slopes: Mapping[Scale, Sequence[float]]
    curve: str = "load"

    def run(self, context: Context) -> xr.Dataset:
        """Train the networks of the diagram.

        Args:
            context: where and how.

        Returns:
            Their histories as one.
        """
        return train_grid(self.grid(context.scale), self.fixed[context.scale], context)

    def grid(self, scale: Scale) -> dict[str, list[Any]]:
        """Give the axes.

        Args:
            scale: the scale.

        Returns:
            Axis to values; the paper's order: top row ReLU, left column most noise.
        """
        return {
            "slope": list(self.slopes[scale]),
            self.axis: list(self.values[scale]),
            "seed": list(SEEDS[scale]),
        }

    def draw(self, history: xr.Dataset) -> "Figure":
        """Draw the diagram.

        Args:
            history: what :meth:`run` gave.

        Returns:
            The figure.
        """
        return draw_networks(history, "slope", self.axis, curve=self.curve)

    def declare(self, draw: "Callable[[xr.Dataset], Figure] | None" = None) -> Reproduction:
        """Make the figure that can be run by name.

        Args:
            draw: another drawing than the phase diagram.

        Returns:
            The figure.
        """
        return Reproduction(
            name=self.name,
            title=self.title,
            caption=self.caption,
            settings={scale: {**self.fixed[scale], **self.grid(scale)} for scale in self.fixed},
            run=self.run,
            check=self.check,
            draw=draw or self.draw,
        )


def draw_networks(history: xr.Dataset, row_axis: str, column_axis: str, *, curve: str = "load") -> "Figure":
    """Draw a phase diagram of networks: mean test accuracy as colour, mean load curve in each cell.

    Args:
        history: a collected sweep over both axes and any others, which are averaged over.
        row_axis: the vertical axis, drawn in the order of the sweep from the top.
        column_axis: the horizontal axis, drawn in the order of the sweep from the left.
        curve: which load.

    Returns:
        The figure.
    """
    others = [name for name in history["test_accuracy"].dims if name not in (row_axis, column_axis)]
    classes = bool(np.isfinite(history["test_accuracy"]).any())
    background = 100 * history["test_accuracy"] if classes else -history["test_loss"]
    hidden = without_readout(history)
    order = (row_axis, column_axis)
    return draw_phase_diagram(
        background.mean(others).transpose(*order).values,
        hidden[curve].mean(others).transpose(*order, "layer").values,
        rows=history[row_axis].values.tolist(),
        columns=history[column_axis].values.tolist(),
        row_title=AXIS_TITLES.get(row_axis, row_axis),
        column_title=AXIS_TITLES.get(column_axis, column_axis),
        colour_title="mean test accuracy (%)" if classes else "minus test loss",
    )
