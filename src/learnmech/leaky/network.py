"""The leaky ResNet: the discretised flow between a linear embedding and a linear read-out."""

import math
from typing import Literal, cast, get_args, overload

import torch
from torch import Tensor, nn
from torch.nn import functional

from learnmech.errors import InputError
from learnmech.leaky.data_costs import COSTS, CostName, cost_of, prepare_targets
from learnmech.leaky.step_sizes import StepSizePolicy
from learnmech.nets.parts import require_positive

StepKind = Literal["uniform", "irregular", "adaptive"]
Embeddings = Literal["fixed", "learned"]
Start = Literal["identity", "torch"]
_NOISE, _NOISE_WIDTH = (
    0.3,
    40,
)  # the start that trains at effective depth 8 and width 40; the spectrum is kept at other widths


class LeakyBlock(nn.Module):
    r"""One step of a leaky ResNet, :math:`a \mapsto (1 - \rho\tilde L)\,a + \rho\,(V \max(a, 0) + b)`.

    Args:
        width: neurons.
        bias: whether there is a b.
    """

    def __init__(self, width: int, *, bias: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width, bias=bias)

    def forward(self, features: Tensor, step: Tensor, effective_depth: float) -> Tensor:
        """Take the step.

        Args:
            features: features (samples, width) before it.
            step: the step size, without dimensions.
            effective_depth: the leak.

        Returns:
            Features (samples, width) after it.
        """
        moved: Tensor = self.linear(functional.relu(features))
        return (1 - step * effective_depth) * features + step * moved


class LeakyResNet(nn.Module):
    r"""A leaky ResNet with a constant width, between a linear embedding and a linear read-out without biases.

    .. math::
        A_0 = E_\mathrm{in} X, \qquad
        A_l = (1 - \rho_l \tilde L) A_{l-1} + \rho_l W_l\,\sigma(A_{l-1}), \qquad
        f = E_\mathrm{out} A_L, \qquad \sigma(A) = [\max(A, 0); 1],

    the Euler steps :math:`\rho_l > 0`, :math:`\sum_l \rho_l = 1`, of
    :math:`\partial_p A_p = -\tilde L A_p + W_p\,\sigma(A_p)`. :math:`\tilde L` = ``effective_depth`` goes from 0, a ResNet, to
    the number of layers, a fully connected net (:math:`\rho_l\tilde L = 1`). Its cost is

    .. math::
        J = C(f) + \frac{\lambda}{2\tilde L} \sum_l \rho_l \lVert W_l \rVert_F^2,

    with :math:`\lambda` = ``penalty``, biases included in W, and C the squared error, summed over outputs and averaged over
    samples, or the cross-entropy. **Learned** embeddings add
    :math:`\frac\lambda2(\lVert E_\mathrm{in}\rVert_F^2 + \lVert E_\mathrm{out}\rVert_F^2)`: without it the representations would
    shrink without end, as smaller ones cost less where there are biases.

    Source: Jacot and Kaiser, "Hamiltonian mechanics of feature learning: bottleneck structure in leaky ResNets"
    (arXiv 2405.17573), for flow, discretisation and cost. The paper says that embeddings are learned or fixed, but not which,
    nor how weights start; both are ours: fixed embeddings have orthonormal columns and rows drawn at random;
    ``init="identity"`` is :math:`W = \tilde L\,[I | 0]` plus normal noise of standard deviation :math:`0.3\sqrt{40/w}`, for
    which a signal passes the leak, and ``"torch"`` is :math:`U(\pm 1/\sqrt{w + 1})`, for which it falls by
    :math:`e^{-\tilde L}`: from there nets of large effective depth may train to zero
    (:attr:`~learnmech.leaky.LeakyTraining.collapsed`).

    The modules are ``embedding``, ``blocks`` (a list of :class:`LeakyBlock`, each with a ``linear``) and ``readout``; ``steps``
    is a buffer in float64. ``steps="adaptive"`` starts uniform; :func:`learnmech.leaky.train` adapts it. Other settings come
    with a :class:`~learnmech.leaky.StepSizePolicy`, and step sizes can be given as numbers too.

    Args:
        d_in: numbers in an input.
        d_out: outputs.
        width: neurons w.
        effective_depth: :math:`\tilde L`, positive.
        layers: steps L.
        steps: ``uniform``, ``irregular`` or ``adaptive``, a policy, or step sizes (layers,), which are normalised.
        bias: whether the weights have a column for the row of ones.
        embeddings: whether the two linear maps are trained.
        init: how the weights start.
        penalty: :math:`\lambda`, positive.
        loss: ``squared_error`` or ``cross_entropy``.

    Raises:
        InputError: if a size is not positive, the width is too small for fixed embeddings, a step times the effective depth is
            1 or more, or a name is unknown.

    Example:
        >>> net = LeakyResNet(3, 2, width=8, effective_depth=4.0, layers=10)
        >>> outputs, path = net(torch.zeros(5, 3), return_path=True)
        >>> outputs.shape, path.shape
        (torch.Size([5, 2]), torch.Size([11, 8, 5]))
    """

    steps: Tensor

    def __init__(
        self,
        d_in: int,
        d_out: int,
        width: int,
        effective_depth: float,
        layers: int,
        steps: "StepKind | StepSizePolicy | Tensor" = "uniform",
        bias: bool = True,
        embeddings: Embeddings = "fixed",
        init: Start = "identity",
        *,
        penalty: float = 0.002,
        loss: CostName = "squared_error",
    ) -> None:
        super().__init__()
        require_positive(d_in=d_in, d_out=d_out, width=width, layers=layers)
        _require_positive_number(effective_depth=effective_depth, penalty=penalty)
        _require_one_of(embeddings=(embeddings, get_args(Embeddings)), init=(init, get_args(Start)), loss=(loss, COSTS))
        if embeddings == "fixed" and width < max(d_in, d_out):
            raise InputError(
                f"fixed embeddings are orthonormal and need a width of at least max(d_in, d_out) = {max(d_in, d_out)}, got "
                f"{width}; widen the net, or take embeddings='learned'."
            )
        self.effective_depth = float(effective_depth)
        self.penalty = float(penalty)
        self.loss: CostName = loss
        self.bias = bool(bias)
        self.policy, sizes = _choose_steps(steps, layers, self.effective_depth)
        self.register_buffer("steps", sizes)
        self.embedding = nn.Linear(d_in, width, bias=False)
        self.blocks = nn.ModuleList(LeakyBlock(width, bias=bias) for _ in range(layers))
        self.readout = nn.Linear(width, d_out, bias=False)
        self._start(init, embeddings)

    @property
    def layers(self) -> int:
        """The number of steps L."""
        return len(self.blocks)

    @property
    def width(self) -> int:
        """The number of neurons w."""
        return int(self.embedding.out_features)

    @property
    def embeddings(self) -> Embeddings:
        """Whether the two linear maps are trained."""
        return "learned" if self.embedding.weight.requires_grad else "fixed"

    @property
    def weights(self) -> Tensor:
        """A copy of all weights (layers, width, width + 1), biases in the last column; without it if there is no bias."""
        with torch.no_grad():
            return torch.stack([_joined(linear) for linear in self._linears()])

    def set_weights(self, weights: Tensor) -> None:
        """Replace all weights.

        Args:
            weights: weights (layers, width, width + bias).

        Raises:
            InputError: if the shape is another.
        """
        shape = (self.layers, self.width, self.width + int(self.bias))
        if tuple(weights.shape) != shape:
            raise InputError(
                f"weights must have the shape {shape} (layers, width, width + bias), got {tuple(weights.shape)}."
            )
        with torch.no_grad():
            for linear, values in zip(self._linears(), weights, strict=True):
                linear.weight.copy_(values[:, : self.width])
                if self.bias:
                    linear.bias.copy_(values[:, -1])

    def set_steps(self, steps: Tensor) -> None:
        """Replace the step sizes.

        Args:
            steps: positive numbers (layers,), normalised to a sum of 1.

        Raises:
            InputError: if the shape is another, a number is not positive, or a step times the effective depth is 1 or more.
        """
        self.steps.copy_(_require_steps(steps, self.layers, self.effective_depth))

    @overload
    def forward(self, inputs: Tensor, return_path: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(self, inputs: Tensor, return_path: Literal[True]) -> tuple[Tensor, Tensor]: ...

    def forward(self, inputs: Tensor, return_path: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Compute the outputs.

        Args:
            inputs: inputs (samples, d_in); further dimensions are flattened.
            return_path: whether to give the representations at all depths, too.

        Returns:
            Outputs (samples, d_out); with ``return_path`` also the path (layers + 1, width, samples), columns being samples.

        Raises:
            InputError: if an input has another number of entries than ``d_in``.
        """
        flat = inputs.flatten(1) if inputs.ndim > 1 else inputs
        if flat.ndim != 2 or flat.shape[1] != self.embedding.in_features:
            raise InputError(
                f"inputs must have the shape (samples, {self.embedding.in_features}), got {tuple(inputs.shape)}."
            )
        features: Tensor = self.embedding(flat)
        path = [features]
        for block, step in zip(self.blocks, self.steps, strict=True):
            features = block(features, step, self.effective_depth)
            if return_path:
                path.append(features)
        outputs: Tensor = self.readout(features)
        return (outputs, torch.stack(path).mT) if return_path else outputs

    def data_cost(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Compute C, the cost of the outputs without the penalty.

        Args:
            inputs: inputs (samples, d_in).
            targets: numbers (samples, d_out), or class indices (samples,) for the cross-entropy.

        Returns:
            C, without dimensions; torch can differentiate it.
        """
        outputs = self(inputs)
        prepared = prepare_targets(self.loss, targets, len(outputs), self.readout.out_features)
        return cost_of(self.loss, outputs, prepared.to(outputs.device))

    def penalty_cost(self) -> Tensor:
        r"""Compute what the weights cost, :math:`\frac{\lambda}{2\tilde L} \sum_l \rho_l \lVert W_l \rVert_F^2`, and learned embeddings.

        Returns:
            The number, without dimensions; torch can differentiate it.
        """
        squares = torch.stack([sum_of_squares(block) for block in self.blocks])
        total = (self.steps.to(squares.dtype) * squares).sum() * (self.penalty / (2 * self.effective_depth))
        if self.embeddings == "learned":
            total = total + self.penalty / 2 * (sum_of_squares(self.embedding) + sum_of_squares(self.readout))
        return total

    def cost(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Compute J, the regularised cost that training lowers.

        Args:
            inputs: inputs (samples, d_in).
            targets: numbers (samples, d_out), or class indices (samples,) for the cross-entropy.

        Returns:
            J, without dimensions; torch can differentiate it.
        """
        return self.data_cost(inputs, targets) + self.penalty_cost()

    def extra_repr(self) -> str:
        """Give what the modules do not show.

        Returns:
            Effective depth, penalty and cost.
        """
        return f"effective_depth={self.effective_depth:g}, penalty={self.penalty:g}, loss={self.loss!r}"

    def _linears(self) -> list[nn.Linear]:
        return [cast("LeakyBlock", block).linear for block in self.blocks]

    def _start(self, init: Start, embeddings: Embeddings) -> None:
        nn.init.orthogonal_(self.embedding.weight)
        nn.init.orthogonal_(self.readout.weight)
        for layer in (self.embedding, self.readout):
            layer.weight.requires_grad_(embeddings == "learned")
        with torch.no_grad():
            for linear in self._linears():
                for part in linear.parameters():
                    if init == "torch":
                        part.uniform_(-1, 1).div_(math.sqrt(self.width + 1))
                    else:
                        part.normal_(0.0, _NOISE * math.sqrt(_NOISE_WIDTH / self.width))
                if init == "identity":
                    linear.weight.diagonal().add_(self.effective_depth)


def sum_of_squares(module: nn.Module) -> Tensor:
    """Sum the squares of all parameters of a module.

    Args:
        module: the module.

    Returns:
        The sum, without dimensions.
    """
    return torch.stack([parameter.square().sum() for parameter in module.parameters()]).sum()


def _joined(linear: nn.Linear) -> Tensor:
    bias = cast("Tensor | None", linear.bias)
    return linear.weight if bias is None else torch.cat([linear.weight, bias[:, None]], dim=1)


def _choose_steps(
    steps: "StepKind | StepSizePolicy | Tensor", layers: int, effective_depth: float
) -> tuple[StepSizePolicy, Tensor]:
    if isinstance(steps, Tensor):
        return StepSizePolicy("uniform"), _require_steps(steps, layers, effective_depth)
    policy = steps if isinstance(steps, StepSizePolicy) else StepSizePolicy(steps)
    return policy, policy.initial(layers, effective_depth)


def _require_steps(steps: Tensor, layers: int, effective_depth: float) -> Tensor:
    sizes = steps.detach().to("cpu", torch.float64)
    if tuple(sizes.shape) != (layers,) or not bool((sizes > 0).all()) or not bool(torch.isfinite(sizes).all()):
        raise InputError(f"steps must be {layers} positive finite numbers, got {steps.tolist()}.")
    sizes = sizes / sizes.sum()
    if float(sizes.max()) * effective_depth >= 1:
        raise InputError(
            f"the largest step times the effective depth must be below 1, got {float(sizes.max()):.4g} x {effective_depth:g}; "
            "take more layers, more even steps, or a smaller effective depth."
        )
    return sizes


def _require_positive_number(**numbers: float) -> None:
    for name, number in numbers.items():
        if not (isinstance(number, int | float) and math.isfinite(number) and number > 0):
            raise InputError(f"{name} must be a positive finite number, got {number!r}.")


def _require_one_of(**choices: tuple[str, tuple[str, ...]]) -> None:
    for name, (chosen, known) in choices.items():
        if chosen not in known:
            raise InputError(f"unknown {name} {chosen!r}; choose one of {', '.join(map(repr, known))}.")
