"""The table of scalings: exponents in width and depth of what a scaling promises, fitted to nets and held against it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from learnmech.experiments.chizat2023.scaled_nets import KINDS, QUANTITIES, measure_scaled, scaling_of
from learnmech.experiments.chizat2023.shared import Cells, setting, slope
from learnmech.experiments.drawing import label_axes, new_figure
from learnmech.experiments.reproduction import Claim, Reproduction, Scale, judge, untested
from learnmech.figures import ACCENT, INK, SECOND, THIRD

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOLERANCE = 0.15
"""How far a fitted exponent may be off: at 16 to 64 layers the shares of the outer layers alone shift it by 0.08."""


_LEAST_SPAN = 20.0
"""Least ratio of the ends of a vertical axis, so that small differences look small."""


def _settings(sizes: Sequence[tuple[int, int]], draws: int) -> dict[str, Any]:
    nets = {f"width {width}, L {layers}": {"width": width, "layers": layers} for width, layers in sizes}
    return {"inputs": 10, "net": list(nets), "nets": nets, "dtype": "float32", "draws": draws}


CELLS = Cells(
    measure_scaled,
    ("net",),
    {
        "smoke": _settings([(128, 8), (128, 16), (64, 8)], 3),
        "reduced": _settings([(1024, 16), (1024, 32), (1024, 64), (256, 16), (512, 16)], 40),
        "paper": _settings([(2048, 16), (2048, 32), (2048, 64), (256, 16), (512, 16), (1024, 16)], 60),
    },
)
_COLOURS = dict(zip(KINDS, (THIRD, SECOND, "#e59aa3", ACCENT), strict=True))
_SIZES = dict(zip(KINDS, (9.0, 7.0, 5.0, 3.0), strict=True))
"""Of the dots: where scalings have the same value, the later one lies inside the earlier one."""
_TITLES = {
    "sensitivity": "sensitivity S",
    "speed_rms": "speed of the last features",
    "loss_decay": "loss decay",
    "balance": "least share of a layer × L",
}


def fit(history: xr.Dataset) -> xr.Dataset:
    """Fit powers of depth, at the largest width, and of width, at the least depth.

    Args:
        history: the collected sweep.

    Returns:
        Over ``scaling`` and ``power`` ("depth", "width"): each of :data:`QUANTITIES`, the exponent of its mean over draws;
        and the same with ``_error``, its standard error by leaving out one draw at a time (NaN for one draw).
    """
    draws = np.arange(history.sizes["draw"])
    found: dict[str, Any] = {}
    for name in QUANTITIES:
        exponents, errors = [], []
        for kind in history["scaling"].values:
            values = history[name].sel(scaling=kind).transpose("net", "draw").values
            rows = _lines(history)
            exponents.append([slope(sizes, values[kept].mean(axis=1)) for sizes, kept in rows.values()])
            errors.append([_jackknife(sizes, values[kept], draws) for sizes, kept in rows.values()])
        found[name] = (("scaling", "power"), exponents)
        found[f"{name}_error"] = (("scaling", "power"), errors)
    return xr.Dataset(found, {"scaling": history["scaling"].values, "power": ["depth", "width"]})


def _lines(history: xr.Dataset) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Give depths of the nets of the largest width, widths of those of the least depth, and where these nets are."""
    sizes: Mapping[str, Mapping[str, int]] = setting(history, "nets")
    names = [str(name) for name in history["net"].values]
    widths = np.array([sizes[name]["width"] for name in names])
    layers = np.array([sizes[name]["layers"] for name in names])
    deep, wide = np.flatnonzero(widths == widths.max()), np.flatnonzero(layers == layers.min())
    deep, wide = deep[np.argsort(layers[deep])], wide[np.argsort(widths[wide])]
    return {"depth": (layers[deep], deep), "width": (widths[wide], wide)}


def _jackknife(sizes: np.ndarray, values: np.ndarray, draws: np.ndarray) -> float:
    count = len(draws)
    if count < 2:
        return float("nan")
    without = np.array([slope(sizes, values[:, draws != draw].mean(axis=1)) for draw in draws])
    return float(np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum()))


def expected_exponents(name: str) -> dict[str, tuple[float, float]]:
    """Give the powers that a scaling promises.

    Args:
        name: the scaling.

    Returns:
        Each of :data:`QUANTITIES` to its powers of depth and width.
    """
    powers = dict(scaling_of(name, 1024, 16, 10).exponents)
    found = {
        quantity: (powers[quantity].depth, powers[quantity].width) for quantity in QUANTITIES if quantity != "balance"
    }
    return {**found, "balance": (0.0, 0.0)}


def check(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check every exponent of every scaling.

    Args:
        history: the collected sweep.
        scale: the scale of the run.

    Returns:
        One claim a scaling.
    """
    del scale  # what can be tested depends on the nets that were measured
    texts = {
        "NTK": "lazy: the loss decays at every size, the features the less the wider the net",
        "mean field, for loss": "the loss decays at every size, the features move the more the deeper the net",
        "mean field, for features": "the features move at every size, the loss decays the less the deeper the net",
        "FSC": "the features move and the loss decays at every size",
    }
    lines = _lines(history)
    deep, wide = lines["depth"][0], lines["width"][0]
    enough = len(deep) > 1 and deep.min() >= 16 and deep.max() >= 4 * deep.min() and history.sizes["draw"] >= 5
    enough = enough and len(wide) > 1 and wide.min() >= 16 * deep.min() and wide.max() >= 16 * deep.max()
    if not enough:
        reason = "L from 16 over a factor of 4, widths of at least 16 L, and 5 draws"
        return [untested(name, texts[name], reason) for name in map(str, history["scaling"].values)]
    found = fit(history)
    claims = []
    for name in map(str, history["scaling"].values):
        wanted, written, holds = expected_exponents(name), [], []
        for quantity, powers in wanted.items():
            values = found[quantity].sel(scaling=name).values
            errors = found[f"{quantity}_error"].sel(scaling=name).values
            holds.append(bool((np.abs(values - np.array(powers)) <= TOLERANCE).all()))
            written.append(
                f"{_TITLES[quantity]}: L {values[0]:+.2f} ± {errors[0]:.2f}, width {values[1]:+.2f} ± {errors[1]:.2f}"
            )
        powers_text = "; ".join(
            f"{_TITLES[quantity]}: L {powers[0]:+g}, width {powers[1]:+g}" for quantity, powers in wanted.items()
        )
        claims.append(
            judge(
                name,
                texts[name],
                f"every exponent within {TOLERANCE} of: {powers_text}",
                "; ".join(written),
                all(holds),
            )
        )
    return claims


def draw(history: xr.Dataset) -> "Figure":
    """Draw the four quantities over depth, above, and over width, below.

    Args:
        history: the collected sweep.

    Returns:
        The figure.
    """
    figure = new_figure(2, 4, width=11.5, height=5.6)
    lines = _lines(history)
    titles = {"depth": "depth L", "width": "width"}
    for position, (power, quantity) in enumerate((power, quantity) for power in lines for quantity in QUANTITIES):
        axes = figure.axes[position]
        sizes, kept = lines[power]
        for name in map(str, history["scaling"].values):
            values = history[quantity].sel(scaling=name).isel(net=kept).transpose("net", "draw").values
            middle = values.mean(axis=1)
            if values.shape[1] > 1:
                error = values.std(axis=1, ddof=1) / np.sqrt(values.shape[1])
                axes.errorbar(sizes, middle, error, color=_COLOURS[name], linewidth=0, elinewidth=1)
            axes.plot(sizes, middle, "o", color=_COLOURS[name], markersize=_SIZES[name], label=name)
            expected = expected_exponents(name)[quantity][0 if power == "depth" else 1]
            through = np.exp(np.log(middle).mean() + expected * (np.log(sizes) - np.log(sizes).mean()))
            axes.plot(sizes, through, color=_COLOURS[name], linewidth=1.2, linestyle=(0, (4, 2.5)))
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        low, high = axes.get_ylim()
        room = max(1.0, np.sqrt(_LEAST_SPAN / (high / low)))
        axes.set_ylim(low / room, high * room)
        label_axes(axes, titles[power], _TITLES[quantity])
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=9, frameon=False, loc="outside upper center", ncols=4, labelcolor=INK)
    return figure


SCALINGS = Reproduction(
    name="chizat2023/scalings",
    title="exponents of four scalings of deep ReLU nets in width and depth",
    caption="Dots are means over draws with their standard errors; where scalings have the same value the dots lie inside each other. "
    "Dashed lines have the exponents that each scaling promises. Above: over depth at the largest width; below: over width at the "
    "least depth. Plain ReLU nets at their start, one sample, one step of gradient descent to first order, all layers trained. The "
    "exponents are derived here; the paper's own table was not compared.",
    settings=CELLS.settings,
    run=CELLS.run,
    check=check,
    draw=draw,
    citations=("chizat2023",),
)
