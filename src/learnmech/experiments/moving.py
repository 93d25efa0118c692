"""Figures that move: a plotly figure with a slider, as HTML that needs no network."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from learnmech.figures import INK

if TYPE_CHECKING:
    import plotly.graph_objects as go


def animate(
    figure: "go.Figure",
    moments: Sequence[str],
    traces: Callable[[int], Sequence[Any]],
    *,
    name: str,
    prefix: str = "time ",
    height: int = 460,
    duration: int = 60,
) -> str:
    """Give a figure frames, buttons to play and pause, and a slider.

    Args:
        figure: as it stands when the page is opened, at the last moment; what does not move comes after the traces that do.
        moments: a unique text for each frame, shown at the slider.
        traces: the moving traces at the frame of that number, as many and in the same order as they come first in the figure.
        name: of the element in the page.
        prefix: what stands before the moment.
        height: in pixels.
        duration: of a frame, in milliseconds.

    Returns:
        An HTML fragment.
    """
    import plotly.graph_objects as go

    frames = []
    for number, moment in enumerate(moments):
        data = list(traces(number))
        frames.append(go.Frame(name=moment, data=data, traces=list(range(len(data)))))
    figure.frames = frames
    play = {"frame": {"duration": duration, "redraw": False}, "fromcurrent": True, "transition": {"duration": 0}}
    still = {"frame": {"duration": 0, "redraw": False}, "mode": "immediate", "transition": {"duration": 0}}
    figure.update_layout(
        height=height,
        margin={"l": 20, "r": 20, "t": 40, "b": 20},
        plot_bgcolor="#ffffff",
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        updatemenus=[
            {
                "type": "buttons",
                "direction": "left",
                "x": 0,
                "y": -0.12,
                "xanchor": "left",
                "buttons": [
                    {"label": "play", "method": "animate", "args": [None, play]},
                    {"label": "pause", "method": "animate", "args": [[None], still]},
                ],
            }
        ],
        sliders=[
            {
                "active": len(moments) - 1,
                "x": 0.2,
                "len": 0.8,
                "y": -0.06,
                "currentvalue": {"prefix": prefix, "xanchor": "right", "font": {"size": 13, "color": INK}},
                "font": {"size": 1, "color": "rgba(0,0,0,0)"},
                "ticklen": 0,
                "steps": [{"label": moment, "method": "animate", "args": [[moment], still]} for moment in moments],
            }
        ],
    )
    fragment: str = figure.to_html(
        full_html=False,
        include_plotlyjs=True,
        auto_play=False,
        div_id=name,
        config={"displayModeBar": False, "responsive": True},
    )
    return fragment
