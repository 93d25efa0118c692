"""Shares of 1 none of which passes a cap: what is cut off goes to the others in proportion."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.errors import InputError


def capped_shares(
    shares: Float[Tensor, "*members layers"], cap: float | None, effective_depth: float | Float[Tensor, "*members"]
) -> Float[Tensor, "*members layers"]:
    r"""Scale shares to the sum 1 with :math:`\rho_l \tilde L \le \mathrm{cap}` (water-filling).

    .. math:: \rho_l = \min(t\,c_l,\ u), \qquad \sum_l \rho_l = 1, \qquad u = \mathrm{cap} / \tilde L

    There is one such t whenever :math:`L u \ge 1`. With the shares sorted, the k largest are capped for the smallest k at
    which :math:`t_k = (1 - k u) / \sum_{l > k} c_{(l)}` leaves :math:`t_k c_{(k+1)} \le u`. Derived in learnmech.

    Args:
        shares: c, positive.
        cap: largest :math:`\rho_l \tilde L`; None caps nothing.
        effective_depth: :math:`\tilde L`, one number or one for each member; 0 caps nothing.

    Returns:
        :math:`\rho`, float64.

    Raises:
        InputError: if the effective depth is negative or not finite, does not fit the members, or no shares keep the cap.
    """
    shares = shares / shares.sum(-1, keepdim=True)
    depth = torch.as_tensor(effective_depth, dtype=torch.float64, device=shares.device)
    if not bool((torch.isfinite(depth) & (depth >= 0)).all()):
        raise InputError(f"effective_depth must be a finite number of at least 0, got {effective_depth!r}.")
    if depth.ndim > shares.ndim - 1 or (depth.ndim and depth.shape != shares.shape[:-1]):
        raise InputError(
            f"effective_depth must be one number or one for each member {tuple(shares.shape[:-1])}, "
            f"but has the shape {tuple(depth.shape)}."
        )
    if cap is None:
        return shares
    layers = shares.shape[-1]
    deepest = float(depth.max())
    if layers * cap < deepest * (1 - 1e-12):
        raise InputError(
            f"{layers} steps of at most {cap:g} / {deepest:g} do not add up to 1: take at least {math.ceil(deepest / cap)} "
            "layers, a larger cap, or cap=None."
        )
    depth = depth.expand(shares.shape[:-1])[..., None]
    bound = torch.where(depth > 0, cap / depth, torch.inf)
    bound = torch.where(bound * depth > cap, torch.nextafter(bound, torch.zeros_like(bound)), bound)
    ordered = shares.sort(-1, descending=True).values
    rest = ordered.flip(-1).cumsum(-1).flip(-1)  # what is left if the k largest are capped, k = 0, 1, ...
    capped = torch.arange(layers, dtype=torch.float64, device=shares.device)
    factor = torch.where(capped == 0, 1 / rest, (1 - capped * bound) / rest)
    fits = factor * ordered <= bound
    first = torch.where(fits.any(-1), fits.to(torch.int8).argmax(-1), layers - 1)[..., None]
    return torch.minimum(factor.gather(-1, first) * shares, bound)
