"""Complete runs: a network, data, training and what is measured on the way."""

from learnmech.experiments.watched_training import WatchedRun, WatchSettings, train_and_watch

__all__ = ["WatchSettings", "WatchedRun", "train_and_watch"]
