"""The loop that trains a stack of members, each of which leaves it when its own stop rule says so."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from learnmech.data.dataset import Dataset
from learnmech.nets.stacked_state import StackedState
from learnmech.training.batches import batch_bounds
from learnmech.training.config import TrainConfig
from learnmech.training.evaluation import evaluate
from learnmech.training.interrupt import InterruptFlag
from learnmech.training.losses import make_loss
from learnmech.training.progress import Progress
from learnmech.training.result import StopReason, TrainResult
from learnmech.training.stacked_batches import StackedBatches
from learnmech.training.stacked_losses import stacked_loss
from learnmech.training.stacked_optimizers import StackedOptimizer

Callback = Callable[[int], object]


class StackedNet(Protocol):
    """Several models of one shape as one net in training mode."""

    state: StackedState

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the outputs of all members.

        Args:
            inputs: a batch for each member, or one (stack 1) for all.
        """
        ...

    def backward(self, gradient: Tensor) -> None:
        """Fill in ``state.gradients``.

        Args:
            gradient: the gradient on the outputs.
        """
        ...

    def keep(self, positions: Sequence[int]) -> None:
        """Drop all members but some.

        Args:
            positions: which to keep, in increasing order.
        """
        ...


@dataclass
class _Member:
    model: nn.Module
    config: TrainConfig
    progress: Progress
    reason: StopReason | None = None
    seconds: float = 0.0


class StackedTrainer:
    """Train the members of a stack; each ends as the plain trainer would leave it.

    Args:
        net: the stacked net, whose members are the models in the same order.
        models: the models; they get the trained weights when a member leaves the stack.
        dataset: the data.
        configs: the settings, one a member.
    """

    def __init__(
        self, net: StackedNet, models: Sequence[nn.Module], dataset: Dataset, configs: Sequence[TrainConfig]
    ) -> None:
        self._net, self._dataset, self._config = net, dataset, configs[0]
        values = net.state.values
        self._inputs = dataset.train_inputs.to(values.device, values.dtype)
        self._targets = self._place(dataset.train_targets)
        normalised = any(isinstance(module, _BatchNorm) for module in models[0].modules())
        self._bounds = batch_bounds(len(self._inputs), self._config.batch_size, allow_single=not normalised)
        self._batches = StackedBatches(
            self._inputs, self._targets, classes=dataset.classes, bounds=self._bounds, configs=configs
        )
        self._optimizer = StackedOptimizer(configs, values, net.state.gradients)
        self._sums = torch.zeros(len(models), dtype=torch.float64, device=values.device)
        self._members = [
            _Member(model, config, Progress(torch.empty(0), torch.zeros((), dtype=torch.float64)))
            for model, config in zip(models, configs, strict=True)
        ]
        self._running = list(self._members)

    @property
    def batches(self) -> int:
        """Steps of an epoch."""
        return len(self._batches)

    def fit(self, interrupt: InterruptFlag, on_epoch: Callback | None = None) -> list[TrainResult]:
        """Train until every member is done, or Ctrl-C is pressed.

        Args:
            interrupt: says when to end after the current step; if it says so from the start, no step is taken.
            on_epoch: called after each epoch with the number of members that have completed one.

        Returns:
            The result of each member.
        """
        started = time.monotonic()
        try:
            if self._config.epochs == 0:
                self._leave(range(len(self._running)), started)
            while self._running and not interrupt.requested:
                if not self._take_epoch(interrupt):
                    break
                count = self._finish_epoch(started)
                if on_epoch is not None:
                    on_epoch(count)
        finally:  # also if on_epoch, or a second Ctrl-C, raises
            for member in self._running:
                member.reason = "interrupted"
            self._leave(range(len(self._running)), started)
        return [self._result(member) for member in self._members]

    def _take_epoch(self, interrupt: InterruptFlag) -> bool:
        # Whether the epoch is complete.
        for position in range(len(self._batches)):
            self.take_step(position)
            if interrupt.requested and position + 1 < len(self._batches):
                return False
        return True

    def take_step(self, position: int) -> None:
        """Take one step of every member that is still running.

        Args:
            position: the number of the batch in the epoch.
        """
        start, stop = self._bounds[position]
        if position == 0:
            self._batches.start_epoch()
        inputs, targets = self._batches.get(position)
        with torch.no_grad():
            outputs = self._net.forward(inputs)
            losses, gradient = stacked_loss(self._config.loss, outputs, targets, self._dataset.classes)
            self._net.backward(gradient)
            self._optimizer.step()
            self._sums.add_(losses, alpha=stop - start)
        for member in self._running:
            member.progress.step += 1

    def _finish_epoch(self, started: float) -> int:
        for member, total in zip(self._running, self._sums.tolist(), strict=True):
            progress = member.progress
            progress.loss_sum.fill_(total)
            progress.finish_epoch(progress.order_state, len(self._inputs), member.config)
            done = len(progress.epoch_losses) == member.config.epochs
            member.reason = progress.stopped or ("epochs" if done else None)
        self._sums.zero_()
        count = len(self._running)
        self._leave([number for number, member in enumerate(self._running) if member.reason is not None], started)
        return count

    def _leave(self, positions: Sequence[int], started: float) -> None:
        # Members that are done take their weights with them; the others move together.
        if not positions:
            return
        for position in positions:
            member = self._running[position]
            member.reason = member.reason or "epochs"
            member.seconds = time.monotonic() - started
            self._net.state.copy_to(position, member.model)
        leaving = set(positions)
        kept = [number for number in range(len(self._running)) if number not in leaving]
        self._running = [self._running[number] for number in kept]
        if kept:
            index = torch.tensor(kept, device=self._sums.device)
            self._net.keep(kept)
            self._batches.keep(kept)
            state, configs = self._net.state, [member.config for member in self._running]
            self._optimizer.keep(index, configs, state.values, state.gradients)
            self._sums = self._sums[index]

    def _place(self, values: Tensor) -> Tensor:
        like = self._net.state.values
        return values.to(like.device, like.dtype if values.is_floating_point() else None)

    def _result(self, member: _Member) -> TrainResult:
        loss, classes = make_loss(member.config.loss, self._dataset.classes), self._dataset.classes
        _, train_accuracy = evaluate(member.model, loss, self._inputs, self._targets, classes=classes)
        test_inputs, test_targets = self._place(self._dataset.test_inputs), self._place(self._dataset.test_targets)
        test_loss, test_accuracy = evaluate(member.model, loss, test_inputs, test_targets, classes=classes)
        assert member.reason is not None
        return TrainResult(
            epochs=len(member.progress.epoch_losses),
            steps=member.progress.step,
            stopped_because=member.reason,
            epoch_losses=tuple(member.progress.epoch_losses),
            train_accuracy=train_accuracy,
            test_accuracy=test_accuracy,
            test_loss=test_loss,
            seconds=member.seconds,
        )
