"""Complete runs: a network, data, training and what is measured on the way."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from learnmech.experiments.doctor import Diagnosis, examine
    from learnmech.experiments.watched_training import WatchedRun, WatchSettings, train_and_watch

_OBJECTS = {
    "Diagnosis": "doctor",
    "WatchSettings": "watched_training",
    "WatchedRun": "watched_training",
    "examine": "doctor",
    "train_and_watch": "watched_training",
}

__all__ = ["Diagnosis", "WatchSettings", "WatchedRun", "examine", "train_and_watch"]


def __getattr__(name: str) -> Any:
    if name in _OBJECTS:
        return getattr(importlib.import_module(f"learnmech.experiments.{_OBJECTS[name]}"), name)
    raise AttributeError(f"module 'learnmech.experiments' has no attribute {name!r}")
