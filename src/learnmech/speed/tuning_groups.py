"""Which parameters are tuned together: those of one layer, which get one learning rate."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from learnmech.monitor.layers import LayerChoice
from learnmech.monitor.paths import Paths
from learnmech.speed.tuning_steps import options_of, rate_like

REST = "rest"
"""Name of the group of parameters that act on no layer that is read."""


@dataclass(frozen=True)
class TunedGroup:
    """Parameters that share a learning rate.

    Attributes:
        name: the layer on which they act first, or ``rest``.
        parameters: their names.
    """

    name: str
    parameters: tuple[str, ...]


def find_groups(
    layers: LayerChoice,
    paths: Mapping[str, Paths] | None,
    owned: Mapping[str, Collection[str]],
    trained: Collection[str],
) -> list[TunedGroup]:
    """Give each layer the trained parameters that act on it but on no layer before it.

    Args:
        layers: the layers in order.
        paths: where they lie; None if unknown.
        owned: the parameters of each layer's modules, used where paths are unknown.
        trained: the parameters to be grouped, in the order of the model.

    Returns:
        Groups in order of the layers. Parameters that act on none of them come last, as ``rest``.
    """
    left = dict.fromkeys(trained)
    groups = []
    for name in layers.names:
        acting = paths[name].upstream if paths is not None else owned.get(name, ())
        mine = tuple(parameter for parameter in left if parameter in acting)
        for parameter in mine:
            del left[parameter]
        if mine:
            groups.append(TunedGroup(name, mine))
    if left:
        name = REST
        while name in layers.names:
            name = f"({name})"
        groups.append(TunedGroup(name, tuple(left)))
    return groups


def build_param_groups(
    tuned: TunedGroup, rate: float, own: Mapping[str, nn.Parameter], optimizer: Optimizer | None
) -> list[dict[str, Any]]:
    """Give the parameters of one layer as groups of an optimizer: several where they have different settings in it.

    Args:
        tuned: the group.
        rate: its learning rate.
        own: the model's parameters by name.
        optimizer: the optimizer that holds them, or None for one that is yet to be made.

    Returns:
        Groups with ``params``, ``lr`` and ``name``, and the settings that the optimizer's groups have.
    """
    if optimizer is None:
        return [{"params": [own[name] for name in tuned.parameters], "lr": rate, "name": tuned.name}]
    groups: list[dict[str, Any]] = []
    for before in optimizer.param_groups:
        held = {id(parameter): position for position, parameter in enumerate(before["params"])}
        names = [name for name in tuned.parameters if id(own[name]) in held]
        if not names:
            continue
        label = tuned.name if not groups else f"{tuned.name} ({len(groups) + 1})"
        options = {key: value for key, value in options_of(before).items() if key != "initial_lr"}
        group = {**options, "params": [own[name] for name in names], "lr": rate_like(before["lr"], rate), "name": label}
        if "param_names" in before:
            group["param_names"] = [before["param_names"][held[id(own[name])]] for name in names]
        groups.append(group)
    return groups
