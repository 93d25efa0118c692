"""Lazy training by a factor on the output, for any model."""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from learnmech.errors import InputError

_PREFIX = "start__"
LossFunction = Callable[[Tensor, Tensor], Tensor]


class OutputScale(nn.Module):
    r"""Multiply a model's output, and let it start at zero: :math:`x \mapsto \alpha\,(f(x; \theta) - f(x; \theta_0))`.

    With a large :math:`\alpha` and the loss divided by :math:`\alpha^2` (:func:`scaled_loss`, or :func:`scaled_rate` with plain or
    momentum SGD) weights move by :math:`O(1/\alpha)` only, and training follows the linearised model: *lazy*. With
    :math:`\alpha = 1` it is the ordinary training of a model that starts at zero. In between is a dial from rich to lazy that does not
    touch architecture or initial weights.

    Source: Chizat, Oyallon and Bach, "On lazy training in differentiable programming", arXiv 1812.07956: the scale, the loss over its
    square, and a model that starts at zero. They double the model or choose odd weights for that; taking off a frozen copy is
    another way to have it, exact for any model.

    The wrapped model is ``net``: the names of its layers get the prefix ``net.``, and :func:`learnmech.watch` finds them. The
    start is kept in buffers, so that it moves with ``.to`` and is part of ``state_dict``; its pass runs without gradients, always
    in evaluation mode, and outside the tree of modules, so that hooks do not see it. With dropout or batch normalisation the output
    is therefore zero at the start in evaluation mode only. ``module`` itself is used, not copied.

    Args:
        module: a model that returns a tensor.
        scale: :math:`\alpha`, positive.
        centred: whether to take off the output at the start, which is the moment of wrapping.

    Raises:
        InputError: if it is no module, the scale is not positive and finite, or a parameter has no shape or is not finite.

    Example:
        >>> net = nn.Linear(2, 1)
        >>> lazy = OutputScale(net, 100.0)
        >>> lazy(torch.ones(3, 2)).abs().max().item()
        0.0
        >>> with torch.no_grad():
        ...     _ = net.bias.add_(0.5)
        >>> round(lazy(torch.ones(1, 2)).item(), 2)
        50.0
    """

    def __init__(self, module: nn.Module, scale: float, *, centred: bool = True) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise InputError(f"module must be a torch.nn.Module, but a {type(module).__name__} came.")
        self.net = module
        self.scale = require_scale(scale)
        self.centred = bool(centred)
        self._names: dict[str, str] = {}
        self._template: tuple[nn.Module, ...] = ()  # in a tuple: not a part of the tree of modules
        if centred:
            self._keep_start(module)

    def _keep_start(self, module: nn.Module) -> None:
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        for name, tensor in tensors.items():
            if torch.nn.parameter.is_lazy(tensor):
                raise InputError(f"{name} has no shape yet; run the model on one batch before wrapping it.")
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise InputError(f"{name} holds numbers that are not finite; the start cannot be taken off.")
            self._names[name] = _PREFIX + name.replace(".", "__")
            self.register_buffer(self._names[name], tensor.detach().clone())
        if len(set(self._names.values())) != len(self._names):
            raise InputError("two names of parameters differ in '.' and '__' only; rename one.")
        template = copy.deepcopy(module)
        for part in template.modules():  # hooks of the user belong to the training alone
            for hooks in (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks):
                hooks.clear()
        self._template = (template.eval().requires_grad_(False),)

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """Run the model.

        Args:
            *inputs: what the model takes.
            **named: what the model takes by name.

        Returns:
            Its output, minus that at the start, times the scale.

        Raises:
            InputError: if the model returns something else than a tensor.
        """
        output = self.net(*inputs, **named)
        if not isinstance(output, Tensor):
            raise InputError(
                f"OutputScale needs a model that returns a tensor, but {type(self.net).__name__} returned a "
                f"{type(output).__name__}; wrap it in a module that picks the tensor."
            )
        if not self.centred:
            return self.scale * output
        start = {name: self.get_buffer(buffer) for name, buffer in self._names.items()}
        with torch.no_grad():
            first: Tensor = torch.func.functional_call(self._template[0], start, inputs, named)
        return self.scale * (output - first)

    def extra_repr(self) -> str:
        """Give scale and centring for ``print``.

        Returns:
            The text.
        """
        return f"scale={self.scale:g}, centred={self.centred}"


def scaled_loss(loss: LossFunction, scale: float) -> LossFunction:
    r"""Divide a loss by :math:`\alpha^2`, so that training at every output scale has the same time.

    Source: arXiv 1812.07956, where the objective is :math:`\mathcal{L}(\alpha f)/\alpha^2`. To first order the outputs then move at a
    speed that does not depend on :math:`\alpha`, whatever the optimizer is; Adam is blind to the factor and needs a lower rate
    instead.

    Args:
        loss: a function of outputs and targets.
        scale: :math:`\alpha`, positive.

    Returns:
        The function divided.

    Raises:
        InputError: if the scale is not positive and finite.

    Example:
        >>> scaled_loss(nn.functional.mse_loss, 10.0)(torch.tensor([3.0]), torch.tensor([1.0]))
        tensor(0.0400)
    """
    square = require_scale(scale) ** 2

    def divided(outputs: Tensor, targets: Tensor) -> Tensor:
        return loss(outputs, targets) / square

    return divided


def scaled_rate(rate: float, scale: float) -> float:
    r"""Compute the learning rate :math:`\eta/\alpha^2` that does the same as :func:`scaled_loss`.

    Source: arXiv 1812.07956. It is the same for plain and momentum SGD without weight decay, up to rounding; not for Adam and its
    like, nor with gradient clipping.

    Args:
        rate: :math:`\eta` at scale 1, positive.
        scale: :math:`\alpha`, positive.

    Returns:
        The rate.

    Raises:
        InputError: if a number is not positive and finite.

    Example:
        >>> scaled_rate(0.5, 10.0)
        0.005
    """
    if not (isinstance(rate, int | float) and 0 < rate < math.inf):
        raise InputError(f"rate must be a positive finite number, got {rate!r}.")
    return rate / require_scale(scale) ** 2


def require_scale(scale: float) -> float:
    """Check an output scale.

    Args:
        scale: the scale.

    Returns:
        The same number.

    Raises:
        InputError: if it is not a positive finite number.
    """
    if not isinstance(scale, int | float) or isinstance(scale, bool) or not 0 < scale < math.inf:
        raise InputError(f"scale must be a positive finite number, got {scale!r}.")
    return float(scale)
