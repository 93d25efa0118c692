"""The losses of a stack of members, each with its gradient."""

import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.training.config import Loss


def stacked_loss(
    kind: Loss, outputs: Float[Tensor, "members samples outputs"], targets: Tensor, classes: int | None
) -> tuple[Float[Tensor, " members"], Float[Tensor, "members samples outputs"]]:
    """Compute what :func:`~learnmech.training.make_loss` computes, for each member, and its gradient.

    Args:
        kind: "cross_entropy" or "mse".
        outputs: the outputs of the members; overwritten.
        targets: classes (stack, samples) or real numbers (stack, samples, outputs); stack is 1 if members share them.
        classes: number of classes; None if the targets are real numbers.

    Returns:
        The mean loss of each member, and the gradient of each on its outputs.

    Example:
        >>> outputs, targets = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]]), torch.tensor([[0]])
        >>> stacked_loss("mse", outputs, targets, classes=2)[0].tolist()
        [0.0, 0.5]
    """
    members, samples, width = outputs.shape
    if classes is None:
        difference = outputs.sub_(targets)
    else:
        index = targets.to(torch.int64)[:, :, None].expand(members, -1, -1)
        if kind == "cross_entropy":
            logarithms = torch.log_softmax(outputs, dim=2)
            losses = logarithms.gather(2, index).mean(dim=(1, 2)).neg_()
            minus_one = logarithms.new_full((1, 1, 1), -1.0).expand(members, samples, 1)
            return losses, logarithms.exp_().scatter_add_(2, index, minus_one).div_(samples)
        one = outputs.new_full((1, 1, 1), -1.0).expand(members, samples, 1)
        difference = outputs.scatter_add_(2, index, one)
    losses = difference.square().mean(dim=(1, 2))
    return losses, difference.mul_(2 / (samples * width))
