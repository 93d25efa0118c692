"""The cost of a two-layer network of homogeneous neurons, and its minimisation from where it stands, never uphill."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.dynamics.agf.greedy_activation import Homogeneous

_MOST_NUMBERS = 1 << 23
_MOST_FOR_SECOND_ORDER = 1600
_MOST_TRIES = 8

Stop = Callable[[], bool]


@dataclass(frozen=True)
class Cost:
    r"""Half the mean squared error and weight decay of :math:`f(x) = \sum_j a_j\,\sigma(w_j\cdot x)`.

    .. math:: L(W, A) = \frac1{2n}\sum_i |y_i - f(x_i)|^2 + \frac\lambda2\bigl(|W|^2 + |A|^2\bigr)

    Attributes:
        inputs: x, a column of ones for the bias included.
        targets: y.
        activation: of the neurons.
        decay: :math:`\lambda`.
    """

    inputs: Float[Tensor, "samples inputs"]
    targets: Float[Tensor, "samples outputs"]
    activation: Homogeneous
    decay: float = 0.0

    def residual(
        self, weights: Float[Tensor, "neurons inputs"], outputs: Float[Tensor, "neurons outputs"]
    ) -> Float[Tensor, "samples outputs"]:
        """Give what is left of the targets.

        Args:
            weights: W; there may be no neurons.
            outputs: A.

        Returns:
            Targets minus the network.
        """
        return self.targets - self.activation.value(self.inputs @ weights.T) @ outputs

    def value(self, weights: Float[Tensor, "neurons inputs"], outputs: Float[Tensor, "neurons outputs"]) -> float:
        """Give the cost.

        Args:
            weights: W.
            outputs: A.

        Returns:
            L.
        """
        error = float(self.residual(weights, outputs).square().sum(dtype=_wide(weights))) / (2 * len(self.inputs))
        return error + self.decay / 2 * float(weights.square().sum() + outputs.square().sum())


def best_outputs(cost: Cost, weights: Float[Tensor, "neurons inputs"]) -> Float[Tensor, "neurons outputs"]:
    r"""Solve the convex half of the problem: the output weights of least cost for given input weights.

    They solve :math:`(\Phi^T\Phi/n + \lambda)A = \Phi^T Y/n`. Neurons that repeat each other are no trouble: directions in which
    :math:`\Phi^T\Phi` is 0 to rounding get nothing, which is the solution of least norm.

    Args:
        cost: what is minimised.
        weights: W.

    Returns:
        A.
    """
    features = cost.activation.value(cost.inputs @ weights.T)
    scales = features.square().mean(0).sqrt().clamp(min=1e-30)
    scaled = features / scales
    square = _small(scaled.T @ scaled / len(scaled))
    square = square + torch.diag(cost.decay / _small(scales).square())
    values, vectors = torch.linalg.eigh(square)
    limit = values[-1:].clamp(min=0) * len(values) * 10 * torch.finfo(weights.dtype).eps
    inverse = torch.where(values > limit, 1 / values.clamp(min=1e-300), 0.0)
    right = _small(scaled.T @ cost.targets / len(scaled))
    solution: Tensor = vectors @ (inverse[:, None] * (vectors.T @ right)) / _small(scales)[:, None]
    return solution.to(weights)


def balance(
    weights: Float[Tensor, "neurons inputs"], outputs: Float[Tensor, "neurons outputs"], degree: float
) -> tuple[Float[Tensor, "neurons inputs"], Float[Tensor, "neurons outputs"]]:
    r"""Rescale each neuron so that :math:`|w|^2 = q|a|^2`: the same network, of least :math:`|w|^2 + |a|^2`.

    Args:
        weights: W.
        outputs: A.
        degree: q of the activation.

    Returns:
        W and A; a neuron without input or output weights becomes 0.
    """
    inner, outer = weights.norm(dim=1, keepdim=True), outputs.norm(dim=1, keepdim=True)
    alive = (inner > 0) & (outer > 0)
    size = (inner**degree * outer * degree ** (-degree / 2)) ** (1 / (degree + 1))
    share_in = torch.where(alive, size * degree**0.5 / inner, 0.0)
    share_out = torch.where(alive, size / outer, 0.0)
    return weights * share_in, outputs * share_out


def minimise_cost(
    cost: Cost,
    weights: Float[Tensor, "neurons inputs"],
    outputs: Float[Tensor, "neurons outputs"],
    *,
    steps: int = 20,
    tolerance: float = 1e-4,
    stop: Stop = lambda: False,
) -> tuple[Float[Tensor, "neurons inputs"], Float[Tensor, "neurons outputs"], float]:
    """Minimise the cost over all weights, from given ones: first the output weights, exactly, then all together.

    All together means Levenberg-Marquardt steps for up to 1600 weights, and L-BFGS with a strong Wolfe search beyond. A
    step that would raise the cost is not taken.

    Args:
        cost: what is minimised.
        weights: W at the start.
        outputs: A at the start.
        steps: of Levenberg-Marquardt; L-BFGS makes five times as many.
        tolerance: ends when a step lowers the cost by less than this share.
        stop: asked before each step.

    Returns:
        W, A and the cost, at most that of the start.
    """
    value = cost.value(weights, outputs)
    for tried in (best_outputs(cost, weights), outputs):
        rescaled = balance(weights, tried, cost.activation.degree)
        reached = cost.value(*rescaled)
        if reached <= value:
            (weights, outputs), value = rescaled, reached
            break
    if weights.numel() + outputs.numel() <= _MOST_FOR_SECOND_ORDER:
        return _levenberg_marquardt(cost, weights, outputs, value, steps, tolerance, stop)
    return _quasi_newton(cost, weights, outputs, value, 5 * steps, tolerance, stop)


def _levenberg_marquardt(
    cost: Cost, weights: Tensor, outputs: Tensor, value: float, steps: int, tolerance: float, stop: Stop
) -> tuple[Tensor, Tensor, float]:
    damping, growth = 1e-3, 2.0
    shape = weights.shape
    for _ in range(steps):
        if stop():
            break
        hessian, slope = _curvature(cost, weights, outputs)
        diagonal = hessian.diagonal().clone()
        diagonal = diagonal + 1e-10 * diagonal.max().clamp(min=1e-300)
        gained = None
        for _ in range(_MOST_TRIES):
            factor, failed = torch.linalg.cholesky_ex(hessian + torch.diag(damping * diagonal))
            if int(failed) == 0:
                step = -torch.cholesky_solve(slope[:, None], factor)[:, 0]
                moves = step.to(weights)
                tried = (
                    weights + moves[: weights.numel()].view(shape),
                    outputs + moves[weights.numel() :].view_as(outputs),
                )
                reached = cost.value(*tried)
                expected = -float(slope @ step) - float(step @ (hessian @ step)) / 2
                if reached < value:
                    ratio = (value - reached) / max(expected, 1e-300)
                    damping = max(damping * max(1 / 3, 1 - (2 * ratio - 1) ** 3), 1e-12)
                    growth, gained = 2.0, value - reached
                    (weights, outputs), value = tried, reached
                    break
            damping, growth = damping * growth, growth * 2
        if gained is None or gained <= tolerance * (value + gained):
            break
    balanced = balance(weights, outputs, cost.activation.degree)
    reached = cost.value(*balanced)
    return (*balanced, reached) if reached <= value else (weights, outputs, value)


def _curvature(cost: Cost, weights: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Gauss-Newton matrix and gradient: the matrix needs products of features and slopes only once for all outputs."""
    (neurons, size), width = weights.shape, outputs.shape[1]
    count = len(cost.inputs)
    columns = neurons * (size + 1)
    products = weights.new_zeros(columns, columns)
    slope_in, slope_out = torch.zeros_like(weights), torch.zeros_like(outputs)
    rows = max(1, _MOST_NUMBERS // columns)
    for inputs, targets in zip(torch.split(cost.inputs, rows), torch.split(cost.targets, rows), strict=True):
        projections = inputs @ weights.T
        features, slopes = cost.activation.value(projections), cost.activation.slope(projections)
        residual = targets - features @ outputs
        slope_in -= ((residual @ outputs.T) * slopes).T @ inputs
        slope_out -= features.T @ residual
        moves = torch.cat([(slopes[:, :, None] * inputs[:, None, :]).flatten(1), features], 1)
        products += moves.T @ moves
    products = _small(products / count)
    weighed = _small(outputs)
    inner = neurons * size
    among = products[:inner, :inner].view(neurons, size, neurons, size)
    between = products[:inner, inner:].view(neurons, size, neurons)
    hessian = products.new_empty(inner + neurons * width, inner + neurons * width)
    hessian[:inner, :inner] = (among * (weighed @ weighed.T)[:, None, :, None]).reshape(inner, inner)
    mixed = (between[:, :, :, None] * weighed[:, None, None, :]).reshape(inner, neurons * width)
    hessian[:inner, inner:] = mixed
    hessian[inner:, :inner] = mixed.T
    hessian[inner:, inner:] = torch.kron(
        products[inner:, inner:].contiguous(), torch.eye(width, dtype=products.dtype, device=products.device)
    )
    hessian.diagonal().add_(cost.decay)
    slope = torch.cat(
        [
            (slope_in / count + cost.decay * weights).flatten(),
            (slope_out / count + cost.decay * outputs).flatten(),
        ]
    )
    return hessian, _small(slope)


def _quasi_newton(
    cost: Cost, weights: Tensor, outputs: Tensor, value: float, steps: int, tolerance: float, stop: Stop
) -> tuple[Tensor, Tensor, float]:
    moving = [weights.clone().requires_grad_(), outputs.clone().requires_grad_()]
    optimizer = torch.optim.LBFGS(moving, max_iter=10, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        error = cost.residual(*moving).square().sum() / (2 * len(cost.inputs))
        total = error + cost.decay / 2 * (moving[0].square().sum() + moving[1].square().sum())
        total.backward()  # type: ignore[no-untyped-call]
        return total

    for _ in range(max(1, steps // 10)):
        if stop():
            break
        with torch.enable_grad():
            optimizer.step(closure)  # type: ignore[no-untyped-call]
        now = balance(moving[0].detach(), moving[1].detach(), cost.activation.degree)
        reached = cost.value(*now)
        if not reached < value:
            break
        gained = value - reached
        (weights, outputs), value = now, reached
        if gained <= tolerance * (value + gained):
            break
    return weights, outputs, value


def _wide(like: Tensor) -> torch.dtype:
    return torch.float64 if like.device.type in ("cpu", "cuda") else like.dtype


def _small(values: Tensor) -> Tensor:
    """A small matrix, where float64 and all of linear algebra are at hand."""
    return values.detach().cpu().double()
