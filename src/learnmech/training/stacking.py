"""Which stacked form a list of models has, if any."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from learnmech.nets.cnn import CNN
from learnmech.nets.mlp import MLP
from learnmech.nets.stacked_cnn import StackedCNN
from learnmech.nets.stacked_mlp import StackedMLP
from learnmech.nets.stacked_modules import StackedModules, why_not_stacked
from learnmech.nets.stacked_plan import NetPlan, read_plan
from learnmech.training.seeds import private_rng
from learnmech.training.stacked_trainer import StackedNet

Item = TypeVar("Item")
BuildNet = Callable[[Sequence[int], Sequence[torch.Generator]], StackedNet]


@dataclass(frozen=True)
class StackForm:
    """How some models can be stacked.

    Args:
        name: "MLP", "CNN" or "modules".
        order: the order in which a stack wants them; a part of it can be stacked, too.
        build: builds the stack of some of the models, given by their positions, and the stream of each one's dropout.
    """

    name: str
    order: tuple[int, ...]
    build: BuildNet


def find_form(models: Sequence[nn.Module], inputs: Tensor) -> StackForm | str:
    """Find the stacked form of models: one written by hand for the reference nets, else that of torch.func.

    Args:
        models: models of one shape.
        inputs: a few samples to try with, where the models are.

    Returns:
        The form; or, as a text, why there is none.
    """
    plans = [read_plan(model) for model in models]
    known = [plan for plan in plans if isinstance(plan, NetPlan)]
    same_class = all(type(model) is type(models[0]) for model in models)
    if len(known) == len(models) and same_class and len({plan.norm for plan in known}) == 1:
        order = tuple(
            sorted(range(len(models)), key=lambda position: (known[position].dropout > 0, known[position].slope))
        )
        if isinstance(models[0], MLP):
            mlps = [model for model in models if isinstance(model, MLP)]
            return StackForm(
                "MLP", order, lambda some, streams: StackedMLP(_pick(mlps, some), _pick(known, some), streams)
            )
        cnns = [model for model in models if isinstance(model, CNN)]
        return StackForm("CNN", order, lambda some, streams: StackedCNN(_pick(cnns, some), _pick(known, some), streams))
    with private_rng(inputs.device):
        reason = why_not_stacked(models, inputs)
    if reason is None:
        return StackForm("modules", tuple(range(len(models))), lambda some, _: StackedModules(_pick(models, some)))
    reference = next((plan for plan in plans if isinstance(plan, str) and isinstance(models[0], (MLP, CNN))), None)
    return reason if reference is None else f"{reference}; {reason}"


def _pick(values: Sequence[Item], positions: Sequence[int]) -> list[Item]:
    return [values[position] for position in positions]
