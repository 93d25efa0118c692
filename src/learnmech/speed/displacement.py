"""From what the user gives as an update to the displacement of every parameter."""

import difflib
import math
from collections.abc import Collection, Mapping

from torch import Tensor
from torch.optim import Optimizer

from learnmech.errors import InputError
from learnmech.speed.preview import preview_step
from learnmech.speed.products import all_finite, any_nonzero

Update = Optimizer | float | Mapping[str, Tensor]


def check_update(update: Update, parameters: Mapping[str, Tensor]) -> None:
    """Check an update before anything is computed.

    Args:
        update: see :func:`resolve_update`.
        parameters: the model's parameters by name.

    Raises:
        InputError: for a learning rate that is not positive, unknown names, wrong shapes, or entries that are not finite.
    """
    if isinstance(update, Optimizer):
        return
    if isinstance(update, Mapping):
        _check_displacements(update, parameters)
        return
    if isinstance(update, bool) or not isinstance(update, int | float) or not (update > 0 and math.isfinite(update)):
        raise InputError(
            "update must be an optimizer, a learning rate (a positive number, for gradient descent) or a mapping of parameter "
            f"name to displacement, but {update!r} came."
        )


def _check_displacements(update: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> None:
    for name, displacement in update.items():
        if name not in parameters:
            near = difflib.get_close_matches(str(name), parameters, n=3, cutoff=0.4) or list(parameters)[:3]
            raise InputError(f"update names {name!r}, which is no parameter of the model; near are {', '.join(near)}.")
        if not isinstance(displacement, Tensor) or displacement.shape != parameters[name].shape:
            came = tuple(displacement.shape) if isinstance(displacement, Tensor) else type(displacement).__name__
            raise InputError(
                f"the displacement of {name!r} must be a tensor of shape {tuple(parameters[name].shape)}, but {came} came."
            )
        if not all_finite(displacement):
            raise InputError(f"the displacement of {name!r} holds NaN or infinite entries.")


def resolve_update(
    update: Update,
    parameters: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    unused: Collection[str] = (),
) -> dict[str, Tensor]:
    r"""Find the displacement :math:`dw_k` of every parameter that moves.

    Args:
        update: an optimizer (its next step, see :func:`preview_step`); a learning rate :math:`\eta` (gradient descent,
            :math:`dw_k = -\eta\, g_k`); or displacements by parameter name (a parameter not named does not move).
        parameters: the model's parameters by name.
        gradients: dL/dw by name.
        unused: parameters that the loss does not depend on.

    Returns:
        Parameter name to displacement, in the parameter's dtype and on its device.

    Raises:
        InputError: if nothing moves.
    """
    if isinstance(update, Optimizer):
        moved = preview_step(update, parameters, gradients, unused)
    elif isinstance(update, Mapping):
        moved = {name: displacement.detach().to(parameters[name]) for name, displacement in update.items()}
    else:
        moved = {name: -float(update) * gradient for name, gradient in gradients.items() if name not in unused}
    moved = {name: displacement for name, displacement in moved.items() if any_nonzero(displacement)}
    if not moved:
        raise InputError(
            "the update moves nothing, so that no speed can be measured: every displacement is zero. Are all gradients zero "
            "(a converged batch, a loss that does not depend on the parameters, dead units), or all parameters frozen?"
        )
    return moved
