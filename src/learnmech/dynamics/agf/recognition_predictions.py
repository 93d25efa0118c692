"""What a user's own two-layer network will learn, in which order, and after how many optimizer steps."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from learnmech.dynamics.agf import recognition_assumptions as judging
from learnmech.dynamics.agf.comparing import Comparison, compare
from learnmech.dynamics.agf.predictions import FLOW_TIME, Prediction
from learnmech.dynamics.agf.recognition_assumptions import Assumption
from learnmech.dynamics.agf.recognition_clock import Clock, read_clock, read_loss
from learnmech.dynamics.agf.recognition_data import TrainingData, training_data
from learnmech.dynamics.agf.recognition_modules import Recognised, float_copy, recognise, run_copy
from learnmech.dynamics.agf.recognition_routes import Route, route
from learnmech.errors import InputError

STEPS = "optimizer steps"
NO_CLOCK = "unknown: this optimizer has no common clock"
_SAME = 1e-6


@dataclass(frozen=True, kw_only=True)
class ModelPrediction(Prediction):
    """The staircase of a user's own network, in its own units.

    ``times`` are in optimizer steps if an optimizer with one rate is known, else in time of the gradient flow of half the mean squared error;
    ``levels`` are of the loss that was given.

    Attributes:
        recognised: what the module is, and which parameter plays which part.
        clock: how training counts time and loss.
        assumptions: of the theory, and whether they hold here.
        instance: what the instance of the theory returned, in its own units, with its further fields.
        by: which function that was.
    """

    recognised: Recognised
    clock: Clock
    assumptions: tuple[Assumption, ...]
    instance: Prediction
    by: str

    @property
    def failing(self) -> tuple[Assumption, ...]:
        """Assumptions that do not hold."""
        return tuple(assumption for assumption in self.assumptions if assumption.holds is False)

    def __str__(self) -> str:
        lines = [f"f(x) = {self.recognised.formula}, by {self.by}", super().__str__()]
        if self.failing:
            lines.append(f"{len(self.failing)} of {len(self.assumptions)} assumptions fail:")
        else:
            lines.append("no assumption is known to fail:")
        return "\n".join(lines + [f"  {assumption}" for assumption in self.assumptions])

    def compare(self, history: Any, losses: Any = None, **options: Any) -> Comparison:
        """Hold the prediction against a training run.

        Args:
            history: of :func:`~learnmech.watch`, with the loss over ``step``; or steps.
            losses: if ``history`` is steps.
            **options: those of :func:`~learnmech.dynamics.agf.compare`.

        Returns:
            The comparison. Without a common clock (Adam) it is of levels and order only.
        """
        if self.clock.exact is False and not self.clock.counts_steps:
            silent = replace(self, times=np.full(len(self), math.nan), time_unit=NO_CLOCK)
            return compare(silent, history, losses, **options)
        return compare(self, history, losses, **options)


def predict(
    model: nn.Module,
    data: Any,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    learning_rate: float | None = None,
    momentum: float = 0.0,
    batch_size: int | None = None,
) -> ModelPrediction:
    r"""Predict what a two-layer network of your own learns, in which order, down to which losses, and after how many steps.

    The module is recognised by its outputs: on random parameters and inputs, a copy of it in float64 must agree to 1e-8 with a formula.
    Known are, with H neurons,

    - linear nets :math:`AWx`, by :func:`~learnmech.dynamics.agf.linear`,
    - diagonal ones, :math:`(u\circ v)\cdot x` and :math:`(p^2 - m^2)\cdot x`, by :func:`~learnmech.dynamics.agf.diagonal`,
    - ReLU nets with one output, :math:`\sum_ia_i\,\sigma(w_i\cdot x + b_i)`, leaky ones too, by :func:`~learnmech.dynamics.agf.relu`,
    - quadratic nets on the complete table of modular addition, by :func:`~learnmech.dynamics.agf.modular_addition`,
    - linear attention on contexts of normal inputs, by :func:`~learnmech.dynamics.agf.linear_attention`,
    - all of these on other data or with several outputs, and :math:`A\,\sigma(Wx)` with any homogeneous activation up to degree 3, by the
      general engine, :func:`~learnmech.dynamics.agf.run`,

    each with any constant factor, with transposed matrices, and after flattening. SGD with learning rate :math:`\eta`, momentum b and dampening d
    goes :math:`\eta\,c\,(1-d)/(1-b)` in the time of the flow each step, c the ratio of the loss to half the mean squared error
    (2 over the number of outputs for ``MSELoss``), which is measured. That steps are not infinitely small is counted where neurons have
    degree 2; with momentum it can be a third of the time.

    Source: Kunin et al. 2025 (arXiv 2506.06489) for the instances. Derived here: recognition, units, biases (those of neurons are
    weights of a constant input; those of outputs have learned the mean before anything else), and that a linear net on inputs that are not
    quite white takes the times of the nearest covariance that commutes.

    How to read it: ``print`` it, and read which assumptions fail before the times. Train, and hold ``prediction.compare(history)`` against
    it. Nothing is predicted for other optimizers than SGD but order and levels, and these only if they do what gradient descent does.

    Args:
        model: before training; it is left exactly as it is.
        data: (inputs, targets), or a ``DataLoader`` of such pairs: all that it is trained on. Inputs of attention are (pairs x, pairs y, query), or
            tokens (x, y) with the query last and its y 0.
        optimizer: that will train it.
        loss: of outputs and targets; ``torch.nn.MSELoss()`` if not given. A multiple of the squared error.
        learning_rate: of SGD, if there is no optimizer yet.
        momentum: likewise.
        batch_size: of training; that of a loader, else not known.

    Returns:
        The prediction in steps (or time of the flow if no rate is known) and in the loss given.

    Raises:
        InputError: if the module is of no known kind, the loss is not squared, the data do not fit, the start is not small, or there are
            parameters that the optimizer does not train.

    Example:
        Two numbers a w = 1 from 1e-3: strength :math:`s = 1/(1 + (10^6 - 1)e^{-2t})`, and the loss is halved at
        :math:`s = 1 - \sqrt{1/2}`.

        >>> net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
        >>> for weight in net.parameters():
        ...     _ = nn.init.constant_(weight, 1e-3)
        >>> found = predict(net, (torch.ones(1, 1), torch.ones(1, 1)), learning_rate=1e-3)
        >>> flow = math.log((1e6 - 1) * (math.sqrt(2) - 1)) / 2
        >>> found.levels.tolist(), bool(abs(found.times[0] * math.log1p(2e-3) - flow) < 1e-5), found.time_unit
        ([1.0, 0.0], True, 'optimizer steps')
    """
    found_data = training_data(data)
    recognised = recognise(model, found_data.inputs)
    values = recognised.values(model)
    outputs = _outputs(model, recognised, found_data)
    factor = read_loss(loss, tuple(found_data.targets.shape))
    _require_all_trained(model, optimizer)
    clock = read_clock(optimizer, learning_rate, momentum, factor)
    made = route(recognised, values, found_data.inputs, found_data.targets)
    in_steps = clock.counts_steps
    flow = made.prediction
    times = flow.times / made.clock
    if in_steps:
        times = clock.steps(times, made.growths * made.clock)
    size = batch_size if batch_size is not None else found_data.batch_size
    return ModelPrediction(
        times=times,
        levels=flow.levels * factor,
        order=flow.order,
        time_unit=STEPS if in_steps else FLOW_TIME,
        loss_unit="MSELoss" if loss is None else "the loss given",
        model=flow.model,
        notes=(*flow.notes, *_leading(made, clock)),
        recognised=recognised,
        clock=clock,
        assumptions=_assumptions(recognised, values, made, clock, outputs, found_data, size),
        instance=made.instance,
        by=made.by,
    )


def _leading(made: Route, clock: Clock) -> tuple[str, ...]:
    if made.by not in ("agf.diagonal", "agf.run") or made.growth <= 0:
        return ()
    rate = made.clock * (clock.rate if clock.counts_steps else 1.0)
    unit = STEPS if clock.counts_steps else FLOW_TIME
    return (
        f"Times are of leading order for a small start: off by some growth times, of {1 / (made.growth * rate):.3g} {unit} for the first "
        "jump, more for slower ones.",
    )


def _outputs(model: nn.Module, recognised: Recognised, data: TrainingData) -> Tensor:
    """The outputs on the data, which must be those of the formula there too, and of the targets' shape."""
    twin = float_copy(model)
    parameters = {name: parameter for name, parameter in twin.named_parameters() if parameter.requires_grad}
    outputs = run_copy(twin, parameters, data.inputs)
    if outputs.shape != data.targets.shape:
        raise InputError(
            f"outputs have shape {tuple(outputs.shape)} and targets {tuple(data.targets.shape)}, which a loss would broadcast; "
            "reshape the targets."
        )
    if not bool(outputs.isfinite().all()):
        raise InputError("the model's outputs on the data are not finite.")
    expected = recognised.outputs(recognised.values(model), data.inputs)
    gap = float((outputs.reshape(-1) - expected).abs().max())
    if gap > _SAME * max(float(expected.abs().max()), 1e-300) and gap > 1e-300:
        raise InputError(
            f"the model is {recognised.formula} on random inputs, but not on the data: it treats some inputs apart."
        )
    return outputs


def _require_all_trained(model: nn.Module, optimizer: Any) -> None:
    if not isinstance(optimizer, torch.optim.Optimizer):
        return
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    missing = [
        name for name, parameter in model.named_parameters() if parameter.requires_grad and id(parameter) not in held
    ]
    if missing:
        raise InputError(f"the optimizer does not train {', '.join(missing)}: give it all parameters, or freeze these.")


def _assumptions(
    recognised: Recognised,
    values: dict[str, Tensor],
    made: Route,
    clock: Clock,
    outputs: Tensor,
    data: TrainingData,
    batch_size: int | None,
) -> tuple[Assumption, ...]:
    count = data.samples
    loss = float((outputs - data.targets).square().sum()) / (2 * count)
    targets = data.targets
    bias = values.get("outer_bias")
    rest = targets if bias is None else targets - bias.reshape(-1)
    zero = float(rest.square().sum()) / (2 * count)
    largest = float(np.linalg.norm(made.neurons, axis=1).max())
    mean = None
    if bias is not None:
        spread = float((targets - targets.mean(dim=0)).square().mean().sqrt())
        mean = float(rest.mean(dim=0).square().mean().sqrt()) / max(spread, 1e-300)
    rate = clock.rate * made.clock
    return (
        Assumption("two homogeneous layers", True, f"{recognised.formula}, to {recognised.error:.1g}", ""),
        Assumption("squared loss", True, f"{clock.loss_factor:.6g} times half the mean squared error", ""),
        judging.biases("inner_bias" in values, mean),
        judging.small_start(loss, zero, largest),
        judging.balanced(_charge(recognised, values)),
        judging.gradient_descent(clock.optimizer, clock.exact),
        judging.full_batch(batch_size, count),
        judging.small_steps(rate, made.growth),
        judging.jumps_apart(made.prediction, made.growth),
        *made.assumptions,
    )


def _charge(recognised: Recognised, values: dict[str, Tensor]) -> float:
    """Largest difference between what gradient flow keeps of the factors of one neuron."""
    if recognised.kind == "diagonal":
        u, v = (values[role].reshape(-1) for role in ("u", "v"))
        return float((2 * u * v if recognised.squares else u**2 - v**2).abs().max())
    if recognised.kind == "linear attention":
        parts = [values["v"].reshape(-1) ** 2, values["q"].square().sum(dim=1), values["k"].square().sum(dim=1)]
    else:
        inner = values["w"].square().sum(dim=1)
        if "inner_bias" in values:
            inner = inner + values["inner_bias"].reshape(-1) ** 2
        outer = values["a"].reshape(-1, len(values["w"])).square().sum(dim=0)
        parts = [outer, inner / recognised.power]
    return max(float((one - other).abs().max()) for one in parts for other in parts)
