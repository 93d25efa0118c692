"""Lazy, rich and delayed rich students of a small teacher: neurons in the plane, curves over steps, maps over both scales."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from learnmech import history as histories
from learnmech.errors import InputError
from learnmech.experiments.kunin2024.phase_cells import CASES, run_case, run_grid, run_plane
from learnmech.experiments.kunin2024.phase_claims import check
from learnmech.experiments.kunin2024.phase_drawing import draw
from learnmech.experiments.reproduction import Context, Reproduction, Scale
from learnmech.sweep import Sweep

_CAPTION = (
    "Students and teacher are two-layer ReLU nets, f(x) = sum of a max(w.x, 0), on inputs on the unit sphere; |w| = τ/α, |a| = τα, and "
    "δ = a² - |w|² is kept by gradient flow. Top: students of two inputs (one seed). Each line is the path of one neuron's |a| w, from "
    "its start to the end (dot), in the colour of the sign of a; arrows are the directions of the teacher's neurons, heads in the same colours. Lazy "
    "neurons hardly move, rich ones collect along the teacher. Middle: the same four cases with many inputs, mean over seeds, bands "
    "from least to most. Rich learning leaves kernel distance 0 while the error falls; downstream (δ < 0) first fits without, then "
    "leaves it: delayed rich. Bottom: maps over both scales, mean over seeds, at 1 % of the steps and at the end; dots are the "
    "trained students. The paper has 1e5 to 1e6 steps, 16 seeds and 17 scales each; the maps at scale reduced have fewer inputs too. "
    "Criteria are ours."
)
_LOG = [float(value) for value in np.round(np.geomspace(0.1, 2.0, 6), 4)]
SETTINGS: Mapping[Scale, Mapping[str, Any]] = {
    "smoke": {
        "seed": [0],
        "curves": {
            "inputs": 10,
            "neurons": 12,
            "samples": 60,
            "test_samples": 100,
            "steps": 200,
            "learning_rate": 0.01,
        },
        "maps": {
            "inputs": 6,
            "neurons": 12,
            "samples": 40,
            "test_samples": 100,
            "steps": 100,
            "learning_rate": 0.005,
            "overall_scales": [0.1, 2.0],
            "relative_scales": [-1.0, 0.0, 1.0],
        },
        "plane": {"neurons": 20, "samples": 20, "test_samples": 100, "steps": 300, "learning_rate": 5e-3, "seeds": [0]},
    },
    "reduced": {
        "seed": [0, 1, 2, 3, 4],
        "curves": {
            "inputs": 100,
            "neurons": 50,
            "samples": 1000,
            "test_samples": 2000,
            "steps": 8000,
            "learning_rate": 0.01,
        },
        "maps": {
            "inputs": 30,
            "neurons": 50,
            "samples": 300,
            "test_samples": 2000,
            "steps": 3000,
            "learning_rate": 0.005,
            "overall_scales": _LOG,
            "relative_scales": [-1.0, -0.5, -0.2, 0.0, 0.2, 0.5, 1.0],
        },
        "plane": {
            "neurons": 50,
            "samples": 20,
            "test_samples": 1000,
            "steps": 20_000,
            "learning_rate": 5e-3,
            "seeds": [0, 1, 2],
        },
    },
    "paper": {
        "seed": list(range(16)),
        "curves": {
            "inputs": 100,
            "neurons": 50,
            "samples": 1000,
            "test_samples": 10_000,
            "steps": 1_000_000,
            "learning_rate": 5e-3,
        },
        "maps": {
            "inputs": 100,
            "neurons": 50,
            "samples": 1000,
            "test_samples": 10_000,
            "steps": 1_000_000,
            "learning_rate": 5e-3,
            "overall_scales": [float(value) for value in np.round(np.logspace(-1, 0.3, 17), 6)],
            "relative_scales": [float(value) for value in np.round(np.linspace(-1, 1, 17), 6)],
        },
        "plane": {
            "neurons": 50,
            "samples": 20,
            "test_samples": 1000,
            "steps": 1_000_000,
            "learning_rate": 1e-4,
            "seeds": [0, 1, 2, 3, 4],
        },
    },
}


def run(context: Context) -> xr.Dataset:
    """Train all students.

    Args:
        context: where and how to run; ``seed`` can be replaced by another list.

    Returns:
        The collected sweeps: the corner cases over ``case``, ``seed`` and ``step``; with names that begin with ``map_`` the grid of
        scales; with names that begin with ``plane_`` the students of two inputs.

    Raises:
        InputError: if the seeds are not a list, or another setting is replaced.
    """
    context.require_overrides("seed")
    settings = SETTINGS[context.scale]
    seeds = context.overrides.get("seed", settings["seed"])
    if not isinstance(seeds, list | tuple):
        raise InputError(f"seed must be a list of values, got {seeds!r}.")
    curves = context.run(Sweep(run_case, {"case": list(CASES), "seed": seeds}, fixed=settings["curves"]))
    maps = context.run(Sweep(run_grid, {"seed": seeds}, fixed=settings["maps"]), folder="sweep_maps")
    plane = context.run(Sweep(run_plane, {"rate_factor": [1.0, 0.5]}, fixed=settings["plane"]), folder="sweep_plane")
    joined = curves.merge(maps, combine_attrs="override").merge(plane, combine_attrs="override")
    return histories.validate(joined)


PHASE = Reproduction(
    name="kunin2024/phase",
    title="lazy, rich and delayed rich students, by overall and relative scale",
    caption=_CAPTION,
    settings=SETTINGS,
    run=run,
    check=check,
    draw=draw,
    citations=("kunin2024",),
)
