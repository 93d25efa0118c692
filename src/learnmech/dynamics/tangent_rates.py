"""The learning rate of every parameter that moves, by name."""

import difflib
import math
from collections.abc import Mapping

from torch import nn

from learnmech.errors import InputError


def rates_by_name(model: nn.Module, learning_rates: float | Mapping[str, float]) -> dict[str, float]:
    """Give every parameter that moves its learning rate.

    Args:
        model: the model.
        learning_rates: one for every parameter that requires a gradient, or by name; those not named do not move.

    Returns:
        Name to rate; rates of zero are left out.

    Raises:
        InputError: for an unknown name, a rate that is negative or not finite, a parameter of integers, or if nothing moves.
    """
    known = dict(model.named_parameters())
    if isinstance(learning_rates, Mapping):
        rates = {str(name): learning_rates[name] for name in learning_rates}
    else:
        rates = {name: learning_rates for name, tensor in known.items() if tensor.requires_grad}
    for name, rate in rates.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or list(known)[:5]
            raise InputError(f"learning_rates names {name!r}, which is no parameter; similar names: {', '.join(near)}.")
        number = isinstance(rate, int | float) and not isinstance(rate, bool)
        if not number or not math.isfinite(rate) or rate < 0:
            raise InputError(f"learning rates must be finite and not negative, but that of {name!r} is {rate!r}.")
        if not known[name].is_floating_point():
            raise InputError(f"parameter {name!r} holds {known[name].dtype}, which a gradient step cannot move.")
    moving = {name: float(rate) for name, rate in rates.items() if rate > 0}
    if not moving:
        raise InputError("no parameter has a learning rate; name some, or let parameters require gradients.")
    return moving
