"""Many networks of one shape trained in one call, as one computation where that is faster."""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import nn

from learnmech.data.dataset import Dataset
from learnmech.errors import InputError, LearnmechWarning
from learnmech.training.batches import steps_in_epoch
from learnmech.training.config import TrainConfig
from learnmech.training.interrupt import InterruptFlag
from learnmech.training.one_at_a_time import train_one_at_a_time
from learnmech.training.result import TrainResult
from learnmech.training.seeds import make_generator
from learnmech.training.stacked_checks import require_members
from learnmech.training.stacked_trainer import StackedTrainer
from learnmech.training.stacking import StackForm, find_form
from learnmech.training.stacking_choice import divide, few_inputs, measure_stacking
from learnmech.training.threads import thread_count

_WORTH_MEASURING = 10  # steps; a shorter run is over before the measurement would be


def train_members(
    models: Sequence[nn.Module],
    dataset: Dataset,
    configs: Sequence[TrainConfig],
    *,
    stack: bool | None = None,
    device: torch.device | str | None = None,
    on_epoch: Callable[[int], object] | None = None,
    threads: int | None = 1,
    stack_size: int | None = None,
) -> list[TrainResult]:
    """Train several networks of one shape, each with the result that the plain trainer would give it alone.

    Members may differ in seed, rates, weight decay, noise, stop rule, initial weights, dropout and slope. They draw the
    random numbers that :class:`~learnmech.training.Trainer` would draw for each of them (on a CPU; on another device
    dropout agrees in distribution only), and the caller's random state is neither used nor changed. A stack computes
    batched products in place of single ones, so results agree up to rounding; how far is on the page "Training many
    networks at once".

    A first Ctrl-C ends all members that are still running after the current step, "interrupted"; a second one raises at
    once. There are no checkpoints.

    Args:
        models: the models, with the weights to start from (see :func:`learnmech.training.build_seeded`); afterwards they
            hold the trained weights and statistics.
        dataset: the data.
        configs: the settings, one a member; they must agree in ``batch_size``, ``optimizer``, ``loss`` and ``epochs``.
        stack: whether to train them as a stack; None for what :func:`learnmech.training.measure_stacking` finds cheaper,
            and one at a time for runs of fewer than 10 steps.
        device: where to train; None for where the models are.
        on_epoch: called with the number of epochs that all members together have completed so far; it ends at
            ``epochs`` times the number of members, or earlier if a stop rule holds.
        threads: torch's number of threads during the call; None leaves it. Small nets are fastest with one, and several
            processes with several threads each slow each other down many times.
        stack_size: members in one stack at most, the stacks being trained one after the other; None for all, but on a
            CPU, where larger stacks do not go faster, for 32, or fewer (though 2) if their batches together have more
            than 8192 samples.

    Returns:
        The result of each member. ``seconds`` is the time from the start of its stack until it left it, which it shares
        with the others.

    Raises:
        InputError: if something does not fit together, or ``stack=True`` and the models cannot be stacked.

    Example:
        >>> from learnmech.nets import MLP
        >>> from learnmech.training import build_seeded
        >>> inputs, labels = torch.eye(4), torch.tensor([0, 1, 0, 1])
        >>> data = Dataset("unit vectors", inputs, labels, inputs, labels, classes=2, source="made up")
        >>> models = [build_seeded(lambda: MLP(4, 2, width=8, depth=2), seed) for seed in range(3)]
        >>> configs = [TrainConfig(epochs=20, lr=0.01, seed=seed) for seed in range(3)]
        >>> [result.train_accuracy for result in train_members(models, data, configs, stack=True)]
        [1.0, 1.0, 1.0]
    """
    require_members(models, dataset, configs)
    if stack_size is not None and (isinstance(stack_size, bool) or not isinstance(stack_size, int) or stack_size < 1):
        raise InputError(f"stack_size must be a positive integer, or None, got {stack_size!r}.")
    count = _Counter(on_epoch)
    if stack is None:
        steps = configs[0].epochs * steps_in_epoch(len(dataset.train_inputs), configs[0].batch_size)
        stack = (
            steps >= _WORTH_MEASURING
            and measure_stacking(models, dataset, configs, device=device, threads=threads, stack_size=stack_size).stack
        )
    with thread_count(threads):
        if stack:
            results = _train_stacks(models, dataset, configs, device=device, on_epoch=count, stack_size=stack_size)
        else:
            results = train_one_at_a_time(models, dataset, configs, device=device, on_epoch=count)
    diverged = [position for position, result in enumerate(results) if result.stopped_because == "diverged"]
    if diverged:
        warnings.warn(
            f"training diverged in {len(diverged)} of {len(results)} members (positions {diverged}): the loss of their "
            "last epoch is not finite. Try a smaller lr for them.",
            LearnmechWarning,
            stacklevel=2,
        )
    return results


class _Counter:
    # Adds up what the ways of training report.
    def __init__(self, on_epoch: Callable[[int], object] | None) -> None:
        self._on_epoch = on_epoch
        self._done = 0

    def __call__(self, more: int) -> None:
        self._done += more
        if self._on_epoch is not None:
            self._on_epoch(self._done)


def _train_stacks(
    models: Sequence[nn.Module],
    dataset: Dataset,
    configs: Sequence[TrainConfig],
    *,
    device: torch.device | str | None,
    on_epoch: Callable[[int], object],
    stack_size: int | None,
) -> list[TrainResult]:
    form = _require_form(models, dataset)
    if device is not None:
        models = [model.to(device) for model in models]
    place = next(models[0].parameters()).device
    batch = min(configs[0].batch_size or len(dataset.train_inputs), len(dataset.train_inputs))
    results: dict[int, TrainResult] = {}
    with InterruptFlag() as interrupt:
        for members in divide(form.order, stack_size, place, batch):
            own = [configs[member] for member in members]
            net = form.build(members, [make_generator(config.seed, "training", place) for config in own])
            trainer = StackedTrainer(net, [models[member] for member in members], dataset, own)
            results.update(zip(members, trainer.fit(interrupt, on_epoch), strict=True))
    if interrupt.requested and all(result.stopped_because != "interrupted" for result in results.values()):
        interrupt.deliver()  # it came after the last step, so it was meant for the caller
    return [results[member] for member in range(len(models))]


def _require_form(models: Sequence[nn.Module], dataset: Dataset) -> StackForm:
    form = find_form(models, few_inputs(models, dataset))
    if isinstance(form, str):
        raise InputError(
            f"stack=True, but the models cannot be stacked: {form}. Leave stack at None, or set it to False."
        )
    return form
