"""Fig. 2: uniform, irregular and adaptive step sizes on the 30-6-3-30 task, over numbers of layers and draws."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from learnmech.errors import InputError
from learnmech.experiments.jacot2024.shared import (
    RESIDUAL_NOTE,
    choose_settings,
    numbers,
    readable,
    spread,
    task_rank,
)
from learnmech.experiments.jacot2024.step_figure import draw_schemes
from learnmech.experiments.jacot2024.trained_nets import least_cost_layer, stack_values, train_schemes
from learnmech.experiments.reproduction import Claim, Context, Reproduction, Scale, judge, untested
from learnmech.leaky.training_result import RESIDUAL_LIMIT
from learnmech.sweep import Sweep

_COMMON: Mapping[str, Any] = {
    "widths": [30, 6, 3, 30],
    "teacher": "residual",
    "effective_depth": 3.0,
    "init": "identity",
    "learning_rate": 3e-3,
    "ridges": [1e-2, 1e-3],
}
SETTINGS: Mapping[Scale, Mapping[str, Any]] = {
    "smoke": {
        **_COMMON,
        "widths": [6, 3, 2, 6],
        "samples": 60,
        "width": 14,
        "layers": [5, 8],
        "draws": 2,
        "penalty": 0.05,
        "adam_steps": 400,
        "polish_iterations": 100,
    },
    "reduced": {
        **_COMMON,
        "samples": 300,
        "width": 40,
        "layers": [4, 6, 10, 18],
        "draws": 4,
        "penalty": 0.05,
        "adam_steps": 2500,
        "polish_iterations": 1500,
    },
    "paper": {
        **_COMMON,
        "samples": 1000,
        "width": 200,
        "layers": [4, 5, 6, 7, 8, 9, 10, 12, 14, 18, 22],
        "draws": 5,
        "penalty": 0.002,
        "adam_steps": 20_000,
        "polish_iterations": 10_000,
    },
}
TEXTS = {
    "C8a": "adaptive steps equalise the relative steps of the features",
    "C8b": "they narrow the spread of the Hamiltonian over depth",
    "C8c": "they lower the test error at equal layers (the paper: consistently, from one run a point)",
    "C8d": "they do not raise the training cost at equal layers (ours)",
    "2b": "the spectrum of the weights splits at the bottleneck of dimension 3",
}
_FEW_DRAWS, _ERRORS = 3, 2.0


def run(context: Context) -> xr.Dataset:
    """Train nets of all schemes for every number of layers and draw.

    Args:
        context: where and how to run.

    Returns:
        The collected sweep.

    Raises:
        InputError: if ``draws`` is not a positive integer.
    """
    settings = choose_settings(context, SETTINGS[context.scale], ("layers",), locked=("init",))
    draws, layers = settings.pop("draws"), settings.pop("layers")
    if not isinstance(draws, int) or isinstance(draws, bool) or draws < 1:
        raise InputError(f"draws must be a positive integer, got {draws!r}.")
    return context.run(Sweep(train_schemes, {"layers": layers, "draw": range(draws)}, fixed=settings))


def check(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check C8 and the spectra.

    Args:
        history: the collected sweep.
        scale: the scale of the run.

    Returns:
        The claims C8a to C8d and 2b.
    """
    if scale == "smoke" or history.sizes["draw"] < _FEW_DRAWS or history.sizes["layers"] < 2:
        reason = f"at least {_FEW_DRAWS} draws and two numbers of layers, at a larger scale"
        return [untested(key, text, reason) for key, text in TEXTS.items()]
    return [
        _check_steps(history),
        _check_spread(history),
        _check_difference(history, "C8c", "test_cost"),
        _check_difference(history, "C8d", "cost"),
        _check_spectrum(history),
    ]


def paired_differences(history: xr.Dataset, name: str, scheme: str = "adaptive") -> tuple[np.ndarray, np.ndarray]:
    """Compare a scheme with uniform steps, draw by draw.

    Args:
        history: the collected sweep.
        name: a number of each net.
        scheme: the other scheme.

    Returns:
        Mean over draws of the difference to uniform steps, and its standard error, at each number of layers.
    """
    values = history[name].transpose("layers", "draw", "scheme")
    gaps = (values.sel(scheme=scheme) - values.sel(scheme="uniform")).values
    count = np.isfinite(gaps).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = np.nanstd(gaps, axis=1) * np.sqrt(count / np.maximum(count - 1, 1)) / np.sqrt(count)
    return np.asarray(np.nanmean(gaps, axis=1)), np.asarray(errors)


def step_ratios(history: xr.Dataset) -> xr.DataArray:
    """Give the largest relative step over the smallest, of each net.

    Args:
        history: the collected sweep.

    Returns:
        Ratios over ``layers``, ``draw`` and ``scheme``.
    """
    steps = history["relative_step"]
    return steps.max("layer") / steps.min("layer")


def _check_steps(history: xr.Dataset) -> Claim:
    ratios = step_ratios(history)
    adaptive, uniform = (ratios.sel(scheme=scheme).values for scheme in ("adaptive", "uniform"))
    smaller = adaptive < uniform
    return judge(
        "C8a",
        TEXTS["C8a"],
        "the largest relative step over the smallest is smaller than with uniform steps in 9 of 10 pairs (ours)",
        f"smaller in {int(smaller.sum())} of {smaller.size}; medians {np.nanmedian(adaptive):.2f} against {np.nanmedian(uniform):.2f}",
        bool(smaller.mean() >= 0.9),
    )


def _check_spread(history: xr.Dataset) -> Claim:
    own, fine = [], []
    for layers in history["layers"].values:
        nets = history.sel(layers=layers)
        values = stack_values(nets, "pre_effective_dimension", "scheme", "draw", "layer")[..., : int(layers) + 1]
        sizes = stack_values(nets, "step_size", "scheme", "draw", "layer")[..., : int(layers) + 1]
        own.append(spread(values, sizes))
        fine.append(readable(nets.transpose("scheme", "draw", ...)))
    schemes = list(history["scheme"].values)
    pair = [schemes.index("adaptive"), schemes.index("uniform")]
    spreads, trusted = np.array(own)[:, pair], np.array(fine)[:, pair].all(1)
    if trusted.sum() < 3:
        return untested(
            "C8b",
            TEXTS["C8b"],
            f"three pairs of nets with median stationarity residuals below {RESIDUAL_LIMIT:g}; there are {int(trusted.sum())} of "
            f"{trusted.size}, and the median residual is {float(history['residual'].median()):.2g}",
        )
    adaptive, uniform = spreads[:, 0][trusted], spreads[:, 1][trusted]
    ratio = float(np.exp(np.mean(np.log(adaptive / uniform))))
    return judge(
        "C8b",
        TEXTS["C8b"],
        "geometric mean over stationary pairs of the ratio of standard deviations of the pre-Hamiltonian, to uniform steps, below 1",
        f"{ratio:.2f} over {len(adaptive)} of {trusted.size} pairs; smaller in {int((adaptive < uniform).sum())}",
        ratio < 1,
    )


def _check_difference(history: xr.Dataset, key: str, name: str) -> Claim:
    means, errors = paired_differences(history, name)
    layers = history["layers"].values
    base = history[name].sel(scheme="uniform").mean("draw").values
    shown = ", ".join(
        f"{gap:+.3g} ± {error:.2g} of {value:.3g} at L = {count}"
        for gap, error, value, count in zip(means, errors, base, layers, strict=True)
    )
    draws = history.sizes["draw"]
    chance = float(stats.t.cdf(-_ERRORS, draws - 1))
    if key == "C8c":
        expected = (
            f"mean paired difference to uniform below zero by {_ERRORS:g} standard errors at more than half of the layer counts; with "
            f"{draws} draws it is so at one of them by chance in {chance:.0%}"
        )
        holds = bool((means < -_ERRORS * errors).mean() > 0.5)
    else:
        expected = f"mean paired difference to uniform not above zero by {_ERRORS:g} standard errors, at more than half of the layer counts"
        holds = bool((means <= _ERRORS * errors).mean() > 0.5)
    return judge(key, TEXTS[key], f"{expected} (ours)", shown, holds)


def _check_spectrum(history: xr.Dataset) -> Claim:
    rank = task_rank(history)
    nets = history.sel(scheme="adaptive").isel(layers=-1)
    costs = stack_values(nets.isel(ridge=int(nets["ridge"].values.argmax())), "identity_cost", "draw", "layer")
    at = least_cost_layer(costs)
    kept = stack_values(nets, "kept_directions", "draw", "layer")[np.arange(len(at)), at]
    return judge(
        "2b",
        TEXTS["2b"],
        f"{rank} or {rank + 1} singular values above half the largest where the identity cost is least, in most draws with adaptive steps "
        "and most layers (ours)",
        f"{numbers(kept)} over draws at {int(nets['layers'])} layers",
        bool(np.isin(kept, (rank, rank + 1)).mean() > 0.5),
    )


FIG2 = Reproduction(
    name="jacot2024/fig2",
    title="step sizes: uniform, irregular, adaptive",
    caption="Nets that differ in how their depth is cut into steps only, trained from the same weights on the same task. Error bars are one "
    "standard error over draws of task and weights. (a) Test cost against layers. (b) What irregular and adaptive steps change in it, "
    "draw by draw: below zero is better than uniform. (c) How unequal the relative steps are: 1 is equal, which adaptive steps aim at. "
    "(d, e) Singular values of the weights over depth at the most layers: adaptive steps put layers where features change. (f) The "
    "paths of the three nets, on the two directions along which they vary most; each dot is a layer. The paper shows one run a point, "
    "and the data are ours where it gives no settings. " + RESIDUAL_NOTE,
    settings=SETTINGS,
    run=run,
    check=check,
    draw=draw_schemes,
    citations=("jacot2024",),
)
