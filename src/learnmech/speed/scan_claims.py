"""What a scaling claims of a scan, and whether the fitted powers bear it out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from learnmech.errors import InputError
from learnmech.speed.scalings import scaling
from learnmech.speed.scan_fit import Estimate

QUANTITIES = ("speed_rms", "sensitivity", "loss_decay", "activation_rms")
AXES = ("width", "depth")
Bounds = tuple[float, float]
Outcome = Literal["pass", "fail", "unclear"]


@dataclass(frozen=True)
class Check:
    """One claimed power and what was found.

    Attributes:
        quantity: what was measured.
        axis: ``width`` or ``depth``.
        claimed: lowest and highest power claimed; equal for a power that is known.
        estimate: the fitted power.
        tolerance: by how much a power may miss the claimed range.
        outcome: ``pass`` if the whole interval lies within the tolerance of the claimed range, ``fail`` if it lies outside
            as a whole, ``unclear`` if it is too wide to tell.
    """

    quantity: str
    axis: str
    claimed: Bounds
    estimate: Estimate
    tolerance: float
    outcome: Outcome

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain values.

        Returns:
            The attributes by name, the estimate with them.
        """
        return {
            "quantity": self.quantity,
            "axis": self.axis,
            "claimed": list(self.claimed),
            "tolerance": self.tolerance,
            **vars(self.estimate),
            "outcome": self.outcome,
        }


def claimed_powers(claim: Any, options: Mapping[str, Any], optimizer: str) -> dict[str, dict[str, Bounds]]:
    """Read a claim.

    Args:
        claim: None, the name of a scaling, or quantity to axis to a power or a pair of bounds (None for an open one).
        options: of the scaling; ``priority`` matters.
        optimizer: rule of updates.

    Returns:
        Quantity to axis to bounds.

    Raises:
        InputError: if it is none of these.
    """
    if claim is None:
        return {}
    if isinstance(claim, str):
        priority = options.get("priority", "loss_decay")
        made = scaling(claim, width=2, depth=2, d_in=1, d_out=1, optimizer=optimizer, priority=priority)
        return {
            name: {axis: (power, power) for axis, power in powers._asdict().items()}
            for name, powers in made.exponents.items()
        }
    if not isinstance(claim, Mapping) or not claim:
        raise InputError(
            "claim must be None, the name of a scaling, or a mapping such as {'speed_rms': {'depth': 0.0}}, "
            f"got {claim!r}."
        )
    return {_known("quantity", name, QUANTITIES): _axes(name, powers) for name, powers in claim.items()}


def _axes(name: str, powers: Any) -> dict[str, Bounds]:
    if not isinstance(powers, Mapping):
        raise InputError(f"the claim on {name!r} must map 'width' or 'depth' to a power, got {powers!r}.")
    return {_known("axis", axis, AXES): _bounds(name, axis, power) for axis, power in powers.items()}


def _bounds(name: str, axis: str, power: Any) -> Bounds:
    pair = (power, power) if isinstance(power, int | float) else power
    if isinstance(pair, list | tuple) and len(pair) == 2:
        low = -math.inf if pair[0] is None else pair[0]
        high = math.inf if pair[1] is None else pair[1]
        if all(isinstance(end, int | float) for end in (low, high)) and low <= high:
            return float(low), float(high)
    raise InputError(f"the claim on {name!r} along {axis!r} must be a power or a pair (low, high), got {power!r}.")


def _known(what: str, name: Any, known: tuple[str, ...]) -> str:
    if name not in known:
        raise InputError(f"a claim has no {what} {name!r}; choose from {', '.join(map(repr, known))}.")
    return str(name)


def judge_powers(
    claims: Mapping[str, Mapping[str, Bounds]], estimates: Mapping[str, Mapping[str, Estimate]], tolerance: float
) -> tuple[Check, ...]:
    """Hold fitted powers against claimed ones; axes along which nothing was varied are left out.

    Args:
        claims: quantity to axis to bounds.
        estimates: quantity to axis to fitted power.
        tolerance: by how much a power may miss the bounds.

    Returns:
        The checks.
    """
    checks = []
    for quantity, bounds in claims.items():
        for axis, (low, high) in bounds.items():
            if axis in estimates[quantity]:
                estimate = estimates[quantity][axis]
                outcome = _compare(estimate, low - tolerance, high + tolerance)
                checks.append(Check(quantity, axis, (low, high), estimate, tolerance, outcome))
    return tuple(checks)


def _compare(estimate: Estimate, low: float, high: float) -> Outcome:
    if math.isnan(estimate.value):
        return "unclear"
    if low <= estimate.low and estimate.high <= high:
        return "pass"
    return "fail" if estimate.high < low or estimate.low > high else "unclear"
