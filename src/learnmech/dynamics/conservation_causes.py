"""Why a law is broken: a step is split into what happened outside the optimizer, in the gradient, and in the update."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.dynamics.conservation_forms import relative_violation
from learnmech.dynamics.conservation_track import ChargeTrack, Step

CAUSES: dict[str, str] = {
    "gradient": "the gradient itself does not obey the symmetry",
    "update": "the update does not follow the optimizer's equation",
    "outside": "the weights were changed between the optimizer's steps",
    "once": "the law was broken once, and steps since then obey it",
    "unseen": "no step was looked at closely yet",
}


@dataclass(frozen=True)
class Before:
    """What stood before a step, copied.

    Attributes:
        values: parameters by name.
        velocities: momentum buffers; None for none.
    """

    values: Mapping[str, Tensor]
    velocities: Mapping[str, Tensor | None]


@dataclass
class Blame:
    """How much of the change of a symmetry's charges has which cause, summed over the steps that were split.

    Attributes:
        shares: cause to the sum of norms, in units of the charges.
        steps: how many steps were split.
        worst: the largest relative violation of the symmetry by a gradient.
    """

    shares: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("gradient", "update", "outside"), 0.0))
    steps: int = 0
    worst: float = 0.0

    def add(self, parts: Mapping[str, Float[Tensor, " count"]], violation: float) -> None:
        """Add a split step.

        Args:
            parts: what :func:`split_step` gave.
            violation: of the symmetry by the gradient.
        """
        for cause, part in parts.items():
            self.shares[cause] += float(part.norm())
        self.steps += 1
        if violation == violation:
            self.worst = max(self.worst, violation)

    def cause(self, rounding: float) -> str:
        """Name the cause.

        Args:
            rounding: what a step may change the charges by because of rounding, in their units.

        Returns:
            A key of :data:`CAUSES`.
        """
        if self.steps == 0:
            return "unseen"
        largest = max(self.shares, key=lambda cause: self.shares[cause])
        return largest if self.shares[largest] > rounding * self.steps else "once"


def split_step(
    track: ChargeTrack, before: Before, step: Step, last_charge: Float[Tensor, " count"]
) -> tuple[dict[str, Float[Tensor, " count"]], float]:
    r"""Split what a step did to the charges beyond their law.

    ``outside`` is the change between the end of the last step and the start of this one; ``gradient`` is
    :math:`-2\eta d\langle g,T\theta\rangle`, zero for a symmetry; ``update`` is the charge after the step less that of the step that
    the optimizer's equation makes of the same gradient. Derived here.

    Args:
        track: the symmetry.
        before: what stood before the step.
        step: what it left behind.
        last_charge: charges at the end of the last step.

    Returns:
        The three parts, and the relative violation of the symmetry by the gradient.
    """
    symmetry, forms = track.symmetry, track.forms
    expected: dict[str, Tensor] = {}
    scaled: dict[str, Tensor] = {}
    for name in symmetry.parameters:
        rule = step.rules[name]
        value, gradient = before.values[name].to(torch.float64), step.climbed(name).to(torch.float64)
        velocity = before.velocities[name]
        pushed = gradient + rule.weight_decay * value
        carried = step.gain(name) * pushed
        if rule.momentum != 0 and velocity is not None:
            carried = carried + rule.momentum * velocity
        direction = pushed + rule.momentum * carried if rule.nesterov else carried
        moved = step.gradients[name] is not None
        expected[name] = value - rule.rate * direction if moved else value
        scaled[name] = rule.rate * (1 + rule.momentum if rule.nesterov else step.gain(name)) * gradient
    laid, pushes = forms.lay_out(before.values), forms.lay_out(scaled)
    linear = symmetry.is_linear
    along = forms.linear(pushes) if linear else 2 * forms.form(laid, pushes)
    parts = {
        "outside": (track.factors * forms.charge(laid)).sum(0) - last_charge,
        "gradient": -(track.factors * along).sum(0),
        "update": track.measure(step.values)[0] - track.measure(expected)[0],
    }
    gradients = {name: step.climbed(name) for name in symmetry.parameters}
    return parts, relative_violation(symmetry, before.values, gradients)
