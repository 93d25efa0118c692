"""The cells of the phase figure: students in the plane, students of the corner cases over steps, students over a grid of scales."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from learnmech import history as histories
from learnmech.dynamics.student_runs import student_teacher
from learnmech.dynamics.student_settings import StudentSettings

CASES: Mapping[str, tuple[float, float]] = {
    "large": (2.0, 0.0),
    "downstream": (0.1, -1.0),
    "balanced": (0.1, 0.0),
    "upstream": (0.1, 1.0),
}
"""Name to overall scale and delta."""
MEASURES = (
    "train_error",
    "test_error",
    "kernel_distance",
    "alignment",
    "pattern_change",
    "parameter_distance",
    "charge_drift",
)


def spaced_steps(steps: int, per_decade: int = 6) -> tuple[int, ...]:
    """Give checkpoints that are evenly spaced in the logarithm of the step.

    Args:
        steps: the last.
        per_decade: how many between a step and ten times it.

    Returns:
        Rising steps from 0, with one and ten per cent of the last among them.
    """
    count = int(np.ceil(np.log10(max(steps, 2)) * per_decade)) + 1
    spaced = {round(value) for value in np.geomspace(1, steps, count)}
    return tuple(sorted({0, steps, max(1, steps // 100), max(1, steps // 10), *spaced}))


def run_case(config: Mapping[str, Any]) -> xr.Dataset:
    """Train one student of a corner case: a cell of a sweep.

    Args:
        config: ``case``, ``seed`` and sizes, see :class:`learnmech.dynamics.StudentSettings`.

    Returns:
        A history over ``step``.
    """
    values = dict(config)
    case, seed = values.pop("case"), int(values.pop("seed"))
    overall, delta = CASES[case]
    settings = StudentSettings(checkpoints=spaced_steps(int(values["steps"])), **values)
    run = _train([overall], [delta], [seed], settings=settings)
    kept = run[[*MEASURES, "learning_rate", "diverged"]]
    return kept.isel(overall_scale=0, relative_scale=0, seed=0, drop=True)


def run_grid(config: Mapping[str, Any]) -> xr.Dataset:
    """Train the students of a seed over the grid of scales: a cell of a sweep.

    Args:
        config: ``overall_scales``, ``relative_scales``, ``seed`` and sizes.

    Returns:
        A history over ``map_step`` (one per cent of the steps, and all), ``overall_scale`` and ``relative_scale``, with names
        that begin with ``map_``.
    """
    values = dict(config)
    overall, relative, seed = values.pop("overall_scales"), values.pop("relative_scales"), int(values.pop("seed"))
    steps = int(values["steps"])
    settings = StudentSettings(checkpoints=(max(1, steps // 100), steps), **values)
    run = _train(overall, relative, [seed], settings=settings)
    kept = run[[*MEASURES, "diverged"]].isel(step=slice(1, None)).isel(seed=0, drop=True)
    return _renamed(kept, "map")


def run_plane(config: Mapping[str, Any]) -> xr.Dataset:
    """Train students of two inputs, whose neurons can be drawn: a cell of a sweep.

    Args:
        config: ``rate_factor`` on the rate (steps are divided by it), ``seeds`` and sizes.

    Returns:
        A history over ``plane_case``, ``plane_seed`` and ``plane_step`` (in steps of ``rate_factor`` 1), with names that begin
        with ``plane_``.
    """
    values = dict(config)
    factor, seeds = float(values.pop("rate_factor")), [int(seed) for seed in values.pop("seeds")]
    steps, rate = int(values.pop("steps")), float(values.pop("learning_rate"))
    shown = spaced_steps(steps)
    taken = tuple(round(step / factor) for step in shown)
    cases = []
    for overall, delta in CASES.values():
        settings = StudentSettings(
            inputs=2,
            steps=taken[-1],
            checkpoints=taken,
            learning_rate=rate * factor,
            rate_law="constant",
            keep_neurons=True,
            dtype="float64",  # in float32 the drift of the charge is round-off, not the rate
            **values,
        )
        run = _train([overall], [delta], seeds, settings=settings)
        names = [*MEASURES, "effective_vector", "neuron_sign", "teacher_vector", "teacher_sign", "diverged"]
        cases.append(run[names].isel(overall_scale=0, relative_scale=0, drop=True).assign_coords(step=list(shown)))
    return _renamed(histories.concat(cases, "case", list(CASES)), "plane")


def _train(*arguments: Any, settings: StudentSettings) -> xr.Dataset:
    """Train students; after Ctrl-C nothing may be kept as if it were done."""
    run = student_teacher(*arguments, settings=settings)
    if run.attrs["stopped_because"] == "interrupted":
        raise KeyboardInterrupt
    return run


def _renamed(run: xr.Dataset, prefix: str) -> xr.Dataset:
    names = {name: f"{prefix}_{name}" for name in run.data_vars}
    axes = {name: f"{prefix}_{name}" for name in ("step", "seed", "case") if name in run.dims}
    return run.rename({**names, **axes})
