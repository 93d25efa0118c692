"""What a training run hands back."""

from dataclasses import dataclass
from typing import Literal

StopReason = Literal["epochs", "loss", "change", "interrupted", "diverged"]


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """The outcome of a training run, over all its sittings if it was resumed.

    Args:
        epochs: epochs that were completed.
        steps: optimizer steps that were taken.
        stopped_because: "epochs" (all were done), "loss" or "change" (the stop rule), "interrupted" (Ctrl-C; the run
            can go on), or "diverged" (an epoch's loss was not finite).
        epoch_losses: mean loss over the samples of each epoch, in training mode and with noise, as the steps saw it.
        train_accuracy: part of the clean training samples that are classified rightly at the end, in evaluation mode;
            nan if the data set has no classes.
        test_accuracy: the same of the test samples.
        test_loss: mean loss of the test samples, in evaluation mode.
        seconds: wall-clock time spent in training, without the final evaluation.
    """

    epochs: int
    steps: int
    stopped_because: StopReason
    epoch_losses: tuple[float, ...]
    train_accuracy: float
    test_accuracy: float
    test_loss: float
    seconds: float
