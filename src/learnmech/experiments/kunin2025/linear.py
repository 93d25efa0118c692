"""Two-layer linear networks: modes one by one, in which order and when, on white inputs and on others."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from learnmech import history as histories
from learnmech.dynamics.agf.flows import gradient_flow
from learnmech.dynamics.agf.linear_modes import linear
from learnmech.dynamics.agf.linear_problem import LinearProblem
from learnmech.errors import InputError
from learnmech.experiments.kunin2025.linear_cells import (
    DERIVED,
    draw_weights,
    follow_general,
    follow_whitened,
    mode_strengths,
    strength_times,
)
from learnmech.experiments.kunin2025.linear_claims import check
from learnmech.experiments.kunin2025.linear_drawing import draw
from learnmech.experiments.reproduction import Context, Reproduction, Scale
from learnmech.fingerprint import canonical_json
from learnmech.sweep import Sweep
from learnmech.training import derive_seed

_BASE: Mapping[str, Any] = {
    "values": [3.0, 2.0, 1.2, 0.6],
    "scales": [1e-2, 1e-4, 1e-8],
    "power_scale": 1e-15,
    "general_values": [3.0, 1.5, 0.6],
    "general_spread": [2.0, 1.0, 0.5],
    "general_hidden": 8,
    "tolerance": 1e-10,
}
SETTINGS: Mapping[Scale, Mapping[str, Any]] = {
    "smoke": {
        **_BASE,
        "hidden": [5],
        "draws": 1,
        "power_size": 3,
        "power_draws": 1,
        "general_scales": [1e-8],
        "general_draws": 1,
        "tolerance": 1e-8,
        "records": 100,
    },
    "reduced": {
        **_BASE,
        "hidden": [8, 40],
        "draws": 5,
        "power_size": 10,
        "power_draws": 1,
        "general_scales": [1e-4, 1e-8, 1e-15],
        "general_draws": 5,
        "records": 400,
    },
    "paper": {
        **_BASE,
        "hidden": [8, 40],
        "draws": 20,
        "power_size": 10,
        "power_draws": 10,
        "general_scales": [1e-4, 1e-8, 1e-15],
        "general_draws": 20,
        "records": 600,
    },
}
_RECORDS = 300


def run(context: Context) -> xr.Dataset:
    """Integrate networks on white and other inputs, and two small examples.

    Args:
        context: where and how to run.

    Returns:
        The white ones over ``hidden``, ``scale``, ``draw``; with ``power_``, ``general_``, ``order_`` and ``turn_`` before their names
        the others.

    Raises:
        InputError: if a replaced setting is unknown, or a number of draws or records is not a positive integer.
    """
    context.require_overrides("draws", "power_draws", "general_draws", "records")
    settings = {**SETTINGS[context.scale], **context.overrides}
    for name in ("draws", "power_draws", "general_draws", "records"):
        least = 20 if name == "records" else 1
        if not isinstance(settings[name], int) or settings[name] < least:
            raise InputError(f"{name} must be an integer of at least {least}, got {settings[name]!r}.")
    common = {name: settings[name] for name in ("records", "tolerance")}
    power = (1 / np.arange(1, settings["power_size"] + 1)).tolist()
    parts = {
        "": context.run(
            Sweep(
                follow_whitened,
                {"hidden": settings["hidden"], "scale": settings["scales"], "draw": range(settings["draws"])},
                fixed={"values": settings["values"], **common},
            ),
            "sweep-white",
        ),
        "power_": context.run(
            Sweep(
                follow_whitened,
                {"draw": range(settings["power_draws"])},
                fixed={
                    "values": power,
                    "hidden": settings["power_size"],
                    "scale": settings["power_scale"],
                    **common,
                },
            ),
            "sweep-power",
        ),
        "general_": context.run(
            Sweep(
                follow_general,
                {"scale": settings["general_scales"], "draw": range(settings["general_draws"])},
                fixed={
                    "values": settings["general_values"],
                    "spread": settings["general_spread"],
                    "hidden": settings["general_hidden"],
                    **common,
                },
            ),
            "sweep-general",
        ),
        "order_": _order_example(),
        "turn_": _turn_example(),
    }
    return _join(parts)


def _order_example() -> xr.Dataset:
    strengths, variances = np.array([1.0, 3.0, 0.5]), np.array([2.0, 0.5, 1.0])
    first, second = draw_weights(3, 8, 3, 1e-6, derive_seed(0, "order"))
    return _example(first, second, np.diag(strengths * variances), np.diag(variances))


def _turn_example() -> xr.Dataset:
    first, second = 1e-4 * np.array([[1.0, 2.0], [0.0, 1.0]]), 1e-4 * np.array([[1.0, -1.0], [2.0, 0.0]])
    return _example(first, second, np.diag([2.0, 1.0]), np.eye(2))


def _example(first: np.ndarray, second: np.ndarray, cross: np.ndarray, spread: np.ndarray) -> xr.Dataset:
    problem, expected = LinearProblem(cross, spread), linear(first, second, cross, spread)
    end = 1.2 * float(expected.times.max())
    flow = gradient_flow(problem, problem.neurons(first, second), end=end)
    measured = strength_times(problem, flow, expected.left, expected.right, expected.strengths)
    sizes, _ = mode_strengths(problem, flow, expected.left, expected.right)
    plain = -math.log(float(np.linalg.norm(problem.neurons(first, second), axis=1).max())) / expected.growth
    moments = np.linspace(0, end, _RECORDS)
    paths = np.stack([np.interp(moments, flow["time"].values, size) for size in sizes.T], axis=1)

    def about(text: str, units: str = "1") -> dict[str, str]:
        return {"long_name": text, "units": units, "source": DERIVED}

    return histories.build(
        {
            "half": (("jump",), measured, about("half of the strength, measured", "time")),
            "refined": (("jump",), expected.times, about("half of the strength, predicted", "time")),
            "plain": (("jump",), plain, about("plain prediction", "time")),
            "final": (("jump",), expected.strengths, about("strength in the end, predicted")),
            "growth": (("jump",), expected.growth, about("rate of growth", "1 / time")),
            "strength": (("moment", "jump"), paths, about("strength, measured")),
        },
        {"jump": np.arange(len(expected.times)), "moment": moments},
        config={"cross": cross, "spread": spread},
    )


def _join(parts: Mapping[str, xr.Dataset]) -> xr.Dataset:
    whole = parts[""]
    configs = {"white": json.loads(whole.attrs["config"])}
    for prefix, part in parts.items():
        if prefix:
            renamed = {str(name): f"{prefix}{name}" for name in [*part.variables, *part.dims]}
            part = part.rename(renamed)
            for name in part.data_vars:
                whole[name] = part[name]
            configs[prefix.removesuffix("_")] = json.loads(part.attrs["config"])
    whole.attrs["config"] = canonical_json(configs)
    return histories.validate(whole)


LINEAR = Reproduction(
    name="kunin2025/linear",
    title="two-layer linear networks learn one mode after the other, at times that can be computed",
    caption="Gradient flow of f = A W x from small random starts. (a) Time in units of log(1/scale): as the start shrinks the loss becomes the "
    "staircase of alternating gradient flow. Dots: when the loss crosses the middle of a step, by the refined prediction for the same "
    "start. (b) Relative error of the times at which modes are half learned: plain prediction -log|θ₀|/σ, the refined one of this "
    "library, and that without orthogonalising the hidden directions; one dot a mode, draw and width; bars are the bounds that the "
    "refined ones must keep. (c) The paper's setting, ten singular values 1/k, start of 1e-15. (d) Inputs of "
    "unequal variance: the mode that grows faster (σ = 2) is learned before the one that lowers the loss more (σ = 1.5). (e) An example by "
    "hand; dotted: plain times. (f) Random input covariances, for which "
    "modes and times are a conjecture of the authors' code: errors should fall like 1/log(1/scale) (line). "
    "Differs from the paper: the flow is integrated on the covariances instead of SGD on samples (learning rate 1e-3, batches of 1000), and the "
    "refined times are ours.",
    settings=SETTINGS,
    run=run,
    check=check,
    draw=draw,
    citations=("kunin2025",),
)
