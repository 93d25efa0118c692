"""Networks and a batch on which the scalings can be tried out: one input, errors that do not depend on the net."""

import torch
from torch import Tensor, nn

from learnmech.nets import MLP, ResidualMLP

INPUTS, OUTPUTS = 16, 4


def make_mlp(width: int, depth: int) -> nn.Module:
    """Make a plain ReLU net without biases and normalisation.

    Args:
        width: width.
        depth: weight layers, input and read-out counted.

    Returns:
        The net.
    """
    return MLP(INPUTS, OUTPUTS, width=width, depth=depth, batch_norm=False, bias=False)


def make_residual(width: int, depth: int) -> nn.Module:
    """Make a ReLU residual net with one weight layer in a block.

    Args:
        width: width.
        depth: blocks.

    Returns:
        The net.
    """
    return ResidualMLP(INPUTS, OUTPUTS, width=width, depth=depth)


def make_batch() -> tuple[Tensor, Tensor]:
    """Make one normal input, and for each output the sign in which :func:`pull` pulls it.

    Returns:
        Inputs (1, 16) and signs (1, 4).
    """
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(1, INPUTS, generator=generator)
    return inputs, torch.randn(1, OUTPUTS, generator=generator).sign()


def pull(outputs: Tensor, signs: Tensor) -> Tensor:
    r"""Pull outputs with a constant force, :math:`-\frac{1}{nk}\sum_{ij} s_{ij} f_{ij}`.

    Its derivative does not depend on the outputs, so that what a scan finds is the net's alone. It has no minimum: for the
    first steps only.

    Args:
        outputs: outputs (n, k).
        signs: the sign s of each (n, k).

    Returns:
        The loss, a scalar.

    Example:
        >>> pull(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, -1.0]])).item()
        -1.0
    """
    return -(outputs * signs).mean()
