"""What a stack must know of a reference net, read from its modules; or the reason why it is not one any more."""

from dataclasses import dataclass

from torch import nn

from learnmech.nets.cnn import CNN
from learnmech.nets.dropout import Dropout
from learnmech.nets.mlp import MLP

_ORDER = ("linear", "conv", "norm", "activation", "pool", "upsample", "dropout")
_PARTS: dict[str, tuple[type[nn.Module], ...]] = {
    "linear": (nn.Linear,),
    "conv": (nn.Conv2d,),
    "norm": (nn.BatchNorm1d, nn.BatchNorm2d),
    "activation": (nn.ReLU, nn.Identity, nn.LeakyReLU),
    "pool": (nn.MaxPool2d,),
    "upsample": (nn.Upsample,),
    "dropout": (Dropout,),
}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True)
class NetPlan:
    """What stacked members may differ in, and what their BatchNorm layers share.

    Args:
        slope: negative slope of every activation.
        dropout: dropout probability of every block, 0 without.
        norm: epsilon and momentum of the BatchNorm layers; None without.
    """

    slope: float
    dropout: float
    norm: tuple[float, float] | None


def read_plan(model: nn.Module) -> NetPlan | str:
    """Read the plan of an :class:`~learnmech.nets.MLP` or :class:`~learnmech.nets.CNN`.

    Args:
        model: the model.

    Returns:
        The plan; or, as a text, why this net is not as its class builds it.

    Example:
        >>> read_plan(MLP(3, 2, width=4, depth=2, slope=0.5, batch_norm=False))
        NetPlan(slope=0.5, dropout=0.0, norm=None)
    """
    if type(model) not in (MLP, CNN) or not isinstance(model, (MLP, CNN)):
        return f"{type(model).__name__} is not one of the reference nets MLP and CNN"
    hooked = find_hooks(model)
    if hooked is not None:
        return hooked
    if any("forward" in vars(module) for module in model.modules()):
        return "a module has a forward method of its own"
    if not all(parameter.requires_grad for parameter in model.parameters()):
        return "some parameters are frozen"
    if len(list(model.named_parameters())) != len(list(model.named_parameters(remove_duplicate=False))):
        return "layers share parameters"
    outer = {name: type(module) for name, module in model.named_children()}
    norm = {"input_norm": nn.BatchNorm1d} if outer.get("input_norm") is nn.BatchNorm1d else {}
    if outer != {"flatten": nn.Flatten, "hidden": nn.ModuleList, "readout": nn.Linear, **norm}:
        return f"its parts {', '.join(outer)} are not those of {type(model).__name__}"
    for number, block in enumerate(model.hidden.children()):
        names = [name for name, _ in block.named_children()]
        expected = [name for name in _ORDER if name in names]
        if type(block) is not nn.Sequential or names != expected:
            return f"hidden.{number} has the parts {names}, expected {expected}"
        for name, part in block.named_children():
            if type(part) not in _PARTS[name] or _is_unusual(part, model):
                return f"hidden.{number}.{name} is a {part!r}"
    return _read_values(model)


def find_hooks(model: nn.Module) -> str | None:
    """Look for hooks, which a stack would not call.

    Args:
        model: any module.

    Returns:
        Where the first hook is, as a reason; None if there is none.
    """
    for name, module in model.named_modules():
        if any(getattr(module, kind, None) for kind in _HOOKS):
            return f"{name or 'the model'} has hooks"
    for name, parameter in model.named_parameters():
        if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
            return f"{name} has hooks"
    return None


def _is_unusual(part: nn.Module, model: MLP | CNN) -> bool:
    # Settings that are none of those of NetPlan, compared by what a module prints.
    expected = part
    if isinstance(part, nn.Conv2d):
        bias = part.bias is not None
        expected = nn.Conv2d(part.in_channels, part.out_channels, 3, padding=1, bias=bias, device="meta")
    elif isinstance(part, nn.MaxPool2d):
        expected = nn.MaxPool2d(2)
    elif isinstance(part, nn.Upsample) and isinstance(model, CNN):
        expected = nn.Upsample(size=model.input_shape[1:], mode="nearest")
    return repr(part) != repr(expected)


def _read_values(model: MLP | CNN) -> NetPlan | str:
    slopes: list[float] = []
    rates: list[float] = []
    norms: list[tuple[float, float]] = []
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            slopes.append(0.0)
        elif isinstance(module, nn.Identity):
            slopes.append(1.0)
        elif isinstance(module, nn.LeakyReLU):
            slopes.append(module.negative_slope)
        elif isinstance(module, nn.Dropout):
            if module.inplace or not 0 <= module.p < 1:
                return f"a dropout layer has p={module.p} and inplace={module.inplace}"
            rates.append(module.p)
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            if not module.affine or not module.track_running_stats or module.momentum is None:
                return "a BatchNorm layer has no weights, no running statistics or no momentum"
            norms.append((module.eps, module.momentum))
    for what, values in (("slope", set(slopes)), ("dropout", set(rates)), ("BatchNorm", set(norms))):
        if len(values) > 1:
            return f"its layers differ in {what}"
    if rates and len(rates) != len(model.hidden):
        return "some blocks have dropout and some have none"
    return NetPlan(slopes[0] if slopes else 1.0, rates[0] if rates else 0.0, norms[0] if norms else None)
