"""How far a run has come, and the rule that ends it."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from learnmech.training.config import TrainConfig
from learnmech.training.result import StopReason


class Progress:
    """The counters of a run; together with weights, optimizer and random states they are all it needs to go on.

    Args:
        order_state: state of the generator of permutations at the start of the current epoch.
        loss_sum: a float64 scalar that adds up the losses of the epoch where they are computed, without waiting for them.
    """

    def __init__(self, order_state: Tensor, loss_sum: Tensor) -> None:
        self.order_state = order_state
        self.loss_sum = loss_sum
        self.epoch_losses: list[float] = []
        self.step = 0
        self.position = 0
        self.stopped: StopReason | None = None
        self._seconds = 0.0
        self._started: float | None = None

    def add(self, loss: Tensor, samples: int) -> None:
        """Count a step.

        Args:
            loss: its mean loss.
            samples: the samples of its batch.
        """
        self.loss_sum.add_(loss, alpha=samples)
        self.step += 1
        self.position += 1

    def finish_epoch(self, order_state: Tensor, samples: int, config: TrainConfig) -> None:
        """Close an epoch and apply the stop rule: loss below ``stop_loss``, or changed by less than ``stop_change``.

        Args:
            order_state: state of the generator of permutations now.
            samples: the samples of an epoch.
            config: the settings.
        """
        loss = self.loss_sum.item() / samples
        before = self.epoch_losses[-1] if self.epoch_losses else math.inf
        self.epoch_losses.append(loss)
        self.loss_sum.zero_()
        self.position = 0
        self.order_state = order_state
        if not math.isfinite(loss):
            self.stopped = "diverged"
        elif loss < config.stop_loss:
            self.stopped = "loss"
        elif abs(loss - before) < config.stop_change:
            self.stopped = "change"

    @property
    def seconds(self) -> float:
        """Wall-clock time under :meth:`clock`, over all sittings."""
        return self._seconds + (0.0 if self._started is None else time.monotonic() - self._started)

    @contextmanager
    def clock(self) -> Iterator[None]:
        """Count the time spent inside.

        Yields:
            Nothing.
        """
        self._started = time.monotonic()
        try:
            yield
        finally:
            self._seconds, self._started = self.seconds, None

    def state_dict(self) -> dict[str, Any]:
        """Return everything as plain values and tensors.

        Returns:
            The state.
        """
        return {
            "order_state": self.order_state,
            "loss_sum": self.loss_sum,
            "epoch_losses": list(self.epoch_losses),
            "step": self.step,
            "position": self.position,
            "stopped": self.stopped,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state.

        Args:
            state: what :meth:`state_dict` returned.
        """
        self.order_state = state["order_state"]
        self.loss_sum.copy_(state["loss_sum"])
        self.epoch_losses = list(state["epoch_losses"])
        self.step = state["step"]
        self.position = state["position"]
        self.stopped = state["stopped"]
        self._seconds = state["seconds"]
