"""Residual blocks of a network: where they are, and which of their layers end a branch."""

import contextlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from learnmech.errors import InputError
from learnmech.monitor.layers import LayerChoice
from learnmech.monitor.probe import arguments_of
from learnmech.monitor.tensors import first_floating
from learnmech.monitor.untouched import untouched
from learnmech.speed.weight_roles import Assignment, is_norm

_SMALL = 1e-3


@dataclass(frozen=True)
class ResidualBlock:
    """A block that passes its input on and adds branches to it.

    Attributes:
        name: the module's name.
        module: the module.
        has_factor: whether it has an attribute ``branch`` that multiplies what it adds.
        units: names of the weight modules inside.
        ends: those whose output is added to the stream; empty if the factor is an attribute.
    """

    name: str
    module: nn.Module
    has_factor: bool
    units: tuple[str, ...]
    ends: tuple[str, ...] = ()


def find_residual_blocks(
    model: nn.Module, inputs: Any, device: torch.device, choice: LayerChoice, found: Assignment
) -> list[ResidualBlock]:
    """Find the residual blocks by trying: a block is residual if it is the identity once its weights are zero.

    Which layers end a branch is found by putting the layers of a block back one by one, in the order in which they are
    called: one that ends a branch breaks the identity and stays zero. The model is not changed.

    Args:
        model: the eager model.
        inputs: a batch.
        device: where the model lives.
        choice: its layers, chosen automatically.
        found: the roles of its parameters.

    Returns:
        The blocks in order; empty for a plain net.

    Raises:
        InputError: if skip connections are there that are not those of blocks, if a block is residual only in part, or if
            the size of a branch cannot be set by its last weights.
    """
    candidates = _candidates(model, choice, found)
    with untouched(model, device), torch.no_grad():
        trial = _Trial(model, inputs, found)
        zero = {unit.name for unit in found.hidden}
        identical = trial.identities(candidates, zero)
        if zero and trial.stream_varies and not any(identical.values()):
            raise InputError(
                "the read-out sees the input although all hidden weights are zero: there are skip connections outside of "
                "blocks that could be recognised, or every block normalises the stream itself (post-norm), which these "
                "scalings do not cover. Put every residual step into a module of its own, and these into a ModuleList."
            )
        for name, same in identical.items():
            if not same and trial.keeps_shape[name] and any(identical.values()) and candidates[name].units:
                raise InputError(
                    f"block {name} is not the identity when its weights are zero, though others are: it may normalise the "
                    "stream itself (post-norm), which these scalings do not cover."
                )
        blocks = {name: candidates[name] for name, same in identical.items() if same and candidates[name].units}
        return _with_ends(trial, blocks)


def _candidates(model: nn.Module, choice: LayerChoice, found: Assignment) -> dict[str, ResidualBlock]:
    modules = dict(model.named_modules())
    names = [layer.module for layer in choice.layers if layer.role == "block" and layer.members == (layer.module,)]
    names += [name for name, module in modules.items() if has_factor(module) and name not in names]
    blocks = {}
    for name in names:
        module = modules[name]
        inside = tuple(unit.name for unit in found.hidden if unit.name.startswith(f"{name}."))
        skip = getattr(module, "skip", 1.0) if has_factor(module) else 1.0
        if skip == 0:
            continue  # a block of a plain net
        if skip != 1:
            raise InputError(
                f"block {name} multiplies what it passes on by skip = {skip}; set it to 1, or to 0 for a plain net."
            )
        if next(module.children(), None) is not None:
            blocks[name] = ResidualBlock(name, module, has_factor(module), inside)
    return blocks


def has_factor(module: nn.Module) -> bool:
    """Tell whether a module has a branch factor: a plain number as attribute ``branch``.

    Args:
        module: any module.

    Returns:
        Whether it has one.
    """
    factor = vars(module).get("branch")
    return isinstance(factor, int | float) and not isinstance(factor, bool)


def _with_ends(trial: "_Trial", blocks: dict[str, ResidualBlock]) -> list[ResidualBlock]:
    searched = {name: block for name, block in blocks.items() if not block.has_factor}
    zero = {unit for block in blocks.values() for unit in block.units}
    for turn in range(max((len(block.units) for block in searched.values()), default=0)):
        back = {block.units[turn]: name for name, block in searched.items() if turn < len(block.units)}
        same = trial.identities(searched, zero - set(back))
        zero -= {unit for unit, name in back.items() if same[name]}
    found = []
    for name, block in blocks.items():
        ends = () if block.has_factor else tuple(unit for unit in block.units if unit in zero)
        found.append(ResidualBlock(name, block.module, block.has_factor, block.units, ends))
    _require_ends_set_the_size(trial, [block for block in found if block.ends])
    return found


def _require_ends_set_the_size(trial: "_Trial", blocks: list[ResidualBlock]) -> None:
    ends = {unit for block in blocks for unit in block.ends}
    table = {block.name: block for block in blocks}
    whole, shrunk = (trial.additions(table, dict.fromkeys(ends, factor)) for factor in (1.0, _SMALL))
    for name in table:
        if shrunk[name] > 30 * _SMALL * whole[name]:
            raise InputError(
                f"what block {name} adds does not shrink with the weights that end its branch ({', '.join(table[name].ends)}): "
                "a normalisation behind them undoes their size. Give the block a float attribute 'branch' that multiplies "
                "what it adds, or keep the normalisation before the weights."
            )


class _Trial:
    """Passes through the model with some weights scaled, none of them changed."""

    def __init__(self, model: nn.Module, inputs: Any, found: Assignment) -> None:
        self.model, self.inputs, self.found = model, inputs, found
        self.units = {unit.name: unit for unit in found.units}
        self.shifts = {
            name: torch.zeros_like(parameter)
            for name, parameter in found.vectors.items()
            if "bias" in name.rpartition(".")[2]
        }
        self.keeps_shape: dict[str, bool] = {}
        self.stream_varies = False

    def identities(self, blocks: Mapping[str, ResidualBlock], zero: set[str]) -> dict[str, bool]:
        """Tell which blocks pass their input on unchanged when these units are zero."""
        return {
            name: pair is not None
            and pair[0].shape == pair[1].shape
            and bool(torch.allclose(*pair, rtol=1e-4, atol=1e-6))
            for name, pair in self._run(blocks, dict.fromkeys(zero, 0.0)).items()
        }

    def additions(self, blocks: Mapping[str, ResidualBlock], factors: Mapping[str, float]) -> dict[str, float]:
        """Give the size of what blocks add, for factors on the weights of units, with batch statistics of the moment."""
        norms = [module for module in self.model.modules() if is_norm(module)]
        for module in norms:
            module.training = True  # what surrounds this puts the flags back
        pairs = self._run(blocks, factors)
        for module in norms:
            module.training = False
        return {
            name: float("nan") if pair is None else float(torch.linalg.vector_norm((pair[1] - pair[0]).double()))
            for name, pair in pairs.items()
        }

    def _run(
        self, blocks: Mapping[str, ResidualBlock], factors: Mapping[str, float]
    ) -> dict[str, tuple[Tensor, Tensor] | None]:
        seen: dict[str, tuple[Tensor, Tensor] | None] = dict.fromkeys(blocks)
        # Clones of the buffers: batch norms write to theirs in training mode, without a trace that could be put back.
        scaled: dict[str, Tensor] = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        scaled |= self.shifts
        for name, factor in factors.items():
            scaled |= {key: parameter * factor for key, parameter in self.units[name].matrices.items()}

        def look(name: str, args: Any, kwargs: Any, output: Any) -> None:
            before, after = first_floating((args, kwargs)), first_floating(output)
            if before is not None and after is not None:
                self.keeps_shape[name] = before[1].shape == after[1].shape
                seen[name] = (before[1], after[1])

        def look_at_stream(module: nn.Module, args: Any) -> None:
            features = first_floating(args)
            if features is not None and len(features[1]) > 1:
                spread = (features[1] - features[1][:1]).abs().max()
                self.stream_varies = bool(spread > 1e-5 * features[1].abs().max())

        with contextlib.ExitStack() as hooks, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, block in blocks.items():
                self.keeps_shape.setdefault(name, False)

                def hook(module: nn.Module, args: Any, kwargs: Any, output: Any, name: str = name) -> None:
                    look(name, args, kwargs, output)

                hooks.callback(block.module.register_forward_hook(hook, with_kwargs=True).remove)
            hooks.callback(self.found.readout.module.register_forward_pre_hook(look_at_stream).remove)
            args, kwargs = arguments_of(self.inputs)
            functional_call(self.model, scaled, args, kwargs)
        return seen
