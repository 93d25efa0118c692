"""Pictures of a profile: what the net does over its depth, readable without the paper."""

import json

import numpy as np
import xarray as xr

from learnmech.errors import HistoryError
from learnmech.figures import ACCENT, FAINT, INK, SECOND, THIRD, depth_colours, make_figure
from learnmech.monitor.instrument import Figure

_DIRECTIONS = 12
_DEPTH_TITLE = "depth p (0: input, 1: output)"


def draw_profile(run: xr.Dataset) -> tuple[Figure, ...]:
    """Draw the profile of a leaky ResNet.

    Args:
        run: what :func:`learnmech.leaky.profile` gave, of one net.

    Returns:
        Four figures: dimensions over depth, singular values of the weights, the check that the effective dimension is constant,
        and steps. Each has a caption that says how to read it.

    Raises:
        HistoryError: if the history is no profile, or holds several nets.
    """
    needed = {"identity_cost", "weight_spectrum", "pre_effective_dimension", "stationarity", "relative_step"}
    if not needed <= set(run.data_vars) or run["pre_effective_dimension"].dims != ("layer",):
        raise HistoryError(
            "expected a profile of one net, as learnmech.leaky.profile gives it; of several, choose one with isel or sel."
        )
    return (_dimensions(run), _spectrum(run), _constancy(run), _steps(run))


def _dimensions(run: xr.Dataset) -> Figure:
    figure = make_figure(_DEPTH_TITLE, "dimensions")
    depth = run["depth"].values
    colours = depth_colours(run.sizes["ridge"] + 1)[1:]
    for number, ridge in enumerate(run["ridge"].values):
        figure.add_scatter(
            x=depth,
            y=_positive(run["identity_cost"].isel(ridge=number).values),
            name=f"identity cost, ridge {ridge:g}",
            line={"color": colours[number]},
        )
    figure.add_scatter(
        x=depth,
        y=_positive(run["pre_effective_dimension"].values),
        name="effective dimension",
        line={"color": SECOND, "dash": "dash"},
    )
    figure.add_scatter(
        x=depth,
        y=_positive(run["kept_directions"].values),
        name="directions kept by the weights",
        mode="markers",
        marker={"color": THIRD, "symbol": "line-ew-open", "size": 10},
    )
    figure.update_yaxes(type="log", exponentformat="power")
    return Figure(
        "leaky_dimensions",
        "How many dimensions the representation has, layer by layer",
        "The identity cost counts the dimensions of a representation by what it costs to keep it. Where it is least is the "
        "bottleneck. The number of large singular values of the weights should agree with it there. At the ends the "
        "representation changes fast and the count is not low. The effective dimension is shown where it is positive.",
        figure,
    )


def _spectrum(run: xr.Dataset) -> Figure:
    figure = make_figure(_DEPTH_TITLE, "singular value of W")
    depth = run["depth"].values
    kept = int(np.nanmin(run["kept_directions"].values))
    for number in range(min(_DIRECTIONS, run.sizes["direction"])):
        figure.add_scatter(
            x=depth,
            y=run["weight_spectrum"].isel(direction=number).values,
            line={"color": ACCENT if number < kept else FAINT},
            name="kept in the bottleneck" if number == 0 else "the next ones",
            showlegend=number in (0, kept),
        )
    level = _effective_depth(run)
    if level is not None:
        figure.add_hline(
            y=level,
            line={"color": INK, "dash": "dot", "width": 1},
            annotation_text="effective depth: what keeps a direction unchanged",
            annotation_position="bottom right",
        )
    return Figure(
        "leaky_spectrum",
        "Which directions the weights carry",
        "Singular values of each layer's weights. A direction needs one of about the effective depth (dotted) to survive the leak; "
        "the excess over it is the rate at which it grows, and hardly depends on the effective depth.",
        figure,
    )


def _constancy(run: xr.Dataset) -> Figure:
    figure = make_figure(_DEPTH_TITLE, "dimensions")
    depth = run["depth"].values
    figure.add_scatter(
        x=depth, y=run["effective_dimension"].values, name="from the Hamiltonian", line={"color": ACCENT}
    )
    figure.add_scatter(
        x=depth, y=run["pre_effective_dimension"].values, name="from the pre-Hamiltonian", line={"color": SECOND}
    )
    figure.add_scatter(
        x=depth,
        y=run["stationarity"].values,
        name="distance from the critical point (right)",
        line={"color": FAINT, "dash": "dot"},
        yaxis="y2",
    )
    top = float(np.nanmax(run["stationarity"].values)) if np.isfinite(run["stationarity"].values).any() else 1.0
    figure.update_layout(
        yaxis2={"overlaying": "y", "side": "right", "range": [0, max(1.0, top)], "title": {"text": "relative"}},
        margin={"r": 60},
    )
    return Figure(
        "leaky_hamiltonian",
        "Is the effective dimension the same at all depths?",
        "At a critical point the Hamiltonian is conserved over depth, up to the step size, and both lines agree and are flat. Where "
        "the dotted line is near 1 the layer is not at a critical point, and the numbers above it mean nothing.",
        figure,
    )


def _steps(run: xr.Dataset) -> Figure:
    figure = make_figure("layer", "relative step")
    layers = np.arange(1, run.sizes["layer"])
    figure.add_bar(x=layers, y=run["relative_step"].values[:-1], marker={"color": ACCENT}, name="relative step")
    figure.add_scatter(
        x=layers,
        y=run["step_size"].values[:-1],
        name="step size, share of the depth",
        mode="lines+markers",
        line={"color": SECOND},
    )
    figure.update_yaxes(rangemode="tozero")
    return Figure(
        "leaky_steps",
        "How far each layer moves the representation",
        "Bars: the change that a layer makes, relative to the representation after it. Uneven bars say that some layers do much "
        "and others hardly anything; adaptive step sizes (line) make them even.",
        figure,
    )


def _positive(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) and value > 0 else None for value in values]


def _effective_depth(run: xr.Dataset) -> float | None:
    configuration = json.loads(run.attrs["config"])
    return float(configuration["effective_depth"]) if isinstance(configuration, dict) else None
