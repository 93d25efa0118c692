"""The cost of identity: the least squared weights of a ReLU layer that gives a representation back unchanged."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.autograd.function import FunctionCtx

from learnmech.leaky.metric import TOLERANCE, Metric
from learnmech.leaky.representations import Ridges, activated, require_representations, require_ridges


def identity_cost(
    representation: Shaped[Tensor, "*batch width samples"],
    *,
    ridge: Ridges = 0.0,
    bias: bool = True,
    tolerance: float = TOLERANCE,
) -> Float[Tensor, "*batch"] | Float[Tensor, "*batch ridges"]:
    r"""Compute the cost of identity of a representation A, what it takes to keep A unchanged through a ReLU layer.

    .. math::
        \mathrm{COI}(A) = \lVert A \rVert_K^2 = \min_W \{\lVert W \rVert_F^2 : W\sigma(A) = A\}, \qquad
        \lVert A \rVert_{K+\gamma}^2 = \min_W \lVert W \rVert_F^2 + \tfrac1\gamma \lVert A - W\sigma(A) \rVert_F^2,

    :math:`\sigma(A) = [\max(A, 0); 1^T]`, :math:`K = \sigma^T\sigma`. Source: Jacot and Kaiser (arXiv 2405.17573) for the
    cost and its form with :math:`K + \gamma`; the minimum over W with a ridge is derived here, and so is its gradient
    (below).

    **How to read it.** It is a smooth count of dimensions. Without bias it is the rank of A if no entry is negative, and
    never below the stable rank (:func:`learnmech.leaky.stable_rank`; Proposition 1 of the paper, which needs the infinite
    value below); with bias it is lower, by up to one dimension for non-negative A. Negative entries cost extra: neurons
    that carry both signs need two ReLUs. Minus half of it, times the effective depth, is the potential energy. Without
    bias it does not depend on the scale of A; with bias it rises with the scale.

    **Ridge 0** is exact, and infinite where no weights give A back: a row of A that is negative somewhere must be a
    combination of rows of :math:`\sigma(A)`, which is rare once samples outnumber neurons. Use a **ridge** there (the
    paper takes 1e-2, 1e-3 and 1e-4). It falls as the ridge grows, and depends on it strongly while A has directions that
    nearly vanish: always state the ridge, and the number of samples, with the number. A ridge is absolute, in squared
    units of the activations, summed over samples.

    With positive ridges torch can differentiate the cost with respect to A. At the minimising W the derivative is
    explicit: with :math:`B = A(K+\gamma)^{-1}` it is :math:`2\,(B - \dot\sigma(A) \odot (\max(A, 0)\,B^T B))`,
    :math:`\dot\sigma(0) = 0`. If any ridge is 0 the result is detached.

    Args:
        representation: A, columns are samples; leading dimensions are separate representations. Computed in float64.
        ridge: :math:`\gamma`, or several, which share one decomposition.
        bias: whether the layer has a bias, whose square counts too.
        tolerance: for ridge 0, what counts as zero, see :class:`learnmech.leaky.Metric`.

    Returns:
        One number a representation, in float64; with several ridges one more dimension at the end.

    Raises:
        InputError: if A is not a real finite tensor of at least two dimensions with entries, or a ridge is negative.

    Example:
        >>> identity_cost(torch.eye(7), bias=False), identity_cost(torch.eye(7))  # the rank; 7 - 7/8
        (tensor(7., dtype=torch.float64), tensor(6.1250, dtype=torch.float64))
        >>> identity_cost(torch.tensor([[-1.0, 2.0], [1.0, -2.0]]), bias=False)  # one dimension, both signs: four
        tensor(4.0000, dtype=torch.float64)
        >>> identity_cost(torch.tensor([[-1.0, 2.0, 3.0]]), ridge=(0.0, 1.0), bias=False)  # one neuron can not: 13/14 + 1
        tensor([   inf, 1.9286], dtype=torch.float64)
    """
    values = require_representations("representation", representation)
    ridges, single = require_ridges(ridge)
    if values.requires_grad and torch.is_grad_enabled() and bool((ridges > 0).all()):
        # torch's stubs say nothing about apply
        costs: Tensor = _RidgeCost.apply(values, ridges.to(values.device), bias)  # type: ignore[no-untyped-call]
    else:
        costs = Metric(values, bias=bias, tolerance=tolerance).squared_norm(values, ridges)
    return costs[..., 0] if single else costs


class _RidgeCost(torch.autograd.Function):
    """The cost for positive ridges, with the gradient at the minimising weights."""

    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor, ridges: Tensor, bias: bool) -> Tensor:
        ctx.save_for_backward(values)
        ctx.metric = Metric(values, bias=bias)  # type: ignore[attr-defined]
        ctx.ridges, ctx.bias = ridges, bias  # type: ignore[attr-defined]
        return ctx.metric.squared_norm(values, ridges)  # type: ignore[attr-defined, no-any-return]

    @staticmethod
    def backward(ctx: FunctionCtx, slopes: Tensor) -> tuple[Tensor, None, None]:
        (values,) = ctx.saved_tensors  # type: ignore[attr-defined]
        active = values.clamp(min=0)
        total = torch.zeros_like(values)
        for index, ridge in enumerate(ctx.ridges.tolist()):  # type: ignore[attr-defined]
            if (
                torch.is_grad_enabled()
            ):  # somebody wants a second derivative: by operations that torch can differentiate
                solved = _solve(values, ridge, bias=ctx.bias)  # type: ignore[attr-defined]
            else:
                solved = ctx.metric.solve(values, ridge)  # type: ignore[attr-defined]
            through = (values > 0) * ((active @ solved.mT) @ solved)
            total = total + 2 * slopes[..., index, None, None] * (solved - through)
        return total, None, None


def _solve(values: Tensor, ridge: float, *, bias: bool) -> Tensor:
    active = activated(values, bias=bias)
    kernel = active.mT @ active + ridge * torch.eye(values.shape[-1], dtype=values.dtype, device=values.device)
    solved: Tensor = torch.linalg.solve(kernel, values.mT).mT
    return solved
