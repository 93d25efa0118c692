"""The read-out of a network, whose size is the one knob that learning rates cannot replace."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from learnmech.errors import InputError
from learnmech.monitor.layers import LayerChoice
from learnmech.monitor.unwrap import eager_modules
from learnmech.speed.weight_roles import is_norm

_FROZEN = "Take readout='frozen' to tune the learning rates alone."


@dataclass(frozen=True)
class Readout:
    """The linear layer that gives a model's output.

    Attributes:
        name: the module's name.
        parameters: its parameters by their name in the model: the weight, and the bias if there is one.
    """

    name: str
    parameters: dict[str, nn.Parameter]

    def rescale(self, start: Mapping[str, Tensor], factor: float) -> None:
        """Set the parameters to a multiple of what they were.

        Args:
            start: what they were, by name.
            factor: the multiple.
        """
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(start[name] * factor)


def find_readout(model: nn.Module, layers: LayerChoice) -> Readout:
    """Find the linear layer whose size sets the size of the output.

    Args:
        model: the eager model.
        layers: its layers.

    Returns:
        The read-out.

    Raises:
        InputError: if the output is not that of one linear layer, its size is undone by a normalisation, or its parameters are
            used elsewhere too.
    """
    last = layers.layers[-1]
    if last.role != "readout":
        raise InputError(
            f"the read-out of {type(model).__name__} cannot be scaled: its output is not that of one linear layer that is "
            f"read (the last layer read is {last.name}, {last.kinds}). {_FROZEN}"
        )
    modules = eager_modules(model)
    owners = [member for member in last.members if any(p.ndim >= 2 for p in modules[member].parameters(recurse=False))]
    if len(owners) != 1 or not isinstance(modules[owners[0]], nn.Linear | _ConvNd):
        raise InputError(
            f"the read-out of {type(model).__name__} cannot be scaled: {last.name} ({last.kinds}) is not one Linear or Conv "
            f"layer. {_FROZEN}"
        )
    norms = [member for member in last.members if is_norm(modules[member])]
    if norms:
        raise InputError(f"{norms[0]} normalises the output, so that the size of the read-out has no effect. {_FROZEN}")
    module = modules[owners[0]]
    own = {id(parameter) for parameter in module.parameters(recurse=False)}
    uses = [name for name, p in model.named_parameters(remove_duplicate=False) if id(p) in own]
    calls = sum(owners[0] in layer.members for layer in layers.layers)
    if len(uses) > len(own) or calls > 1:
        shared = f"called {calls} times" if calls > 1 else f"shared ({', '.join(uses)})"
        raise InputError(f"the read-out {owners[0]} is {shared}: scaling it would change other layers too. {_FROZEN}")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return Readout(owners[0], {names[id(p)]: p for p in module.parameters(recurse=False)})
