"""What the watched run is set to, as far as the model and the optimizer say: for the configuration and for advice."""

from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer


def describe_model(model: nn.Module) -> dict[str, Any]:
    """Describe a model by the settings that the theories speak of.

    Args:
        model: the eager model.

    Returns:
        Class, number of parameters (all and trainable), dropout rates, slopes of leaky ReLUs, names of activations and
        normalisations.
    """
    dropout, slopes, activations, norms = set(), set(), set(), set()
    for module in model.modules():
        kind = type(module).__name__
        rate = getattr(module, "p", None)
        if "Dropout" in kind and isinstance(rate, float | int):
            dropout.add(float(rate))
        if isinstance(module, nn.LeakyReLU):
            slopes.add(float(module.negative_slope))
        if type(module).__module__.endswith("nn.modules.activation") and not isinstance(module, nn.MultiheadAttention):
            activations.add(kind)
        if "Norm" in kind:
            norms.add(kind)
    parameters = list(model.parameters())
    return {
        "class": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in parameters),
        "trainable": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        "dropout": sorted(dropout),
        "leaky_slopes": sorted(slopes),
        "activations": sorted(activations),
        "normalisations": sorted(norms),
    }


def describe_optimizer(optimizer: Optimizer | None) -> dict[str, Any]:
    """Describe an optimizer by its class and the settings of its parameter groups.

    Args:
        optimizer: the optimizer, or None.

    Returns:
        Class, and for each of learning rate, momentum, betas and weight decay the values in use.
    """
    if optimizer is None:
        return {}
    described: dict[str, Any] = {"class": type(optimizer).__name__}
    for setting in ("lr", "momentum", "betas", "weight_decay"):
        values = []
        for group in optimizer.param_groups:
            value = group.get(setting)
            value = value.item() if isinstance(value, Tensor) else value
            if value is not None and value not in values:
                values.append(value)
        if values:
            described[setting] = values[0] if len(values) == 1 else values
    return described


def describe_loss(loss: Any) -> str:
    """Name a loss.

    Args:
        loss: a function or module.

    Returns:
        Its name.
    """
    return str(getattr(loss, "__name__", type(loss).__name__))
