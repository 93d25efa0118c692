"""Which blocks make up a stack; noticing that one runs twice on the same data, or in another order than listed."""

import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from learnmech.errors import InputError

LONGEST_SEARCH = 20_000


def named_blocks(blocks: Iterable[nn.Module] | Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Name the blocks of a stack, and refuse what cannot be driven.

    Args:
        blocks: modules in order, or a mapping from names to them.

    Returns:
        Name to block; numbers from 0 where no names were given.

    Raises:
        InputError: if there are none, one is no module, is compiled, is listed twice, or is a part of another.
    """
    if isinstance(blocks, Mapping | nn.ModuleDict):
        named = {str(name): block for name, block in blocks.items()}
    elif isinstance(blocks, Iterable):
        named = {str(number): block for number, block in enumerate(blocks)}
    else:
        raise InputError(
            f"blocks must be a list of modules, a ModuleList, a Sequential or a mapping, but a {type(blocks).__name__} came; "
            "give the list of its residual blocks."
        )
    if not named:
        raise InputError("there are no blocks to drive; give at least one residual block.")
    seen: dict[int, str] = {}
    for name, block in named.items():
        if not isinstance(block, nn.Module):
            raise InputError(f"block {name} must be a torch.nn.Module, but is {type(block).__name__}.")
        if hasattr(block, "_orig_mod") or getattr(block, "_compiled_call_impl", None) is not None:
            raise InputError(f"block {name} is compiled; hooks on it would not fire reliably. Drive the eager block.")
        if id(block) in seen:
            raise InputError(
                f"blocks {seen[id(block)]} and {name} are the same module; a step size for each use of shared weights cannot be "
                "set. List each block once."
            )
        seen[id(block)] = name
    for name, block in named.items():
        inside = next((seen[id(part)] for part in block.modules() if part is not block and id(part) in seen), None)
        if inside is not None:
            raise InputError(f"block {inside} is a part of block {name}; list blocks that run one after the other.")
    return named


class BlockOrder:
    """Follow data from block to block: what enters block l may come from earlier blocks only.

    Outputs of blocks are marked in the graph of autograd, and a search from the input of a block ends at the nearest marks.
    Where there is no graph (re-entrant checkpoints), only a tensor that goes straight from block to block is recognised.

    Args:
        names: what messages call the blocks.
    """

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._key = f"learnmech step driver {id(self)}"
        self._outputs: dict[int, weakref.ref[Tensor]] = {}

    def enters(self, number: int, features: Tensor, *, search: bool) -> None:
        """Check what a block is called with.

        Args:
            number: the block, from 0.
            features: its input.
            search: whether to search the graph, or look at the tensor itself only.

        Raises:
            InputError: if the data has been through this block, or through a later one, already.
        """
        sources = [earlier for earlier, output in self._outputs.items() if output() is features]
        if search:
            sources.extend(self._marks(features))
        source = max(sources, default=-1)
        if source == number or (source > number and len(self._names) == 1):
            raise InputError(
                f"block {self._names[number]} runs several times in one forward pass (shared weights); a step size for each use "
                "cannot be set. Drive blocks that run once."
            )
        if source > number:
            raise InputError(
                f"data reaches block {self._names[number]} through block {self._names[source]}, which is listed after it: list "
                "blocks in the order in which they run, each once in a forward pass (weights that are shared between "
                "passes through the stack cannot be driven)."
            )

    def leaves(self, number: int, features: Tensor) -> None:
        """Remember what a block gave.

        Args:
            number: the block, from 0.
            features: its output.
        """
        self._outputs[number] = weakref.ref(features)
        if features.grad_fn is not None:
            metadata: Any = features.grad_fn.metadata  # a dictionary; torch's stubs say a method
            metadata[self._key] = number

    def _marks(self, features: Tensor) -> Iterator[int]:
        waiting, seen = [features.grad_fn], set[Any]()
        while waiting and len(seen) < LONGEST_SEARCH:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            metadata: Any = node.metadata
            if self._key in metadata:
                yield metadata[self._key]
            else:
                waiting.extend(before for before, _ in node.next_functions)
