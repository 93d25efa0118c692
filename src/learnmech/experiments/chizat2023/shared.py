"""What the figures share: how a sweep is made of settings, the angle, summaries over draws, and lines with bands."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from learnmech.errors import InputError
from learnmech.experiments.reproduction import Context, Scale
from learnmech.figures import ACCENT, SECOND, THIRD
from learnmech.sweep import Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (THIRD, "#7fb3dd", ACCENT, "#0b2f5c", SECOND)
"""One a branch scale: the thinnest green, the three of order 1/sqrt(L) from light to dark blue, the MLP red."""
DASHED = "Dashed: the large-width recursion for one input (ours, not the paper's). "
EXACT = (
    "One sample, nets at their start, embedding and read-out not trained, every block given the same loss decay. "
    "The change of features is the exact first-order one; the authors took a finite step. "
)
ANGLE = "angle θ, in right angles"


@dataclass(frozen=True)
class Cells:
    """The sweep of a figure.

    Attributes:
        experiment: what is measured at each point.
        axes: settings that the figure varies; ``draw`` stands for the numbers below ``draws``.
        settings: at each scale: name to value, a list for an axis.
    """

    experiment: Callable[[Mapping[str, Any]], xr.Dataset]
    axes: tuple[str, ...]
    settings: Mapping[Scale, Mapping[str, Any]]

    def run(self, context: Context) -> xr.Dataset:
        """Measure every point.

        Args:
            context: where and how to run; settings of the scale can be replaced, a list for an axis, but not names that the
                figure compares.

        Returns:
            The collected sweep.

        Raises:
            InputError: if an override is unknown or cannot be replaced, or is one value where several are needed or the
                other way round.
        """
        settings = dict(self.settings[context.scale])
        context.require_overrides(*settings)
        for name, value in context.overrides.items():
            if isinstance(settings[name], Mapping) or _names(settings[name]):
                raise InputError(f"{name} cannot be replaced: the figure compares these.")
            listed = isinstance(value, list | tuple)
            if listed != (name in self.axes):
                wanted = "a list of values" if name in self.axes else "one value"
                raise InputError(f"{name} must be {wanted}, got {value!r}.")
            settings[name] = value
        draws = settings.pop("draws")
        if not isinstance(draws, int) or isinstance(draws, bool) or draws < 1:
            raise InputError(f"draws must be a positive integer, got {draws!r}.")
        grid = {name: settings.pop(name) for name in self.axes} | {"draw": range(draws)}
        return context.run(Sweep(self.experiment, grid, fixed=settings))


def _names(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(item, str) for item in value)


def setting(history: xr.Dataset, name: str) -> Any:
    """Give a setting that all cells of a collected sweep share.

    Args:
        history: the collected sweep.
        name: the setting.

    Returns:
        Its value.
    """
    return json.loads(history.attrs["config"])["fixed"][name]


def angle(cosine: xr.DataArray) -> xr.DataArray:
    """Turn a cosine into an angle.

    Args:
        cosine: between -1 and 1, up to rounding.

    Returns:
        The angle in right angles: 0 along the descent direction, 1 at right angles to it.
    """
    return cosine.copy(data=np.arccos(np.clip(cosine.values, -1.0, 1.0)) * (2.0 / np.pi))


def mean_angle(history: xr.Dataset, variable: str = "cosine") -> xr.DataArray:
    """Average the angle over draws.

    Args:
        history: the collected sweep.
        variable: ``cosine`` or ``cosine_predicted``.

    Returns:
        The mean angle in right angles, without ``draw``.
    """
    return angle(history[variable]).mean("draw")


def numbers(values: Any, digits: int = 2) -> str:
    """Write numbers in a row.

    Args:
        values: the numbers.
        digits: significant digits.

    Returns:
        The numbers with commas between them.
    """
    return ", ".join(f"{float(value):.{digits}g}" for value in np.asarray(values).ravel())


def slope(x: Any, y: Any) -> float:
    """Fit a power law by least squares in logarithms.

    Args:
        x: positive numbers (n,).
        y: positive numbers (n,).

    Returns:
        The exponent; NaN for fewer than two points, or if a number is not positive.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(x) < 2 or not (np.isfinite(y).all() and (x > 0).all() and (y > 0).all()):
        return float("nan")
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def has(values: xr.DataArray | np.ndarray, *wanted: float) -> bool:
    """Say whether an axis holds some numbers.

    Args:
        values: the axis.
        *wanted: the numbers.

    Returns:
        Whether all are there.
    """
    return all(bool(np.isclose(np.asarray(values, dtype=float), number).any()) for number in wanted)


def draw_band(
    axes: "Axes",
    x: Any,
    values: xr.DataArray,
    *,
    label: str,
    colour: str,
    marker: bool = False,
    predicted: Any = None,
    centre: str = "mean",
) -> None:
    """Draw the mean over draws with a band of one standard deviation, and a prediction dashed.

    Args:
        axes: where to draw.
        x: positions along the horizontal axis.
        values: over ``draw`` and one more dimension.
        label: what the line is.
        colour: of the line.
        marker: whether to mark the points.
        predicted: the prediction at each position.
        centre: "mean", with the standard deviation, or "median", with the quarter of draws on either side.
    """
    if centre == "median":
        middle = values.median("draw").values
        low, high = (values.quantile(share, "draw").values for share in (0.25, 0.75))
    else:
        middle, spread = values.mean("draw").values, values.std("draw").values
        low, high = middle - spread, middle + spread
    axes.plot(x, middle, color=colour, label=label, linewidth=1.6, marker="o" if marker else None, markersize=3.5)
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    if predicted is not None:
        axes.plot(x, predicted, color=colour, linewidth=1.1, linestyle=(0, (4, 2.5)))


def branch_label(name: str) -> str:
    """Write the name of a branch scale for people.

    Args:
        name: such as ``0.5/sqrt(L)``.

    Returns:
        Such as ``β = 0.5/√L``.
    """
    text = f"β = {name.replace('sqrt(L)', '√L')}"
    return f"{text} (MLP)" if name == "1" else text


def branch_colours(names: Sequence[str]) -> dict[str, str]:
    """Give each branch scale its colour.

    Args:
        names: the branch scales, at most five.

    Returns:
        Name to colour.
    """
    return dict(zip(names, COLOURS[-len(names) :], strict=True))
