"""What a tuned step does, what is out of reach, and what to know, in numbers and words."""

import math

from learnmech.speed.tuning_groups import REST
from learnmech.speed.tuning_result import Achieved
from learnmech.speed.tuning_solver import Look, Solution, Solver, Targets

_MISSED = 0.05
_BENT, _BROKEN = 0.1, 0.5


def read_achieved(look: Look, solver: Solver, targets: Targets) -> Achieved:
    """Read off what a step does.

    Args:
        look: the step.
        solver: who found it.
        targets: what was wanted, for the units.

    Returns:
        The numbers.
    """
    history = look.history
    loss = float(history["loss"])
    decay_unit = loss if targets.relative_decay else 1.0
    rows = {name: history.sel(layer=name) for name in solver.tunable_layers}
    units = {name: float(row["activation_rms"]) if targets.relative_speed else 1.0 for name, row in rows.items()}
    total = float(history["total_decay"])
    decays = dict(zip(history["parameter"].values.tolist(), history["parameter_decay"].values.tolist(), strict=True))
    last = rows[solver.last]
    return Achieved(
        layer=solver.last,
        speed=float(last["speed_rms"]) / units[solver.last],
        decay=total / decay_unit,
        real_speed=float(last["real_speed_rms"]) / units[solver.last],
        real_decay=float(history["real_decay"]) / decay_unit,
        linearity=float(last["linearity"]),
        loss=loss,
        shares={group.name: sum(decays.get(name, 0.0) for name in group.parameters) / total for group in solver.groups},
        speeds={name: float(row["speed_rms"]) / units[name] for name, row in rows.items() if units[name] > 0},
    )


def describe_unreachable(solution: Solution, solver: Solver, targets: Targets, achieved: Achieved) -> tuple[str, ...]:
    """Say what was asked for but cannot be had, and why.

    Args:
        solution: the step.
        solver: who found it.
        targets: what was wanted.
        achieved: what it does.

    Returns:
        Sentences.
    """
    look, texts = solution.look, []
    ratio = look.ratios[solver.last]
    if solver.frozen:
        limits = max(look.ratios, key=lambda name: look.ratios[name])
        if solution.factor < 1 - _MISSED:
            texts.append(
                f"a loss decay of {targets.decay:.4g}: it would make {limits} {1 / solution.factor:.3g} times as fast as asked. "
                f"Learning rates are lowered to a decay of {achieved.decay:.4g}; with a larger read-out (readout='scale') "
                "both could be had."
            )
        elif ratio < 1 - _MISSED and not look.clipped:
            texts.append(
                f"the speed asked of {solver.last}: at the decay of {achieved.decay:.4g} it is {achieved.speed:.4g}, {ratio:.3g} "
                "times what was asked, whatever the learning rates; it needs a smaller read-out (readout='scale')."
            )
    elif abs(math.log(ratio)) > _MISSED:
        texts.append(
            f"the speed asked of {solver.last}: after {solution.iterations} iterations, at the read-out times "
            f"{look.scale:.4g}, it is {achieved.speed:.4g}, {ratio:.3g} times what was asked."
        )
    if look.clipped:
        missing = 1 - float(look.history["total_decay"]) / look.wanted_decay
        texts.append(
            f"{missing:.1%} of the loss decay: the learning rates of {', '.join(look.clipped)} are clipped at "
            f"{targets.maximum_learning_rate:.4g}."
        )
    broken = _away_from_first_order(achieved, _BROKEN)
    if broken:
        texts.append(
            f"the {' and the '.join(broken)} by the real step, which differ from first order by more than {_BROKEN:.0%} "
            f"(speed {achieved.real_speed:.3g}, decay {achieved.real_decay:.3g}): do not train with this. Ask for less; if that "
            "does not help, some layers pass on next to nothing, and need other initial weights."
        )
    if targets.per_layer:
        fast = [name for name, value in look.ratios.items() if value > 1 + _MISSED and name != solver.last]
        slow = [name for name, value in look.ratios.items() if value < 1 - _MISSED and name != solver.last]
        if fast:
            texts.append(
                f"the speed asked of {', '.join(fast)}: they are faster, up to {max(look.ratios[name] for name in fast):.3g} "
                "times, carried by the layers before them."
            )
        if slow:
            texts.append(
                f"the speed asked of {', '.join(slow)}: they are slower, down to {min(look.ratios[name] for name in slow):.3g} "
                "times, or else later layers would be too fast."
            )
    return tuple(texts)


def describe_notes(solution: Solution, targets: Targets, achieved: Achieved) -> tuple[str, ...]:
    """Say what else to know.

    Args:
        solution: the step.
        targets: what was wanted.
        achieved: what it does.

    Returns:
        Sentences.
    """
    look, texts = solution.look, []
    for name, reason in look.skipped.items():
        which = "parameters that act on no layer that is read" if name.strip("()") == REST else name
        texts.append(f"{which}: not tuned, its learning rate is 0, because {reason}.")
    if targets.per_layer:
        idle = [
            name
            for name, rate in zip(achieved.shares, look.rates, strict=True)
            if rate == 0 and name not in look.skipped
        ]
        if idle:
            texts.append(f"{', '.join(idle)}: learning rate 0, because the layers before already bring the speed.")
    bent = _away_from_first_order(achieved, _BENT)
    if bent and not _away_from_first_order(achieved, _BROKEN):
        texts.append(
            f"the {' and the '.join(bent)} of the real step differ from first order by more than {_BENT:.0%}: smaller targets are "
            "met more exactly."
        )
    return tuple(texts)


def _away_from_first_order(achieved: Achieved, limit: float) -> list[str]:
    pairs = {
        "speed": (achieved.speed, achieved.real_speed),
        "loss decay": (achieved.decay, achieved.real_decay),
    }
    return [what for what, (first, real) in pairs.items() if not abs(real - first) <= limit * abs(first)]
