"""How weights start: the schemes of the spring-block paper's code, and the gain that an activation asks for."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from learnmech.errors import InputError

Scheme = Literal["torch", "orthogonal", "kaiming", "normal", "ntk", "identity"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def activation_gain(slope: float, kind: Literal["second_moment", "variance"] = "second_moment") -> float:
    r"""Give the factor rho by which a LeakyReLU's output must be multiplied to keep its spread at one.

    For a pre-activation :math:`z \sim N(0, 1)` and a LeakyReLU :math:`\sigma` of negative slope :math:`\alpha`,

    .. math::
        E\,\sigma^2 = \tfrac{1 + \alpha^2}{2}, \qquad
        \mathrm{Var}\,\sigma = \tfrac{1 + \alpha^2}{2} - \tfrac{(1 - \alpha)^2}{2\pi},

    and rho is :math:`(E\,\sigma^2)^{-1/2}` ("second_moment", the gain of He et al. 2015, arXiv 1502.01852) or
    :math:`(\mathrm{Var}\,\sigma)^{-1/2}` ("variance").

    Source: Shi, Pan and Dokmanić, "Spring-block theory of feature learning", arXiv 2407.19353, the rho in
    :math:`h_{l+1} = \rho\,\sigma(W_l h_l + b_l)`. The paper asks that the variance of features stays near one; which
    of the two factors it means could not be made out, hence both.

    Args:
        slope: the negative slope alpha; 0 is ReLU, 1 is the identity.
        kind: what shall be one after the activation: its second moment or its variance.

    Returns:
        The factor rho. The larger it is, the more of the spread the activation takes away; the identity has rho = 1.

    Raises:
        InputError: if the slope is not finite or the kind is unknown.

    Example:
        >>> round(activation_gain(0.0), 5), round(activation_gain(0.0, "variance"), 5)
        (1.41421, 1.71286)
    """
    require_finite_slope(slope)
    second_moment = (1.0 + slope**2) / 2.0
    if kind == "second_moment":
        return 1.0 / math.sqrt(second_moment)
    if kind == "variance":
        return 1.0 / math.sqrt(second_moment - (1.0 - slope) ** 2 / (2.0 * math.pi))
    raise InputError(f"kind must be 'second_moment' or 'variance', got {kind!r}.")


def initialise(model: nn.Module, scheme: Scheme = "torch", *, slope: float = 0.0, scale: float = 1.0) -> nn.Module:
    r"""Draw the weights of every Linear and Conv layer anew, in place, from torch's global random generator.

    With n the fan-in of a layer (inputs times kernel size):

    ============  ==========================================================  =========
    scheme        weights                                                     biases
    ============  ==========================================================  =========
    "torch"       U(-1/sqrt(n), 1/sqrt(n)), of variance 1/(3n)                the same
    "orthogonal"  rows orthonormal, or columns where there are more rows      zero
    "kaiming"     N(0, rho^2/n), rho = :func:`activation_gain` of ``slope``   zero
    "normal"      N(0, 1/n)                                                   zero
    "ntk"         N(0, 1), then divided by sqrt(n)                            zero
    "identity"    ones on the diagonal (of the kernel's centre in a Conv)     zero
    ============  ==========================================================  =========

    "ntk" starts from the same distribution as "normal": the division is done once, here. It is not the NTK
    *parametrisation*, which divides in every forward pass and so also scales the gradients.

    Source: the initialisation flags in the code of Shi, Pan and Dokmanić, arXiv 2407.19353 (model.py). Different from
    it: there "kaiming" is uniform (of the same variance), "normal" is N(0, 1) without the division, "NTK" divides in
    the forward pass, and the constant is read but never applied.

    Args:
        model: any module; layers other than Linear and Conv are left alone.
        scheme: the name of the scheme.
        slope: the negative slope of the LeakyReLU that follows each layer; used by "kaiming" only.
        scale: a constant that multiplies the weights after the draw; biases are not multiplied.

    Returns:
        The same module.

    Raises:
        InputError: if the scheme is unknown, or the slope or the scale is not finite.

    Example:
        >>> layer = initialise(nn.Linear(3, 3), "identity", scale=2.0)
        >>> layer(torch.tensor([1.0, 2.0, 3.0])).tolist()
        [2.0, 4.0, 6.0]
    """
    require_scheme(scheme)
    require_finite_slope(slope)
    for layer in _layers(model):
        if scheme == "torch":
            layer.reset_parameters()
            continue
        with torch.no_grad():
            _draw(layer.weight, scheme, slope)
            if layer.bias is not None:
                layer.bias.zero_()
    rescale_weights(model, scale)
    return model


def rescale_weights(model: nn.Module, scale: float) -> None:
    """Multiply the weights, not the biases, of every Linear and Conv layer by a constant, in place.

    Args:
        model: any module.
        scale: the constant.

    Raises:
        InputError: if the constant is not finite.
    """
    if not math.isfinite(scale):
        raise InputError(f"the scale of the initial weights must be finite, got {scale!r}.")
    if scale != 1.0:
        with torch.no_grad():
            for layer in _layers(model):
                layer.weight.mul_(scale)


def require_scheme(scheme: str) -> None:
    """Check that a scheme has a known name.

    Args:
        scheme: the name.

    Raises:
        InputError: if there is no such scheme.
    """
    if scheme not in SCHEMES:
        raise InputError(f"unknown initialisation {scheme!r}; choose one of {', '.join(map(repr, SCHEMES))}.")


def require_finite_slope(slope: float) -> None:
    """Check the negative slope of a LeakyReLU.

    Args:
        slope: the slope.

    Raises:
        InputError: if it is not a finite number.
    """
    if not math.isfinite(slope):
        raise InputError(f"slope must be a finite number (0 is ReLU, 1 is linear), got {slope!r}.")


def _layers(model: nn.Module) -> list[nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d]:
    return [module for module in model.modules() if isinstance(module, _LAYERS)]


def _draw(weight: Tensor, scheme: Scheme, slope: float) -> None:
    fan_in = weight[0].numel()
    if scheme == "orthogonal":
        nn.init.orthogonal_(weight)
    elif scheme == "kaiming":
        weight.normal_(0.0, activation_gain(slope) / math.sqrt(fan_in))
    elif scheme == "normal":
        weight.normal_(0.0, 1.0 / math.sqrt(fan_in))
    elif scheme == "ntk":
        weight.normal_().div_(math.sqrt(fan_in))
    elif weight.ndim == 2:
        nn.init.eye_(weight)
    else:
        nn.init.dirac_(weight)
