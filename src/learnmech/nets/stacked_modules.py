"""Several models of one class as one net, by torch.func: for modules that have no stacked form written by hand."""

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap

from learnmech.nets.stacked_plan import find_hooks
from learnmech.nets.stacked_state import StackedState


class StackedModules:
    """M models whose forward passes are one pass of the first one, vectorised over the weights of all.

    Args:
        models: models of one class that compute the same function of inputs and weights and draw no random numbers, see
            :func:`why_not_stacked`.

    Attributes:
        state: weights, gradients and buffers.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self.state = StackedState(models)
        self._base = copy.deepcopy(models[0]).train()
        self._outputs: Tensor | None = None
        self._bind()

    def forward(self, inputs: Float[Tensor, "stack samples *features"]) -> Float[Tensor, "members samples outputs"]:
        """Compute the outputs of all members, and update their buffers.

        Args:
            inputs: a batch for each member, or one (stack 1) for all.

        Returns:
            The outputs.
        """
        shared = len(inputs) == 1
        with torch.enable_grad():
            run = vmap(self._run, in_dims=(0, 0, None if shared else 0))
            self._outputs = run(
                self._leaves, {**self.state.frozen, **self.state.buffers}, inputs[0] if shared else inputs
            )
        return self._outputs.detach()

    def backward(self, gradient: Float[Tensor, "members samples outputs"]) -> None:
        """Fill in the gradients of all weights.

        Args:
            gradient: the gradient on the outputs of the last :meth:`forward`.
        """
        assert self._outputs is not None
        found = torch.autograd.grad(self._outputs, list(self._leaves.values()), gradient)
        for name, value in zip(self._leaves, found, strict=True):
            self.state.slopes[name].copy_(value)
        self._outputs = None

    def keep(self, positions: Sequence[int]) -> None:
        """Drop all members but some.

        Args:
            positions: which to keep, in increasing order.
        """
        self.state.keep(torch.tensor(positions, device=self.state.values.device))
        self._bind()

    def _bind(self) -> None:
        self._leaves = {name: view.detach().requires_grad_() for name, view in self.state.parameters.items()}

    def _run(self, weights: dict[str, Tensor], others: dict[str, Tensor], inputs: Tensor) -> Tensor:
        outputs: Tensor = functional_call(self._base, {**weights, **others}, (inputs,))
        return outputs


def why_not_stacked(models: Sequence[nn.Module], inputs: Tensor) -> str | None:
    """Try whether models can be stacked by torch.func: copies of them must give the same outputs as the stack.

    Args:
        models: the models; they are left as they are.
        inputs: a few samples, where the models are.

    Returns:
        None if they can; else the reason.

    Example:
        >>> why_not_stacked([nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))], torch.zeros(2, 2))
        'module 1 is an active dropout, which needs a random stream for each member'
    """
    for model in models:
        if type(model) is not type(models[0]):
            return f"the models are of different classes, {type(models[0]).__name__} and {type(model).__name__}"
        hooked = find_hooks(model)
        if hooked is not None:
            return hooked
        for name, module in model.named_modules():
            if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
                return f"module {name} is an active dropout, which needs a random stream for each member"
    copies = [copy.deepcopy(model).train() for model in models]
    try:
        stack = StackedModules(copies)
        outputs = stack.forward(inputs[None])
        stack.backward(torch.ones_like(outputs))
        separate = torch.stack([model(inputs).detach() for model in copies])
    except Exception as error:  # a user's module may raise anything
        return f"torch.func cannot vectorise it: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    tolerance = 1e-3 if outputs.dtype.itemsize < 8 else 1e-8
    if outputs.shape != separate.shape or not torch.allclose(outputs, separate, rtol=tolerance, atol=tolerance):
        return "the models do not compute the same function of inputs and weights"
    return None
