"""Pictures of a path over depth: what it costs, what is conserved, and how its entries move."""

import json

import numpy as np
import xarray as xr

from learnmech.errors import InputError
from learnmech.figures import ACCENT, FAINT, INK, SECOND, THIRD, depth_colours, make_figure
from learnmech.monitor.instrument import Figure

_MOST_LINES = 60


def draw_geodesic(history: xr.Dataset) -> list[Figure]:
    """Draw a geodesic or a flow: energies over depth, and the entries of the representation over depth.

    Args:
        history: what :func:`learnmech.leaky.flow` or :meth:`Geodesic.to_history` gave.

    Returns:
        Two figures, each with a caption that says how to read it.

    Raises:
        InputError: for a history without a path.

    Example:
        >>> import torch
        >>> from learnmech.leaky.geodesics import solve_geodesic
        >>> path = solve_geodesic(torch.ones(1, 1), torch.ones(1, 1), 2.0, 10)
        >>> [figure.name for figure in draw_geodesic(path.to_history(ridges=(1e-3,)))]
        ['geodesic_energies', 'geodesic_path']
    """
    missing = [name for name in ("path", "effective_dimension", "weight_norm") if name not in history]
    if missing:
        raise InputError(
            f"a history of leaky.flow or of a geodesic is needed, but this one lacks {', '.join(missing)}."
        )
    return [_energies(history), _path(history)]


def _energies(history: xr.Dataset) -> Figure:
    leak = float(json.loads(history.attrs["config"])["effective_depth"])
    figure = make_figure("depth p", "dimensions")
    depth = history["depth"].values
    curves = [
        (f"identity cost, ridge {float(ridge):g}", history["identity_cost"].sel(ridge=ridge).values, THIRD)
        for ridge in (history["ridge"].values if "identity_cost" in history else ())
    ]
    curves.append(("squared weights / squared effective depth", (history["weight_norm"].values / leak) ** 2, SECOND))
    curves.append(("effective dimension −2H / effective depth", history["effective_dimension"].values, ACCENT))
    dashes = ("solid", "dash", "dot", "dashdot")
    for position, (name, values, colour) in enumerate(curves):
        dash = dashes[position % len(dashes)] if colour == THIRD else "solid"
        line = {"color": colour, "width": 3 if colour == ACCENT else 2, "dash": dash}
        figure.add_scatter(x=depth, y=_drawable(values), name=name, mode="lines", line=line)
    figure.update_yaxes(rangemode="tozero")
    return Figure(
        "geodesic_energies",
        "What the path keeps, and what it pays",
        "The effective dimension is conserved: a flat line, up to the step size and the convergence of the path. The identity "
        "cost is what it would take to stand still; where it lies above the effective dimension the path moves, the faster the "
        "higher, and where both meet it rests: the bottleneck. The action is half the area under the squared weights, times the "
        "effective depth.",
        figure,
    )


def _path(history: xr.Dataset) -> Figure:
    figure = make_figure("depth p", "entries of the representation")
    depth, path = history["depth"].values, history["path"].values
    _, width, samples = path.shape
    shown = min(samples, max(1, _MOST_LINES // width))
    picked = np.unique(np.linspace(0, samples - 1, shown).astype(int))
    figure.add_hline(y=0, line={"color": FAINT, "width": 1})
    for neuron, colour in zip(range(width), depth_colours(width) if width > 1 else [ACCENT], strict=True):
        for position, sample in enumerate(picked.tolist()):
            figure.add_scatter(
                x=depth,
                y=_drawable(path[:, neuron, sample]),
                name=f"neuron {neuron}",
                legendgroup=f"neuron {neuron}",
                showlegend=position == 0 and width <= 12,
                mode="lines+markers" if len(depth) <= 25 else "lines",
                line={"color": colour, "width": 2},
                hovertemplate=f"neuron {neuron}, sample {sample}<br>p = %{{x:.3f}}: %{{y:.4g}}<extra></extra>",
            )
    some = "" if len(picked) == samples else f" {len(picked)} of {samples} samples are drawn."
    figure.update_layout(font={"color": INK})
    return Figure(
        "geodesic_path",
        "How the representation moves",
        "One line an entry, one colour a neuron. Steep ends and a slow middle near zero are a bottleneck; entries that lie on "
        "zero for a while slide along the kink of the ReLU." + some,
        figure,
    )


def _drawable(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
