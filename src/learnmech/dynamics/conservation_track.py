"""One symmetry followed through a run: its charges as the exact discrete law predicts them, and as they are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.dynamics.conservation_forms import Laid, ViewForms
from learnmech.dynamics.conservation_laws import step_linear_charge, step_quadratic_charge
from learnmech.dynamics.conservation_rules import Rule
from learnmech.dynamics.symmetries import Symmetry
from learnmech.errors import HistoryError

_SAME = 1e-9
_LEAST_SHRINKAGE = 1e-6


@dataclass(frozen=True)
class Step:
    """What one step of the optimizer left behind, by name of parameter.

    Attributes:
        values: parameters after the step.
        gradients: their gradients, as the optimizer got them, dense; None for a parameter that was left out.
        velocities: momentum buffers after the step; None for none.
        had_velocity: whether there was a buffer before it.
        rules: the settings.
    """

    values: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor | None]
    velocities: Mapping[str, Tensor | None]
    had_velocity: Mapping[str, bool]
    rules: Mapping[str, Rule]

    def gain(self, name: str) -> float:
        """By which factor gradient and weight decay enter the velocity of a parameter."""
        rule = self.rules[name]
        return 1 - rule.dampening if rule.momentum != 0 and self.had_velocity[name] else 1.0

    def climbed(self, name: str) -> Tensor:
        """The gradient as it enters the step: turned round if it is climbed."""
        gradient = self.gradients[name]
        if gradient is None:
            return torch.zeros_like(self.values[name])
        return -gradient if self.rules[name].maximize else gradient


@dataclass
class ChargeTrack:
    """Carries the charges of a symmetry from step to step.

    Args:
        symmetry: the symmetry.
        name: what to call it.

    Attributes:
        factors: factor of each view in the charge, (views, 1): learning rate of the first over its own, 1 if they are all equal.
        predicted: the charges by the law.
        anchored: steps since they were last set to what was measured.
        uncovered: steps that the law could not cover, after which they were set anew.
    """

    symmetry: Symmetry
    name: str
    forms: ViewForms = field(init=False)
    factors: Float[Tensor, "views 1"] = field(init=False)
    predicted: Float[Tensor, " count"] = field(init=False)
    anchored: int = 0
    uncovered: int = 0
    _momentum: Float[Tensor, " count"] = field(init=False)
    _parts: tuple[Tensor, Tensor] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.forms = ViewForms(self.symmetry)
        self.factors = torch.ones(len(self.symmetry.views), 1, dtype=torch.float64)
        self.predicted = torch.full((self.symmetry.count,), torch.nan, dtype=torch.float64)
        self._momentum = torch.zeros(self.symmetry.count, dtype=torch.float64)

    @property
    def uneven(self) -> bool:
        """Whether parameters of the symmetry learn at different rates, so that the conserved charge weighs them."""
        return bool((self.factors - 1).abs().max() > _SAME)

    def measure(self, values: Mapping[str, Tensor]) -> tuple[Float[Tensor, " count"], Float[Tensor, " count"]]:
        """Measure the charges.

        Args:
            values: parameters by name.

        Returns:
            The charges, with the factors, and the size of what cancels in them.
        """
        laid = self.forms.lay_out(values)
        return (self.factors * self.forms.charge(laid)).sum(0), self.forms.size(laid, self.factors)

    def anchor(
        self, values: Mapping[str, Tensor], velocities: Mapping[str, Tensor | None], rules: Mapping[str, Rule]
    ) -> None:
        """Begin from what is measured now.

        Args:
            values: parameters by name.
            velocities: momentum buffers; None for none.
            rules: settings of each parameter, for the factors.
        """
        rates = [rules[view.parameter].rate * rules[view.parameter].pull for view in self.symmetry.views]
        if all(rate != 0 for rate in rates):
            self.factors = torch.tensor([[rates[0] / rate] for rate in rates], dtype=torch.float64)
        laid = self.forms.lay_out(values)
        self._measure_parts(laid, self._lay_velocities(laid, velocities))
        assert self._parts is not None
        self.predicted = (self.factors * self._parts[0]).sum(0)
        self._momentum = self._parts[1].sum(0)
        self.anchored = 0

    def follow(self, step: Step) -> None:
        """Carry the charges over one step.

        Args:
            step: what it left behind.
        """
        names = [view.parameter for view in self.symmetry.views]
        if all(step.gradients[name] is None for name in names):
            return
        if not self._covers(step, names):
            self.anchor(step.values, step.velocities, step.rules)
            self.uncovered += 1
            return
        self.anchored += 1
        if self._closes(step, names):
            self._parts = None
            self._follow_closed(step)
        elif self._parts is None:
            self.anchor(step.values, step.velocities, step.rules)
            self.uncovered += 1
        else:
            self._follow_measured(step, names)

    def _covers(self, step: Step, names: list[str]) -> bool:
        """Whether the gradient drops out of the charges with the factors that they have."""
        if any(step.gradients[name] is None for name in names):
            return False
        rules = [step.rules[name] for name in names]
        rates = [
            rule.rate * (1 + rule.momentum if rule.nesterov else step.gain(name))
            for rule, name in zip(rules, names, strict=True)
        ]
        if any(abs(1 - rule.rate * rule.weight_decay) < _LEAST_SHRINKAGE for rule in rules):
            return False
        if all(rate == 0 for rate in rates):
            return True
        return all(
            abs(rates[0] - float(factor) * rate) <= _SAME * abs(rates[0])
            for rate, factor in zip(rates, self.factors, strict=True)
        )

    def _closes(self, step: Step, names: list[str]) -> bool:
        """Whether the law needs the size of the step only: momentum and decay are the same for all parameters of the symmetry."""
        rules = [step.rules[name] for name in names]
        first = rules[0]
        return all(
            rule.momentum == first.momentum
            and rule.nesterov == first.nesterov
            and step.gain(name) == step.gain(names[0])
            and abs(rule.rate * rule.weight_decay - first.rate * first.weight_decay)
            <= 1e-12 * first.rate * first.weight_decay
            and (first.rate != 0 or rule.weight_decay == first.weight_decay)
            for rule, name in zip(rules, names, strict=True)
        )

    def _follow_closed(self, step: Step) -> None:
        name = self.symmetry.views[0].parameter
        rule = step.rules[name]
        settings: dict[str, Any] = {
            "rate": rule.rate,
            "momentum": rule.momentum,
            "weight_decay": rule.weight_decay,
            "dampening": 1 - step.gain(name),
            "nesterov": rule.nesterov,
        }
        if self.symmetry.is_linear:
            self.predicted, self._momentum = step_linear_charge(self.predicted, self._momentum, **settings)  # type: ignore[assignment]
            return
        directions, velocities = self._directions(step)
        own = [step.rules[view.parameter].rate for view in self.symmetry.views]
        ratios = [rate / rule.rate if rule.rate != 0 else 1.0 for rate in own]
        step_form = self.forms.squares(directions, ratios)
        crossed = None
        if rule.nesterov:
            laid = self.forms.lay_out(directions)
            crossed = self.forms.total(laid, self._lay_velocities(laid, velocities), ratios)
        self.predicted, self._momentum = step_quadratic_charge(  # type: ignore[assignment]
            self.predicted, self._momentum, step_form, crossed, **settings
        )

    def _follow_measured(self, step: Step, names: list[str]) -> None:
        assert self._parts is not None
        charges, momenta = self._parts

        def column(numbers: list[float]) -> Tensor:
            return torch.tensor(numbers, dtype=torch.float64)[:, None]

        rules = [step.rules[name] for name in names]
        rate, decay = column([rule.rate for rule in rules]), column([rule.weight_decay for rule in rules])
        momentum, gain = column([rule.momentum for rule in rules]), column([step.gain(name) for name in names])
        carried = momentum * momenta + gain * decay * charges
        ahead = torch.tensor([[rule.nesterov] for rule in rules])
        along = torch.where(ahead, decay * charges + momentum * carried, carried)
        directions, velocities = self._directions(step)
        change = -rate * along
        if not self.symmetry.is_linear:
            laid = self.forms.lay_out(directions)
            change = 2 * change + rate.square() * self.forms.form(laid, laid)
        self.predicted = self.predicted + (self.factors * change).sum(0)
        values = self.forms.lay_out(step.values)
        self._measure_parts(values, self._lay_velocities(values, velocities))
        self._momentum = self._parts[1].sum(0)

    def _directions(self, step: Step) -> tuple[dict[str, Tensor], dict[str, Tensor | None]]:
        """Give (old - new) / rate of every parameter from what the optimizer stored, and the velocities."""
        directions: dict[str, Tensor] = {}
        velocities: dict[str, Tensor | None] = {}
        for name in self.symmetry.parameters:
            rule, velocity = step.rules[name], step.velocities[name]
            velocity = velocities[name] = velocity if rule.momentum != 0 else None
            if velocity is not None and not rule.nesterov:
                directions[name] = velocity
                continue
            direction = step.climbed(name)
            if rule.weight_decay != 0:
                direction = direction + rule.weight_decay * step.values[name].detach()
            if rule.nesterov and velocity is not None:
                direction = direction + rule.momentum * velocity
            shrinkage = 1 - rule.rate * rule.weight_decay
            directions[name] = direction / shrinkage if shrinkage != 1 else direction
        return directions, velocities

    def _lay_velocities(self, like: Laid, velocities: Mapping[str, Tensor | None]) -> list[Tensor]:
        given = {name: value for name, value in velocities.items() if value is not None}
        return [
            view.lay_out(given) if view.parameter in given else torch.zeros_like(one)
            for view, one in zip(self.symmetry.views, like, strict=True)
        ]

    def _measure_parts(self, values: Laid, velocities: Laid) -> None:
        momenta = self.forms.linear(velocities) if self.symmetry.is_linear else self.forms.form(values, velocities)
        self._parts = self.forms.charge(values), momenta

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint needs."""
        return {
            "predicted": self.predicted.clone(),
            "momentum": self._momentum.clone(),
            "factors": self.factors.clone(),
            "parts": None if self._parts is None else [part.clone() for part in self._parts],
            "anchored": self.anchored,
            "uncovered": self.uncovered,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint.

        Args:
            state: what :meth:`state_dict` gave.

        Raises:
            HistoryError: if it is of another symmetry.
        """
        if state["predicted"].shape != self.predicted.shape or state["factors"].shape != self.factors.shape:
            raise HistoryError(f"the checkpoint has other charges for {self.name!r}: is it of the same model?")
        self.predicted, self._momentum, self.factors = (
            state[key].clone() for key in ("predicted", "momentum", "factors")
        )
        self._parts = None if state["parts"] is None else (state["parts"][0].clone(), state["parts"][1].clone())
        self.anchored, self.uncovered = int(state["anchored"]), int(state["uncovered"])
