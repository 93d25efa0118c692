"""What is measured of diagonal networks: the flow beside the saddles, two routes to them, and where they end."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.optimize import linprog

from learnmech.bars import terminal_bar
from learnmech.dynamics.agf.comparing import compare
from learnmech.dynamics.agf.diagonal_logs import diagonal_flow
from learnmech.dynamics.agf.diagonal_path import DiagonalPrediction, diagonal
from learnmech.dynamics.agf.predictions import FLOW_TIME
from learnmech.errors import LearnmechError

_PREDICTED = "successive saddles, Pesme and Flammarion 2023 (arXiv 2304.00488)"
_MEASURED = "integrated gradient flow of a diagonal network, after Kunin et al. 2025 (arXiv 2506.06489)"
_LARGEST_CONDITION = 300.0
_TRIES = 1000
_DOUBTFUL = 1e-10
"""Relative differences of times above it are held against what rounding of the data does."""

Data = tuple[Float[np.ndarray, "samples dim"], Float[np.ndarray, " samples"]]


def two_coordinates() -> Data:
    r"""Give the paper's problem in the plane.

    X is the lower Cholesky factor of :math:`R\,\mathrm{diag}(1, 25)R^T`, R a turn by 150 degrees, as in the authors' code (which makes
    that matrix :math:`XX^T`), and the coefficients are (-0.2, 2).

    Returns:
        X (2, 2) and y (2,).
    """
    angle = math.radians(150)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    inputs = np.linalg.cholesky(turn @ np.diag([1.0, 25.0]) @ turn.T)
    return inputs, inputs @ np.array([-0.2, 2.0])


def five_coordinates() -> Data:
    """Give the paper's problem with five coordinates, from the generator and seed of the authors.

    Returns:
        X (20, 5), normal with variances 1, 1/2, ..., 1/5, and y without noise from 10 times normal coefficients.
    """
    random = np.random.RandomState(10)
    inputs = random.multivariate_normal(np.zeros(5), np.diag(1 / np.arange(1, 6)), 20)
    return inputs, inputs @ (10 * random.randn(5))


def follow(data: Data, log_scales: Sequence[float], end: float, records: int, prefix: str) -> dict[str, Any]:
    """Integrate the flow from each scale, and hold it against the saddles.

    Args:
        data: inputs and targets.
        log_scales: logs of the scales, negative.
        end: of each flow, over the time of the last jump.
        records: points kept of each flow.
        prefix: of the names of variables and dimensions.

    Returns:
        Variables over scale, record, coordinate, jump and plateau, each with the prefix.
    """
    expected = diagonal(*data)
    end = end * float(expected.times[-1])
    runs = []
    with terminal_bar("flows", len(log_scales)) as advance:
        for log_scale in log_scales:
            runs.append(_one(data, expected, log_scale, end, records))
            advance(1)
    names = {key: f"{prefix}{key}" for key in ("scale", "record", "coordinate", "jump", "plateau")}
    scale, record, coordinate, jump, plateau = names.values()
    unit = "time of the flow / -log(scale)"
    return {
        f"{prefix}{name}": (dimensions, values, {"long_name": text, "units": units, "source": source})
        for name, dimensions, values, text, units, source in (
            ("moment", (scale, record), [run["moment"] for run in runs], "time", unit, _MEASURED),
            ("loss", (scale, record), [run["loss"] for run in runs], "loss", "1", _MEASURED),
            ("beta", (scale, record, coordinate), [run["beta"] for run in runs], "coefficients u v", "1", _MEASURED),
            (
                "accumulated",
                (scale, record, coordinate),
                [run["accumulated"] for run in runs],
                "accumulated utility S",
                "1",
                _MEASURED,
            ),
            (
                "half_time",
                (scale, jump),
                [run["half_time"] for run in runs],
                "loss crosses the mean of two predicted levels",
                unit,
                _MEASURED,
            ),
            (
                "coefficient_time",
                (scale, jump),
                [run["coefficient_time"] for run in runs],
                "the coefficient that enters has half of its value on the next saddle",
                unit,
                _MEASURED,
            ),
            ("level", (scale, plateau), [run["level"] for run in runs], "level of the loss", "1", _MEASURED),
            (
                "distance",
                (scale, plateau),
                [run["distance"] for run in runs],
                "least distance of the coefficients to the saddle, over the size of the last",
                "1",
                _MEASURED,
            ),
            ("expected_time", (jump,), expected.times, "jump, predicted", unit, _PREDICTED),
            ("expected_level", (plateau,), expected.levels, "level, predicted", "1", _PREDICTED),
            ("saddle", (plateau, coordinate), expected.saddles, "coefficients, predicted", "1", _PREDICTED),
            (
                "expected_accumulated",
                (plateau, coordinate),
                expected.accumulated,
                "accumulated utility S at the jump that begins the plateau, predicted",
                "1",
                _PREDICTED,
            ),
        )
    }


def _one(
    data: Data, expected: DiagonalPrediction, log_scale: float, end: float, records: int
) -> Mapping[str, np.ndarray]:
    flow = diagonal_flow(*data, log_scale, end=-log_scale * end)
    found = compare(expected.convert(time_factor=-log_scale, time_unit=FLOW_TIME), flow)
    beta = flow["beta"].values
    offsets = np.linalg.norm(beta[:, None] - expected.saddles, axis=2)
    size = max(float(np.linalg.norm(expected.saddles[-1])), 1e-300)
    kept = spread_records(flow, records)
    times = flow["time"].values
    return {
        "moment": kept / -log_scale,
        "loss": np.interp(kept, times, flow["loss"].values),
        "beta": _between(kept, times, beta),
        "accumulated": _between(kept, times, flow["accumulated"].values),
        "half_time": found.crossings / -log_scale,
        "coefficient_time": _coefficient_times(expected, times, beta) / -log_scale,
        "level": found.levels,
        "distance": offsets.min(axis=0) / size,
    }


def _coefficient_times(
    expected: DiagonalPrediction, times: Float[np.ndarray, " time"], beta: Float[np.ndarray, "time dim"]
) -> Float[np.ndarray, " jumps"]:
    found = []
    for entries, saddle in zip(expected.entering, expected.saddles[1:], strict=True):
        index, sign = entries[0]
        values, half = sign * beta[:, index], sign * saddle[index] / 2
        after = int(np.argmax(values > half))
        if after == 0:
            found.append(math.nan)
            continue
        # between two points the coefficient grows exponentially
        before = max(float(values[after - 1]), 1e-300)
        share = math.log(half / before) / math.log(float(values[after]) / before)
        found.append(times[after - 1] + share * (times[after] - times[after - 1]))
    return np.array(found)


def spread_records(flow: xr.Dataset, records: int) -> Float[np.ndarray, " records"]:
    """Choose times that are even, in equal parts, in time, in the log of time and along the path of the coefficients.

    Args:
        flow: a gradient flow.
        records: how many.

    Returns:
        Increasing times, the first and the last of the flow among them.
    """
    times = flow["time"].values
    steps = np.linalg.norm(np.diff(flow["beta"].values, axis=0), axis=1)
    way = np.concatenate([[0.0], np.cumsum(steps)])
    soft = np.log1p(times / (0.02 * times[-1]))
    place = times / times[-1] + soft / soft[-1] + way / max(way[-1], 1e-300)
    return np.asarray(np.interp(np.linspace(0, place[-1], records), place, times))


def _between(moments: np.ndarray, times: np.ndarray, values: Float[np.ndarray, "time dim"]) -> np.ndarray:
    return np.stack([np.interp(moments, times, column) for column in values.T], axis=1)


def compare_routes(designs: int) -> dict[str, Any]:
    """Predict the saddles of random correlated designs by two routes: active set, and utilities at a scale of 1e-30.

    Designs have 12 samples of 8 coordinates, mixed by a random matrix, with condition numbers of at most 300. In 1 of some hundred a last
    coordinate has almost no gradient and enters 1e5 times later than the first: there rounding of the data alone moves the time by 1e-9.

    Args:
        designs: how many.

    Returns:
        Over ``design``: the largest relative difference of times, whether orders agree, jumps, and jumps at which a coordinate leaves.
    """
    random = np.random.default_rng(20250609)
    rows = []
    with terminal_bar("designs", designs) as advance:
        for _ in range(designs):
            inputs = _correlated(random)
            values = inputs @ random.standard_normal(8)
            path, other = diagonal(inputs, values), diagonal(inputs, values, route="utilities")
            same = path.order == other.order and path.leaving == other.leaving
            difference = float(np.abs(other.times / path.times - 1).max()) if same else math.inf
            shaken = _shaken(path, inputs, values) if difference > _DOUBTFUL else 0.0
            rows.append((difference, same, len(path), sum(bool(gone) for gone in path.leaving), shaken))
            advance(1)
    table = np.array(rows, dtype=np.float64).T
    return {
        name: (("design",), values, {"long_name": text, "units": "1", "source": _PREDICTED})
        for name, values, text in (
            ("route_difference", table[0], "largest relative difference of jump times between the routes"),
            ("route_same", table[1].astype(np.int64), "whether both routes learn and drop the same"),
            ("route_jumps", table[2].astype(np.int64), "jumps"),
            ("route_left", table[3].astype(np.int64), "jumps at which a coordinate leaves"),
            ("route_rounding", table[4], "the same where data change by one rounding; 0 where the difference is small"),
        )
    }


def _shaken(path: DiagonalPrediction, inputs: np.ndarray, values: np.ndarray) -> float:
    """Give how far times move, relative, when each number of the data changes by one rounding."""
    random, step, largest = np.random.default_rng(0), np.finfo(np.float64).eps, 0.0
    for _ in range(20):
        near, aims = (part * (1 + step * random.choice([-1.0, 1.0], part.shape)) for part in (inputs, values))
        other = diagonal(near, aims)
        if other.order == path.order:
            largest = max(largest, float(np.abs(other.times / path.times - 1).max()))
    return largest


def _correlated(random: np.random.Generator) -> Float[np.ndarray, "samples dim"]:
    for _ in range(_TRIES):
        inputs = random.standard_normal((12, 8)) @ (np.eye(8) + 0.7 * random.standard_normal((8, 8)))
        if np.linalg.cond(inputs) <= _LARGEST_CONDITION:
            return np.asarray(inputs)
    raise LearnmechError("no design of a moderate condition number was drawn.")


def compare_ends(designs: int) -> dict[str, Any]:
    """Hold the last saddle of underdetermined designs (5 samples, 12 coordinates) against a linear programme.

    Args:
        designs: how many.

    Returns:
        Over ``wide_design``: the excess of the l1 norm over the least, relative, and the same of the solution of least l2 norm.

    Raises:
        LearnmechError: if a linear programme is not solved.
    """
    random = np.random.default_rng(20250610)
    rows = []
    for _ in range(designs):
        inputs, values = random.standard_normal((5, 12)), random.standard_normal(5)
        end = diagonal(inputs, values).saddles[-1]
        solved = linprog(np.ones(24), A_eq=np.hstack([inputs, -inputs]), b_eq=values, bounds=(0, None))
        if not solved.success:
            raise LearnmechError(f"the linear programme was not solved: {solved.message}")
        least = np.linalg.lstsq(inputs, values, rcond=None)[0]
        misfit = float(np.abs(inputs @ end - values).max())
        rows.append((np.abs(end).sum() / solved.fun - 1, np.abs(least).sum() / solved.fun - 1, misfit))
    excess, other, misfits = np.array(rows).T
    about = {"units": "1", "source": "last saddle against a linear programme"}
    return {
        "l1_excess": (
            ("wide_design",),
            excess,
            {"long_name": "l1 norm of the end over the least one, minus 1", **about},
        ),
        "l2_excess": (
            ("wide_design",),
            other,
            {"long_name": "l1 norm of the solution of least l2 norm over the least one, minus 1", **about},
        ),
        "misfit": (("wide_design",), misfits, {"long_name": "largest residual of the end", **about}),
    }
