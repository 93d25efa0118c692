"""Which symmetries a monitor can follow: every parameter must be trained by the optimizer; the others are listed with reasons."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from learnmech.dynamics.symmetries import Symmetry
from learnmech.errors import InputError


def name_symmetries(symmetries: Sequence[Symmetry]) -> list[str]:
    """Name symmetries for people, each name once.

    Args:
        symmetries: the symmetries.

    Returns:
        Such as ``rescale 0, 2``; a number behind those that would be the same.
    """
    names: list[str] = []
    for symmetry in symmetries:
        base = f"{symmetry.kind} {', '.join(symmetry.layers or symmetry.parameters)}"
        count = sum(name == base or name.startswith(f"{base} (") for name in names)
        names.append(base if count == 0 else f"{base} ({count + 1})")
    return names


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """List parameters under every name that they have.

    Args:
        model: the model.

    Returns:
        Name to parameter; one that is shared comes more than once.
    """
    return dict(model.named_parameters(remove_duplicate=False))


def shared_names(model: nn.Module) -> frozenset[str]:
    """List the names of parameters that the model uses under more than one name (tied weights).

    Args:
        model: the model.

    Returns:
        Names.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in named_tensors(model).items():
        names.setdefault(id(parameter), []).append(name)
    return frozenset(name for group in names.values() if len(group) > 1 for name in group)


def require_symmetries(symmetries: Sequence[Symmetry], parameters: Mapping[str, Tensor]) -> list[Symmetry]:
    """Check that symmetries belong to a model.

    Args:
        symmetries: the symmetries.
        parameters: of the model.

    Returns:
        Them as a list.

    Raises:
        InputError: for what is no symmetry, parameters that the model lacks, or shapes that do not fit.
    """
    checked = list(symmetries)
    for symmetry in checked:
        if not isinstance(symmetry, Symmetry):
            raise InputError(
                f"symmetries must hold Symmetry objects, but a {type(symmetry).__name__} came; find_symmetries(model) finds them."
            )
        missing = [name for name in symmetry.parameters if name not in parameters]
        if missing:
            raise InputError(
                f"the {symmetry.kind} symmetry acts on {', '.join(missing)}, which the model does not have; it has "
                f"{', '.join(list(parameters)[:8])}{' ...' if len(parameters) > 8 else ''}."
            )
        for view in symmetry.views:
            view.lay_out(parameters)
    return checked


def why_not(symmetry: Symmetry, parameters: Mapping[str, Tensor], trained: Mapping[int, object]) -> str:
    """Say why a symmetry cannot be followed.

    Args:
        symmetry: the symmetry.
        parameters: of the model.
        trained: anything by id of those parameters that the optimizer has.

    Returns:
        The reason; empty if it can be followed.
    """
    for name in symmetry.parameters:
        parameter = parameters[name]
        if not parameter.requires_grad:
            return f"{name} is frozen, so only a part of what the symmetry moves is trained, and the charge is not conserved"
        if id(parameter) not in trained:
            return f"{name} is not in the optimizer, so how it moves is not known"
        if not parameter.is_floating_point():
            return f"{name} holds {parameter.dtype} numbers, and the laws are for real ones"
    return ""


def rounding_unit(symmetry: Symmetry, parameters: Mapping[str, Tensor]) -> float:
    """Give the relative rounding error of one operation on the parameters of a symmetry.

    Args:
        symmetry: the symmetry.
        parameters: of the model.

    Returns:
        6e-8 for float32, 1e-16 for float64, the largest of those that there are.
    """
    return max(torch.finfo(parameters[name].dtype).eps for name in symmetry.parameters) / 2
