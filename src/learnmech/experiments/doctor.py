"""The check-up before watching: what of a model can be read, and what each preset costs."""

import copy
import importlib
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from learnmech.errors import InputError
from learnmech.monitor.layers import LayerChoice
from learnmech.monitor.monitor import watch
from learnmech.monitor.probe import call_model

_ROUNDS = 5
_TINY = 1e-9
"""A learning rate that moves the copy by next to nothing, so that probes have a step to look at."""


@dataclass(frozen=True)
class Diagnosis:
    """What the check-up found.

    Attributes:
        layers: layers read and modules skipped.
        step_seconds: time of one forward and backward pass on the probe, in training mode.
        prices: preset to the cost of one probe in such passes.
    """

    layers: LayerChoice
    step_seconds: float
    prices: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain values.

        Returns:
            ``layers``, ``skipped``, ``step_seconds`` and ``prices``.
        """
        return {
            "layers": [dict(layer.__dict__, members=list(layer.members)) for layer in self.layers.layers],
            "skipped": [dict(item.__dict__) for item in self.layers.skipped],
            "step_seconds": self.step_seconds,
            "prices": self.prices,
        }

    def __str__(self) -> str:
        lines = [str(self.layers), "", f"one forward and backward pass on the probe: {1e3 * self.step_seconds:.1f} ms"]
        lines += ["one probe costs, in such passes:"]
        for name, price in self.prices.items():
            every = max(1, round(price / 0.04))
            lines.append(f"  {name:10} {price:5.2f}   under 4 % of training time with every={every} or more")
        return "\n".join(lines)


def load_factory(path: str) -> tuple[nn.Module, tuple[Any, Any], Callable[..., Tensor]]:
    """Import ``MODULE:FACTORY``, or ``FILE.py:FACTORY``, and call the factory.

    Args:
        path: where it stands.

    Returns:
        Model, probe and loss: cross-entropy for integer targets and mean squared error for others, if the factory gives none.

    Raises:
        InputError: if it cannot be imported or returns something else.
    """
    module_name, _, name = path.rpartition(":")
    if not module_name or not name:
        raise InputError(f"expected MODULE:FACTORY, for example mypackage.model:make, but got {path!r}.")
    try:
        module = _import(module_name)
        made = getattr(module, name)()
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path} could not be used: {type(error).__name__}: {error}") from error
    if not isinstance(made, tuple) or len(made) not in (2, 3) or not isinstance(made[0], nn.Module):
        raise InputError(f"{path} must return (model, (inputs, targets)) or (model, (inputs, targets), loss).")
    model, probe = made[0], made[1]
    if len(made) == 3:
        return model, probe, made[2]
    real = isinstance(probe[1], Tensor) and probe[1].is_floating_point()
    return model, probe, functional.mse_loss if real else functional.cross_entropy


def _import(name: str) -> Any:
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise InputError(f"there is no file {path}.")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None:
            raise InputError(f"{path} cannot be imported.")
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        return module
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    return importlib.import_module(name)


def examine(
    model: nn.Module,
    probe: tuple[Any, Any],
    loss: Callable[..., Tensor],
    *,
    measures: Sequence[str] = ("light", "standard", "full"),
    layers: str | Sequence[str] = "auto",
) -> Diagnosis:
    """Find the layers and time the presets. The model is left as it was.

    Args:
        model: the model.
        probe: ``(inputs, targets)``.
        loss: ``loss(outputs, targets)``.
        measures: presets to price.
        layers: as in :func:`learnmech.watch`.

    Returns:
        The diagnosis; prices are medians of five rounds, pass and probes in turn.
    """
    twin = copy.deepcopy(model)  # whose steps are watched, as in training
    probing: dict[str, Callable[[], object]] = {}
    for name in measures:
        optimizer = _stepping(twin, probe, loss)
        monitor = watch(twin, probe, loss, optimizer=optimizer, every=1, measures=name, layers=layers)
        probing[name] = monitor.observe if optimizer is None else optimizer.step
        choice = monitor.layers
    times: dict[str, list[float]] = {name: [] for name in probing}
    passes: list[float] = []
    for count in range(_ROUNDS + 1):
        taken = _timed(lambda: _differentiate(model, probe, loss))
        if count > 0:  # the first round finds what is found once
            passes.append(taken)
        for name, run in probing.items():
            taken = _timed(run)
            if count > 0:
                times[name].append(taken)
    step = statistics.median(passes)
    return Diagnosis(choice, step, {name: statistics.median(values) / step for name, values in times.items()})


def _stepping(model: nn.Module, probe: tuple[Any, Any], loss: Callable[..., Tensor]) -> torch.optim.Optimizer | None:
    """Make an optimizer that is ready to step; None where nothing is trained."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        return None
    if all(parameter.grad is None for parameter in parameters):
        with torch.random.fork_rng():
            loss(call_model(model, probe[0]), probe[1]).backward()  # type: ignore[no-untyped-call]
    return torch.optim.SGD(parameters, lr=_TINY)


def _differentiate(model: nn.Module, probe: tuple[Any, Any], loss: Callable[..., Tensor]) -> None:
    # As a training step does, but gradients are dropped, and buffers and random state put back.
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.random.fork_rng():
        value = loss(call_model(model, probe[0]), probe[1])
        torch.autograd.grad(value, parameters, allow_unused=True)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])


def _timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started
