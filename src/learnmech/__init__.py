"""learnmech: measure, simulate, predict and steer feature learning in PyTorch, layer by layer.

Names are imported when they are first used, so that ``import learnmech`` costs next to nothing beside ``import torch``.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from learnmech import data, experiments, history, monitor, nets, report, springs, training
    from learnmech.citation import cite
    from learnmech.monitor.monitor import Monitor, watch

_SUBMODULES = ("data", "experiments", "history", "monitor", "nets", "report", "springs", "training")
_OBJECTS = {
    "Monitor": "learnmech.monitor.monitor",
    "cite": "learnmech.citation",
    "watch": "learnmech.monitor.monitor",
}

__all__ = [
    "Monitor",
    "__version__",
    "cite",
    "data",
    "experiments",
    "history",
    "monitor",
    "nets",
    "report",
    "springs",
    "training",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"learnmech.{name}")
    if name in _OBJECTS:
        return getattr(importlib.import_module(_OBJECTS[name]), name)
    raise AttributeError(f"module 'learnmech' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
