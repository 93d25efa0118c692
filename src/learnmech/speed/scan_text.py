"""The words of a scan: a table of powers, a verdict, what to change."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from learnmech.speed.scan_claims import AXES, QUANTITIES, Bounds, Check

if TYPE_CHECKING:
    from learnmech.speed.scan_result import ScanResult

_NAMES = {
    "speed_rms": "speed of the last feature",
    "sensitivity": "sensitivity",
    "loss_decay": "loss decay",
    "activation_rms": "size of the last feature",
}


def write_text(result: "ScanResult") -> str:
    """Write a scan's verdict.

    Args:
        result: the scan.

    Returns:
        Several lines.
    """
    blocks = [_heading(result), _table(result), _troubles(result), _verdict(result)]
    return "\n\n".join(block for block in blocks if block)


def _heading(result: "ScanResult") -> str:
    sizes = {name: ", ".join(map(str, result.history[name].values.tolist())) for name in (*AXES, "seed")}
    kind = result.settings["kind"]
    setup = f"set up by {kind} for {result.settings['optimizer']}" if kind else "as the factory makes them"
    return f"nets {setup}: widths {sizes['width']}; depths {sizes['depth']}; seeds {sizes['seed']}"


def _table(result: "ScanResult") -> str:
    claimed = {(check.quantity, check.axis): check for check in result.checks}
    axes = [axis for axis in AXES if axis in result.powers["speed_rms"]]
    if not axes:
        return "one width and one depth: no power can be fitted"
    rows = [
        ("at step " + str(result.judged_step), *(cell for axis in axes for cell in (f"power of {axis}", "claimed")))
    ]
    rows += [
        (
            _NAMES[quantity],
            *(
                cell
                for axis in axes
                for cell in (str(result.powers[quantity][axis]), _mark(claimed.get((quantity, axis))))
            ),
        )
        for quantity in QUANTITIES
    ]
    last = result.history.sizes["step"] - 1
    if last != result.judged_step:
        rows.append((f"after {last} step{'s' if last > 1 else ''}", *("" for _ in rows[0][1:])))
        rows += [
            (_NAMES[quantity], *(cell for axis in axes for cell in (str(result.later_powers[quantity][axis]), "")))
            for quantity in QUANTITIES
        ]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _mark(check: Check | None) -> str:
    return "" if check is None else f"{write_bounds(check.claimed)} {check.outcome}"


def write_bounds(bounds: Bounds) -> str:
    """Write a claimed power or range.

    Args:
        bounds: lowest and highest power.

    Returns:
        Such as ``0.5``, or ``at most 0``.
    """
    low, high = bounds
    if low == high:
        return f"{low:g}"
    if math.isinf(low):
        return "any" if math.isinf(high) else f"at most {high:g}"
    return f"at least {low:g}" if math.isinf(high) else f"{low:g} to {high:g}"


def _troubles(result: "ScanResult") -> str:
    lines = []
    if result.diverged:
        lines.append(f"{len(result.diverged)} nets diverged: {_list(result.diverged, 'step')}")
    if result.failed:
        lines.append(f"{len(result.failed)} nets failed: {_list(result.failed, 'error')}")
    if result.missing:
        lines.append(f"{result.missing} nets were not computed")
    return "\n".join(lines)


def _list(nets: tuple[Mapping[str, object], ...], last: str) -> str:
    shown = [f"width {net['width']}, depth {net['depth']}, seed {net['seed']} ({last} {net[last]})" for net in nets[:3]]
    return "; ".join(shown) + ("; ..." if len(nets) > 3 else "")


def _verdict(result: "ScanResult") -> str:
    if result.verdict is None:
        return "nothing was claimed: name claim= or kind= for a verdict"
    missed = [check for check in result.checks if check.outcome == "fail"]
    open_checks = [check for check in result.checks if check.outcome == "unclear"]
    passed = len(result.checks) - len(missed) - len(open_checks)
    tolerance = f" within {result.checks[0].tolerance:g}" if result.checks else ""
    lines = [f"{result.verdict.upper()}: {passed} of {len(result.checks)} powers of {result.claim} hold{tolerance}"]
    lines += [_explain(check) for check in missed]
    if open_checks:
        names = ", ".join(f"{_NAMES[check.quantity]} with {check.axis}" for check in open_checks)
        lines.append(f"- not decided, the interval crosses the tolerance: {names}; take more seeds or larger sizes")
    return "\n".join(lines + _advise(missed))


def _explain(check: Check) -> str:
    return (
        f"- {_NAMES[check.quantity]} goes with {check.axis} to the power {check.estimate}, claimed "
        f"{write_bounds(check.claimed)}"
    )


def _advise(missed: list[Check]) -> list[str]:
    """Say which knob a miss points to: the sensitivity is what no common learning rate can change."""
    lines = []
    for axis in AXES:
        names = {check.quantity for check in missed if check.axis == axis}
        if "activation_rms" in names:
            lines.append(
                f"Sizes of features change with {axis}: look at the initial weights of hidden layers and branches."
            )
        if "sensitivity" in names:
            lines.append(
                f"No learning rate changes the sensitivity: scale the read-out's initial weights, or branches, with {axis}."
            )
        elif names & {"speed_rms", "loss_decay"}:
            lines.append(f"The sensitivity is as claimed along {axis}: scale learning rates with {axis}.")
    return lines
