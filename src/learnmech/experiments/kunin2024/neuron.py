"""The single linear neuron: paths, kernel distance and speeds from upstream, balanced and downstream starts."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from learnmech import history as histories
from learnmech.experiments.drawing import label_axes, new_figure
from learnmech.experiments.kunin2024.neuron_measuring import (
    measure_paths,
    measure_slow_phase,
    measure_speeds,
    random_errors,
)
from learnmech.experiments.reproduction import Claim, Context, Reproduction, Scale, judge
from learnmech.figures import ACCENT, INK, SECOND, THIRD

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BASE: Mapping[str, Any] = {
    "target": [1.0, 0.0],
    "start_size": 0.2,
    "start_angle_degrees": 60.0,
    "deltas": [20.0, 0.0, -20.0],
    "slow_deltas": [-10.0, -40.0, -160.0, -640.0],
    "slow_cosine": 0.3,
    "longest": 5000.0,
}
SETTINGS: Mapping[Scale, Mapping[str, Any]] = {
    "smoke": {**_BASE, "random_cases": 20, "points": 121, "balances": 41},
    "reduced": {**_BASE, "random_cases": 200, "points": 401, "balances": 121},
    "paper": {**_BASE, "random_cases": 200, "points": 401, "balances": 121},
}
_EXACT = "Kunin et al. 2024 (arXiv 2406.06158), single linear neuron; closed form derived here"
_NAMES = ("upstream", "balanced", "downstream")
_COLOURS = (THIRD, ACCENT, SECOND)
_SLOW_ERRORS = (4e-3, 2.6e-4, 1.6e-5, 1.0e-6)
_SETTLED = 0.02


def run(context: Context) -> xr.Dataset:
    """Compute paths, speeds and errors.

    Args:
        context: the scale; nothing can be replaced.

    Returns:
        A history over ``start_delta`` and ``time`` (paths), ``delta`` and ``motion`` (speeds), ``slow_delta`` and ``case`` (errors).
    """
    context.require_overrides()
    settings = SETTINGS[context.scale]
    paths, speeds = measure_paths(settings), measure_speeds(settings)
    errors = random_errors(settings["random_cases"], settings["longest"])

    def about(text: str, units: str = "1") -> dict[str, str]:
        return {"long_name": text, "units": units, "source": _EXACT}

    over_time, over_delta = ("start_delta", "time"), ("delta", "motion")
    return histories.build(
        {
            "beta": ((*over_time, "dim"), paths["beta"], about("product a w", "target / input")),
            "phi": (over_time, paths["phi"], about("cosine of w and the target")),
            "mu": (over_time, paths["mu"], about("size a |w|", "target / input")),
            "loss": (over_time, paths["loss"], about("half the squared error", "target^2")),
            "kernel_distance": (over_time, paths["kernel_distance"], about("kernel distance to the start")),
            "measured_speed": (over_delta, speeds["measured"], about("speed from the first instants", "1 / time")),
            "speed": (over_delta, speeds["exact"], about("speed by formula", "1 / time")),
            "limit_speed": (over_delta, speeds["limits"], about("speed in the limit of the balance", "1 / time")),
            "slow_error": (
                ("slow_delta",),
                measure_slow_phase(settings),
                about("error of the slow phase in closed form"),
            ),
            "random_error": (("case",), errors, about("error against the integrated flow, scaled")),
        },
        {
            "time": paths["time"],
            "start_delta": settings["deltas"],
            "dim": [0, 1],
            "delta": speeds["delta"],
            "motion": ["size", "direction"],
            "slow_delta": settings["slow_deltas"],
            "case": np.arange(len(errors)),
        },
        config=dict(settings),
        attributes={"scale": context.scale},
    )


def check(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check the claims about the single neuron.

    Args:
        history: the outcome.
        scale: the scale of the run.

    Returns:
        The claims K1 to K6.
    """
    del scale  # every claim is tested at every scale, K1 on fewer cases
    distance, deltas = history["kernel_distance"], history["delta"].values
    upstream, balanced, downstream = (distance.isel(start_delta=position) for position in range(3))
    run_down = history.isel(start_delta=2)
    # The fast phase is over when the size has settled on the projection of the target, of norm 1, on the direction: mu = phi.
    settled = np.abs(run_down["mu"].values / run_down["phi"].values - 1) < _SETTLED
    fitted = int(np.argmax(settled)) if settled.any() else -1
    error = np.abs(history["measured_speed"].values / history["speed"].values - 1).max()
    far = np.abs(deltas) >= 100
    limits = np.abs(history["speed"].values / history["limit_speed"].values - 1)
    slow = history["slow_error"].values
    worst = float(history["random_error"].max())
    return [
        judge(
            "K1",
            "the closed form is the gradient flow, for every balance and any rates",
            "largest scaled error ≤ 1e-8 (ours)",
            f"{worst:.1e} over {history.sizes['case']} random cases to t = 5000",
            worst <= 1e-8,
        ),
        judge(
            "K2",
            "upstream is lazy, balanced is rich: the kernel stays, or moves",
            "kernel distance at the end < 0.01 upstream and > 0.1 balanced (ours)",
            f"{float(upstream[-1]):.4f} and {float(balanced[-1]):.3f}",
            float(upstream[-1]) < 0.01 and float(balanced[-1]) > 0.1,
        ),
        judge(
            "K3",
            "downstream is lazy first and rich later",
            "kernel distance < 0.02 when the size has come within 2 % of its fit, > 0.5 at the end (ours)",
            f"{float(downstream[fitted]):.4f} at t = {float(history['time'][fitted]):.2g}, then {float(downstream[-1]):.3f}",
            float(downstream[fitted]) < 0.02 and float(downstream[-1]) > 0.5,
        ),
        judge(
            "K4",
            "size and direction move with the speeds k and (k + δ) / (2|β|)",
            "finite differences of the path within 1e-4 of them (ours)",
            f"largest relative difference {error:.1e}",
            bool(error <= 1e-4),
        ),
        judge(
            "K5",
            "the table of limits: |δ| and |β|/|δ| downstream, 2|β| and 1 balanced, δ and δ/|β| upstream",
            "within 1 % for |δ| ≥ 100 |β|, exact for δ = 0 (ours)",
            f"{limits[far].max():.1e} and {limits[deltas == 0].max():.1e}",
            bool(limits[far].max() <= 0.01 and limits[deltas == 0].max() <= 1e-12),
        ),
        judge(
            "K6",
            "the slow phase of a downstream start in closed form, with an error that falls like 1/δ²",
            "errors within a factor of 2 of 4e-3, 2.6e-4, 1.6e-5, 1.0e-6 (our earlier derivation)",
            ", ".join(f"{value:.2g}" for value in slow),
            bool(np.all((slow <= 2 * np.array(_SLOW_ERRORS)) & (slow >= np.array(_SLOW_ERRORS) / 2))),
        ),
    ]


def draw(history: xr.Dataset) -> "Figure":
    """Draw paths, kernel distance, loss and speeds.

    Args:
        history: the outcome.

    Returns:
        The figure.
    """
    figure = new_figure(2, 2, width=9.2, height=7.4)
    plane, distance, loss, speeds = figure.axes
    for position, (name, colour) in enumerate(zip(_NAMES, _COLOURS, strict=True)):
        path = history["beta"].isel(start_delta=position).values
        label = f"{name}, δ = {float(history['start_delta'][position]):+g}".replace("+0", "0")
        plane.plot(path[:, 0], path[:, 1], color=colour, linewidth=1.8, label=label)
        for axes, variable in ((distance, "kernel_distance"), (loss, "loss")):
            axes.plot(
                history["time"][1:], history[variable].isel(start_delta=position)[1:], color=colour, linewidth=1.8
            )
    start, target = (
        history["beta"].isel(start_delta=0, time=0).values,
        history["beta"].isel(start_delta=1, time=-1).values,
    )
    plane.plot(*start, "o", color=INK, markersize=5)
    plane.annotate("start", tuple(start), (4, 8), textcoords="offset points", fontsize=8, color=INK)
    plane.plot(*target, "*", color=INK, markersize=10)
    plane.annotate("target", tuple(target), (-14, -15), textcoords="offset points", fontsize=8, color=INK)
    plane.set_aspect("equal", adjustable="datalim")
    plane.legend(fontsize=8, frameon=False, loc="upper right")
    label_axes(plane, "β₁", "β₂", title="paths of the product β = a w")
    for axes in (distance, loss):
        axes.set_xscale("log")
    loss.set_yscale("log")
    loss.set_ylim(1e-6, 2.0 * float(history["loss"].max()))
    label_axes(distance, "time", "kernel distance to the start", title="0: lazy. Downstream the kernel moves late")
    label_axes(loss, "time", "loss", title="downstream: fast in size, then slow in direction")
    _draw_speeds(speeds, history)
    for axes in figure.axes:
        axes.minorticks_off()
    return figure


def _draw_speeds(axes: "Axes", history: xr.Dataset) -> None:
    deltas = history["delta"].values
    every = max(1, len(deltas) // 24)
    for motion, colour in (("size", INK), ("direction", "#b7791f")):
        axes.plot(deltas, history["speed"].sel(motion=motion), color=colour, linewidth=1.6, label=f"{motion}, formula")
        axes.plot(
            deltas[::every],
            history["measured_speed"].sel(motion=motion)[::every],
            "o",
            color=colour,
            markersize=3.2,
            label=f"{motion}, from the path",
        )
        for part in (deltas <= -2, deltas >= 2):
            axes.plot(
                deltas[part],
                history["limit_speed"].sel(motion=motion)[part],
                color=SECOND,
                linewidth=1.4,
                linestyle=(0, (2, 2)),
                zorder=5,
            )
    axes.set_xscale("symlog", linthresh=0.5)
    axes.set_yscale("log")
    axes.set_xticks(
        [-1000, -100, -10, -1, 0, 1, 10, 100, 1000], ["-1000", "-100", "-10", "-1", "0", "1", "10", "100", "1000"]
    )
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    label_axes(
        axes, "δ  (downstream < 0 < upstream)", "speed", title="speeds at |β| = 1; red dashes: limits of the table"
    )


NEURON = Reproduction(
    name="kunin2024/neuron",
    title="one linear neuron: lazy, rich, or lazy first and rich later",
    caption="A neuron f = a w·x on two whitened inputs, all runs from the same product a w (size 0.2, 60° off the target of size 1) with another "
    "balance δ = a² − |w|²; curves are the closed form. Upstream the path is straight and the kernel hardly moves. Downstream the "
    "size is fitted at once along the direction of the start; the direction turns hundreds of times slower, and the kernel with it. Lower "
    "right: how fast size and direction follow the gradient; dots are finite differences of the path. Settings and criteria are ours; "
    "this is the paper's model, not one of its panels.",
    settings=SETTINGS,
    run=run,
    check=check,
    draw=draw,
    citations=("kunin2024",),
)
