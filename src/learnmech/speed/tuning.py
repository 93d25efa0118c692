"""Learning rates of every layer and the size of the read-out, from a wanted feature speed and a wanted loss decay."""

import copy
import math
from collections.abc import Mapping
from typing import Any, Literal

from torch import nn
from torch.optim import Optimizer

from learnmech.errors import InputError
from learnmech.monitor.layers import LayerSpec
from learnmech.monitor.probe import Loss
from learnmech.monitor.unwrap import unwrap
from learnmech.speed.measuring import Mode, SpeedMeasurement
from learnmech.speed.preview import copy_optimizer
from learnmech.speed.tuning_groups import build_param_groups
from learnmech.speed.tuning_readout import Readout, find_readout
from learnmech.speed.tuning_report import describe_notes, describe_unreachable, read_achieved
from learnmech.speed.tuning_result import Application, AutoscaleResult
from learnmech.speed.tuning_solver import Solution, Solver, Targets
from learnmech.speed.tuning_steps import OptimizerChoice, build_with, optimizer_builder


def autoscale(
    model: nn.Module,
    batch: tuple[Any, Any],
    loss: Loss,
    optimizer: OptimizerChoice = "sgd",
    target_speed: float | Mapping[str, float] = 0.01,
    target_decay: float = 0.01,
    *,
    relative_speed: bool = False,
    relative_decay: bool = False,
    readout: Literal["scale", "frozen"] = "scale",
    per_layer: bool = False,
    apply: bool = False,
    max_iterations: int = 10,
    tolerance: float = 0.01,
    maximum_learning_rate: float | None = None,
    nodes: LayerSpec = "auto",
    mode: Mode = "eval",
    chunk_size: int | None = None,
) -> AutoscaleResult:
    r"""Find learning rates, and the size of the read-out, with which a step moves features and loss as much as asked.

    With gradients :math:`g_k` and steps :math:`dw_k = -\eta_k u_k` of n groups of parameters, one a layer, the learning rates

    .. math::
        \eta_k = \frac{\tau}{n \langle g_k, u_k \rangle}

    give the first-order loss decay :math:`\tau`, every layer the same part of it. They leave the speed of the last hidden
    features to the network: at a decay of :math:`\tau` it is

    .. math::
        \|df_{L-1}\| = \frac{C_{\le L-1}}{\|b_{L-1}\| \cos\theta_{L-1}}, \qquad b_{L-1} = W_L^\top \partial L / \partial f_L,

    whatever the learning rate, and only the size of the read-out :math:`W_L` changes it. So the read-out's weight and bias are
    multiplied by :math:`\|df_{L-1}\|_\mathrm{rms} / \rho` (later by a secant step) until the speed is the wanted :math:`\rho`.
    Multiplying both multiplies the output, which leaves predicted classes as they are; the change of the loss and of its
    gradient is in the iteration. A few iterations suffice, each with two backward passes and one forward-mode pass, all on a
    copy of the model. Deep plain nets need a large read-out, growing as the square root of the depth.

    Source: Chizat and Netrapalli 2023, arXiv 2311.18718: feature learning, loss decay and balanced contributions; the learning
    rates as in the authors' code. The iteration for the read-out, optimizers other than gradient descent, the frozen read-out,
    and a speed for every layer: derived here.

    It holds for one step from where the model is, on this batch, to first order; ``achieved`` has the real step beside it.
    A fresh optimizer with momentum 0.9 makes ten times longer steps once its momentum has built up, so measure again then.
    Momentum of an optimizer that has made steps belongs to the read-out before scaling: in the middle of a training, freeze
    the read-out. Where features hardly depend on the input, as in deep plain nets with torch's default initial weights, the
    learning rates become huge and the real step is nothing like the first-order one; this is said in ``unreachable``. Equal parts
    and reached targets are no promise of a good training.

    Args:
        model: any ``nn.Module``. It is not changed unless ``apply`` is set.
        batch: ``(inputs, targets)``, as in training.
        loss: ``loss(outputs, targets)``, a scalar.
        optimizer: ``sgd``, ``adam``, ``adamw``; a class or a partial of one; or the optimizer of this model, whose state and
            settings then count. Its step must be proportional to its learning rate, which it is for these, with momentum and
            weight decay too. Parameters that it does not hold, and frozen ones, do not move.
        target_speed: :math:`\rho`, wanted root mean square of the first-order update of the last hidden features: ``speed_rms`` of
            :func:`learnmech.speed.measure`. Or, with
            ``per_layer``, one for each layer by name; layers not named are left to the rest.
        target_decay: :math:`\tau`, wanted first-order decay of the loss in one step: ``total_decay`` there.
        relative_speed: whether the speed is meant as a share of the root mean square of the features, so that 0.01 moves them by
            1 %, and not in their units.
        relative_decay: whether the decay is meant as a share of the loss, with the read-out scaled, so that 0.01 lowers it by 1 %,
            and not in its units. An absolute decay can be out of reach when scaling the read-out lowers the loss below it.
        readout: ``scale``, or ``frozen``: its size stays, and one knob is left, the common factor of the learning rates. The
            decay is then the largest up to the wanted one at which no layer is faster than wanted,
            :math:`\min_l \rho \sqrt{N_l} \|b_l\| \cos\theta_l / P_l` with :math:`P_l = C_{\le l}/C`, and what cannot be had is
            said.
        per_layer: whether to give every layer the speed, instead of equal parts of the decay: with
            :math:`C_{\le l} = \rho_l \sqrt{N_l} \|b_l\| \cos\theta_l`, each layer brings the difference to the layer before, or
            nothing where that is negative. Where perturbations keep their size from layer to layer, as in residual nets and well
            initialised plain ones, equal speeds mean that only the first layer is trained; ask for speeds that rise with depth
            there.
        apply: whether to call :meth:`AutoscaleResult.apply` at once.
        max_iterations: steps tried at most.
        tolerance: of the logarithm of speed over wanted speed, and for ``per_layer`` of the parts.
        maximum_learning_rate: learning rates are clipped there; the decay is then smaller.
        nodes: what to read, and thereby the groups, see :func:`learnmech.speed.measure`.
        mode: see :func:`learnmech.speed.measure`; ``current`` for nets with BatchNorm that have hardly been trained.
        chunk_size: samples in one pass.

    Returns:
        The learning rates as groups of parameters, the factor of the read-out, what the step achieves and what is out of reach;
        print it.

    Raises:
        InputError: if an argument is wrong; the read-out is all zeros (no gradient reaches the layers before it: measure after
            at least one step) or cannot be scaled (tied, normalised, not linear: take ``frozen``); nothing can move; the loss or
            a gradient is not finite; or the optimizer's step is not proportional to its learning rate.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> net = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
        >>> data = torch.randn(16, 4), torch.randn(16, 1)
        >>> found = autoscale(net, data, nn.functional.mse_loss, "sgd", 0.01, 0.02)
        >>> [round(value, 3) for value in (found.achieved.speed, found.achieved.decay, *found.achieved.shares.values())]
        [0.01, 0.02, 0.333, 0.333, 0.333]
        >>> optimizer = found.apply()
        >>> len(optimizer.param_groups)
        3
    """
    _check(target_speed, target_decay, readout, per_layer, max_iterations, tolerance, maximum_learning_rate)
    builder = optimizer_builder(optimizer)
    eager = unwrap(model)
    twin, twin_optimizer = _copy(eager, optimizer if isinstance(optimizer, Optimizer) else None)
    if builder is not None:
        twin_optimizer = build_with(builder, [p for p in twin.parameters() if p.requires_grad])
    assert twin_optimizer is not None
    measurement = SpeedMeasurement(twin, batch, loss, nodes=nodes, mode=mode, chunk_size=chunk_size)
    twin_readout = find_readout(twin, measurement.layers) if readout == "scale" else None
    _refuse_zero_readout(twin, measurement)
    targets = Targets(
        dict(target_speed) if isinstance(target_speed, Mapping) else float(target_speed),
        float(target_decay),
        relative_speed,
        relative_decay,
        per_layer,
        math.inf if maximum_learning_rate is None else float(maximum_learning_rate),
    )
    solver = Solver(measurement, twin_optimizer, targets, twin_readout)
    _check_names(target_speed, solver)
    solution = solver.solve(max_iterations, tolerance)
    own = dict(eager.named_parameters())
    real_readout = (
        None if twin_readout is None else Readout(twin_readout.name, {k: own[k] for k in twin_readout.parameters})
    )
    result = _gather(
        solution,
        solver,
        targets,
        own,
        Application(
            real_readout,
            {name: p.detach().clone() for name, p in real_readout.parameters.items()} if real_readout else {},
            builder,
            optimizer if isinstance(optimizer, Optimizer) else None,
        ),
    )
    if apply:
        result.apply()
    return result


def _check(
    target_speed: Any,
    target_decay: Any,
    readout: Any,
    per_layer: bool,
    max_iterations: Any,
    tolerance: Any,
    maximum_learning_rate: Any,
) -> None:
    if isinstance(target_speed, Mapping):
        if not per_layer:
            raise InputError("target_speed gives a speed for each layer, which needs per_layer=True.")
        for name, speed in target_speed.items():
            _require_positive(f"target_speed[{name!r}]", speed)
    else:
        _require_positive("target_speed", target_speed)
    _require_positive("target_decay", target_decay)
    _require_positive("tolerance", tolerance)
    if maximum_learning_rate is not None:
        _require_positive("maximum_learning_rate", maximum_learning_rate)
    if readout not in ("scale", "frozen"):
        raise InputError(f"readout must be 'scale' or 'frozen', got {readout!r}.")
    if isinstance(max_iterations, bool) or not isinstance(max_iterations, int) or max_iterations < 1:
        raise InputError(f"max_iterations must be a whole number, at least 1, but is {max_iterations!r}.")


def _require_positive(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (value > 0 and math.isfinite(value)):
        raise InputError(f"{name} must be a positive number, got {value!r}.")


def _check_names(target_speed: Any, solver: Solver) -> None:
    if not isinstance(target_speed, Mapping):
        return
    known = solver.tunable_layers
    unknown = [name for name in target_speed if name not in known]
    if unknown:
        raise InputError(f"target_speed names {unknown[0]!r}; the layers before the read-out are {', '.join(known)}.")
    if solver.last not in target_speed:
        raise InputError(f"target_speed must name {solver.last!r}, the last layer before the read-out.")


def _copy(model: nn.Module, optimizer: Optimizer | None) -> tuple[nn.Module, Optimizer | None]:
    """Copy a model, and its optimizer so that it holds the copy's parameters."""
    memo: dict[int, Any] = {}
    try:
        twin = copy.deepcopy(model, memo)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise InputError(
            f"{type(model).__name__} cannot be copied ({type(error).__name__}: {error}), and tuning works on a copy."
        ) from error
    if optimizer is None:
        return twin, None
    return twin, copy_optimizer(optimizer, memo)


def _refuse_zero_readout(model: nn.Module, measurement: SpeedMeasurement) -> None:
    last = measurement.layers.layers[-1]
    names = measurement.source.parameters[last.name] if last.role == "readout" else []
    parameters = dict(model.named_parameters())
    matrices = [parameters[name] for name in names if parameters[name].ndim >= 2]
    if matrices and all(not bool((matrix != 0).any()) for matrix in matrices):
        raise InputError(
            f"the read-out {last.name} is all zeros, so that no gradient reaches the layers before it: measure after at least one "
            "step, or start from a small random read-out."
        )


def _gather(
    solution: Solution, solver: Solver, targets: Targets, own: Mapping[str, nn.Parameter], application: Application
) -> AutoscaleResult:
    groups = [
        group
        for tuned, rate in zip(solver.groups, solution.look.rates, strict=True)
        for group in build_param_groups(tuned, float(rate), own, application.optimizer)
    ]
    achieved = read_achieved(solution.look, solver, targets)
    return AutoscaleResult(
        groups,
        solution.look.scale,
        achieved,
        targets.speed,
        targets.decay,
        solution.iterations,
        solution.converged,
        describe_unreachable(solution, solver, targets, achieved),
        describe_notes(solution, targets, achieved),
        solution.look.history,
        application,
        solution.loss,
    )
