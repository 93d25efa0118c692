"""Following every charge of a model through a live run, with the exact law of the optimizer beside it."""

import warnings
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import torch
import xarray as xr
from torch import Tensor, nn
from torch.optim import Optimizer

from learnmech.dynamics.conservation_causes import Before, Blame, split_step
from learnmech.dynamics.conservation_findings import Followed, findings_of_laws, report_of_laws
from learnmech.dynamics.conservation_followed import (
    name_symmetries,
    named_tensors,
    require_symmetries,
    rounding_unit,
    shared_names,
    why_not,
)
from learnmech.dynamics.conservation_forms import relative_violation
from learnmech.dynamics.conservation_records import ChargeRecords
from learnmech.dynamics.conservation_rules import Coverage, Rule, coverage_of, require_hooks, rule_of
from learnmech.dynamics.conservation_track import ChargeTrack, Step
from learnmech.dynamics.finding import find_symmetries
from learnmech.dynamics.symmetries import Symmetry
from learnmech.errors import HistoryError, InputError, LearnmechWarning
from learnmech.monitor.instrument import Finding
from learnmech.monitor.unwrap import unwrap

ROUNDING_AT_ONCE, ROUNDING_A_STEP = 64, 2
"""Rounding units by which a charge may be off at once, and for every step (rounding all parameters by one changes it by two)."""


class ConservationMonitor:
    r"""Follows every conserved charge of a model through a live run, and says where and why one breaks its law.

    Gradient flow conserves a charge for every symmetry of the loss. A real optimizer does not, but under SGD the charge obeys an exact
    law for every step (:func:`step_quadratic_charge`, :func:`step_linear_charge`), with momentum, Nesterov momentum, dampening, weight
    decay, schedules and ``maximize``. The monitor carries this law along and measures the charges beside it. They agree to rounding
    unless something is wrong: the gradient does not obey the symmetry (a wrong derivative, tied weights, an epsilon, gradients edited
    one by one), the update does not follow its equation, or weights were changed outside the optimizer. Clipping the norm of the whole
    gradient and accumulating gradients keep all laws.

    Where parameters of one symmetry learn at different rates, each part of the charge is divided by its own rate; this weighted charge
    has a law as long as the ratio of the rates stays. For other optimizers nothing is predicted but decoupled weight decay: for them
    the violation is a measured quantity and no error.

    Source: conserved charges, Kunin et al., "Neural mechanics" (arXiv 2012.04728), and Du, Hu and Lee (arXiv 1806.00900); discrete laws,
    unequal rates and the search for causes: derived here.

    Args:
        model: the model that is trained.
        optimizer: its optimizer; hooks are added to its ``step``, nothing else is touched.
        symmetries: what to follow; None finds them in the structure of the model, with ``inputs`` and ``loss`` passed on to
            :func:`find_symmetries`.
        every: steps between two records. The law is carried over every step in any case.
        inputs: see ``symmetries``.
        loss: see ``symmetries``.
        keep_charges: whether to record every single charge and its prediction, too.

    Attributes:
        symmetries: those that are followed.
        names: what they are called in the history.
        skipped: those that are not, by name, with the reason.
        coverage: ``exact`` for SGD; ``decoupled`` for AdamW and ``measured`` for others, whose laws are not known.

    Raises:
        InputError: for an optimizer without hooks, a model without any symmetry or none that can be followed, or bad arguments.

    Example:
        >>> from torch.nn import functional
        >>> from learnmech.dynamics import Symmetry, View
        >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)).double()
        >>> neurons = Symmetry("rescale", (View("2.weight", (1, 4), units=(1,)), View("0.weight", (4, 3), weight=-1),
        ...     View("0.bias", (4,), weight=-1)))
        >>> sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
        >>> with ConservationMonitor(net, sgd, [neurons]) as monitor:
        ...     for _ in range(20):
        ...         sgd.zero_grad()
        ...         functional.mse_loss(net(torch.randn(8, 3).double()), torch.ones(8, 1).double()).backward()
        ...         _ = sgd.step()
        >>> bool(monitor.history["violation"].max() < 1e-13)
        True
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        symmetries: Sequence[Symmetry] | None = None,
        *,
        every: int = 1,
        inputs: Any = None,
        loss: Any = None,
        keep_charges: bool = False,
    ) -> None:
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise InputError(f"every must be a positive integer, got {every!r}.")
        self._model, self._optimizer, self._every = unwrap(model), require_hooks(optimizer), every
        self._parameters = named_tensors(self._model)
        self._tied = shared_names(self._model)
        found = require_symmetries(self._find(symmetries, inputs, loss), self._parameters)
        if not found:
            raise InputError(
                f"{type(self._model).__name__} has no symmetry that could be followed: none was given or found. Give symmetries=, or "
                "look for them with find_symmetries(model, inputs, loss=..., method='numerics')."
            )
        trained = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
        names = name_symmetries(found)
        reasons = [why_not(symmetry, self._parameters, trained) for symmetry in found]
        self.skipped = {name: reason for name, reason in zip(names, reasons, strict=True) if reason}
        kept = [(symmetry, name) for symmetry, name, reason in zip(found, names, reasons, strict=True) if not reason]
        if not kept:
            raise InputError(
                f"none of {len(found)} symmetries can be followed: {'; '.join(f'{n}: {r}' for n, r in self.skipped.items())}."
            )
        self.symmetries: tuple[Symmetry, ...] = tuple(symmetry for symmetry, _ in kept)
        self.names: tuple[str, ...] = tuple(name for _, name in kept)
        self.coverage: Coverage = coverage_of(optimizer)
        self._tracks = [ChargeTrack(symmetry, name) for symmetry, name in kept]
        self._units = [rounding_unit(symmetry, self._parameters) for symmetry in self.symmetries]
        self._touched = list(dict.fromkeys(name for symmetry in self.symmetries for name in symmetry.parameters))
        self._blames = [Blame() for _ in kept]
        self._steps, self._path, self.failures = 0, 0.0, list[tuple[int, str]]()
        self._had: dict[str, bool] = {}
        self._before: Before | None = None
        self._records = ChargeRecords([symmetry.count for symmetry in self.symmetries], keep_charges=keep_charges)
        with torch.no_grad():
            rules, values = self._rules(), self._values()
            for track in self._tracks:
                track.anchor(values, self._velocities(), rules)
            self._last = self._record(values)
        self._handles = [
            optimizer.register_step_pre_hook(self._on_begin),
            optimizer.register_step_post_hook(self._on_end),
        ]

    def _find(self, symmetries: Sequence[Symmetry] | None, inputs: Any, loss: Any) -> Sequence[Symmetry]:
        if symmetries is not None:
            return symmetries
        return find_symmetries(self._model, inputs, loss=loss)

    # ------------------------------------------------------------------ the run

    def _on_begin(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        velocities = self._velocities()
        self._had = {name: velocities[name] is not None for name in self._touched}
        self._before = None
        if (self._steps + 1) % self._every == 0 and (self.coverage != "exact" or self._records.any_broken):
            with torch.no_grad():
                self._before = Before(
                    {name: value.detach().clone() for name, value in self._values().items()},
                    {name: None if value is None else value.clone() for name, value in velocities.items()},
                )

    def _on_end(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        skipped = getattr(optimizer, "found_inf", None)  # a fused optimizer under a GradScaler skips the step by itself
        if isinstance(skipped, Tensor) and bool(skipped):
            return
        self._steps += 1
        try:
            with torch.no_grad():
                self._follow()
        except Exception as error:
            self.failures.append((self._steps, f"{type(error).__name__}: {error}"))
            self.close()
            warnings.warn(
                f"charges are not followed any more since step {self._steps}; training goes on. {self.failures[-1][1]}",
                LearnmechWarning,
                stacklevel=3,
            )

    def _follow(self) -> None:
        values = self._values()
        step = Step(
            values,
            {name: _dense(self._parameters[name].grad) for name in self._touched},
            self._velocities(),
            self._had,
            self._rules(),
        )
        for track in self._tracks:
            if self.coverage == "exact":
                track.follow(step)
            elif self.coverage == "decoupled":
                _decay(track, step)
        if any(symmetry.is_linear for symmetry in self.symmetries):
            self._path += _reach(step)
        if self._before is not None:
            self._look_closely(step, self._before)
        if self._steps % self._every == 0:
            self._last = self._record(values)
        elif (self._steps + 1) % self._every == 0:
            self._last = [track.measure(values)[0] for track in self._tracks]

    def _look_closely(self, step: Step, before: Before) -> None:
        for position, (track, blame, last) in enumerate(zip(self._tracks, self._blames, self._last, strict=True)):
            if self.coverage == "exact":
                if self._records.broken[position]:
                    blame.add(*split_step(track, before, step, last))
            else:
                self._records.note(
                    position, relative_violation(track.symmetry, before.values, _pushes(step, before, self.coverage))
                )

    def _record(self, values: Mapping[str, Tensor]) -> list[Tensor]:
        readings = []
        for track in self._tracks:
            charges, size = track.measure(values)
            # What sums over a batch to nothing leaves rounding of the size of other gradients, whatever the parameters' own size.
            readings.append((charges, float(size.norm()) + self._path * track.symmetry.is_linear, track.predicted))
        limits = [
            unit * (ROUNDING_AT_ONCE + ROUNDING_A_STEP * track.anchored)
            for unit, track in zip(self._units, self._tracks, strict=True)
        ]
        self._records.add(self._steps, readings, limits, judged=self.coverage == "exact")
        return [charges for charges, _, _ in readings]

    def _values(self) -> dict[str, Tensor]:
        return {name: self._parameters[name].detach() for name in self._touched}

    def _velocities(self) -> dict[str, Tensor | None]:
        states = self._optimizer.state
        buffers = {name: states.get(self._parameters[name], {}).get("momentum_buffer") for name in self._touched}
        return {name: buffer if isinstance(buffer, Tensor) else None for name, buffer in buffers.items()}

    def _rules(self) -> dict[str, Rule]:
        rules = {}
        for group in self._optimizer.param_groups:
            rule = rule_of(group)
            rules.update({id(parameter): rule for parameter in group["params"]})
        return {name: rules[id(self._parameters[name])] for name in self._touched}

    # ------------------------------------------------------------------ results

    @property
    def history(self) -> xr.Dataset:
        """What was recorded, over ``step`` and ``symmetry`` (and ``charge`` with ``keep_charges``), as a history."""
        return self._records.history(
            self.names,
            [symmetry.kind for symmetry in self.symmetries],
            config={"optimizer": type(self._optimizer).__name__, "every": self._every, "coverage": self.coverage},
            attributes={
                "citations": ["kunin2020", "du2018"],
                "causes": {item.name: item.cause for item in self._followed() if item.broken},
                "skipped": [f"{name}: {reason}" for name, reason in self.skipped.items()],
                "failures": [f"step {step}: {message}" for step, message in self.failures],
            },
        )

    @property
    def findings(self) -> list[Finding]:
        """What the laws say about the run so far, gravest first."""
        return findings_of_laws(
            self._followed(), self.skipped, self.coverage, type(self._optimizer).__name__, self.failures
        )

    def report(self) -> str:
        """Say which laws held, and of those that did not, where and why.

        Returns:
            Text, a line a symmetry and a paragraph a finding.
        """
        return report_of_laws(self._followed(), self.findings, self._steps, type(self._optimizer).__name__)

    def _followed(self) -> list[Followed]:
        return [
            Followed(
                name=track.name,
                symmetry=track.symmetry,
                drift=self._records.latest("drift", position),
                violation=self._records.latest("violation", position),
                update_violation=self._records.latest("update_violation", position),
                limit=self._records.latest("rounding_limit", position),
                broken=self._records.broken[position],
                first_broken=self._records.first_broken[position],
                first_lost=self._records.first_lost[position],
                blame=blame,
                cause=blame.cause(self._records.size[position] * unit * (ROUNDING_AT_ONCE + ROUNDING_A_STEP)),
                tied=tuple(name for name in track.symmetry.parameters if name in self._tied),
                uneven=track.uneven and self.coverage == "exact",
                uncovered=track.uncovered,
            )
            for position, (track, blame, unit) in enumerate(zip(self._tracks, self._blames, self._units, strict=True))
        ]

    # ------------------------------------------------------------------ ending and going on

    def close(self) -> None:
        """Take the hooks away. What was recorded stays."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint needs to go on with the same predictions: tensors, numbers and text.

        Returns:
            A mapping that ``torch.load(weights_only=True)`` reads.
        """
        return {
            "names": list(self.names),
            "steps": self._steps,
            "path": self._path,
            "tracks": [track.state_dict() for track in self._tracks],
            "last": [charge.clone() for charge in self._last],
            "blames": [
                {"shares": dict(blame.shares), "steps": blame.steps, "worst": blame.worst} for blame in self._blames
            ],
            "records": self._records.state_dict(),
            "failures": [list(failure) for failure in self.failures],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint. Load model and optimizer, too: else their charges are not those that the law goes on from.

        Args:
            state: what :meth:`state_dict` gave.

        Raises:
            HistoryError: if it is something else, or of other symmetries.
        """
        missing = {"names", "steps", "path", "tracks", "last", "blames", "records"} - set(state)
        if missing:
            raise HistoryError(
                f"this is no checkpoint of a ConservationMonitor: it lacks {', '.join(sorted(missing))}."
            )
        if list(state["names"]) != list(self.names):
            raise HistoryError(f"the checkpoint follows {list(state['names'])}, this monitor {list(self.names)}.")
        for track, stored in zip(self._tracks, state["tracks"], strict=True):
            track.load_state_dict(stored)
        self._steps, self._path = int(state["steps"]), float(state["path"])
        self._last = [charge.clone() for charge in state["last"]]
        self._blames = [
            Blame(dict(item["shares"]), int(item["steps"]), float(item["worst"])) for item in state["blames"]
        ]
        self._records.load_state_dict(state["records"])
        self.failures = [(int(step), str(message)) for step, message in state.get("failures", [])]

    def __repr__(self) -> str:
        charges = sum(symmetry.count for symmetry in self.symmetries)
        return f"<ConservationMonitor of {type(self._model).__name__}: {charges} charges of {len(self.symmetries)} symmetries, {self._steps} steps>"


def _dense(gradient: Tensor | None) -> Tensor | None:
    return gradient.to_dense() if gradient is not None and gradient.is_sparse else gradient


def _reach(step: Step) -> float:
    """The most that the gradients of this step would move the parameters."""
    norms = [torch.linalg.vector_norm(gradient) for gradient in step.gradients.values() if gradient is not None]
    if not norms:
        return 0.0
    rates = [step.rules[name].rate for name, gradient in step.gradients.items() if gradient is not None]
    return max(rates) * float(torch.stack([norm.to(norms[0]) for norm in norms]).norm())


def _decay(track: ChargeTrack, step: Step) -> None:
    """What decoupled weight decay alone would leave of the charges."""
    rule = step.rules[track.symmetry.views[0].parameter]
    shrinkage = 1 - rule.rate * rule.weight_decay
    track.predicted = track.predicted * (shrinkage if track.symmetry.is_linear else shrinkage**2)


def _pushes(step: Step, before: Before, coverage: Coverage) -> dict[str, Tensor]:
    """The direction of the step of an optimizer without a law, its learning rate and decoupled weight decay taken out."""
    result = {}
    for name, value in before.values.items():
        rule = step.rules[name]
        kept = 1 - rule.rate * rule.weight_decay if coverage == "decoupled" else 1.0
        moved = kept * value.to(torch.float64) - step.values[name].to(torch.float64)
        result[name] = moved / rule.rate if rule.rate != 0 else torch.zeros_like(moved)
    return result
