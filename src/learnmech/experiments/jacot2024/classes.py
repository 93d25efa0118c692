"""Digits and MNIST: leaky ResNets that classify images at three effective depths, their accuracy and their bottleneck."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from learnmech.experiments.drawing import new_figure
from learnmech.experiments.jacot2024.class_nets import ClassSetup, train_classifier
from learnmech.experiments.reproduction import Claim, Context, Reproduction, Scale, judge, untested
from learnmech.figures import ACCENT, FAINT, INK, SECOND

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_AXES = ("effective_depth", "seed")
_SHOWN = 14  # singular values drawn
_DEEP = 6.0  # least largest effective depth from which a bottleneck is asked for
_CAPTION = (
    "One column for each effective depth. Top: the identity cost counts the dimensions of the representation at each depth by what "
    "it costs to keep it (mean over seeds, bands from least to most); the triangle marks where it is least, the bottleneck. Middle: "
    "singular values of the weights of the first seed; those kept at the bottleneck in blue. A direction needs one of about the "
    "effective depth (dotted) to survive the leak. Kept are those above half the largest, which are fewer than survive where the "
    "largest is more than twice the effective depth: look at the lines. Bottom: the numbers. Effective dimensions are those of a critical point, and mean "
    "something where the residual is small. Cross-entropy, not the squared error that the paper uses, which has no experiment on "
    "images: on digits the test accuracy was the same, it came nearer to a critical point in as many iterations, and it leaves the "
    "geometry of the outputs to the net, while one-hot targets ask for nine directions at the end whatever happens inside. Ridges are shares of the largest eigenvalue of each "
    "layer's kernel, so that they do not depend on the number of samples. Criteria are ours."
)


def _settings(**changes: Any) -> dict[str, Any]:
    depths, seeds = changes.pop("effective_depth"), changes.pop("seed")
    plain = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(ClassSetup(**changes)).items()
    }
    return {**plain, "effective_depth": depths, "seed": seeds}


_SMOKE = _settings(
    samples=200,
    components=16,
    width=24,
    layers=10,
    penalty=0.01,
    adam_steps=200,
    polish_iterations=30,
    effective_depth=[1.5, 4.0, 8.0],
    seed=[0],
)
_DIGITS: Mapping[Scale, Mapping[str, Any]] = {
    "smoke": _SMOKE,
    "reduced": _settings(effective_depth=[1.5, 4.0, 8.0], seed=[0, 1, 2]),
    "paper": _settings(
        components=50,
        width=80,
        layers=24,
        adam_steps=10000,
        polish_iterations=2000,
        effective_depth=[1.5, 3.0, 4.0, 6.0, 8.0],
        seed=[0, 1, 2, 3, 4],
    ),
}
_MNIST: Mapping[Scale, Mapping[str, Any]] = {
    "smoke": _SMOKE,
    "reduced": _settings(
        data="mnist",
        samples=3000,
        test_samples=5000,
        components=50,
        width=50,
        polish_iterations=600,
        effective_depth=[1.5, 4.0, 8.0],
        seed=[0, 1],
    ),
    "paper": _settings(
        data="mnist",
        samples=20000,
        components=100,
        width=200,
        layers=24,
        penalty=0.003,
        adam_steps=20000,
        polish_iterations=3000,
        effective_depth=[1.5, 3.0, 4.0, 6.0, 8.0],
        seed=[0, 1, 2],
    ),
}


def run(context: Context, settings: Mapping[Scale, Mapping[str, Any]]) -> xr.Dataset:
    """Train a classifier for every effective depth and seed.

    Args:
        context: where and how to run; every setting of the scale can be replaced, lists by lists.
        settings: settings by scale.

    Returns:
        The collected sweep.
    """
    return context.run_grid(train_classifier, settings[context.scale], _AXES)


def check(history: xr.Dataset, scale: Scale, *, name: str) -> list[Claim]:
    """Check what a bottleneck promises of a classifier.

    Args:
        history: the collected sweep.
        scale: the scale of the run.
        name: of the data.

    Returns:
        The claims K1 to K8.
    """
    depths = history["effective_depth"].values
    texts = {
        "K1": f"{name} are classified at every effective depth",
        "K2": "the bottleneck sits inside the net, at neither end",
        "K3": "the larger the effective depth, the narrower the bottleneck",
        "K4": "in the deepest net the number of kept directions is clear",
        "K5": "it keeps fewer directions than the nine that the means of ten classes span",
        "K6": "the identity cost there counts them",
        "K7": "the effective dimension rises with the effective depth, and stays below the identity cost",
        "K8": "features are non-negative there, and not at the ends",
    }
    if scale == "smoke" or len(depths) < 2 or depths.max() < _DEEP or not (np.diff(depths) > 0).all():
        reason = f"rising effective depths, the last at least {_DEEP:g}, and more training than scale smoke"
        return [untested(key, text, reason) for key, text in texts.items()]
    return [
        _judge(texts, "K1", *_check_accuracy(history)),
        _judge(texts, "K2", *_check_place(history)),
        _judge(texts, "K3", *_check_narrowing(history)),
        *_check_deepest(history.isel(effective_depth=-1), texts),
        _check_effective_dimension(history, texts["K7"]),
        _judge(texts, "K8", *_check_negativity(history.isel(effective_depth=-1))),
    ]


def _judge(texts: Mapping[str, str], key: str, expected: str, measured: str, holds: bool) -> Claim:
    return judge(key, texts[key], expected, measured, holds)


def _check_accuracy(history: xr.Dataset) -> tuple[str, str, bool]:
    accuracy, linear = history["test_accuracy"].mean("seed"), float(history["linear_accuracy"].max())
    return (
        "mean test accuracy at most 0.01 below that of logistic regression on the same inputs, and within 0.03 of each other",
        f"{_row(accuracy, 3)} at effective depth {_row(history['effective_depth'])}; logistic regression {linear:.3f}",
        bool((accuracy >= linear - 0.01).all()) and float(accuracy.max() - accuracy.min()) <= 0.03,
    )


def _check_place(history: xr.Dataset) -> tuple[str, str, bool]:
    places = history["bottleneck_depth"]
    return (
        "the identity cost (first ridge) is least at a depth between 0.1 and 0.9 in every net",
        f"from {float(places.min()):.2f} to {float(places.max()):.2f}",
        bool(((places > 0.1) & (places < 0.9)).all()),
    )


def _check_narrowing(history: xr.Dataset) -> tuple[str, str, bool]:
    least = history["least_identity_cost"]
    return (
        "the least identity cost falls strictly with the effective depth, for every seed and ridge",
        f"means {_row(least.isel(ridge=0).mean('seed'), 3)} at the first ridge",
        bool((least.diff("effective_depth") < 0).all()),
    )


def _check_deepest(deepest: xr.Dataset, texts: Mapping[str, str]) -> list[Claim]:
    kept, following = deepest["bottleneck_dimension"], deepest["next_direction"]
    least = deepest["least_identity_cost"].isel(ridge=0)
    return [
        _judge(
            texts,
            "K4",
            "the first singular value of W that is not kept is below a tenth of the last that is, for every seed",
            f"kept {_row(kept)}; ratios {_row(following, 3)}",
            bool((following < 0.1).all()),
        ),
        _judge(texts, "K5", "at most 8 for every seed", f"kept {_row(kept)}", bool((kept <= 8).all())),
        _judge(
            texts,
            "K6",
            "least identity cost (first ridge) within 1 of the number of kept directions, for every seed",
            f"identity cost {_row(least, 3)}, kept {_row(kept)}",
            bool((np.abs(least - kept) <= 1).all()),
        ),
    ]


def _check_effective_dimension(history: xr.Dataset, text: str) -> Claim:
    residual = history["residual"]
    if not bool((history["stationary"] == 1).all()):
        return untested("K7", text, f"critical points, but the residual is up to {float(residual.max()):.2g}")
    dimension = history["median_effective_dimension"]
    bounded = bool((dimension <= history["least_identity_cost"].min("ridge")).all())
    means = dimension.mean("seed")
    return judge(
        "K7",
        text,
        "means over seeds rise strictly; below the least identity cost in every net",
        f"means {_row(means, 3)}; {'below' if bounded else 'not always below'} the identity cost; residual up to "
        f"{float(residual.max()):.2g}",
        bounded and bool((means.diff("effective_depth") > 0).all()),
    )


def _check_negativity(deepest: xr.Dataset) -> tuple[str, str, bool]:
    inside = deepest["bottleneck_negativity"]
    ends = deepest["negativity"].isel(layer=[0, -1])
    return (
        "in the deepest net the negative part is below 0.05 of the norm at the bottleneck, and above 0.2 at both ends, for every seed",
        f"{_row(inside)} at the bottleneck, at least {float(ends.min()):.2f} at the ends",
        bool((inside < 0.05).all() and (ends > 0.2).all()),
    )


def _row(values: Any, digits: int = 2) -> str:
    return ", ".join(f"{float(value):.{digits}g}" for value in np.asarray(values).ravel())


def draw(history: xr.Dataset) -> "Figure":
    """Draw identity cost and singular values over depth, and the table under them.

    Args:
        history: the collected sweep.

    Returns:
        The figure.
    """
    depths = history["effective_depth"].values
    columns = len(depths)
    figure = new_figure(
        3, columns, width=max(4.6, 3.1 * columns + 0.8), height=8.2, sharey="row", height_ratios=[3.0, 3.0, 1.9]
    )
    axes = np.array(figure.axes).reshape(3, columns)
    for column, depth in enumerate(depths):
        cell = history.isel(effective_depth=column)
        _draw_identity_cost(axes[0, column], cell)
        axes[0, column].set_title(f"effective depth {depth:g}", color=INK, fontsize=11)
        _draw_spectrum(axes[1, column], cell, float(depth))
        _write_numbers(axes[2, column], cell)
    axes[1, 0].set_ylim(bottom=0)
    axes[0, 0].set_ylabel("identity cost (dimensions)", color=INK, fontsize=9)
    axes[1, 0].set_ylabel("singular values of W", color=INK, fontsize=9)
    axes[0, 0].legend(fontsize=7, frameon=False)
    return figure


def _draw_identity_cost(axes: "Axes", cell: xr.Dataset) -> None:
    depth, costs = cell["depth"].values, cell["identity_cost"].transpose("ridge", "seed", "layer").values
    for values, ridge, colour in zip(costs, cell["ridge"].values, (ACCENT, FAINT, INK), strict=False):
        label = f"ridge {ridge:g} of the largest eigenvalue"
        axes.fill_between(depth, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
        axes.plot(depth, values.mean(0), color=colour, linewidth=1.6, label=label)
    narrowest = int(costs[0].mean(0)[:-1].argmin())
    least = float(costs[0].mean(0)[narrowest])
    axes.plot(depth[narrowest], least, marker="v", color=SECOND, markersize=7, linestyle="none")
    axes.annotate(
        f"narrowest: {least:.3g}",
        (depth[narrowest], least),
        xytext=(0, -13),
        textcoords="offset points",
        ha="center",
        fontsize=8,
        color=SECOND,
    )
    axes.set_yscale("log")
    axes.margins(y=0.12)
    axes.set_xlim(0, 1)


def _draw_spectrum(axes: "Axes", cell: xr.Dataset, effective_depth: float) -> None:
    first = cell.isel(seed=0)
    spectrum = first["weight_spectrum"].transpose("direction", "layer").values[:_SHOWN]
    kept = int(first["bottleneck_dimension"])
    for number, values in enumerate(spectrum):
        colour, width = (ACCENT, 1.4) if number < kept else (FAINT, 0.9)
        axes.plot(first["depth"].values, values, color=colour, linewidth=width)
    axes.axhline(effective_depth, color=INK, linewidth=0.9, linestyle=(0, (1, 1.5)))
    axes.annotate(
        "effective depth",
        (0.99, effective_depth),
        xytext=(0, 2),
        textcoords="offset points",
        ha="right",
        fontsize=7,
        color=INK,
    )
    axes.axvline(float(first["bottleneck_depth"]), color=SECOND, linewidth=0.9, linestyle=(0, (3, 2)))
    axes.set_xlim(0, 1)
    axes.set_xlabel("depth (0 input, 1 output)", color=INK, fontsize=9)


def _write_numbers(axes: "Axes", cell: xr.Dataset) -> None:
    least = cell["least_identity_cost"].isel(ridge=0)
    unsure = "" if bool((cell["stationary"] == 1).all()) else " (not stationary)"
    rows = {
        "test accuracy": _spread(cell["test_accuracy"], 3),
        "training accuracy": _spread(cell["train_accuracy"], 3),
        "directions kept": ", ".join(f"{int(value)}" for value in cell["bottleneck_dimension"].values),
        "next over last kept": _spread(cell["next_direction"], 3),
        "bottleneck at depth": _spread(cell["bottleneck_depth"], 2),
        "identity cost": _spread(least, 1),
        "effective dimension": _spread(cell["median_effective_dimension"], 1) + unsure,
        "residual": _spread(cell["residual"], 2),
    }
    axes.set_axis_off()
    for position, (name, value) in enumerate(rows.items()):
        height = 1 - (position + 0.5) / len(rows)
        axes.text(0.5, height, value, transform=axes.transAxes, fontsize=8, color=INK, va="center")
        axes.text(0.46, height, name, transform=axes.transAxes, fontsize=8, color=INK, va="center", ha="right")


def _spread(values: xr.DataArray, digits: int) -> str:
    mean = f"{float(values.mean()):.{digits}f}"
    return mean if values.size < 2 else f"{mean} ± {float(values.std(ddof=1)):.{digits}f}"


def _make(name: str, title: str, settings: Mapping[Scale, Mapping[str, Any]], note: str = "") -> Reproduction:
    return Reproduction(
        name=f"jacot2024/{name}",
        title=f"{title}: accuracy and bottleneck of leaky ResNets at several effective depths",
        caption=_CAPTION + note,
        settings=settings,
        run=functools.partial(run, settings=settings),
        check=functools.partial(check, name=title),
        draw=draw,
        citations=("jacot2024",),
    )


DIGITS = _make("digits", "handwritten digits", _DIGITS)
MNIST = _make(
    "mnist",
    "MNIST images",
    _MNIST,
    " The files of MNIST must be given (LEARNMECH_DATA) or reachable; at scale smoke the embedded digits stand in for them.",
)
