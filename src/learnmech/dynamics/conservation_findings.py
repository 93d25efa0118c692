"""What the conservation laws say about a run, in words: which hold, which are broken, where and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from learnmech.dynamics.conservation_causes import CAUSES, Blame
from learnmech.dynamics.conservation_rules import Coverage
from learnmech.dynamics.symmetries import Symmetry
from learnmech.monitor.instrument import Finding

BLIND = 0.03
"""A law is not tested if rounding alone may be this large a share of the charges' parts."""
SLIGHT = 1e-3
"""A gradient that violates a symmetry by less than this, where an epsilon is known to, is put down to the epsilon."""
_ORDER = {"problem": 0, "warning": 1, "unknown": 2, "good": 3, "note": 4}


@dataclass(frozen=True)
class Followed:
    """Where a symmetry stands.

    Attributes:
        name: what it is called.
        symmetry: the symmetry.
        drift: how far its charges moved, relative.
        violation: how far they are from their law, relative.
        update_violation: of the latest step of an optimizer without a law.
        limit: what rounding may have added.
        broken: whether the law was broken beyond rounding.
        first_broken: the first record at which it was.
        first_lost: the first record with charges that are not finite; -1 for none.
        blame: what the steps were split into.
        cause: a key of :data:`CAUSES`.
        tied: parameters of it that the model uses under several names.
        uneven: whether its parameters learn at different rates.
        uncovered: steps that no law covers.
    """

    name: str
    symmetry: Symmetry
    drift: float
    violation: float
    update_violation: float
    limit: float
    broken: bool
    first_broken: int
    first_lost: int
    blame: Blame
    cause: str
    tied: tuple[str, ...]
    uneven: bool
    uncovered: int

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of its layers, or of its parameters."""
        return self.symmetry.layers or self.symmetry.parameters

    @property
    def explained(self) -> bool:
        """Whether something that is known to break the symmetry slightly explains the broken law."""
        return bool(self.symmetry.broken_by) and self.cause in ("gradient", "unseen") and self.blame.worst < SLIGHT


def findings_of_laws(
    followed: Sequence[Followed],
    skipped: Mapping[str, str],
    coverage: Coverage,
    optimizer: str,
    failures: Sequence[tuple[int, str]] = (),
) -> list[Finding]:
    """Say what the laws show.

    Args:
        followed: where each symmetry stands.
        skipped: those that are not followed, with the reason.
        coverage: whether the optimizer has laws.
        optimizer: its name.
        failures: errors while following.

    Returns:
        Findings, gravest first.
    """
    lost = [item for item in followed if item.first_lost >= 0]
    alive = [item for item in followed if item.first_lost < 0]
    findings = [_lost(item) for item in lost]
    if coverage == "exact":
        findings += [_explained(item) if item.explained else _broken(item) for item in alive if item.broken]
        kept = [item for item in alive if not item.broken]
        seen = [item for item in kept if item.limit < BLIND]
        findings += [_conserved(seen)] if seen else []
        findings += [_blind([item for item in kept if item.limit >= BLIND])] if len(seen) < len(kept) else []
        findings += [_uneven(item) for item in alive if item.uneven]
        findings += [_uncovered(item) for item in alive if item.uncovered > 0]
    elif alive:
        findings.append(_measured(alive, optimizer, coverage))
    if skipped:
        findings.append(_skipped(skipped))
    if failures:
        findings.append(
            Finding(
                "invariants.stopped",
                "charges are not followed any more",
                f"Following them failed at step {failures[-1][0]}: {failures[-1][1]}",
                "unknown",
                confidence="sure",
            )
        )
    return sorted(findings, key=lambda finding: _ORDER[finding.severity])


def report_of_laws(followed: Sequence[Followed], findings: Sequence[Finding], steps: int, optimizer: str) -> str:
    """Write what was found as text.

    Args:
        followed: where each symmetry stands.
        findings: what the laws show.
        steps: how many steps were followed.
        optimizer: its name.

    Returns:
        Text.
    """
    width = max((len(item.name) for item in followed), default=8)
    lines = [f"conservation laws over {steps} steps of {optimizer}", ""]
    lines.append(f"{'symmetry'.ljust(width)}  charges    drift  off the law  rounding")
    for item in followed:
        mark = "!!" if item.broken and not item.explained else ""
        lines.append(
            f"{item.name.ljust(width)}  {item.symmetry.count:7d}  {item.drift:7.1e}  {item.violation:11.1e}  {item.limit:8.1e} {mark}".rstrip()
        )
    for finding in findings:
        lines += ["", f"{finding.title}  [{finding.code}, {finding.confidence}]", f"   {finding.message}"]
        lines += [f"   evidence: {finding.evidence}"] if finding.evidence else []
        lines += [f"   turn: {knob}" for knob in finding.knobs]
    return "\n".join(lines)


def _numbers(item: Followed) -> str:
    shares = ", ".join(f"{cause} {share:.1e}" for cause, share in item.blame.shares.items())
    split = (
        f"; {item.blame.steps} steps split: {shares}; gradient off by {item.blame.worst:.1e}"
        if item.blame.steps
        else ""
    )
    return f"off by {item.violation:.1e} since step {item.first_broken}, rounding explains {item.limit:.1e}{split}"


def likely_causes(item: Followed) -> tuple[str, ...]:
    """List what may have broken a law, likeliest first.

    Args:
        item: where the symmetry stands.

    Returns:
        Things to look at, in words.
    """
    if item.cause == "gradient":
        tied = (
            (f"weight tying: {', '.join(item.tied)} serves under several names, so its gradient has further parts",)
            if item.tied
            else ()
        )
        known = (f"{item.symmetry.broken_by}, which breaks the symmetry",) if item.symmetry.broken_by else ()
        return (
            *tied,
            *known,
            "a custom operation or backward pass whose derivative is wrong, or another path through the same weights",
            "gradients changed one by one before the step: clipping by value or by layer, noise (clipping the norm of all is harmless)",
            "a penalty in the loss that is not symmetric, such as L1 or L2 on the weights",
        )
    if item.cause == "update":
        return (
            "settings of the optimizer changed between its hooks, or a wrapper that scales the step",
            "a fused or low-precision step that rounds",
        )
    if item.cause == "outside":
        return (
            "weights edited between steps: clamping, projection, weight normalisation, a copy of an average (EMA), re-initialisation",
            "a second optimizer on the same parameters",
        )
    return (
        "one edit of the weights: a loaded checkpoint, pruning, re-initialisation",
        "one step at which the gradient or the settings were wrong",
    )


def _broken(item: Followed) -> Finding:
    causes = likely_causes(item)
    return Finding(
        "invariants.broken",
        f"a conservation law is broken: {item.name}",
        f"Under this optimizer these charges obey an exact law, and they do not: {CAUSES[item.cause]}. Likely: {causes[0]}. "
        "Something is not computed as the model says.",
        "problem",
        evidence=_numbers(item),
        confidence="likely" if item.blame.steps else "weak",
        knobs=causes,
        layers=item.layers,
    )


def _explained(item: Followed) -> Finding:
    return Finding(
        "invariants.explicit",
        f"a symmetry is broken slightly: {item.name}",
        f"The charges leave their law by little, as they do because of {item.symmetry.broken_by}. This is no error.",
        "note",
        evidence=_numbers(item),
        confidence="likely",
        layers=item.layers,
    )


def _conserved(items: Sequence[Followed]) -> Finding:
    charges = sum(item.symmetry.count for item in items)
    worst = max(items, key=lambda item: item.violation)
    return Finding(
        "invariants.conserved",
        f"{charges} charges of {len(items)} symmetries obey their laws",
        "Gradients obey the symmetries of these layers, and updates the equation of the optimizer.",
        "good",
        evidence=f"worst {worst.violation:.1e} ({worst.name}), rounding explains {worst.limit:.1e}; charges drifted by up to "
        f"{max(item.drift for item in items):.1e}",
        confidence="sure",
    )


def _blind(items: Sequence[Followed]) -> Finding:
    return Finding(
        "invariants.rounding",
        "too much rounding to test the laws",
        "In the precision of these parameters rounding alone may move the charges this far in so many steps. Test a shorter run, or one "
        "in float64.",
        "unknown",
        evidence=f"rounding explains up to {max(item.limit for item in items):.1e}; measured {max(item.violation for item in items):.1e}",
        confidence="sure",
        layers=tuple(dict.fromkeys(layer for item in items for layer in item.layers)),
    )


def _uneven(item: Followed) -> Finding:
    return Finding(
        "invariants.unequal_rates",
        f"learning rates differ within a symmetry: {item.name}",
        "Its parameters lie in groups with different learning rates. The plain charge is then not conserved, even by gradient flow; the "
        "one whose parts are divided by their learning rates is, and it was followed. If the groups are not meant to differ, this is a "
        "wrong group.",
        "note",
        confidence="sure",
        layers=item.layers,
    )


def _uncovered(item: Followed) -> Finding:
    return Finding(
        "invariants.uncovered_steps",
        f"steps without a law: {item.name}",
        f"At {item.uncovered} steps the ratio of learning rates within the symmetry changed, or a part of its parameters had no gradient. "
        "The law was begun anew after each.",
        "note",
        confidence="sure",
        layers=item.layers,
    )


def _measured(items: Sequence[Followed], optimizer: str, coverage: Coverage) -> Finding:
    worst = max(items, key=lambda item: item.violation if item.violation == item.violation else -1.0)
    steps = [item.update_violation for item in items if item.update_violation == item.update_violation]
    beside = " beyond what decoupled weight decay does" if coverage == "decoupled" else ""
    return Finding(
        "invariants.not_covered",
        f"{optimizer} has no conservation laws",
        f"It rescales gradients entry by entry, so charges move{beside}. How far is a property of the optimizer, and no error.",
        "note",
        evidence=f"charges moved by up to {worst.violation:.1e} ({worst.name})"
        + (f"; the latest step violates the symmetries by up to {max(steps):.1e}" if steps else ""),
        confidence="sure",
    )


def _lost(item: Followed) -> Finding:
    return Finding(
        "invariants.not_finite",
        f"charges are not finite: {item.name}",
        f"NaN or infinite numbers came into the weights, gradients or velocities by step {item.first_lost}.",
        "problem",
        evidence=f"first seen at the record of step {item.first_lost}",
        confidence="sure",
        knobs=("a smaller learning rate, or clip the norm of the gradient",),
        layers=item.layers,
    )


def _skipped(skipped: Mapping[str, str]) -> Finding:
    return Finding(
        "invariants.skipped",
        f"{len(skipped)} symmetries are not followed",
        "; ".join(f"{name}: {reason}" for name, reason in skipped.items()) + ".",
        "note",
        confidence="sure",
    )
