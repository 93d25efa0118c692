"""What measured feature speeds mean, and which knob moves them: learning-rate shares, output scale, or branch scale."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from learnmech.monitor.instrument import Confidence, Finding

LAZY, LOOSE = 0.03, 3.0
"""Relative sensitivity of the last block below and above which features move too little or too much for the loss decay."""
STILL, NONLINEAR, OFF_PROFILE, DOMINANT = 0.02, 0.5, 0.4, 0.6
DEEP = 0.4
"""Expected cosine of the last block over that of the first, below which depth itself turns features away."""
_ADAPTIVE = ("Adam", "RMSprop", "Adagrad", "Lion", "Muon", "Adadelta", "Rprop", "Adafactor")


@dataclass(frozen=True)
class _Last:
    """The last watched step of a history."""

    data: xr.Dataset
    step: int

    @property
    def names(self) -> list[str]:
        return [str(name) for name in self.data["layer"].values]

    @property
    def roles(self) -> list[str]:
        return [str(role) for role in self.data["role"].values]

    def blocks(self, variable: str) -> list[tuple[str, float]]:
        """Give name and value at each block with a finite value."""
        return [
            (name, float(value))
            for name, role, value in zip(self.names, self.roles, self.data[variable].values, strict=True)
            if role == "block" and np.isfinite(value)
        ]


def findings_of(history: xr.Dataset) -> Sequence[Finding]:
    """Read the variables of the feature-speed instrument, those that there are, at the last watched step.

    Args:
        history: a history with them.

    Returns:
        Findings.
    """
    measured = np.isfinite(history["speed_rms"].transpose("step", "layer").values).any(axis=1)
    if not measured.any():
        return [
            Finding(
                "speed.not_watched",
                "no step was watched",
                "Feature speed is measured on an optimizer step, and this history has none.",
                "unknown",
                f"{history.sizes['step']} probes",
                "sure",
                ("give optimizer= to watch, and train at least `every` steps",),
            )
        ]
    position = int(np.flatnonzero(measured)[-1])
    last = _Last(history.isel(step=position), int(history["step"].values[position]))
    findings = [*_read_still(last), *_read_linearity(last)]
    if "cosine" in history:
        optimizer = str(json.loads(history.attrs["config"]).get("optimizer", {}).get("class", ""))
        findings = [*_read_decay(last), *_read_angles(last, optimizer), *findings]
    return findings


def _read_still(last: _Last) -> list[Finding]:
    speeds = last.blocks("relative_speed")
    if len(speeds) < 2:
        return []
    typical = float(np.median([value for _, value in speeds]))
    still = [(name, value) for name, value in speeds if value < STILL * typical]
    if not still:
        return []
    return [
        Finding(
            "speed.still_layer",
            "layers whose features hardly move",
            "In one step the features of these layers change by less than a fiftieth of what is typical in this network.",
            "warning",
            "|df|/|f| a step: " + _listing(still) + f"; median over blocks {typical:.2g}",
            "likely",
            ("raise the share of the learning rate that these layers and those before them get (parameter groups)",),
            tuple(name for name, _ in still),
        )
    ]


def _read_linearity(last: _Last) -> list[Finding]:
    bent = [(name, value) for name, value in last.blocks("step_linearity") if value > NONLINEAR]
    if not bent:
        return []
    return [
        Finding(
            "speed.nonlinear_step",
            "steps too long for first-order numbers",
            "The real change of these layers' features is far from the first-order one, so angles, shares and sensitivities "
            "describe only the beginning of the step.",
            "warning" if max(value for _, value in bent) > 1 else "note",
            "|Df - df|/|df|: " + _listing(bent),
            "sure",
            ("lower the learning rate, or warm it up, if training is unsteady",),
            tuple(name for name, _ in bent),
        )
    ]


def _read_decay(last: _Last) -> list[Finding]:
    decay, loss = float(last.data["total_decay"]), float(last.data["loss_before"])
    if not np.isfinite(decay):
        return []
    if decay <= 0:
        return [
            Finding(
                "speed.uphill",
                "the step climbed the loss of the probe",
                "To first order the last watched step raised the loss on the probe: momentum that overshoots, or a batch that "
                "asks for something else. Shares and sensitivities of such a step have no simple meaning.",
                "note",
                f"-<g, dw> = {decay:.2g} at step {last.step}",
                "sure",
                (
                    "look at several steps before turning anything; if it stays so, lower the learning rate or the momentum",
                ),
            )
        ]
    return [*_read_sensitivity(last, decay, loss), *_read_shares(last)]


def _read_sensitivity(last: _Last, decay: float, loss: float) -> list[Finding]:
    speeds = last.blocks("relative_speed")
    if not speeds or not loss > 0:
        return []
    name, speed = speeds[-1]
    relative = speed * loss / decay
    evidence = f"{name} moves by {speed:.2g} of its size while the loss falls by {decay / loss:.2g} of its value: ratio {relative:.2g}"
    confidence = _confidence(relative)
    if relative < LAZY:
        return [
            Finding(
                "speed.sensitivity.low",
                "the loss falls without feature learning",
                "Features move little for the loss decay that they bring: the lazy regime. A global learning rate scales both "
                "and cannot change this ratio.",
                "note",
                evidence,
                confidence,
                (
                    "lower the output scale (a smaller read-out or output multiplier), with the learning rate raised in turn",
                ),
                (name,),
            )
        ]
    if relative > LOOSE:
        return [
            Finding(
                "speed.sensitivity.high",
                "features move much for little loss decay",
                "Most of the motion of the last block's features does not lower the loss. A global learning rate scales both "
                "and cannot change this ratio.",
                "warning",
                evidence,
                confidence,
                (
                    "raise the output scale (a larger read-out or output multiplier), with the learning rate lowered in turn",
                    "scale residual branches by 1/sqrt(depth), or make the network less deep",
                ),
                (name,),
            )
        ]
    return [
        Finding(
            "speed.sensitivity.balanced",
            "features move in proportion to the loss",
            "The last block's features and the loss change at comparable relative rates.",
            "good",
            evidence,
            confidence,
            (),
            (name,),
        )
    ]


def _confidence(relative: float) -> Confidence:
    """Near a threshold less sure."""
    distance = min(abs(np.log(max(relative, 1e-30) / LAZY)), abs(np.log(max(relative, 1e-30) / LOOSE)))
    return "likely" if distance > np.log(2) else "weak"


def _read_shares(last: _Last) -> list[Finding]:
    names, shares = last.names, last.data["share"].values
    found = [(name, float(value)) for name, value in zip(names, shares, strict=True) if np.isfinite(value)]
    moving = [(name, value) for name, value in found if value != 0]
    if len(moving) < 4:
        return []
    top, share = max(moving, key=lambda item: item[1])
    if share < DOMINANT:
        return []
    even = 1 / len(moving)
    return [
        Finding(
            "speed.dominant_layer",
            "one layer brings most of the loss decay",
            "Contributions are balanced when every layer brings the same share. Here one layer does the work of several.",
            "note",
            f"{top} brings {share:.0%} of the first-order decay; an even share would be {even:.0%}",
            "likely",
            (
                f"change the learning-rate shares: lower that of {top} (parameter groups; with SGD about {even / share:.2g} times "
                "its present rate would even it out), and raise the global rate in turn",
                "learnmech.speed.autoscale suggests rates for all layers",
            ),
            (top,),
        )
    ]


def _read_angles(last: _Last, optimizer: str) -> list[Finding]:
    cosine, expected = last.data["cosine"].values, last.data["cosine_expected"].values
    cuts = last.data["is_cut"].values == 1
    blocks = np.array([role == "block" for role in last.roles])
    usable = cuts & blocks & np.isfinite(cosine) & np.isfinite(expected)
    findings = []
    low = [
        (last.names[k], float(cosine[k]), float(expected[k]))
        for k in np.flatnonzero(usable)
        if cosine[k] < OFF_PROFILE * expected[k]
    ]
    if low:
        findings.append(
            Finding(
                "speed.angle_off_profile",
                "layers move unusually far aside",
                "The update of these features is turned further away from what the loss asks for than random weights of this "
                "network would turn it: dead units, or Jacobians that stretch a few directions only.",
                "note",
                "cosine measured / expected: " + ", ".join(f"{name} {c:.2g} / {e:.2g}" for name, c, e in low),
                "weak" if optimizer.startswith(_ADAPTIVE) else "likely",
                (
                    "look at dead units and at normalisation before these layers",
                    "change the branch scale if they are residual",
                ),
                tuple(name for name, _, _ in low),
            )
        )
    order = np.flatnonzero(usable)
    if len(order) >= 8:
        ratio = float(expected[order[-1]] / expected[order[0]])
        if ratio < DEEP:
            findings.append(
                Finding(
                    "speed.deep_angle",
                    "depth turns features away from the loss",
                    "In a network this deep without scaled residual branches the update of deep features is mostly orthogonal "
                    "to what the loss asks for: cosines fall like one over the square root of depth.",
                    "note",
                    f"expected cosine of {last.names[order[-1]]} is {ratio:.2g} times that of {last.names[order[0]]}; measured "
                    f"{cosine[order[-1]]:.2g} and {cosine[order[0]]:.2g}",
                    "likely",
                    ("residual branches scaled by 1/sqrt(depth)", "a shallower network"),
                )
            )
    return findings


def _listing(items: Sequence[tuple[str, float]]) -> str:
    shown = ", ".join(f"{name} {value:.2g}" for name, value in items[:6])
    return shown + (f" and {len(items) - 6} more" if len(items) > 6 else "")
