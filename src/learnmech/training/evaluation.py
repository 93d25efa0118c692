"""Loss and accuracy of a model, and the switch between training and evaluation mode."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from learnmech.errors import InputError
from learnmech.training.losses import LossFunction


@contextmanager
def module_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Put a model into training or evaluation mode, and every one of its modules back into its own mode afterwards.

    Args:
        model: the model.
        training: True for training mode.

    Yields:
        Nothing.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def evaluate(
    model: nn.Module,
    loss: LossFunction,
    inputs: Tensor,
    targets: Tensor,
    *,
    classes: int | None,
    chunk: int = 4096,
) -> tuple[float, float]:
    """Compute the mean loss and the accuracy of a model in evaluation mode, a chunk of samples at a time.

    Args:
        model: the model; its mode, parameters and statistics are left as they were.
        loss: a mean over samples, as a function of outputs and targets.
        inputs: samples (n, ...), where the model is.
        targets: targets (n, ...).
        classes: number of classes, None if there are none.
        chunk: samples of a forward pass.

    Returns:
        The loss, and the part of the samples whose largest output is that of their class (nan without classes); both
        are nan if there are no samples.

    Raises:
        InputError: if there are not as many targets as inputs.
    """
    samples = len(inputs)
    if len(targets) != samples:
        raise InputError(f"expected one target for each input, got {samples} inputs and {len(targets)} targets.")
    if samples == 0:
        return math.nan, math.nan
    total = torch.zeros((), dtype=torch.float64, device=inputs.device)
    correct = torch.zeros((), dtype=torch.int64, device=inputs.device)
    with module_mode(model, training=False), torch.no_grad():
        for some_inputs, some_targets in zip(torch.split(inputs, chunk), torch.split(targets, chunk), strict=True):
            outputs = model(some_inputs)
            total.add_(loss(outputs, some_targets), alpha=len(some_inputs))
            if classes is not None:
                correct.add_((outputs.argmax(dim=1) == some_targets).sum())
    return total.item() / samples, math.nan if classes is None else correct.item() / samples
