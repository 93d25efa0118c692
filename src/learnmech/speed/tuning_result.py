"""The outcome of tuning: learning rates, the factor of the read-out, what a step does with them, and what is out of reach."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import xarray as xr
from torch import Tensor
from torch.optim import Optimizer

from learnmech.errors import InputError
from learnmech.speed.tuning_readout import Readout
from learnmech.speed.tuning_steps import build_with


@dataclass(frozen=True)
class Achieved:
    r"""What the tuned step does on the batch.

    Speeds and decays are in the units of the targets: shares of the features' root mean square and of the loss, unless absolute
    ones were asked for. The loss is the one after the read-out was scaled.

    Attributes:
        layer: the last layer before the read-out.
        speed: root mean square of its first-order feature update.
        decay: first-order loss decay.
        real_speed: root mean square of the real feature update of the step.
        real_decay: loss before minus loss after the step.
        linearity: :math:`\|Df - df\| / \|df\|` at the layer.
        loss: loss before the step.
        shares: group name to its share of the first-order decay.
        speeds: layer name to its first-order speed.
    """

    layer: str
    speed: float
    decay: float
    real_speed: float
    real_decay: float
    linearity: float
    loss: float
    shares: Mapping[str, float]
    speeds: Mapping[str, float]


@dataclass(frozen=True)
class Application:
    """What applying needs.

    Attributes:
        readout: the user's read-out; None if it is left alone.
        start: its parameters as they were when they were measured.
        builder: class of the optimizer; None if an optimizer was given.
        optimizer: the optimizer that was given, or None.
    """

    readout: Readout | None
    start: Mapping[str, Tensor]
    builder: Callable[..., Optimizer] | None
    optimizer: Optimizer | None


@dataclass(frozen=True, eq=False)
class AutoscaleResult:
    """Learning rates and a read-out that give a step the wanted feature speed and loss decay.

    Attributes:
        param_groups: groups for a torch optimizer, one a layer, with ``params`` (the model's), ``lr`` and ``name``; with the
            other settings of the group too, if an optimizer was given.
        readout_scale: factor for the weight and the bias of the read-out; 1 if it is left alone.
        achieved: what the step does.
        target_speed: what was asked for: one number, or one a layer.
        target_decay: what was asked for.
        iterations: steps that were tried.
        converged: whether the equations were solved within the tolerance. What cannot be had at all is in ``unreachable``.
        unreachable: what was asked for but cannot be had, and why.
        notes: what else to know: groups left out, learning rates clipped, a step that first order describes badly.
        history: the measurement of the tuned step, as :func:`learnmech.speed.measure` gives it.
    """

    param_groups: list[dict[str, Any]] = field(repr=False)
    readout_scale: float
    achieved: Achieved
    target_speed: float | Mapping[str, float]
    target_decay: float
    iterations: int
    converged: bool
    unreachable: tuple[str, ...]
    notes: tuple[str, ...]
    history: xr.Dataset = field(repr=False)
    _application: Application = field(repr=False)
    _initial_loss: float = field(repr=False)

    def apply(self) -> Optimizer:
        """Scale the read-out of the model, in place, and set the learning rates.

        Returns:
            The optimizer that was given, with one group a layer in the place of its groups and its state as it is; or a new
            one of the class that was named.

        Raises:
            InputError: if the read-out has changed since it was measured (applied twice, or trained), or a learning-rate
                scheduler already holds the optimizer's groups. Nothing is changed then.
        """
        use = self._application
        if use.readout is not None:
            for name, parameter in use.readout.parameters.items():
                if not torch.equal(parameter.detach(), use.start[name].to(parameter.device)):
                    raise InputError(
                        f"{name} has changed since it was measured, by training or by applying this result before: call "
                        "autoscale anew."
                    )
        if use.optimizer is not None and any("initial_lr" in group for group in use.optimizer.param_groups):
            raise InputError(
                "a learning-rate scheduler already holds the groups of this optimizer: apply first, then make the scheduler."
            )
        if use.builder is not None:
            optimizer = build_with(use.builder, [dict(group) for group in self.param_groups])
        else:
            assert use.optimizer is not None
            optimizer = use.optimizer
            _regroup(optimizer, self.param_groups)
        if use.readout is not None:
            use.readout.rescale(use.start, self.readout_scale)
        return optimizer

    def table(self) -> str:
        """Give everything as text.

        Returns:
            Lines for people.
        """
        done = self.achieved
        asked = self.target_speed if isinstance(self.target_speed, float) else self.target_speed.get(done.layer)
        state = "solved" if self.converged else "NOT solved within the tolerance"
        lines = [
            f"{state}, {self.iterations} iterations",
            "",
            *_columns(
                [
                    ("", "asked", "first order", "real step"),
                    (f"speed of {done.layer}", _short(asked), _short(done.speed), _short(done.real_speed)),
                    ("loss decay", _short(self.target_decay), _short(done.decay), _short(done.real_decay)),
                ]
            ),
            "",
            f"read-out times {self.readout_scale:.4g}; loss {self._initial_loss:.4g} before, {done.loss:.4g} with it",
            "",
            *_columns(
                [
                    ("group", "learning rate", "share of decay", "speed"),
                    *(
                        (
                            str(group["name"]),
                            _short(float(group["lr"])),
                            _short(done.shares.get(str(group["name"]))),
                            _short(done.speeds.get(str(group["name"]))),
                        )
                        for group in self.param_groups
                    ),
                ]
            ),
        ]
        for title, texts in (("out of reach:", self.unreachable), ("notes:", self.notes)):
            if texts:
                lines += ["", title, *(f"  {text}" for text in texts)]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()


def _regroup(optimizer: Optimizer, groups: list[dict[str, Any]]) -> None:
    """Put new groups in the place of an optimizer's; parameters in none of them stay in what is left of their group."""
    taken = {id(parameter) for group in groups for parameter in group["params"]}
    left = []
    for group in optimizer.param_groups:
        kept = [position for position, parameter in enumerate(group["params"]) if id(parameter) not in taken]
        if kept:
            rest = {**group, "params": [group["params"][position] for position in kept]}
            if "param_names" in group:
                rest["param_names"] = [group["param_names"][position] for position in kept]
            left.append(rest)
    optimizer.param_groups[:] = [*({**group, "params": list(group["params"])} for group in groups), *left]


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
