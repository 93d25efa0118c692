"""Lazy, rich or delayed rich: what a turning kernel and a falling loss say together."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from learnmech.monitor.instrument import Confidence, Finding, Severity

LAZY = 0.04
"""Centred kernel distance below which training is lazy. ReLU MLPs on digits (64-64-64-10, cross entropy) with output scale 100, which
are lazy by construction, ended at 0.018 to 0.032 when trained until the loss had fallen by two thirds, and below before."""
RICH = 0.07
"""Centred kernel distance above which it is rich. The same MLPs with output scale 1 ended at 0.16 to 0.22, and of width 512 at 0.084
to 0.092."""
EARLY = 0.1
"""Share of the first loss that it must have fallen by before a kernel that did not move means anything."""
MOST = 0.8
"""Share of the whole fall of the loss that counts as most of it: a kernel that is lazy until then and rich at last is delayed."""

_LEARN_MORE = (
    "lower the output scale (multiply the output by less, and the learning rate by the inverse square)",
    "start with smaller weights",
    "make earlier layers move faster: larger last-layer weights against smaller first-layer ones, or their own learning rates",
    "use a parametrisation in which features move at every width (mu-P: smaller read-out, rates by width)",
)


@dataclass(frozen=True)
class _Course:
    """What was measured since the kernel that distances are from.

    Attributes:
        steps: optimizer steps.
        distance: centred kernel distance.
        error: its standard error, 0 where there is none.
        fall: loss at the start minus now.
        first: loss at the start.
        start: step of the start.
        resumed: whether the reference changed during the history.
        errors_known: whether there is a standard error.
    """

    steps: np.ndarray
    distance: np.ndarray
    error: np.ndarray
    fall: np.ndarray
    first: float
    start: int
    resumed: bool
    errors_known: bool


def findings_of(history: xr.Dataset) -> list[Finding]:
    """Read the variables of the regime instrument.

    Args:
        history: a history with them.

    Returns:
        One finding.
    """
    course = _course(history)
    if course is None:
        reason = str(history.attrs.get("regime_unknown", "")) or "no probe has a kernel."
        return [
            Finding(
                "regime.unknown",
                "regime unknown",
                f"The tangent kernel could not be measured: {reason}",
                "unknown",
                confidence="sure",
            )
        ]
    return [_finding(course, history)]


def _course(history: xr.Dataset) -> _Course | None:
    distance = history["centred_kernel_distance"].values
    measured = np.flatnonzero(np.isfinite(distance))
    if len(measured) == 0:
        return None
    reference = history["kernel_reference_norm"].values[measured]
    changes = np.flatnonzero(np.abs(np.diff(reference)) > 1e-6 * np.abs(reference[:-1]))
    begin = int(changes[-1]) + 1 if len(changes) else 0
    origin = int(measured[begin - 1 if begin else 0])
    kept = measured[begin:]
    loss, error = history["loss"].values, history["centred_kernel_distance_error"].values[kept]
    return _Course(
        steps=history["step"].values[kept],
        distance=distance[kept],
        error=np.where(np.isfinite(error), error, 0.0),
        fall=loss[origin] - loss[kept],
        first=float(loss[origin]),
        start=int(history["step"].values[origin]),
        resumed=bool(begin),
        errors_known=bool(np.isfinite(error[-1])),
    )


def _finding(course: _Course, history: xr.Dataset) -> Finding:
    code, title, message, severity, knobs = _reading(course)
    last = {name: float(history[name].sel(step=course.steps[-1])) for name in ("kernel_distance", "kernel_alignment")}
    moved = float(history["parameter_distance"].sel(step=course.steps[-1]))
    error = f" +- {course.error[-1]:.1g}" if course.errors_known else " (no standard error: fewer than 16 samples)"
    parts = [
        f"centred kernel distance {course.distance[-1]:.2g}{error} from step {course.start} to {int(course.steps[-1])}",
        f"plain {last['kernel_distance']:.2g}",
        f"loss {course.first:.3g} to {course.first - course.fall[-1]:.3g}",
    ]
    if np.isfinite(last["kernel_alignment"]):
        parts.append(f"alignment with the labels {last['kernel_alignment']:.2f}")
    if np.isfinite(moved):
        parts.append(f"parameters moved by {moved:.1%} of their size")
    covered = float(history.attrs.get("regime_covered", 1.0))
    if 0.5 <= covered < 0.995:
        parts.append(f"over {covered:.0%} of the parameters")
    if course.resumed:
        message += (
            f" The watch was taken up again: this is what happened since step {course.start}, not since the start."
        )
    elif course.start > 0:
        message += f" The watch began at step {course.start}: this is what happened since."
    return Finding(code, title, message, severity, "; ".join(parts), _confidence(course, code), knobs)


def _reading(course: _Course) -> tuple[str, str, str, Severity, tuple[str, ...]]:
    distance, error = course.distance[-1], course.error[-1]
    lazy, rich = distance + 2 * error < LAZY, distance - 2 * error > RICH
    fell = np.isfinite(course.fall[-1]) and course.fall[-1] >= EARLY * abs(course.first)
    if not fell and not rich:
        return (
            "regime.too_early",
            "too early to tell the regime",
            "The loss has hardly fallen since the first probe, so that a kernel that did not move says nothing yet.",
            "note",
            (),
        )
    if not fell:
        return (
            "regime.undecided",
            "the kernel turned, the loss did not fall",
            "Features changed a lot without the loss falling: training wanders or diverges, or the loss was low at the start.",
            "note",
            ("lower the learning rate",),
        )
    if lazy:
        return (
            "regime.lazy",
            "lazy training",
            "The tangent kernel is almost the one at the start: the network trains like a linear model of fixed features and learns "
            "no features of its own so far.",
            "note",
            _LEARN_MORE,
        )
    if not rich:
        return (
            "regime.undecided",
            "between lazy and rich",
            "The tangent kernel turned a little: more than in a lazy network, less than where features are clearly learned, or not "
            "by a sure amount.",
            "note",
            _LEARN_MORE,
        )
    quiet = (course.fall >= MOST * np.nanmax(course.fall)) & (course.distance + 2 * course.error < LAZY)
    if quiet[:-1].any():
        when = int(course.steps[np.flatnonzero(quiet)[-1]])
        return (
            "regime.delayed_rich",
            "delayed rich training",
            f"The kernel hardly moved until step {when}, when the loss had fallen most of the way, and turned later: the network "
            "first fitted with the features it had and learned its own afterwards. Later layers move faster than earlier ones.",
            "note",
            (
                "keep training: features are still being learned",
                "for an earlier start: larger last-layer weights against smaller first-layer ones, or more learning rate in front",
            ),
        )
    return (
        "regime.rich",
        "rich training",
        "The tangent kernel is not the one at the start: the network learns features.",
        "good",
        (),
    )


def _confidence(course: _Course, code: str) -> Confidence:
    if not course.errors_known or code in ("regime.too_early", "regime.undecided"):
        return "weak"
    distance, error = course.distance[-1], course.error[-1]
    clear = distance + 2 * error < LAZY / 3 if code == "regime.lazy" else distance - 2 * error > 1.5 * RICH
    done = course.fall[-1] >= 0.5 * abs(course.first)
    return "sure" if clear and done and not course.resumed else "likely"
