"""Hooks that hand the tensor of each layer on while the model runs."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from learnmech.monitor.layers import Layer
from learnmech.monitor.tensors import first_floating

Take = Callable[[Layer, Tensor], None]


class LayerReader:
    """Calls ``take(layer, tensor)`` for each layer as a forward pass reaches it, whatever passes the tensor belongs to.

    Args:
        layers: what to read.
        modules: the model's modules by name.
        take: who gets the tensors: as the model made them, with their graph or tangent.
        take_input: who gets what goes into a layer before it runs, if that is one module, read at its output.
    """

    def __init__(
        self, layers: Sequence[Layer], modules: Mapping[str, nn.Module], take: Take, take_input: Take | None = None
    ) -> None:
        self._layers, self._modules, self._take, self._take_input = layers, modules, take, take_input
        self._calls: Counter[nn.Module] = Counter()

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Keep the hooks in place for the length of the block."""
        by_module: dict[nn.Module, list[Layer]] = {}
        for layer in self._layers:
            by_module.setdefault(self._modules[layer.module], []).append(layer)
        with contextlib.ExitStack() as stack:
            for module, layers in by_module.items():
                enter, leave = self._hooks(module, layers)
                stack.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(leave).remove)
            yield

    def restart(self) -> None:
        """Count the calls of each module anew: the next pass, or the recomputation of checkpointed parts, begins."""
        self._calls.clear()

    def _hooks(self, module: nn.Module, layers: list[Layer]) -> tuple[Callable[..., None], Callable[..., None]]:
        def hand_on(take: Take, wanted: Sequence[Layer], call: int, value: Any) -> None:
            for layer in wanted:
                if layer.call == call:
                    found = first_floating(value)
                    if found is not None:
                        take(layer, found[1])

        before = [layer for layer in layers if layer.side == "input"]
        behind = [layer for layer in layers if layer.side == "output"]
        single = [layer for layer in behind if layer.is_module]

        def enter(_: nn.Module, args: Any, kwargs: Any) -> None:
            call = self._calls[module]
            self._calls[module] += 1
            hand_on(self._take, before, call, (args, kwargs))
            if self._take_input is not None:
                hand_on(self._take_input, single, call, (args, kwargs))

        def leave(_: nn.Module, args: Any, output: Any) -> None:
            hand_on(self._take, behind, self._calls[module] - 1, output)

        return enter, leave
