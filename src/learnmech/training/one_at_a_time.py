"""Members trained by the plain trainer, one after the other."""

import signal
import warnings
from collections.abc import Callable, Sequence
from types import FrameType

import torch
from torch import nn

from learnmech.data.dataset import Dataset
from learnmech.errors import LearnmechWarning
from learnmech.training.config import TrainConfig
from learnmech.training.interrupt import InterruptFlag
from learnmech.training.result import StopReason, TrainResult
from learnmech.training.trainer import Callback, Trainer


class _MemberTrainer(Trainer):
    # Lets the outer flag see whether the trainer at work has already been asked to stop.
    interrupt: InterruptFlag | None = None

    def _train(self, on_step: Callback | None, on_epoch: Callback | None, interrupt: InterruptFlag) -> StopReason:
        self.interrupt = interrupt
        try:
            return super()._train(on_step, on_epoch, interrupt)
        finally:
            self.interrupt = None


class _OuterFlag(InterruptFlag):
    # Takes the Ctrl-C that comes between two members; the second one during a member raises at once.
    def __init__(self) -> None:
        super().__init__()
        self.trainer: _MemberTrainer | None = None

    def _remember(self, number: int, frame: FrameType | None) -> None:
        inner = None if self.trainer is None else self.trainer.interrupt
        super()._remember(number, frame)
        if inner is not None and inner.requested:
            signal.raise_signal(signal.SIGINT)


def train_one_at_a_time(
    models: Sequence[nn.Module],
    dataset: Dataset,
    configs: Sequence[TrainConfig],
    *,
    device: torch.device | str | None = None,
    on_epoch: Callable[[int], object] | None = None,
) -> list[TrainResult]:
    """Train each member with the plain :class:`~learnmech.training.Trainer`.

    After a Ctrl-C the member at work ends with its step, and those after it take none; all are "interrupted".

    Args:
        models: the models.
        dataset: the data.
        configs: the settings, one a member.
        device: where to train; None for where the models are.
        on_epoch: called after each epoch of each member with the number 1.

    Returns:
        The result of each member. A member that diverges is said so in its result, without a warning.
    """

    def count(_: Trainer) -> None:
        if on_epoch is not None:
            on_epoch(1)

    results = []
    outer = _OuterFlag()
    with outer:
        for model, config in zip(models, configs, strict=True):
            trainer = _MemberTrainer(model, dataset, config, device=device)
            outer.trainer = trainer
            if outer.requested and config.epochs > 0:
                results.append(trainer._result("interrupted"))
                continue
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "training diverged", LearnmechWarning)
                result = trainer.fit(on_epoch=count)
            outer.requested |= result.stopped_because == "interrupted"
            results.append(result)
    if outer.requested and all(result.stopped_because != "interrupted" for result in results):
        outer.deliver()  # it came after the last step, so it was meant for the caller
    return results
