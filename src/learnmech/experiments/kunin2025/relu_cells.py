"""What is measured of one ReLU net: its staircase at one scale, and where its neurons gather on one data set."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from learnmech import history as histories
from learnmech.dynamics.agf.comparing import compare
from learnmech.dynamics.agf.flows import gradient_flow
from learnmech.dynamics.agf.relu_directions import ReluDirections, extremal_directions
from learnmech.dynamics.agf.relu_path import relu
from learnmech.dynamics.agf.relu_problem import ReluProblem
from learnmech.training import derive_seed

JUMPS = 2
DERIVED = "two-layer ReLU net after Kunin et al. 2025 (arXiv 2506.06489); refined times and kinks derived here"
_MEASURED = "integrated gradient flow"
_UNTOUCHED = 1e-6
_SHARE = 0.8


def six_points() -> tuple[Float[np.ndarray, "6 2"], Float[np.ndarray, " 6"]]:
    """Give the example of the figure: six points of the circle, and the sum of two ReLU neurons as target.

    Returns:
        Inputs and targets.
    """
    inputs = _circle(np.deg2rad([20.0, 75.0, 140.0, 200.0, 265.0, 320.0]))
    up, down = (np.maximum(inputs @ _circle(angle), 0.0) for angle in (0.9, 3.6))
    return inputs, 2 * up - 0.8 * down


def draw_neurons(count: int, log: float, seed: int) -> Float[np.ndarray, "neurons 3"]:
    """Draw balanced neurons of the same norm in random directions, whose output weights have either sign in turn.

    Args:
        count: of neurons.
        log: minus the logarithm of the norm of each (a, w).
        seed: of the draw.

    Returns:
        Rows (a, w).
    """
    weights = np.random.default_rng(seed).standard_normal((count, 2))
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    signs = np.where(np.arange(count) % 2, -1.0, 1.0)
    return math.exp(-log) * math.sqrt(0.5) * np.column_stack([signs, weights])


def follow_scale(config: Mapping[str, Any]) -> xr.Dataset:
    """Integrate one net on the six points, and hold it against the prediction: a cell of a sweep.

    Args:
        config: ``log`` (minus the logarithm of each neuron's norm at the start), ``draw``, ``neurons``, ``records`` and
            ``tolerance`` of the integrator.

    Returns:
        Times over ``jump`` and levels over ``plateau``, predicted and measured; loss, angles and norms over ``record``;
        over ``neuron``, how far each is from its direction when the loss has lost a millionth.
    """
    inputs, targets = six_points()
    start = draw_neurons(config["neurons"], config["log"], derive_seed(config["draw"], "relu start"))
    problem, expected = ReluProblem(inputs, targets), relu(inputs, targets, init=start)
    flow = gradient_flow(problem, start, tolerance=config["tolerance"])
    found = compare(expected, flow, times="refined_times")
    losses, neurons = flow["loss"].values, flow["neurons"].values
    early = int(np.flatnonzero(losses >= (1 - _UNTOUCHED) * losses[0])[-1])
    take = _spread(flow["time"].values, losses, config["records"])
    angles, norms = _angles(neurons[take]), np.linalg.norm(neurons[take], axis=2)
    return histories.build(
        {
            "plain": (("jump",), _fill(expected.times, JUMPS), _about("predicted time of a jump", "time")),
            "refined": (("jump",), _fill(expected.refined_times, JUMPS), _about("predicted time, refined", "time")),
            "crossing": (
                ("jump",),
                _fill(found.crossings, JUMPS),
                _about("loss crosses the mean of two predicted levels", "time", _MEASURED),
            ),
            "expected_level": (("plateau",), _fill(expected.levels, JUMPS + 1), _about("level, predicted")),
            "level": (("plateau",), _fill(found.levels, JUMPS + 1), _about("level of the loss", source=_MEASURED)),
            "moment": (("record",), flow["time"].values[take], _about("time", "time", _MEASURED)),
            "loss": (("record",), losses[take], _about("half the mean squared error", source=_MEASURED)),
            "neuron_angle": (("record", "neuron"), angles, _about("angle of w", "rad", _MEASURED)),
            "neuron_norm": (("record", "neuron"), norms, _about("norm of (a, w)", source=_MEASURED)),
            "distance": (
                ("neuron",),
                distances(expected.candidates, neurons[early]),
                _about(
                    "angle to the nearest attracting direction when the loss has lost a millionth", "rad", _MEASURED
                ),
            ),
            "sign": (("neuron",), np.sign(start[:, 0]), _about("sign of the output weight")),
        },
        {
            "jump": np.arange(JUMPS),
            "plateau": np.arange(JUMPS + 1),
            "record": np.arange(config["records"]),
            "neuron": np.arange(config["neurons"]),
        },
        config=dict(config),
    )


def follow_problem(config: Mapping[str, Any]) -> xr.Dataset:
    """Follow the neurons of one net on random data, on the first plateau of the loss: a cell of a sweep.

    Args:
        config: ``problem`` (which data), ``samples``, ``neurons``, ``log`` (as for :func:`follow_scale`) and ``tolerance``.

    Returns:
        Over ``neuron``, the angle to the nearest predicted direction at the start and after 0.8 of the time to the first jump:
        not a number for neurons that no sample activates then, which stand still.
    """
    generator = np.random.default_rng(derive_seed(config["problem"], "relu data"))
    inputs = generator.standard_normal((config["samples"], 2))
    targets = generator.standard_normal(config["samples"])
    start = draw_neurons(config["neurons"], config["log"], derive_seed(config["problem"], "relu problem start"))
    found = extremal_directions(inputs, targets)
    fastest = 2 * found.attracting().utilities[0]
    flow = gradient_flow(
        ReluProblem(inputs, targets), start, end=_SHARE * config["log"] / fastest, tolerance=config["tolerance"]
    )
    last = flow["neurons"].values[-1]
    heights = last[:, 1:] @ inputs.T
    active = (heights > 1e-9 * np.linalg.norm(last, axis=1, keepdims=True)).any(axis=1)
    losses = flow["loss"].values
    return histories.build(
        {
            "before": (("neuron",), distances(found, start), _about("angle to a direction, at the start", "rad")),
            "after": (
                ("neuron",),
                np.where(active, distances(found, last), np.nan),
                _about("angle to the nearest predicted direction", "rad", _MEASURED),
            ),
            "growth": (
                ("neuron",),
                np.log(np.linalg.norm(last, axis=1) / np.linalg.norm(start, axis=1)),
                _about("logarithm of the growth of each norm", source=_MEASURED),
            ),
            "directions": ((), _ends(found).sum(), _about("predicted directions")),
            "lost": ((), 1 - losses[-1] / losses[0], _about("share of the loss that is gone", source=_MEASURED)),
        },
        {"neuron": np.arange(config["neurons"])},
        config=dict(config),
    )


def distances(found: ReluDirections, neurons: Float[np.ndarray, "neurons 3"]) -> Float[np.ndarray, " neurons"]:
    """Measure how far each neuron is from the nearest direction in which neurons of its sign can end.

    Args:
        found: directions in the plane, of which those that repel are left out.
        neurons: rows (a, w).

    Returns:
        Angles from 0 to pi; pi where there is no direction.
    """
    own = _angles(neurons[None])[0]
    gaps = np.abs((own[:, None] - found.angles + np.pi) % (2 * np.pi) - np.pi)
    allowed = _ends(found) & (np.sign(neurons[:, :1]) == found.signs)
    return np.asarray(np.where(allowed, gaps, np.pi).min(axis=1, initial=np.pi))


def _ends(found: ReluDirections) -> np.ndarray:
    return np.array([kind != "repelling" for kind in found.kinds], bool)


def _circle(angles: Any) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _angles(neurons: np.ndarray) -> np.ndarray:
    return np.asarray(np.arctan2(neurons[..., 2], neurons[..., 1]) % (2 * np.pi))


def _fill(values: np.ndarray, count: int) -> np.ndarray:
    """As many numbers as there should be: none for what was not found."""
    whole = np.full(count, np.nan)
    whole[: len(values[:count])] = values[:count]
    return whole


def _spread(times: np.ndarray, losses: np.ndarray, count: int) -> np.ndarray:
    """Indices even in a mean of the time and of the way that the loss went; some may come twice."""
    way = np.concatenate([[0.0], np.abs(np.diff(losses)).cumsum()])
    place = times / times[-1] + way / max(way[-1], 1e-300)
    return np.searchsorted(place, np.linspace(0, place[-1], count)).clip(max=len(times) - 1)


def _about(text: str, units: str = "1", source: str = DERIVED) -> dict[str, str]:
    return {"long_name": text, "units": units, "source": source}
