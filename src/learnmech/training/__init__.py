"""Training small nets exactly: a plain loop, seeds kept apart by purpose, and checkpoints that resume bit for bit."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from learnmech.training.config import TrainConfig
    from learnmech.training.losses import make_loss
    from learnmech.training.result import TrainResult
    from learnmech.training.seeds import build_seeded, derive_seed
    from learnmech.training.trainer import Trainer

_OBJECTS = {
    "TrainConfig": "learnmech.training.config",
    "TrainResult": "learnmech.training.result",
    "Trainer": "learnmech.training.trainer",
    "build_seeded": "learnmech.training.seeds",
    "derive_seed": "learnmech.training.seeds",
    "make_loss": "learnmech.training.losses",
}

__all__ = ["TrainConfig", "TrainResult", "Trainer", "build_seeded", "derive_seed", "make_loss"]


def __getattr__(name: str) -> Any:
    if name in _OBJECTS:
        return getattr(importlib.import_module(_OBJECTS[name]), name)
    raise AttributeError(f"module 'learnmech.training' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
