"""Figure 2: the chain itself, pulled slowly or shaken while it is pulled, as an animation (the folding ruler)."""

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from learnmech import history as histories
from learnmech.experiments import moving
from learnmech.experiments.drawing import draw_curves, new_figure
from learnmech.experiments.reproduction import Claim, Context, Reproduction, Scale, judge
from learnmech.figures import ACCENT, FAINT, INK, SECOND, THIRD
from learnmech.springs import SpringChain, curvature

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLOCKS, FORWARD, BACKWARD = 7, 0.02, 0.08
WAYS = ("pulled", "shaken a little", "shaken hard")
NOISES = (0.0, 0.015, 0.2)
COLOURS = (SECOND, THIRD, ACCENT)
_FRAMES = 60
_HOLD = 20
"""Frames after the wall has arrived, in which the chains come to rest."""
_ALL: tuple[Scale, ...] = ("smoke", "reduced", "paper")
_SETTINGS = {
    "blocks": BLOCKS,
    "stiffness": 1,
    "friction_forward": FORWARD,
    "friction_backward": BACKWARD,
    "noise": NOISES,
    "wall": "moves from 0 to 1 in 60 frames of 4 units of time, then stands for 20",
    "dt": 0.01,
}


def run(context: Context) -> xr.Dataset:
    """Pull three chains, one quiet, one shaken a little, one hard.

    Args:
        context: has no settings to replace; the figure is the same at every scale.

    Returns:
        Positions and loads over ``frame`` and ``way``.
    """
    context.require_overrides()
    walls = np.concatenate([np.linspace(0, 1, _FRAMES + 1)[1:], np.ones(_HOLD)])
    position = np.zeros((len(WAYS), BLOCKS))
    paths = [np.zeros((len(WAYS), BLOCKS + 1))]
    for frame, wall in enumerate(walls):
        chain = SpringChain(BLOCKS, target=float(wall), friction_forward=FORWARD, friction_backward=BACKWARD)
        step = chain.simulate(
            duration=4.0, noise=np.array(NOISES), initial=position[:, None], record_every=400, seed=frame
        )
        whole = step["position"].isel(time=-1, chain=0).transpose("noise", "layer").values
        position = whole[:, :-1]
        paths.append(whole)
    positions = np.array(paths)
    wall_at = np.concatenate([[0.0], walls])
    loads = np.concatenate([np.zeros((len(positions), len(WAYS), 1)), positions], axis=-1)
    loads = wall_at[:, None, None] - loads
    meaning = {"units": "load", "source": "Shi, Pan, Dokmanić 2024 (arXiv 2407.19353), Fig. 2 and Eq. 5"}
    return histories.build(
        {
            "position": (
                ("frame", "way", "layer"),
                positions,
                {"long_name": "position of each block and the wall", **meaning},
            ),
            "load": (
                ("frame", "way", "point"),
                loads,
                {"long_name": "load curve, from the fixed end to the wall", **meaning},
            ),
        },
        {
            "frame": 4.0 * np.arange(len(positions)),
            "way": list(WAYS),
            "layer": [str(layer) for layer in range(1, BLOCKS + 2)],
            "depth": ("layer", np.arange(1, BLOCKS + 2) / (BLOCKS + 1)),
            "point": np.arange(BLOCKS + 2),
        },
        config=_SETTINGS,
    )


def check(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check that shaking straightens the curve and too much bends it the other way.

    Args:
        history: what :func:`run` gave.
        scale: the scale.

    Returns:
        The claims.
    """
    tail = history["load"].isel(frame=slice(-10, None)).mean("frame").values
    bends = [float(curvature(curve)) for curve in tail]
    text = "q = " + ", ".join(f"{way} {bend:+.2f}" for way, bend in zip(WAYS, bends, strict=True))
    return [
        judge("2", "a chain that is only pulled opens at the pulled end: concave", "q < -0.3", text, bends[0] < -0.3),
        judge("2b", "shaken a little it opens evenly", "|q| < 0.3", text, abs(bends[1]) < 0.3),
        judge("2c", "shaken hard it opens at the fixed end: convex", "q > 0.3", text, bends[2] > 0.3),
    ]


def draw(history: xr.Dataset) -> "Figure":
    """Draw the chains at the end, and their load curves at three moments.

    Args:
        history: what :func:`run` gave.

    Returns:
        The figure.
    """
    figure = new_figure(1, 2, width=9.0, height=3.4, gridspec_kw={"width_ratios": [1.5, 1]})
    left, right = figure.axes
    final = history.isel(frame=-1)
    for row, (way, colour) in enumerate(zip(WAYS, COLOURS, strict=True)):
        x, y = _spring(final["position"].sel(way=way).values, -row)
        left.plot(x, y, color=FAINT, linewidth=1)
        blocks = final["position"].sel(way=way).values[:-1]
        left.plot(blocks, np.full(len(blocks), -row), "s", color=colour, markersize=9)
        left.plot([0, 0], [-row - 0.3, -row + 0.3], color=INK, linewidth=3)
        left.plot([1, 1], [-row - 0.3, -row + 0.3], color=INK, linewidth=3)
        left.text(0.5, -row + 0.34, way, ha="center", fontsize=9, color=colour)
    left.set_yticks([])
    left.set_ylim(-len(WAYS) + 0.5, 0.7)
    left.spines["left"].set_visible(False)
    left.set_xlabel("position", color=INK, fontsize=9)
    draw_curves(right, list(final["load"].values[:, :-1]), list(WAYS), colours=COLOURS, x_title="block")
    return figure


def _spring(ends: np.ndarray, height: float, turns: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Give the zigzag of all springs between the fixed end and the wall."""
    x, y = [0.0], [height]
    previous = 0.0
    for end in ends:
        inner = np.linspace(previous, end, 2 * turns + 2)[1:-1]
        x += [*inner.tolist(), float(end)]
        y += [*(height + 0.12 * (-1.0) ** np.arange(2 * turns)).tolist(), height]
        previous = float(end)
    return np.array(x), np.array(y)


def animate(history: xr.Dataset) -> str:
    """Make the animation as HTML that needs no network.

    Args:
        history: what :func:`run` gave.

    Returns:
        An HTML fragment.
    """
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=1,
        cols=2,
        column_widths=[0.6, 0.4],
        subplot_titles=("the chains", "their load curves"),
        horizontal_spacing=0.1,
    )
    for trace, column in _traces(history, history.sizes["frame"] - 1):
        figure.add_trace(trace, row=1, col=column)
    figure.update_layout(showlegend=False)
    figure.update_xaxes(range=[-0.03, 1.03], title={"text": "position"}, zeroline=False, row=1, col=1)
    figure.update_yaxes(range=[-2.6, 0.75], visible=False, row=1, col=1)
    figure.update_xaxes(title={"text": "block"}, zeroline=False, gridcolor="#e9edf1", row=1, col=2)
    figure.update_yaxes(range=[-0.05, 1.1], title={"text": "load D"}, zeroline=False, gridcolor="#e9edf1", row=1, col=2)
    return moving.animate(
        figure,
        [f"{time:g}" for time in history["frame"].values],
        lambda frame: [trace for trace, _ in _traces(history, frame)],
        name="chains",
    )


def _traces(history: xr.Dataset, frame: int) -> list[tuple[Any, int]]:
    import plotly.graph_objects as go

    at = history.isel(frame=frame)
    traces: list[tuple[Any, int]] = []
    for row, (way, colour) in enumerate(zip(WAYS, COLOURS, strict=True)):
        position = at["position"].sel(way=way).values
        x, y = _spring(position, -row)
        load = at["load"].sel(way=way).values[:-1]
        lines = {"mode": "lines", "hoverinfo": "skip"}
        walls = {
            "x": [0, 0, None, position[-1], position[-1]],
            "y": [-row - 0.3, -row + 0.3, None, -row - 0.3, -row + 0.3],
        }
        blocks = {"x": position[:-1].round(4).tolist(), "y": [-row] * BLOCKS}
        traces += [
            (go.Scatter(x=x.round(4).tolist(), y=y.round(3).tolist(), line={"color": FAINT, "width": 1.2}, **lines), 1),
            (go.Scatter(**walls, line={"color": INK, "width": 4}, **lines), 1),
            (go.Scatter(**blocks, mode="markers", marker={"symbol": "square", "size": 14, "color": colour}), 1),
            (
                go.Scatter(
                    x=[0.0],
                    y=[-row + 0.42],
                    mode="text",
                    text=[way],
                    textposition="middle right",
                    textfont={"color": colour},
                ),
                1,
            ),
            (
                go.Scatter(
                    y=load.round(4).tolist(), mode="lines+markers", line={"color": colour, "width": 2.5}, name=way
                ),
                2,
            ),
        ]
    return traces


FIG2 = Reproduction(
    name="shi2024/fig2",
    title="a chain of blocks and springs, pulled slowly or shaken while it is pulled",
    caption="The wall pulls slowly at the right end. Friction against forward motion holds the blocks back, so the pulled end opens first and "
    "the load curve is concave. Shaking frees them: a little gives equal springs and a straight curve, much gives a convex one, "
    "because blocks slide back less easily than forward. A folding ruler opens in the same way. Press play.",
    settings=dict.fromkeys(_ALL, _SETTINGS),
    run=run,
    check=check,
    draw=draw,
    page=animate,
)
