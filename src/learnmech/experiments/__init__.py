"""Complete runs: a network, data, training and what is measured on the way."""

from typing import TYPE_CHECKING

from learnmech.lazy import lazy_names

if TYPE_CHECKING:
    from learnmech.experiments.doctor import Diagnosis, examine
    from learnmech.experiments.phase_sweep import PhaseDiagram, phase_diagram
    from learnmech.experiments.reproducing import Outcome, list_figures, reproduce
    from learnmech.experiments.settings import WatchSettings
    from learnmech.experiments.watched_training import WatchedRun, train_and_watch

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Diagnosis": "doctor",
        "Outcome": "reproducing",
        "PhaseDiagram": "phase_sweep",
        "WatchSettings": "settings",
        "WatchedRun": "watched_training",
        "examine": "doctor",
        "list_figures": "reproducing",
        "phase_diagram": "phase_sweep",
        "reproduce": "reproducing",
        "train_and_watch": "watched_training",
    },
)

__all__ = [
    "Diagnosis",
    "Outcome",
    "PhaseDiagram",
    "WatchSettings",
    "WatchedRun",
    "examine",
    "list_figures",
    "phase_diagram",
    "reproduce",
    "train_and_watch",
]
