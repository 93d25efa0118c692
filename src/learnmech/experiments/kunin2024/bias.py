"""Which interpolating solution a linear neuron finds, over its balance: closed form, integrated flow, and potential."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.optimize import brentq

from learnmech import history as histories
from learnmech.dynamics.implicit_bias_limit import ImplicitBias, implicit_bias
from learnmech.dynamics.implicit_bias_potential import bias_potential
from learnmech.dynamics.neuron_integrator import neuron_flow
from learnmech.dynamics.neuron_solution import radical
from learnmech.experiments.drawing import label_axes, new_figure
from learnmech.experiments.kunin2024.neuron_measuring import start_weights
from learnmech.experiments.reproduction import Claim, Context, Reproduction, Scale, judge
from learnmech.figures import ACCENT, FAINT, INK, SECOND, THIRD

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BASE: Mapping[str, Any] = {
    "input": [1.0, 0.5],
    "output": 2.0,
    "start": [0.3, 0.9],
    "drawn_deltas": [-8.0, 0.0, 8.0],
    "wide_starts": [[1.6, 0.63], [1.0, 1.0], [0.63, 1.6], [1.2, 0.6], [0.4, 2.0]],
    "time": 3000.0,
}
SETTINGS: Mapping[Scale, Mapping[str, Any]] = {
    "smoke": {**_BASE, "balances": 60, "integrated_every": 10},
    "reduced": {**_BASE, "balances": 120, "integrated_every": 4},
    "paper": {**_BASE, "balances": 120, "integrated_every": 4},
}
_SOURCE = "Kunin et al. 2024 (arXiv 2406.06158), Theorem 3.1; closed form derived here"
_LEVELS = (0.1, 0.4, 1.0, 2.0, 3.5, 6.0, 10.0)
"""Level lines, in units of the height of the one through the end."""
_COLOURS = (SECOND, ACCENT, THIRD)


def minimise_on_line(end: ImplicitBias, along: Float[np.ndarray, " dim"]) -> Float[np.ndarray, " dim"]:
    r"""Minimise the potential of the theorem along a line of solutions, by the root of its slope.

    The slope along a unit vector n is :math:`\sqrt{k - \delta}\,\hat\beta\cdot n - \sigma\psi\hat\beta_0\cdot n`, increasing.

    Args:
        end: whose potential, and a solution.
        along: unit vector of the null space.

    Returns:
        The minimum.
    """

    def slope(place: float) -> float:
        beta = end.regression + place * along
        size = float(np.linalg.norm(beta))
        return float(np.sqrt(radical(end.delta, end.rate * size)[1]) * (beta @ along) / size - end.linear @ along)

    reach = 1.0
    while slope(-reach) > 0 or slope(reach) < 0:
        reach *= 2.0
    return np.asarray(end.regression + brentq(slope, -reach, reach, xtol=1e-15, rtol=1e-14) * along)


def _line(
    settings: Mapping[str, Any],
) -> tuple[Float[np.ndarray, "one dim"], Float[np.ndarray, " one"], Float[np.ndarray, " dim"]]:
    X = np.array([settings["input"]])
    across = np.array([-X[0, 1], X[0, 0]]) / np.linalg.norm(X)
    return X, np.array([settings["output"]]), across


def _sweep(settings: Mapping[str, Any]) -> dict[str, Any]:
    X, y, across = _line(settings)
    product = np.array(settings["start"])
    half = np.logspace(-1, 3, settings["balances"] // 2)
    deltas = np.concatenate([-half[::-1], [0.0], half])
    ends = [implicit_bias(X, y, *start_weights(product, float(delta))) for delta in deltas]
    kept = np.arange(0, len(deltas), settings["integrated_every"])
    flows = []
    for delta in deltas[kept]:
        # Downstream the direction takes a time of order |delta|.
        longest = settings["time"] * (1.0 + abs(min(delta, 0.0)))
        flows.append(neuron_flow(X, y, *start_weights(product, float(delta)), [longest]).beta.values[0])
    limits = np.array([ends[0].direction_limit, ends[0].lazy_limit])
    return {
        "delta": deltas,
        "checked": deltas[kept],
        "closed": np.array([end.beta for end in ends]),
        "minimum": np.array([minimise_on_line(end, across) for end in ends]),
        "flow": np.array(flows),
        "limits": limits,
    }


def _wide_errors(settings: Mapping[str, Any]) -> list[float]:
    """Three samples of six inputs, in which the null space has three dimensions: largest error of the closed form."""
    random = np.random.default_rng(0)
    X, y, w = random.standard_normal((3, 6)), random.standard_normal(3), random.standard_normal(6)
    errors = []
    for a0, size in settings["wide_starts"]:
        for eta_a, eta_w in ((1.0, 1.0), (0.3, 2.0)):
            w0 = size * w / np.linalg.norm(w)
            end = implicit_bias(X, y, a0, w0, eta_a=eta_a, eta_w=eta_w)
            flow = neuron_flow(X, y, a0, w0, [settings["time"]], eta_a=eta_a, eta_w=eta_w)
            errors.append(float(np.abs(flow.beta.values[0] - end.beta).max()))
    return errors


def run(context: Context) -> xr.Dataset:
    """Compute the ends of training.

    Args:
        context: the scale; nothing can be replaced.

    Returns:
        A history over ``delta`` and ``dim``: ``closed``, ``minimum``; ``flow`` over the integrated balances, ``checked``; ``limit`` for
        delta to -inf and inf; and ``wide_error``.
    """
    context.require_overrides()
    settings = SETTINGS[context.scale]
    found, wide = _sweep(settings), _wide_errors(settings)

    def about(text: str) -> dict[str, str]:
        return {"long_name": text, "units": "target / input", "source": _SOURCE}

    over = ("delta", "dim")
    return histories.build(
        {
            "closed": (over, found["closed"], about("end of training, closed form")),
            "flow": (("checked", "dim"), found["flow"], about("end of training, integrated flow")),
            "minimum": (over, found["minimum"], about("least potential among the solutions")),
            "limit": (("extreme", "dim"), found["limits"], about("end for an extreme balance")),
            "wide_error": (("case",), wide, about("error of the closed form, three samples of six inputs")),
        },
        {
            "delta": found["delta"],
            "checked": found["checked"],
            "dim": [0, 1],
            "extreme": ["downstream", "upstream"],
            "case": np.arange(len(wide)),
        },
        config=dict(settings),
        attributes={"scale": context.scale},
    )


def check(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check the claims about the implicit bias.

    Args:
        history: the outcome.
        scale: the scale of the run.

    Returns:
        The claims B1 to B4.
    """
    del scale  # every claim is tested at every scale
    closed = history["closed"]
    same = closed.sel(delta=history["checked"].values).values
    flow_error = float(np.abs(same - history["flow"].values).max())
    least_error = float(np.abs(closed - history["minimum"]).max())
    gap = float(np.linalg.norm(np.diff(history["limit"].values, axis=0)))
    ends = [float(np.linalg.norm(closed.values[place] - history["limit"].values[place])) / gap for place in (0, -1)]
    wide = float(history["wide_error"].max())
    return [
        judge(
            "B1",
            "the closed form is where the flow ends",
            "within 1e-9 at every balance (ours)",
            f"largest difference {flow_error:.1e}",
            flow_error <= 1e-9,
        ),
        judge(
            "B2",
            "the end is the solution of least potential (Theorem 3.1)",
            "within 1e-9 of the minimum at every balance (ours)",
            f"largest difference {least_error:.1e}",
            least_error <= 1e-9,
        ),
        judge(
            "B3",
            "upstream it is linear regression from the start, downstream the direction of the start is kept",
            "at |δ| = 1000 within 1 % of the gap between the two limits (ours)",
            f"{ends[0]:.1e} downstream, {ends[1]:.1e} upstream",
            max(ends) <= 0.01,
        ),
        judge(
            "B4",
            "the closed form holds for a null space of several dimensions and unequal rates",
            "within 1e-9 of the flow, three samples of six inputs (ours)",
            f"largest difference {wide:.1e} over {history.sizes['case']} starts",
            wide <= 1e-9,
        ),
    ]


def draw(history: xr.Dataset) -> "Figure":
    """Draw the potential for three balances, and the end over the balance.

    Args:
        history: the outcome.

    Returns:
        The figure.
    """
    figure = new_figure(2, 2, width=9.2, height=8.2)
    settings = SETTINGS["smoke"]
    for axes, delta, colour in zip(figure.axes, settings["drawn_deltas"], _COLOURS, strict=False):
        _draw_potential(axes, settings, delta, colour)
    axes = figure.axes[3]
    _, _, across = _line(settings)
    deltas = history["delta"].values
    axes.plot(deltas, history["closed"].values @ across, color=INK, linewidth=1.6, label="closed form")
    flow = history["flow"].values @ across
    axes.plot(history["checked"], flow, "o", color=INK, markersize=3.5, label="integrated flow")
    for name, text, place in (
        ("downstream", "direction of the start kept", "right"),
        ("upstream", "linear regression", "left"),
    ):
        level = float(history["limit"].sel(extreme=name).values @ across)
        axes.axhline(level, color=FAINT, linewidth=1, linestyle="--")
        axes.annotate(
            text, (1000 if place == "right" else -1000, level), (0, 4), textcoords="offset points", ha=place, fontsize=8
        )
    axes.set_xscale("symlog", linthresh=0.5)
    axes.set_xticks(
        [-1000, -100, -10, -1, 0, 1, 10, 100, 1000], ["-1000", "-100", "-10", "-1", "0", "1", "10", "100", "1000"]
    )
    axes.margins(y=0.12)
    axes.legend(fontsize=8, frameon=False, loc="center right")
    label_axes(
        axes, "δ  (downstream < 0 < upstream)", "place of the end along the solutions", title="the end over the balance"
    )
    return figure


def _draw_potential(axes: "Axes", settings: Mapping[str, Any], delta: float, colour: str) -> None:
    X, y, across = _line(settings)
    start = np.array(settings["start"])
    end = implicit_bias(X, y, *start_weights(start, delta))
    grid = np.linspace(-0.4, 3.4, 90)
    plane = np.stack(np.meshgrid(grid, grid), axis=-1)
    heights = bias_potential(np.linalg.norm(plane, axis=-1), delta) - plane @ end.linear
    least, reached = heights.min(), end.potential(end.beta)
    levels = least + (reached - least) * np.array(_LEVELS)
    widths = [1.6 if share == 1.0 else 0.7 for share in _LEVELS]
    axes.contour(grid, grid, heights, levels=levels, colors=FAINT, linewidths=widths, linestyles="solid")
    line = end.regression[:, None] + across[:, None] * np.array([-4.0, 4.0])
    axes.plot(*line, color=INK, linewidth=1.2)
    path = neuron_flow(X, y, *start_weights(start, delta), np.append(0.0, np.logspace(-4, 3, 160))).beta.values
    axes.plot(path[:, 0], path[:, 1], color=colour, linewidth=1.6)
    axes.plot(*start, "o", color=INK, markersize=5)
    axes.plot(*end.beta, "o", color=colour, markersize=7)
    for point, text, shift in ((start, "start", (-28, 2)), (end.beta, "end", (8, 3))):
        axes.annotate(
            text, (float(point[0]), float(point[1])), shift, textcoords="offset points", fontsize=8, color=INK
        )
    axes.set_xlim(-0.4, 3.4)
    axes.set_ylim(-0.4, 3.4)
    axes.set_aspect("equal")
    name = "balanced" if delta == 0 else "upstream" if delta > 0 else "downstream"
    label_axes(axes, "β₁", "β₂", title=f"{name}, δ = {delta:+g}" if delta else f"{name}, δ = 0")


BIAS = Reproduction(
    name="kunin2024/bias",
    title="which interpolating solution a linear neuron finds, over its balance",
    caption="One sample and two inputs: every product β = a w on the black line fits. Grey: level lines of the potential of Theorem 3.1; "
    "coloured: the integrated flow from the same product with another balance δ; the dot is the closed form of its end, where a level "
    "line (thick) touches the black line. Lower right: the place of the end along the line. Upstream the neuron changes β as little as linear "
    "regression would; downstream it keeps the direction of the start as far as it can. Settings and criteria are ours.",
    settings=SETTINGS,
    run=run,
    check=check,
    draw=draw,
    citations=("kunin2024",),
)
