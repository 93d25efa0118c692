"""What sizes mean: dead layers, layers that get no gradient or do not move, violent updates, a loss that is no number."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from learnmech.history import latest
from learnmech.monitor.instrument import Confidence, Finding, Severity


def read_vitals(history: xr.Dataset) -> list[Finding]:
    """Read the variables of the vitals instrument, those that there are, at the last step.

    Args:
        history: a history with them.

    Returns:
        Findings; none if all is well.
    """
    last = history.isel(step=-1)
    names = [str(name) for name in history["layer"].values]
    findings = [*_read_loss(history), *_read_dead(last, names), *_read_frozen(history, names)]
    if "gradient_norm" in history:
        findings += [*_read_gradients(last, names), *_read_leverage(last, names)]
    if "update_ratio" in history:
        findings += _read_updates(latest(history, "update_ratio").values, names)
    return findings


def _read_loss(history: xr.Dataset) -> list[Finding]:
    loss = history["loss"].values
    if np.isfinite(loss[-1]):
        return []
    first_bad = int(history["step"].values[np.flatnonzero(~np.isfinite(loss))[0]])
    return [
        Finding(
            "vitals.loss_not_finite",
            "the loss is not a number",
            "The loss on the probe is NaN or infinite: numbers overflowed in the model or training diverged.",
            "problem",
            f"first seen at step {first_bad}",
            "sure",
            ("lower the learning rate or warm it up", "clip gradients", "check the inputs for NaN"),
        )
    ]


def _read_dead(last: xr.Dataset, names: list[str]) -> list[Finding]:
    dead = last["dead_fraction"].values
    roles = last["role"].values
    findings = []
    gone = [name for name, share, role in zip(names, dead, roles, strict=True) if share == 1 and role != "input"]
    if gone:
        findings.append(
            Finding(
                "vitals.dead_layer",
                "dead layer",
                "These layers give the same output for every sample: nothing about the input gets past them.",
                "problem",
                ", ".join(gone),
                "sure",
                ("lower the learning rate", "use a leaky activation", "check the initial scale of these layers"),
                tuple(gone),
            )
        )
    many = [
        (name, share)
        for name, share, role in zip(names, dead, roles, strict=True)
        if 0.5 <= share < 1 and role == "block"
    ]
    if many:
        findings.append(
            Finding(
                "vitals.dead_units",
                "many dead units",
                "At least half of the units of these layers do not respond to any probe sample.",
                "warning",
                ", ".join(f"{name} {share:.0%}" for name, share in many),
                "likely",
                ("lower the learning rate", "use a leaky activation", "normalise before the activation"),
                tuple(name for name, _ in many),
            )
        )
    return findings


def _about_layers(
    code: str,
    title: str,
    message: str,
    severity: Severity,
    named: Sequence[str],
    knobs: tuple[str, ...] = (),
    evidence: str = "",
) -> list[Finding]:
    """Make one finding about some layers, or none."""
    if not named:
        return []
    confidence: Confidence = "likely" if severity == "warning" else "sure"
    return [Finding(code, title, message, severity, evidence or ", ".join(named), confidence, knobs, tuple(named))]


def _where(names: Sequence[str], flags: np.ndarray) -> list[str]:
    return [name for name, flag in zip(names, flags, strict=True) if flag]


def _read_frozen(history: xr.Dataset, names: list[str]) -> list[Finding]:
    """Layers with parameters but no gradient; without gradients, those not updated in a step that updated others."""
    if "gradient_norm" in history:
        moving = history["gradient_norm"].values[-1]
    elif "update_ratio" in history and np.isfinite(history["update_ratio"]).any():
        moving = latest(history, "update_ratio").values
    else:
        return []
    return _about_layers(
        "vitals.frozen",
        "frozen layers",
        "These layers have parameters but none that is trained; what they contribute does not change by learning.",
        "note",
        _where(names, np.isnan(moving) & np.isfinite(history["weight_norm"].values[-1])),
    )


def _read_gradients(last: xr.Dataset, names: list[str]) -> list[Finding]:
    return _about_layers(
        "vitals.no_gradient",
        "no gradient",
        "The loss does not depend on the parameters of these layers at all: they cannot learn.",
        "problem",
        _where(names, last["gradient_norm"].values == 0),
        ("look for dead units behind them", "look for a detach or a zero-initialised layer behind them"),
    )


def _read_leverage(last: xr.Dataset, names: list[str]) -> list[Finding]:
    measured = last["leverage"].values
    leverage = np.where((last["role"].values == "block") & np.isfinite(measured), measured, np.nan)
    if np.isfinite(leverage).sum() < 2 or np.nanmax(leverage) <= 0:
        return []
    ratio = np.nanmin(leverage) / np.nanmax(leverage)
    if ratio >= 1e-4:
        return []
    weakest, strongest = names[int(np.nanargmin(leverage))], names[int(np.nanargmax(leverage))]
    return _about_layers(
        "vitals.uneven_leverage",
        "the signal vanishes over depth",
        f"The loss depends {1 / max(ratio, 1e-300):.0e} times less on the output of {weakest} than on that of {strongest}.",
        "warning",
        [weakest],
        ("normalise between layers", "add skip connections", "change the initial scale"),
        f"leverage {np.nanmin(leverage):.1e} against {np.nanmax(leverage):.1e}",
    )


def _read_updates(update: np.ndarray, names: list[str]) -> list[Finding]:
    return [
        *_about_layers(
            "vitals.no_update",
            "layers that do not move",
            "The latest optimizer step changed nothing in these layers although they are trainable: they do not learn.",
            "problem",
            _where(names, update == 0),
            (
                "look for dead units or a detach behind them (measures='full' shows their gradients)",
                "check that the optimizer has their parameters and that their learning rate is not zero",
            ),
        ),
        *_about_layers(
            "vitals.violent_update",
            "violent updates",
            "One optimizer step changes the weights of these layers by more than a tenth of their size.",
            "warning",
            _where(names, update > 0.1),
            ("lower the learning rate of these layers", "warm the learning rate up"),
            ", ".join(f"{name} {value:.2g}" for name, value in zip(names, update, strict=True) if value > 0.1),
        ),
    ]
