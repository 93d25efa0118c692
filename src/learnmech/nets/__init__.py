"""Reference networks: the multilayer perceptron and the convolutional net of the spring-block paper, residual nets, and starts."""

from typing import TYPE_CHECKING

from learnmech.lazy import lazy_names

if TYPE_CHECKING:
    from learnmech.nets.cnn import CNN
    from learnmech.nets.dropout import Dropout
    from learnmech.nets.initialisation import activation_gain, initialise
    from learnmech.nets.mlp import MLP
    from learnmech.nets.residual import ResidualBlock, ResidualMLP

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "CNN": "cnn",
        "Dropout": "dropout",
        "MLP": "mlp",
        "ResidualBlock": "residual",
        "ResidualMLP": "residual",
        "activation_gain": "initialisation",
        "initialise": "initialisation",
    },
)

__all__ = ["CNN", "MLP", "Dropout", "ResidualBlock", "ResidualMLP", "activation_gain", "initialise"]
