"""What is measured of linear attention beside its prediction: the cell of the sweep."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from learnmech import history as histories
from learnmech.dynamics.agf.attention_modes import linear_attention
from learnmech.dynamics.agf.attention_problem import AttentionProblem
from learnmech.dynamics.agf.comparing import compare
from learnmech.dynamics.agf.flows import gradient_flow
from learnmech.training import derive_seed

DERIVED = "linear attention after Kunin et al. 2025 (arXiv 2506.06489)"
_MEASURED = "integrated gradient flow"
_LATER, _SETTLED = 1.08, 0.3


def draw_heads(dimension: int, heads: int, scale: float, seed: int) -> Float[np.ndarray, "heads size"]:
    """Draw heads: normal numbers times the scale, v positive.

    Args:
        dimension: of the inputs.
        heads: how many.
        scale: of the start.
        seed: of the draw.

    Returns:
        v, q and k of each head.
    """
    start = scale * np.random.default_rng(seed).standard_normal((heads, 1 + 2 * dimension))
    start[:, 0] = np.abs(start[:, 0])
    return start


def eigenvalues_of(config: Mapping[str, Any]) -> Float[np.ndarray, " dimension"]:
    """Give the eigenvalues of the inputs' covariance, in proportion to 1/i.

    Args:
        config: ``dimension`` and ``trace``.

    Returns:
        The largest first.
    """
    values = 1 / np.arange(1, config["dimension"] + 1)
    return np.asarray(config["trace"] * values / values.sum())


def follow_heads(config: Mapping[str, Any]) -> xr.Dataset:
    """Integrate linear attention, and measure its jumps, strengths and alignment: a cell of a sweep.

    Args:
        config: ``scale``, ``draw``, ``dimension``, ``trace``, ``context``, ``heads``, ``tolerance`` and
            ``records``.

    Returns:
        Times and levels over ``component`` and ``plateau``; loss, strengths, and norm and alignment of heads over ``record``.
    """
    spread = eigenvalues_of(config)
    size, count = len(spread), config["heads"]
    start = draw_heads(size, count, config["scale"], derive_seed(config["draw"], "heads"))
    problem = AttentionProblem(spread, config["context"])
    expected = linear_attention(spread, config["context"], init=start)
    last = float(expected.times[-1])
    end = _LATER * last + _SETTLED / float(expected.utilities[-1])
    flow = gradient_flow(problem, start, end=end, tolerance=config["tolerance"])
    found = compare(expected, flow)
    rank = np.argsort(np.array(expected.order, dtype=int))
    moments, states = _records(flow, config["records"])
    query, key = states[..., 1 : 1 + size], states[..., 1 + size :]
    matrix = np.einsum("th,thi,thj->tij", states[..., 0], query, key)
    share = query**2 / (query**2).sum(axis=-1, keepdims=True)
    # the head that has learned a component is the one with the largest part of its strength in the end
    owner = np.abs(states[-1, :, 0, None] * query[-1] * key[-1]).argmax(axis=0)

    def about(text: str, source: str, units: str = "1") -> dict[str, str]:
        return {"long_name": text, "units": units, "source": source}

    one, two = ("component",), ("record", "head")
    time = "time of the gradient flow"
    return histories.build(
        {
            "crossing": (
                one,
                found.crossings[rank],
                about("loss crosses the mean of two predicted levels", _MEASURED, time),
            ),
            "expected_crossing": (one, expected.crossing_times[rank], about("the same, predicted", DERIVED, time)),
            "lower_bound": (one, expected.lower_bounds[rank], about("no jump comes before", DERIVED, time)),
            "strength": (one, np.diagonal(matrix[-1]), about("entry of B in the end", _MEASURED)),
            "expected_strength": (one, expected.strengths[rank], about("the same, predicted", DERIVED)),
            "head_expected": (one, np.array(expected.heads)[rank], about("head that learns it, predicted", DERIVED)),
            "head_found": (one, owner, about("head that has most of it", _MEASURED)),
            "level": (("plateau",), found.levels, about("level of the loss", _MEASURED)),
            "expected_level": (("plateau",), expected.levels, about("the same, predicted", DERIVED)),
            "moment": (("record",), moments, about(time, _MEASURED, "1 / rate")),
            "loss": (("record",), np.array([problem.loss(state) for state in states]), about("loss", _MEASURED)),
            "entry": (
                ("record", "component"),
                np.diagonal(matrix, axis1=1, axis2=2),
                about("diagonal of B", _MEASURED),
            ),
            "norm": (two, np.linalg.norm(states, axis=-1), about("norm of a head", _MEASURED)),
            "share": ((*two, "component"), share, about("squared cosine of q and an eigenvector", _MEASURED)),
        },
        {
            "component": np.arange(size),
            "plateau": np.arange(size + 1),
            "head": np.arange(count),
            "record": np.arange(config["records"]),
        },
        config=dict(config),
    )


def _records(flow: xr.Dataset, records: int) -> tuple[np.ndarray, np.ndarray]:
    """So many moments with the heads at each: half of them even in time, half where the loss moves."""
    times, losses, states = flow["time"].values, flow["loss"].values, flow["neurons"].values
    way = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(losses)))])
    place = times / times[-1] + way / max(float(way[-1]), math.ulp(1.0))
    moments = np.interp(np.linspace(0, place[-1], records), place, times)
    flat = states.reshape(len(times), -1)
    inside = np.stack([np.interp(moments, times, column) for column in flat.T], axis=1)
    return moments, inside.reshape(records, *states.shape[1:])
