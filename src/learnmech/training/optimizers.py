"""The optimizer that a configuration names, in torch's fastest form for where the parameters are."""

from collections.abc import Iterable

import torch
from torch import nn

from learnmech.errors import InputError
from learnmech.training.config import TrainConfig

_FUSED_DEVICES = {"cpu", "cuda"}
_FUSED_TYPES = {torch.float32, torch.float64}


def build_optimizer(config: TrainConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Build the optimizer of a configuration; betas and epsilon are torch's defaults.

    Args:
        config: names the optimizer, its learning rate, momentum and weight decay.
        parameters: the parameters; those that need no gradient are left out.

    Returns:
        A torch optimizer.

    Raises:
        InputError: if no parameter needs a gradient.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        raise InputError("the model has no parameter that needs a gradient, so there is nothing to train.")
    fused = all(p.device.type in _FUSED_DEVICES and p.dtype in _FUSED_TYPES for p in trained)
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            trained, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=fused
        )
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(trained, lr=config.lr, weight_decay=config.weight_decay, fused=fused)
