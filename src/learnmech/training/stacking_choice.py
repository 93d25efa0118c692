"""Whether members are trained as a stack or one at a time, by what a step of each way takes here and now."""

import copy
import dataclasses
import itertools
import math
import statistics
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from learnmech.data.dataset import Dataset
from learnmech.errors import LearnmechWarning
from learnmech.training.config import TrainConfig
from learnmech.training.seeds import make_generator
from learnmech.training.stacked_checks import require_members
from learnmech.training.stacked_trainer import StackedTrainer
from learnmech.training.stacking import StackForm, find_form
from learnmech.training.threads import thread_count
from learnmech.training.trainer import Trainer

_CPU_MEMBERS, _CPU_SAMPLES = 32, 8192  # larger stacks do not go faster on a CPU, and take more memory
_TIMED_STEPS = 3
_TIMED_MEMBERS = 4


@dataclass(frozen=True)
class StackingChoice:
    """The way to train some members, and why.

    Args:
        stack: whether to train them as a stack.
        reason: why, in words.
        form: the stacked form: "MLP", "CNN", "modules" (torch.func), or None if there is none.
        stacked_seconds: time of a step of one member in the stack; None if it was not measured.
        separate_seconds: time of a step of one member alone; None if it was not measured.
    """

    stack: bool
    reason: str
    form: str | None = None
    stacked_seconds: float | None = None
    separate_seconds: float | None = None


def measure_stacking(
    models: Sequence[nn.Module],
    dataset: Dataset,
    configs: Sequence[TrainConfig],
    *,
    device: torch.device | str | None = None,
    threads: int | None = 1,
    stack_size: int | None = None,
) -> StackingChoice:
    """Time a few steps of both ways, on copies; models and random states are left as they are.

    Args:
        models: the models.
        dataset: the data.
        configs: the settings, one a member.
        device: where to train; None for where the models are.
        threads: torch's number of threads during the call; None leaves it.
        stack_size: members in one stack at most, see :func:`~learnmech.training.train_members`.

    Returns:
        The cheaper way with both costs. A single member, and members that have no stacked form, are not timed. What does
        not fit together raises :class:`~learnmech.errors.InputError`.

    Example:
        >>> inputs, labels = torch.eye(4), torch.tensor([0, 1, 0, 1])
        >>> data = Dataset("unit vectors", inputs, labels, inputs, labels, classes=2, source="made up")
        >>> choice = measure_stacking([nn.Linear(4, 2)], data, [TrainConfig()])
        >>> choice.stack, choice.reason
        (False, 'a single member')
    """
    require_members(models, dataset, configs)
    copies = [copy.deepcopy(model) if device is None else copy.deepcopy(model).to(device) for model in models]
    form = find_form(copies, few_inputs(copies, dataset))
    if len(models) == 1 or isinstance(form, str):
        return choose(len(models), form)
    with thread_count(threads):
        stacked = time_stacked(copies, dataset, configs, form, stack_size)
        separate = time_separate(copies, dataset, configs)
    return choose(len(models), form, stacked, separate)


def choose(
    members: int, form: StackForm | str, stacked: float = math.nan, separate: float = math.nan
) -> StackingChoice:
    """Decide by two costs.

    Args:
        members: number of members.
        form: their stacked form, or why there is none.
        stacked: seconds of a step of one member in the stack.
        separate: seconds of a step of one member alone.

    Returns:
        The choice: never a stack for a single member or without a form, else the cheaper way.
    """
    name = None if isinstance(form, str) else form.name
    if members == 1:
        return StackingChoice(False, "a single member", name)
    if isinstance(form, str):
        return StackingChoice(False, f"cannot be stacked: {form}", name)
    times = f"{1e3 * stacked:.3g} ms a step and member in a stack, {1e3 * separate:.3g} ms alone"
    return StackingChoice(stacked < separate, times, name, stacked, separate)


def few_inputs(models: Sequence[nn.Module], dataset: Dataset) -> torch.Tensor:
    """Take a few samples to try models with.

    Args:
        models: the models.
        dataset: the data.

    Returns:
        At most four training inputs, where the models are and in their type.
    """
    first = next(models[0].parameters())
    return dataset.train_inputs[:4].to(first.device, first.dtype)


def divide(order: Sequence[int], stack_size: int | None, device: torch.device, batch: int) -> list[list[int]]:
    """Divide members into stacks of about equal size.

    Args:
        order: the members in the order in which a stack wants them.
        stack_size: members in one stack at most; None for all, but on a CPU for 32, or fewer (though 2) if their batches
            together have more than 8192 samples.
        device: where they are trained.
        batch: the samples of a batch.

    Returns:
        The members of each stack.

    Example:
        >>> divide([2, 0, 1], None, torch.device("cpu"), batch=4000)
        [[2, 0], [1]]
    """
    fitting = min(_CPU_MEMBERS, max(2, _CPU_SAMPLES // batch)) if device.type == "cpu" else len(order)
    limit = stack_size or fitting
    stacks = -(-len(order) // limit)
    size = -(-len(order) // stacks)
    return [list(order[start : start + size]) for start in range(0, len(order), size)]


def time_stacked(
    models: Sequence[nn.Module],
    dataset: Dataset,
    configs: Sequence[TrainConfig],
    form: StackForm,
    stack_size: int | None,
) -> float:
    """Time steps of the first stack.

    Args:
        models: copies of the models.
        dataset: the data.
        configs: the settings.
        form: their stacked form.
        stack_size: members in one stack at most.

    Returns:
        Seconds of a step and member.
    """
    device = next(models[0].parameters()).device
    batch = min(configs[0].batch_size or len(dataset.train_inputs), len(dataset.train_inputs))
    members = divide(form.order, stack_size, device, batch)[0]
    own = [configs[member] for member in members]
    net = form.build(members, [make_generator(config.seed, "training", device) for config in own])
    trainer = StackedTrainer(net, [models[member] for member in members], dataset, own)
    trainer.take_step(0)
    spent = []
    for step in range(_TIMED_STEPS):
        started = _now(device)
        trainer.take_step((step + 1) % trainer.batches)
        spent.append(_now(device) - started)
    return statistics.median(spent) / len(members)


def time_separate(models: Sequence[nn.Module], dataset: Dataset, configs: Sequence[TrainConfig]) -> float:
    """Time steps of the plain trainer on some of the members.

    Args:
        models: copies of the models.
        dataset: the data.
        configs: the settings.

    Returns:
        Seconds of a step.

    Raises:
        KeyboardInterrupt: if Ctrl-C is pressed meanwhile.
    """
    batch_size, samples = configs[0].batch_size, len(dataset.train_inputs)
    full = batch_size is None or batch_size >= samples
    steps = _TIMED_STEPS + 1
    rows = samples if batch_size is None or full else max(2, min(samples, steps * batch_size))
    part = dataclasses.replace(
        dataset,
        train_inputs=dataset.train_inputs[:rows],
        train_targets=dataset.train_targets[:rows],
        test_inputs=dataset.test_inputs[:0],
        test_targets=dataset.test_targets[:0],
    )
    epochs = -(-steps // max(1, rows // (batch_size or rows)))
    costs = []
    for member in range(0, len(models), -(-len(models) // _TIMED_MEMBERS)):
        config = dataclasses.replace(configs[member], epochs=epochs, stop_loss=0.0, stop_change=0.0)
        times: list[float] = []
        trainer = Trainer(models[member], part, config)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LearnmechWarning)
            result = trainer.fit(partial(_note, times))
        if result.stopped_because == "interrupted":
            raise KeyboardInterrupt
        costs.append(statistics.median(after - before for before, after in itertools.pairwise(times)))
    return statistics.mean(costs)


def _note(times: list[float], trainer: Trainer) -> None:
    times.append(_now(trainer.device))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
