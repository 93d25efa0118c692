"""Complete runs: a network, data, training and what is measured on the way."""

from typing import TYPE_CHECKING

from learnmech.lazy import lazy_names

if TYPE_CHECKING:
    from learnmech.experiments.doctor import Diagnosis, examine
    from learnmech.experiments.watched_training import WatchedRun, WatchSettings, train_and_watch

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Diagnosis": "doctor",
        "WatchSettings": "watched_training",
        "WatchedRun": "watched_training",
        "examine": "doctor",
        "train_and_watch": "watched_training",
    },
)

__all__ = ["Diagnosis", "WatchSettings", "WatchedRun", "examine", "train_and_watch"]
