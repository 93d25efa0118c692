"""Reference networks: the multilayer perceptron and the convolutional net of the spring-block paper, and their starts."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from learnmech.nets.cnn import CNN
    from learnmech.nets.dropout import Dropout
    from learnmech.nets.initialisation import activation_gain, initialise
    from learnmech.nets.mlp import MLP

_OBJECTS = {
    "CNN": "learnmech.nets.cnn",
    "Dropout": "learnmech.nets.dropout",
    "MLP": "learnmech.nets.mlp",
    "activation_gain": "learnmech.nets.initialisation",
    "initialise": "learnmech.nets.initialisation",
}

__all__ = ["CNN", "MLP", "Dropout", "activation_gain", "initialise"]


def __getattr__(name: str) -> Any:
    if name in _OBJECTS:
        return getattr(importlib.import_module(_OBJECTS[name]), name)
    raise AttributeError(f"module 'learnmech.nets' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
