"""The phases of deep linear networks over gamma: width exponents, paths from saddle to saddle, silent alignment."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from learnmech import history as histories
from learnmech.dynamics.saddle import Jumps, find_jumps
from learnmech.errors import InputError
from learnmech.experiments.jacot2022.cells import follow_path, follow_silent, measure_gamma
from learnmech.experiments.jacot2022.phase_figure import draw
from learnmech.experiments.reproduction import Claim, Context, Reproduction, Scale, judge
from learnmech.fingerprint import canonical_json
from learnmech.sweep import Sweep

VALUES = (4.0, 2.0, 1.0)
SETTINGS: Mapping[Scale, Mapping[str, Any]] = {
    "smoke": {
        "depth": 4,
        "gammas": [0.8, 2.0],
        "widths": [20, 40],
        "draws": 3,
        "path_gammas": [0.8, 1.0, 2.0],
        "path_width": 10,
        "path_draws": 1,
        "silent_scales": [0.5, 0.1, 1e-3],
        "silent_width": 10,
        "silent_draws": 1,
        "records": 120,
    },
    "reduced": {
        "depth": 4,
        "gammas": [0.6, 0.8, 0.9, 1.0, 1.25, 1.5, 2.0],
        "widths": [50, 100, 200, 400],
        "draws": 12,
        "path_gammas": [0.8, 1.0, 2.0],
        "path_width": 50,
        "path_draws": 3,
        "silent_scales": [0.5, 0.1, 1e-3],
        "silent_width": 30,
        "silent_draws": 5,
        "records": 300,
    },
    "paper": {
        "depth": 4,
        "gammas": [0.6, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.125, 1.25, 1.5, 1.75, 2.0],
        "widths": [100, 200, 400, 800, 1600, 3200],
        "draws": 20,
        "path_gammas": [0.8, 1.0, 2.0],
        "path_width": 100,
        "path_draws": 10,
        "silent_scales": [0.5, 0.1, 1e-3],
        "silent_width": 100,
        "silent_draws": 20,
        "records": 400,
    },
}
CLOSE = 0.1
"""Largest error of an exponent: that of this library's specification."""
TEXTS = {
    "W1": ("kernel", "the tangent kernel goes as w^((1-γ)(L-1))"),
    "W2": ("output", "the product of the weights goes as w^((L-1-γL)/2)"),
    "W3": ("saddle", "the distance to the saddle W_1 = W_L = 0 goes as w^((1-γ)/2)"),
    "W4": ("minimum", "the distance to a global minimum goes as w^(-(1-γ)(L-1)/2), for 1-1/L <= γ < 1"),
    "W5": ("minimum_per_error", "that distance over the error at the start goes so for every γ < 1 (derived here)"),
}


def run(context: Context) -> xr.Dataset:
    """Measure exponents, train networks in each regime, and train networks with one output.

    Args:
        context: where and how to run.

    Returns:
        All three: the exponents over ``gamma``, and with ``path_`` and ``silent_`` before their names the others.

    Raises:
        InputError: if ``draws`` is too small for an error bar.
    """
    settings = {**SETTINGS[context.scale], **context.overrides}
    context.require_overrides("widths", "draws", "path_width", "path_draws", "silent_draws", "records")
    if not isinstance(settings["draws"], int) or settings["draws"] < 2:
        raise InputError(f"draws must be an integer of at least 2, got {settings['draws']!r}.")
    parts = {
        "": context.run(
            Sweep(
                measure_gamma,
                {"gamma": settings["gammas"]},
                fixed={name: settings[name] for name in ("depth", "widths", "draws")},
            ),
            "sweep-widths",
        ),
        "path_": context.run(
            Sweep(
                follow_path,
                {"gamma": settings["path_gammas"], "draw": range(settings["path_draws"])},
                fixed={
                    "depth": settings["depth"],
                    "width": settings["path_width"],
                    "values": list(VALUES),
                    "records": settings["records"],
                },
            ),
            "sweep-paths",
        ),
        "silent_": context.run(
            Sweep(
                follow_silent,
                {"scale": settings["silent_scales"], "draw": range(settings["silent_draws"])},
                fixed={"inputs": 10, "width": settings["silent_width"], "records": settings["records"]},
            ),
            "sweep-silent",
        ),
    }
    return _join(parts)


def _join(parts: Mapping[str, xr.Dataset]) -> xr.Dataset:
    whole = parts[""]
    configs = {"widths": json.loads(whole.attrs["config"])}
    for prefix, part in parts.items():
        if prefix:
            renamed = {str(name): f"{prefix}{str(name).removeprefix(prefix)}" for name in part.variables}
            part = part.rename(renamed | {str(dim): f"{prefix}{dim}" for dim in part.dims if dim not in part.variables})
            for name in part.data_vars:
                whole[name] = part[name]
            configs[f"{prefix}runs"] = json.loads(part.attrs["config"])
    whole.attrs["config"] = canonical_json(configs)
    return histories.validate(whole)


def find_path_jumps(history: xr.Dataset, gamma: float) -> list[Jumps]:
    """Find the jumps of each trained network at one gamma.

    Args:
        history: what :func:`run` gave.
        gamma: which.

    Returns:
        One a draw.
    """
    paths = history.sel(path_gamma=gamma)
    found = []
    for draw_number in range(history.sizes["path_draw"]):
        times, losses = (paths[name].isel(path_draw=draw_number).values for name in ("path_moment", "path_loss"))
        times, first = np.unique(times, return_index=True)
        found.append(find_jumps(times, losses[first]))
    return found


def check(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check the exponents, the paths, and silent alignment.

    Args:
        history: what :func:`run` gave.
        scale: the scale of the run.

    Returns:
        The claims W1 to W5, S1 to S3 and A1.
    """
    tested = scale != "smoke"
    claims = [_check_exponent(history, key, tested) for key in TEXTS]
    return [*claims, *_check_paths(history, tested), _check_silent(history, tested)]


def _check_exponent(history: xr.Dataset, key: str, tested: bool) -> Claim:
    name, text = TEXTS[key]
    gammas = history["gamma"].values
    slopes, errors, expected = (history[f"{name}{end}"].values for end in ("_slope", "_slope_error", "_predicted"))
    kept = np.isfinite(slopes)
    if name == "minimum":
        depth = json.loads(history.attrs["config"])["widths"]["fixed"]["depth"]
        kept &= gammas >= 1 - 1 / depth
    misses = np.abs(slopes - expected)[kept]
    sizes = history[name].values[kept]
    lost = int(np.isnan(sizes).sum())
    shown = ", ".join(
        f"{slope:+.2f} ± {error:.2f} for {wanted:+.2f} at γ = {gamma:g}"
        for gamma, slope, error, wanted in zip(gammas[kept], slopes[kept], errors[kept], expected[kept], strict=True)
    )
    return judge(
        key,
        text,
        f"within {CLOSE} at every γ measured",
        (shown or "none") + (f" ({lost} of {sizes.size} not found)" if lost else ""),
        bool(len(misses) and misses.max() <= CLOSE),
        tested=tested,
    )


def _check_paths(history: xr.Dataset, tested: bool) -> list[Claim]:
    values = np.array(VALUES)
    levels = np.array([0.5 * (values[kept:] ** 2).sum() for kept in range(len(values) + 1)])
    found = {float(gamma): find_path_jumps(history, float(gamma)) for gamma in history["path_gamma"].values}
    gammas = sorted(found)
    counts = {gamma: [len(jumps) for jumps in found[gamma]] for gamma in gammas}
    last = found[gammas[-1]]
    errors = [
        float(np.abs(jumps.levels - levels).max() / levels[0]) if len(jumps) == len(values) else np.inf
        for jumps in last
    ]
    norms = history["path_kernel_norm"].transpose("path_gamma", "path_draw", "path_record").values
    growth = np.exp(np.log(norms[..., -1] / norms[..., 0]).mean(1))
    return [
        judge(
            "S1",
            "above γ = 1 the loss jumps from saddle to saddle, one mode at a time; in the kernel regime it does not",
            f"{len(values)} jumps at γ = {gammas[-1]:g} and none at {gammas[0]:g}, in every draw (ours)",
            "; ".join(f"γ = {gamma:g}: {', '.join(map(str, counts[gamma]))}" for gamma in gammas),
            set(counts[gammas[-1]]) == {len(values)} and set(counts[gammas[0]]) == {0},
            tested=tested,
        ),
        judge(
            "S2",
            "its plateaus are those of the best approximations of rank 0, 1, 2 and 3",
            f"levels at γ = {gammas[-1]:g} within 5 % of the first loss, in every draw (ours)",
            f"largest error {max(errors):.2%} of the first loss",
            max(errors) <= 0.05,
            tested=tested,
        ),
        judge(
            "S3",
            "the kernel moves the more, the larger γ",
            "its norm at the end over that at the start, geometric mean over draws, grows with γ (ours)",
            ", ".join(f"{factor:.3g} at γ = {gamma:g}" for factor, gamma in zip(growth, history["path_gamma"].values, strict=True)),
            bool((np.diff(growth) > 0).all()),
            tested=tested,
        ),
    ]  # fmt: skip


def _check_silent(history: xr.Dataset, tested: bool) -> Claim:
    cosines = history["silent_cosine"].mean("silent_draw")
    sizes = history["silent_size"].mean("silent_draw")
    order = np.argsort(-history["silent_scale"].values)
    means = cosines.values[order]
    return judge(
        "A1",
        "from a small start the kernel has its final shape before the loss falls",
        "mean cosine at 90 % of the loss grows as the scale falls, and is above 0.99 at the smallest (ours)",
        ", ".join(
            f"{means[place]:.3f} at scale {history['silent_scale'].values[at]:g} with {sizes.values[at]:.2g} of the final size"
            for place, at in enumerate(order)
        ),
        bool((np.diff(means) > 0).all() and means[-1] > 0.99),
        tested=tested,
    )


PHASE = Reproduction(
    name="jacot2022/phase",
    title="deep linear networks: kernel regime, critical, and saddle to saddle",
    caption="Networks of L = 4 weights whose entries have variance w^-γ, w the width. (a, b) How sizes at the start grow with the width: "
    "dots are slopes of log(size) over log(width) with one standard error, lines are predictions. Below γ = 1 - 1/L outputs explode; up to "
    "1 a minimum is near and the saddle far (kernel regime); above 1 it is the other way round. The distance to a minimum is that to the "
    "nearest exact solution found; at these widths the output at the start still adds to the error, so the distance over that error "
    "(derived here) is the cleaner exponent. (c) Kernel of two-layer networks with one output: cosine to the last kernel against the loss "
    "left. From a small start it is 1 before the loss falls. (d to f) Gradient flow at three γ for a target with singular values 4, 2, 1: "
    "thin lines are draws; dotted lines are the losses of the best approximations of rank 0, 1 and 2; dots are the jumps that find_jumps finds "
    "in the first draw. Widths, draws, target and the criteria of S and A are ours.",
    settings=SETTINGS,
    run=run,
    check=check,
    draw=draw,
    citations=("jacot2022",),
)
