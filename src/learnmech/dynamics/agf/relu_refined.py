"""Jump times of ReLU nets beyond the leading order: plateaus in closed form, transitions integrated."""

import math
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from learnmech.dynamics.agf.relu_flow import Net, follow_net, make_net
from learnmech.dynamics.agf.relu_frozen import frozen_flow, place

_SMALL = 1e-3
_CALM = 1e-5
_FLOOR = -600.0
_ROUNDS = 200
_MOST = 4_000


def refine_times(
    points: Float[np.ndarray, "samples dimension"],
    values: Float[np.ndarray, " samples"],
    leak: float,
    start: Float[np.ndarray, "neurons size"],
    logs: Float[np.ndarray, " neurons"],
    levels: list[float],
) -> Float[np.ndarray, " jumps"]:
    r"""Give the times at which gradient flow crosses the means of successive levels.

    While every neuron is either at rest or smaller than 1e-3 (in units of the data), the residual is frozen up to 1e-6 and each small
    neuron moves by :func:`~learnmech.dynamics.agf.relu_frozen.frozen_flow`, exactly, however long the plateau is. When one has grown
    to 1e-3, all are integrated together until those above it rest again. So the error does not depend on the scale, nor
    does the cost.

    Source: derived here.

    Args:
        points: the data.
        values: targets.
        leak: slope of the activation below 0.
        start: directions of (a, w), rows of norm 1.
        logs: logarithms of their norms.
        levels: plateaus, that before the first jump first.

    Returns:
        A time for each jump; not a number where the loss does not get there, or not within 4,000 steps of one transition.
    """
    count = len(values)
    unit = min(1.0, math.sqrt(np.abs(values).max() / max(np.linalg.norm(points, axis=1).max(), 1e-300)))
    small = math.log(_SMALL * unit)
    rate = float(np.abs(values) @ np.linalg.norm(points, axis=1)) / count
    middles = [(before + after) / 2 for before, after in pairwise(levels)]
    crossed: list[float] = [math.nan] * len(middles)
    rows, logs, moment = start.copy(), logs.copy(), 0.0
    for _ in range(_ROUNDS):
        big = logs > small - 1e-9
        rest = _residual(points, values, leak, rows[big] * np.exp(logs[big])[:, None])
        pulls = rest / count
        moving = _rates(points, pulls, leak, rows)
        if not big.any() or np.abs(moving[big]).max() <= _CALM * rate:
            wait, rows, logs = _plateau(points, pulls, leak, rows, logs, small, big)
            if wait == math.inf:
                break
            moment += wait
            continue
        seen = np.maximum(logs, _FLOOR)
        net = make_net(points, values, leak, rows * np.exp(seen)[:, None])
        moment, complete = _transition(net, moment, middles, crossed, small, rate)
        norms = np.linalg.norm(net.neurons, axis=1)
        rows, logs = net.neurons / norms[:, None], np.log(norms) + np.minimum(logs - _FLOOR, 0.0)
        if not (complete and any(map(math.isnan, crossed))):
            break
    return np.array(crossed)


def _transition(
    net: Net, moment: float, middles: list[float], crossed: list[float], small: float, rate: float
) -> tuple[float, bool]:
    """Integrate until the large neurons rest, or for 4,000 steps, and note when the loss crosses the middles."""
    before = [0.0, net.loss(net.neurons)]
    visits = 0

    def visit(time: float, neurons: np.ndarray, loss: float, speed: float) -> bool:
        nonlocal visits
        visits += 1
        for index, middle in enumerate(middles):
            if math.isnan(crossed[index]) and before[1] > middle >= loss:
                share = (before[1] - middle) / (before[1] - loss)
                crossed[index] = moment + before[0] + share * (time - before[0])
        before[:] = [time, loss]
        norms = np.linalg.norm(neurons, axis=1)
        growth = np.abs((neurons * net.velocity(neurons)).sum(axis=1)) / np.square(norms)
        over = np.log(norms) > small - 1e-9
        over_budget = visits >= 11 * _MOST
        return over_budget or not any(map(math.isnan, crossed)) or bool(growth[over].max(initial=0.0) <= _CALM * rate)

    passed = follow_net(net, visit, end=1e5 / rate, inside=10)
    return moment + passed, visits < 11 * _MOST


def _residual(points: np.ndarray, values: np.ndarray, leak: float, neurons: np.ndarray) -> np.ndarray:
    heights = neurons[:, 1:] @ points.T
    return np.asarray(values - neurons[:, 0] @ np.where(heights > 0, heights, leak * heights))


def _rates(points: np.ndarray, pulls: np.ndarray, leak: float, rows: np.ndarray) -> np.ndarray:
    drifts = np.stack([place(points, pulls, leak, row[0], row[1:], 0.0).drift.pull for row in rows])
    return np.asarray(2 * rows[:, 0] * np.einsum("id,id->i", rows[:, 1:], drifts))


def _plateau(
    points: np.ndarray,
    pulls: np.ndarray,
    leak: float,
    rows: np.ndarray,
    logs: np.ndarray,
    small: float,
    big: np.ndarray,
) -> tuple[float, np.ndarray, np.ndarray]:
    """Time until the first small neuron is no longer small, and all small ones then."""
    neurons = {
        index: place(points, pulls, leak, rows[index][0], rows[index][1:], logs[index])
        for index in np.flatnonzero(~big)
        if logs[index] > -math.inf
    }
    waits = {}
    for index, neuron in neurons.items():
        end, passed = frozen_flow(points, pulls, leak, neuron, limit=small)
        waits[index] = passed if end.end == "limit" else math.inf
    wait = min(waits.values(), default=math.inf)
    if wait == math.inf:
        return wait, rows, logs
    rows, logs = rows.copy(), logs.copy()
    for index, neuron in neurons.items():
        after, _ = frozen_flow(points, pulls, leak, neuron, duration=wait)
        rows[index], logs[index] = np.append(after.output, after.weights), after.log_norm
    return wait, rows, logs
