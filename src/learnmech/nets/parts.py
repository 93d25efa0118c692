"""What the reference networks share: the activation of a slope, the start, and the checks of their sizes."""

from torch import nn

from learnmech.errors import InputError
from learnmech.nets.initialisation import Scheme, initialise, rescale_weights


def make_activation(slope: float) -> nn.Module:
    """Make the activation of a negative slope: ReLU for 0, Identity for 1, else LeakyReLU.

    Args:
        slope: the negative slope.

    Returns:
        A module that does not work in place.
    """
    if slope == 0:
        return nn.ReLU()
    return nn.Identity() if slope == 1 else nn.LeakyReLU(slope)


def start(model: nn.Module, scheme: Scheme, *, slope: float, scale: float) -> None:
    """Give a freshly made net its initial weights; torch's own draw is kept where that is what was asked for.

    Args:
        model: a net whose layers torch has just drawn.
        scheme: scheme of the initial weights.
        slope: negative slope of its activations.
        scale: a constant that multiplies the weights.
    """
    if scheme == "torch":
        rescale_weights(model, scale)
    else:
        initialise(model, scheme, slope=slope, scale=scale)


def require_positive(**sizes: int) -> None:
    """Check that sizes are positive integers.

    Args:
        **sizes: the sizes by name.

    Raises:
        InputError: if one is not.
    """
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise InputError(f"{name} must be a positive integer, got {size!r}.")


def require_dropout(dropout: float) -> None:
    """Check a dropout probability.

    Args:
        dropout: the probability of dropping a unit.

    Raises:
        InputError: if it is not in [0, 1).
    """
    if not 0.0 <= dropout < 1.0:
        raise InputError(f"dropout must be in [0, 1), got {dropout!r}; it is the probability of dropping a unit.")
