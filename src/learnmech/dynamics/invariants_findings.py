"""What charges and violations over probes say, in words and figures."""

import json
from collections.abc import Sequence

import numpy as np
import xarray as xr

from learnmech.figures import figure_over_steps
from learnmech.history import latest
from learnmech.monitor.instrument import Figure, Finding


def read_invariants(history: xr.Dataset) -> Sequence[Finding]:
    """Say whether gradients obey the symmetries, and how far charges moved.

    Args:
        history: a history with the instrument's variables.

    Returns:
        Findings at the last probe.
    """
    failure = str(history.attrs.get("symmetries_failure", ""))
    counted = latest(history, "charge_count").values
    if failure or not np.isfinite(counted):
        return [
            Finding(
                "invariants.unknown",
                "the symmetries of this model are not known",
                "They could not be found or measured, so no conservation law was tested.",
                "unknown",
                evidence=failure or "no probe measured them",
                confidence="sure",
            )
        ]
    findings = _left_out(history)
    if counted == 0:
        return [
            *findings,
            Finding(
                "invariants.none",
                "this model has no symmetry that was found",
                "No continuous symmetry of the loss that is linear in the parameters was found in the structure of the model, so "
                "nothing is conserved and nothing can be tested.",
                "note",
            ),
        ]
    return [*findings, *_gradients(history, int(counted)), *_drifts(history)]


def draw_invariants(history: xr.Dataset) -> list[Figure]:
    """Draw how charges drift, and how far steps leave the symmetric directions.

    Args:
        history: a history with the instrument's variables.

    Returns:
        Figures of what was measured.
    """
    figures = []
    if float(history["charge_drift"].fillna(0).max()) > 0:
        figures.append(
            Figure(
                "charge_drift",
                "How far conserved charges moved",
                "Change of each layer's charges since the first probe, relative to their size. Gradient flow keeps them at 0; finite "
                "steps, weight decay and adaptive optimizers move them.",
                figure_over_steps(history, "charge_drift", "drift of charges", logarithmic=True),
            )
        )
    if float(history["step_violation"].fillna(0).max()) > 0:
        figures.append(
            Figure(
                "step_violation",
                "How far steps leave the symmetric directions",
                "Share of the latest step along the directions that change nothing in the loss. It is rounding for a plain gradient step, "
                "small with momentum and weight decay, and up to 1 for optimizers that rescale the gradient entry by entry.",
                figure_over_steps(history, "step_violation", "violation by the step", logarithmic=True),
            )
        )
    return figures


def _gradients(history: xr.Dataset, charges: int) -> list[Finding]:
    violation, broken = latest(history, "symmetry_violation").values, latest(history, "symmetry_broken").values
    names = [str(name) for name in history["layer"].values]
    tested = np.isfinite(violation)
    if not tested.any():
        return []
    worst = int(np.nanargmax(violation))
    evidence = f"worst {violation[worst]:.1e} ({names[worst]}); {int(tested.sum())} layers tested"
    guilty = tuple(name for name, bad in zip(names, broken, strict=True) if bad == 1)
    if not guilty:
        return [
            Finding(
                "invariants.conserved",
                "gradients obey the symmetries of the layers",
                f"The model has {charges} charges that gradient flow conserves, and the probe's gradient obeys the symmetries behind them.",
                "good",
                evidence=evidence,
                confidence="sure",
            )
        ]
    return [
        Finding(
            "invariants.broken",
            "a gradient does not obey a symmetry of its layers",
            "The structure of these layers says that some directions change nothing in the loss, but the probe's gradient points along "
            "them. Something is not computed as the model says.",
            "problem",
            evidence=evidence,
            knobs=(
                "a custom operation or backward pass whose derivative is wrong",
                "weights that serve in two places (tying), or hooks that change gradients",
                "values that are almost not differentiable, or an almost vanishing gradient in low precision",
            ),
            layers=guilty,
        )
    ]


def _drifts(history: xr.Dataset) -> list[Finding]:
    drift, step = latest(history, "charge_drift").values, latest(history, "step_violation").values
    if not np.isfinite(drift).any() or np.nanmax(drift) == 0:
        return []
    names = [str(name) for name in history["layer"].values]
    worst = int(np.nanargmax(drift))
    stepped = (
        f"; the latest step violates the symmetries by up to {np.nanmax(step):.1e}" if np.isfinite(step).any() else ""
    )
    return [
        Finding(
            "invariants.drift",
            "how far conserved charges moved",
            "Finite learning rates, weight decay and adaptive optimizers move the charges that gradient flow conserves. To test them "
            "against the exact law of every step, use dynamics.ConservationMonitor.",
            "note",
            evidence=f"up to {drift[worst]:.1e} of their size since the first probe ({names[worst]}){stepped}",
            confidence="sure",
            layers=(names[worst],),
        )
    ]


def _left_out(history: xr.Dataset) -> list[Finding]:
    messages = json.loads(history.attrs.get("symmetries_left_out", "[]"))
    if not messages:
        return []
    return [
        Finding(
            "invariants.doubtful",
            "symmetries that the structure shows, and gradients do not",
            "What the operations of the model say about its symmetries disagrees with its gradients: a wrong derivative, or an "
            "operation that was misread.",
            "warning",
            evidence=" ".join(messages),
            confidence="weak",
        )
    ]
