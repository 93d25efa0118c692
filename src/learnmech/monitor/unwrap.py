"""From wrappers to the eager module inside: compiled, data-parallel; sharded and scripted models are refused."""

import warnings

import torch
from torch import nn

from learnmech.errors import InputError, LearnmechWarning

_COMPILED_PART = "._orig_mod"


def unwrap(model: nn.Module) -> nn.Module:
    """Find the eager module inside wrappers, saying so once.

    Hooks added after the first call of a compiled model silently never fire, so the module behind it is measured; its
    parameters are the same tensors. The training itself stays compiled.

    Args:
        model: what the user trains.

    Returns:
        The module whose sub-modules can be read.

    Raises:
        InputError: for what is not an eager module: scripted models, sharded (FSDP) ones, lazy ones, other objects.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"watch needs a torch.nn.Module, but a {type(model).__name__} came.")
    peeled: list[str] = []
    while True:
        kind = type(model).__name__
        if hasattr(model, "_orig_mod") and isinstance(model._orig_mod, nn.Module):
            peeled.append("torch.compile")
            model = model._orig_mod
        elif kind in ("DistributedDataParallel", "DataParallel") and isinstance(model.module, nn.Module):
            peeled.append(kind)
            model = model.module
        else:
            break
    if any(
        type(module).__name__ == "FullyShardedDataParallel"
        or any(type(parameter).__name__ == "DTensor" for parameter in module.parameters(recurse=False))
        for module in model.modules()
    ):
        raise InputError(
            "this model is sharded (FSDP): a probe would need every rank and gathered parameters, which is not supported "
            "yet. Watch an unsharded copy, or measure features that you gathered with learnmech.springs."
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError(f"a {kind} has no eager sub-modules to read; watch the module it was made from.")
    if any(torch.nn.parameter.is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
        raise InputError("the model has lazy parameters without a shape yet; run it on one batch before watching it.")
    if "torch.compile" not in peeled and any(_is_compiled(module) for module in model.modules()):
        peeled.append("torch.compile")
    if peeled:
        warnings.warn(
            f"measuring the eager module inside {' and '.join(peeled)}; training itself is not affected.",
            LearnmechWarning,
            stacklevel=4,
        )
    return model


def _is_compiled(module: nn.Module) -> bool:
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None


def eager_modules(model: nn.Module) -> dict[str, nn.Module]:
    """List the modules of a model by name, with compiled sub-modules represented by the eager module inside.

    Args:
        model: the model.

    Returns:
        Name to module, the model itself first, under the empty name. A module that has two names is listed once.
    """
    return {
        name.replace(_COMPILED_PART, ""): module
        for name, module in model.named_modules()
        if not isinstance(getattr(module, "_orig_mod", None), nn.Module)
    }
