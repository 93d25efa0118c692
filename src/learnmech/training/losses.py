"""The losses that a run can be trained on, as functions (outputs, targets) -> mean over the batch."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from learnmech.errors import InputError
from learnmech.training.config import Loss

LossFunction = Callable[[Tensor, Tensor], Tensor]


def make_loss(kind: Loss, classes: int | None) -> LossFunction:
    """Choose the loss of a data set.

    Args:
        kind: "cross_entropy", or "mse".
        classes: number of classes of the targets; None if they are real numbers.

    Returns:
        A function of outputs (n, k) and targets (n,) or (n, k) that gives the mean over samples, and for "mse" over
        outputs too.

    Raises:
        InputError: if the loss is unknown, or is cross-entropy and there are no classes.

    Example:
        >>> loss = make_loss("mse", classes=2)
        >>> loss(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1])).item()
        0.5
    """
    if kind == "mse":
        return mean_squared_error if classes is None else partial(one_hot_squared_error, classes=classes)
    if kind != "cross_entropy":
        raise InputError(f"loss must be 'cross_entropy' or 'mse', got {kind!r}.")
    if classes is None:
        raise InputError("loss='cross_entropy' needs a data set with classes, this one has none; use loss='mse'.")
    return functional.cross_entropy


def mean_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    r"""Compute :math:`\frac{1}{nk}\sum_{ij}(f_{ij} - y_{ij})^2`.

    Args:
        outputs: outputs (n, k).
        targets: real targets (n, k), or (n,) if k = 1.

    Returns:
        The mean over samples and outputs, a scalar.

    Raises:
        InputError: if the shapes do not fit, which torch would broadcast.
    """
    if targets.ndim == 1 and outputs.ndim == 2 and outputs.shape[1] == 1:
        targets = targets.unsqueeze(1)
    if targets.shape != outputs.shape:
        raise InputError(
            f"outputs have shape {tuple(outputs.shape)} but targets {tuple(targets.shape)}; "
            "give the net as many outputs as a target has numbers."
        )
    return functional.mse_loss(outputs, targets.to(outputs.dtype))


def one_hot_squared_error(outputs: Tensor, targets: Tensor, classes: int) -> Tensor:
    r"""Compute :math:`\frac{1}{nK}\sum_{ik}(f_{ik} - 1[y_i = k])^2`.

    Args:
        outputs: outputs (n, K).
        targets: classes (n,) as integers.
        classes: the number K of classes.

    Returns:
        The mean over samples and classes, a scalar.
    """
    return mean_squared_error(outputs, functional.one_hot(targets.to(torch.int64), classes))
