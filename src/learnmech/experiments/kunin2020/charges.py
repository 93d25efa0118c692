"""Charges of a small BatchNorm net under SGD, momentum and weight decay, against their laws."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from learnmech.errors import InputError
from learnmech.experiments.drawing import label_axes, new_figure
from learnmech.experiments.kunin2020.charged_run import KINDS, run_charges
from learnmech.experiments.reproduction import Claim, Context, Reproduction, Scale, judge
from learnmech.figures import ACCENT, INK, SECOND
from learnmech.sweep import Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COMMON: Mapping[str, Any] = {
    "rate": 0.1,
    "batch": 32,
    "momentum": [0.0, 0.9],
    "weight_decay": [0.0, 5e-3],
    "epsilon": 1e-30,
    "seed": 0,
}
SETTINGS: Mapping[Scale, Mapping[str, Any]] = {
    "smoke": {**_COMMON, "steps": 40, "stored": 20, "width": 8, "inner": 4},
    "reduced": {**_COMMON, "steps": 2000, "stored": 200, "width": 32, "inner": 8},
    "paper": {**_COMMON, "steps": 20_000, "stored": 200, "width": 256, "inner": 16},
}
_TITLES = {
    "scale": "scale: |w|² of a unit before BatchNorm",
    "rescale": "rescale: a ReLU unit, out minus in",
    "gl": "GL: between two linear layers, entry (1, 1)",
    "translation": "translation: a column of the read-out, summed",
}
DISCRETE_LIMIT, QUADRATIC_LIMIT, LINEAR_LIMIT, SETTLED_LIMIT, REMEMBERED_LIMIT = 1e-10, 1e-2, 1e-3, 0.1, 0.01


def run(context: Context) -> xr.Dataset:
    """Train with and without momentum and weight decay.

    Args:
        context: where and how to run.

    Returns:
        The collected sweep over ``momentum`` and ``weight_decay``.

    Raises:
        InputError: if an override replaces an axis, or is unknown.
    """
    settings = dict(SETTINGS[context.scale])
    axes = {name: settings.pop(name) for name in ("momentum", "weight_decay")}
    if set(context.overrides) & set(axes):
        raise InputError("momentum and weight_decay cannot be replaced: the figure compares them.")
    context.require_overrides(*settings)
    return context.run(Sweep(run_charges, axes, fixed={**settings, **context.overrides}))


def check(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check the laws.

    Args:
        history: the collected sweep.
        scale: the scale of the run.

    Returns:
        The claims K1 to K6.
    """
    discrete = history["discrete_error"].max("step").max(("momentum", "weight_decay"))
    drift = history["drift"].max("step")
    quadratic = history["continuous_error"].isel(step=-1).sel(kind=list(KINDS[:3]))
    linear = history["continuous_error"].isel(step=-1).sel(kind="translation")
    kept = float(drift.sel(kind="translation", weight_decay=0.0).max())
    settled = history["settled_square"] / history["predicted_square"]
    decayed = settled.sel(weight_decay=[value for value in history["weight_decay"].values if value > 0])
    remembered = history["remembered_ratio"].sel(momentum=0.0)
    long = scale != "smoke"
    most = drift.max("kind")
    return [
        judge(
            "K1",
            "every charge obeys its discrete law exactly (ours, sharper than the paper's)",
            f"distance below {DISCRETE_LIMIT:g} of the parts that cancel in them at every record, with and without momentum and weight decay",
            ", ".join(f"{kind} {float(discrete.sel(kind=kind)):.1e}" for kind in KINDS),
            bool((discrete < DISCRETE_LIMIT).all()),
        ),
        judge(
            "K2",
            "finite steps break the conservation of gradient flow: quadratic charges move",
            "in every run the charges of some kind move by half of their norm at least (ours)",
            "largest moves " + ", ".join(f"{value:.0%}" for value in most.values.ravel()),
            bool((most >= 0.5).all()),
            tested=long,
        ),
        judge(
            "K3",
            "the closed forms in continuous time describe how charges move",
            f"relative distance at the end below {QUADRATIC_LIMIT:g} for quadratic charges and {LINEAR_LIMIT:g} for translations (ours)",
            f"at most {float(quadratic.max()):.1e} and {float(linear.max()):.1e}",
            bool(quadratic.max() < QUADRATIC_LIMIT) and bool(linear.max() < LINEAR_LIMIT),
            tested=long,
        ),
        judge(
            "K4",
            "the charge of a translation is conserved by SGD, with and without momentum, if there is no weight decay",
            "it moves by less than 1e-12 of its norm",
            f"at most {kept:.1e}",
            kept < 1e-12,
        ),
        judge(
            "K5",
            "the norm of weights in front of BatchNorm settles where weight decay and steps balance",
            f"squared norm over the last quarter within {SETTLED_LIMIT:.0%} of the prediction, with and without momentum (ours)",
            ", ".join(
                f"ratio {float(decayed.sel(momentum=momentum).mean()):.3f} at momentum {momentum:g}"
                for momentum in decayed["momentum"].values
            ),
            bool((abs(decayed - 1) < SETTLED_LIMIT).all()),
            tested=long,
        ),
        judge(
            "K6",
            "on the way there the norm remembers past gradients as RMSProp does",
            f"squared norm at the end within {REMEMBERED_LIMIT:.0%} of the running mean of past gradients, without momentum (ours)",
            "ratio "
            + ", ".join(
                f"{float(remembered.sel(weight_decay=value)):.4f} at weight decay {value:g}"
                for value in remembered["weight_decay"].values
            ),
            bool((abs(remembered - 1) < REMEMBERED_LIMIT).all()),
            tested=long,
        ),
    ]


def draw(history: xr.Dataset) -> "Figure":
    """Draw a charge of each kind over training, with both predictions, and how far off they are.

    Args:
        history: the collected sweep.

    Returns:
        The figure.
    """
    figure = new_figure(2, 5, width=16.0, height=6.4)
    steps = history["step"].values
    for row, weight_decay in enumerate(history["weight_decay"].values):
        runs = history.sel(weight_decay=weight_decay)
        words = f"weight decay {weight_decay:g}" if weight_decay else "no weight decay"
        for column, kind in enumerate(KINDS):
            axes = figure.axes[5 * row + column]
            _draw_charge(axes, steps, runs.sel(kind=kind))
            label_axes(axes, "optimizer step" if row else "", "charge" if column == 0 else "")
            axes.set_title(f"{_TITLES[kind]}\n{words}", fontsize=8.5, color=INK, loc="left")
        _draw_errors(figure.axes[5 * row + 4], steps, runs)
        label_axes(figure.axes[5 * row + 4], "optimizer step" if row else "", "relative distance")
        figure.axes[5 * row + 4].set_title(
            f"how far off the predictions are\n{words}", fontsize=8.5, color=INK, loc="left"
        )
    figure.axes[0].legend(fontsize=7.5, frameon=False)
    return figure


def _draw_charge(axes: "Axes", steps: np.ndarray, runs: xr.Dataset) -> None:
    for momentum, colour in zip(runs["momentum"].values, (ACCENT, SECOND), strict=True):
        one = runs.sel(momentum=momentum)
        axes.plot(
            steps, one["charge"], color=colour, linewidth=4.5, alpha=0.3, label=f"measured, momentum {momentum:g}"
        )
        axes.plot(steps, one["continuous"], color=INK, linewidth=0.9, label="continuous" if momentum == 0 else None)
        marks = slice(None, None, max(1, len(steps) // 12))
        axes.plot(
            steps[marks],
            one["discrete"][marks],
            ".",
            color=colour,
            markersize=6,
            label=f"discrete law, momentum {momentum:g}",
        )
    low, high = axes.get_ylim()
    middle, least = (low + high) / 2, 0.05 * max(abs(low), abs(high))
    if high - low < least:
        axes.set_ylim(middle - least, middle + least)


def _draw_errors(axes: "Axes", steps: np.ndarray, runs: xr.Dataset) -> None:
    for momentum, colour in zip(runs["momentum"].values, (ACCENT, SECOND), strict=True):
        one = runs.sel(momentum=momentum).isel(step=slice(1, None))
        for name, style in (("continuous_error", "-"), ("discrete_error", ":")):
            values = one[name].transpose("step", "kind").values
            axes.semilogy(steps[1:], np.maximum(values.max(1), 1e-17), style, color=colour, linewidth=1.4)
    axes.axhline(DISCRETE_LIMIT, color=INK, linewidth=0.7, linestyle="--")
    for level, text in ((3e-8, "continuous: solid"), (2e-10, "limit of claim K1: dashed"), (3e-17, "discrete: dotted")):
        axes.annotate(text, (steps[-1], level), ha="right", va="bottom", fontsize=7.5, color=INK)
    axes.set_ylim(1e-17, 1)


CHARGES = Reproduction(
    name="kunin2020/charges",
    title="conserved charges under SGD, momentum and weight decay",
    caption="A net Linear, BatchNorm, ReLU, Linear, Linear on digits, in float64, trained by SGD at rate 0.1. Each column is a symmetry of the "
    "paper (and GL between linear layers) with one of its charges; gradient flow would keep all of them level. Broad lines are measured, "
    "blue without and red with momentum 0.9; thin black lines are the closed forms in continuous time, dots the exact discrete laws, "
    "which need the size of the steps only. On the right the largest relative distance over kinds, of all charges: the closed forms are off "
    "by the order of rate times weight decay, the discrete laws by rounding (BatchNorm's epsilon, 1e-30 here, would break the scale symmetry). The paper trains "
    "VGG-16 on Tiny ImageNet; here all scales are small nets on digits, and the largest differs in size and length only. "
    "The balance of K5 supposes gradients that stay as large over 1 / (4 rate decay) steps, 500 here without momentum.",
    settings=SETTINGS,
    run=run,
    check=check,
    draw=draw,
    citations=("kunin2020", "tanaka2021", "du2018"),
)
