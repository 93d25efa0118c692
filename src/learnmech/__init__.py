"""learnmech: measure, simulate, predict and steer feature learning in PyTorch, layer by layer.

Names are imported when they are first used, so that ``import learnmech`` costs next to nothing beside ``import torch``.
"""

from typing import TYPE_CHECKING

from learnmech.lazy import lazy_names

__version__ = "0.1.0"

if TYPE_CHECKING:
    from learnmech import (
        data,
        dynamics,
        experiments,
        history,
        leaky,
        monitor,
        nets,
        report,
        speed,
        springs,
        sweep,
        training,
    )
    from learnmech.citation import cite
    from learnmech.monitor.monitor import Monitor, watch
    from learnmech.sweep.sweep import Sweep

__getattr__, _ = lazy_names(
    __name__,
    {"Monitor": "monitor.monitor", "Sweep": "sweep.sweep", "cite": "citation", "watch": "monitor.monitor"},
    modules=(
        "data",
        "dynamics",
        "experiments",
        "history",
        "leaky",
        "monitor",
        "nets",
        "report",
        "speed",
        "springs",
        "sweep",
        "training",
    ),
)

__all__ = [
    "Monitor",
    "Sweep",
    "__version__",
    "cite",
    "data",
    "dynamics",
    "experiments",
    "history",
    "leaky",
    "monitor",
    "nets",
    "report",
    "speed",
    "springs",
    "sweep",
    "training",
    "watch",
]


def __dir__() -> list[str]:
    return sorted(__all__)
