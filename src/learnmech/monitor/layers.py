"""What is read of a network: layers in order of depth, and the modules that are not read, with the reason."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from learnmech.monitor.unwrap import eager_modules

LayerSpec = str | Sequence[str] | Callable[[str, nn.Module], bool]
Role = Literal["input", "block", "readout"]


@dataclass(frozen=True)
class Layer:
    """One point of the network where features are read.

    Attributes:
        name: what tables and histories call it; unique.
        module: name of the module that is read; empty for the model itself.
        call: which call of that module in one forward pass, from 0.
        side: whether its output or its input is read.
        role: ``input`` (what the first block gets), ``block``, or ``readout`` (gives the model's output).
        members: names of the modules counted to this layer: their parameters are the layer's parameters.
        kinds: classes of those modules, for people.
    """

    name: str
    module: str
    call: int = 0
    side: Literal["output", "input"] = "output"
    role: Role = "block"
    members: tuple[str, ...] = ()
    kinds: str = ""

    @property
    def is_module(self) -> bool:
        """Whether it is one module read at its output, so that what goes into it and what comes out belong together."""
        return self.side == "output" and self.members == (self.module,)


@dataclass(frozen=True)
class Skipped:
    """A module that is not read, and why.

    Attributes:
        name: the module's name.
        kind: its class.
        reason: why it is not read on its own.
    """

    name: str
    kind: str
    reason: str


@dataclass(frozen=True)
class LayerChoice:
    """The layers that are read, in order of depth, and the modules that are not.

    Attributes:
        layers: at least one.
        skipped: every other module of the model.
        checkpointed: whether parts of the model run under re-entrant activation checkpoints.
    """

    layers: tuple[Layer, ...]
    skipped: tuple[Skipped, ...]
    checkpointed: bool = False

    @property
    def names(self) -> list[str]:
        """Names of the layers in order."""
        return [layer.name for layer in self.layers]

    @property
    def depths(self) -> list[float]:
        """Position of each layer from 0 (first) to 1 (last)."""
        last = max(len(self.layers) - 1, 1)
        return [position / last for position in range(len(self.layers))]

    def parameters(self, model: nn.Module) -> dict[str, list[str]]:
        """Assign parameters to layers.

        Args:
            model: the eager model.

        Returns:
            Layer name to parameter names. A parameter shared by several layers (tied, reused) is listed at each of them.
        """
        shared = {
            id(parameter): name for name, parameter in model.named_parameters()
        }  # the first name of each tensor, as named_parameters gives it
        modules = eager_modules(model)
        return {
            layer.name: list(
                dict.fromkeys(
                    shared[id(parameter)] for member in layer.members for parameter in modules[member].parameters()
                )
            )
            for layer in self.layers
        }

    def __str__(self) -> str:
        rows = [("layer", "role", "read at", "holds")]
        for layer in self.layers:
            at = f"{layer.side} of {layer.module or 'the model'}" + (f", call {layer.call + 1}" if layer.call else "")
            rows.append((layer.name, layer.role, at, layer.kinds))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        if self.skipped:
            lines += ["", "not read on their own:"]
            lines += [f"  {skipped.name} ({skipped.kind}): {skipped.reason}" for skipped in self.skipped]
        return "\n".join(lines)


def device_of(model: nn.Module) -> torch.device:
    """Find where a model lives.

    Args:
        model: any module.

    Returns:
        The device of its first parameter or buffer; the CPU if it has none.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")
