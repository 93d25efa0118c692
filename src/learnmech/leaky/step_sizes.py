"""How the depth of a residual stack is cut into steps: equal, wider in the middle, or adapted to how far the features move."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.optim import Optimizer

from learnmech.errors import InputError
from learnmech.leaky.step_cap import capped_shares

if TYPE_CHECKING:
    from collections.abc import Callable

    from learnmech.leaky.step_driver import StepDriver

Kind = Literal["uniform", "irregular", "adaptive"]


@dataclass(frozen=True)
class StepSizePolicy:
    r"""How long each step :math:`\rho_1, \ldots, \rho_L > 0` of a residual stack is; their sum is 1.

    .. math::
        \text{uniform:}\quad & \rho_l = \frac1L \\
        \text{irregular:}\quad & \rho_l \propto \frac1L + \frac aL\left(\frac14 - \left|\frac lL - \frac12\right|\right) \\
        \text{adaptive:}\quad & \rho_l \leftarrow \frac{c_l}{\sum_k c_k}, \qquad
            c_l = \rho_l\,\frac{\|A_l\|_F}{\|A_l - A_{l-1}\|_F}

    The adaptive rule has reached its fixed point where the relative step :math:`\|A_l - A_{l-1}\| / \|A_l\|` is the same in
    all layers. It is no gradient: :math:`\rho` must not be trained on the regularised cost, which falls when the mesh
    degenerates to few long steps (learnmech).

    Source: Jacot and Kaiser, "Hamiltonian Mechanics of Feature Learning: Bottleneck Structure in Leaky ResNets" (CPAL 2025,
    arXiv 2405.17573): the three formulas. The paper leaves open the value of a, when steps are adapted and on which batch.
    Derived in learnmech: the irregular steps sum to 1 for even L and to :math:`1 - a/(4L^2)` for odd L, so they are
    normalised; and the safeguards of the adaptive rule below. Weights stay with their layer when steps change.

    Safeguards of the adaptive rule, in this order:

    1. ``floor``: the speeds :math:`\|A_l - A_{l-1}\| / (\rho_l \|A_l\|) = 1/c_l` are limited to ``floor`` to 1/``floor`` times
       their median (lower one) over the layers, so that a layer that hardly moves does not take all of the depth. A layer
       without a speed (0/0) counts as the median.
    2. ``mixing`` m: :math:`\rho_l \leftarrow \rho_l^{1-m} (c_l)^m`, normalised. Geometric, since the rule is a product: while
       speeds stay as they are, the logarithm of each relative step comes nearer to the common one by the factor 1 - m.
    3. ``cap``: no :math:`\rho_l \tilde L` above it; what is cut off goes to the other layers in proportion. Only for
       an effective depth above 0.
    4. ``begin``, ``period``, ``freeze``: when steps change at all (:meth:`due`).

    Args:
        kind: ``uniform``, ``irregular`` or ``adaptive`` (starts uniform).
        irregularity: a in [0, 1) of the irregular steps; 0 is uniform.
        period: steps of training from one update to the next.
        mixing: m in (0, 1]; 1 takes the rule as it is.
        cap: upper bound in (0, 1] of :math:`\rho_l \tilde L` for adaptive steps; None lifts it, and also lifts the demand that
            :math:`\rho_l \tilde L < 1` at the start (at 1 the net is fully connected, above it the skip changes sign).
        floor: in (0, 1]; 1 makes the adaptive steps uniform (at ``mixing`` 1).
        begin: first step of training after which steps may change.
        freeze: fraction in (0, 1] of training after which steps stay as they are.

    Raises:
        InputError: if a value is outside its range.

    Example:
        A layer that moves twice as far for its size gets half the depth:

        >>> policy = StepSizePolicy("adaptive")
        >>> policy.proposed(policy.initial(2), torch.tensor([2.0, 1.0]), torch.tensor([1.0, 1.0]))
        tensor([0.3333, 0.6667], dtype=torch.float64)
    """

    kind: Kind = "uniform"
    _: KW_ONLY
    irregularity: float = 0.5
    period: int = 10
    mixing: float = 1.0
    cap: float | None = 0.95
    floor: float = 0.1
    begin: int = 200
    freeze: float = 0.8

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"unknown kind of step sizes {self.kind!r}: expected one of {', '.join(get_args(Kind))}.")
        _require(self.irregularity, "irregularity", lambda value: 0 <= value < 1, "in [0, 1)")
        _require(self.mixing, "mixing", lambda value: 0 < value <= 1, "in (0, 1]")
        _require(self.floor, "floor", lambda value: 0 < value <= 1, "in (0, 1]")
        _require(self.freeze, "freeze", lambda value: 0 < value <= 1, "a fraction of training in (0, 1]")
        if self.cap is not None:
            _require(self.cap, "cap", lambda value: 0 < value <= 1, "in (0, 1], or None for no cap")
        _require_count(self.period, "period", 1)
        _require_count(self.begin, "begin", 0)

    def initial(self, layers: int, effective_depth: float = 0.0) -> Float[Tensor, " layers"]:
        r"""Give the step sizes with which training starts.

        Args:
            layers: number of steps L.
            effective_depth: :math:`\tilde L` of a leaky ResNet; 0 for a plain residual stack, where nothing is capped.

        Returns:
            :math:`\rho` (layers,), positive, sum 1, float64.

        Raises:
            InputError: if layers is not positive, the effective depth negative, or, unless ``cap`` is None, a step so long
                that :math:`\rho_l \tilde L \ge 1` (for adaptive steps: if the cap cannot be kept by any steps).

        Example:
            >>> StepSizePolicy("irregular", irregularity=0.5).initial(4)
            tensor([0.2500, 0.2812, 0.2500, 0.2188], dtype=torch.float64)
        """
        _require_count(layers, "layers", 1)
        _require(effective_depth, "effective_depth", lambda value: value >= 0, "at least 0")
        steps = self._start(layers)
        if self.cap is not None and not self._stable(steps, effective_depth):
            bound = f"the cap {self.cap:g}" if self.kind == "adaptive" else "1"
            enough = self._enough(effective_depth)
            raise InputError(
                f"{layers} {self.kind} steps are too few for the effective depth {effective_depth:g}: the longest step times "
                f"it is {float(steps.max()) * effective_depth:.4g}, and must stay below {bound}; take at least {enough} "
                "layers, or cap=None (a skip of zero or below, as in a fully connected net)."
            )
        return steps

    def due(self, step: int, total_steps: int) -> bool:
        """Tell whether step sizes change after a step of training.

        Args:
            step: steps of the optimizer taken so far, from 1.
            total_steps: steps that training takes in all.

        Returns:
            True for adaptive steps, every ``period`` steps from ``begin`` to the fraction ``freeze`` of training.

        Raises:
            InputError: if a count is negative.

        Example:
            >>> policy = StepSizePolicy("adaptive", period=10, begin=200, freeze=0.8)
            >>> [step for step in range(1, 301) if policy.due(step, 300)]
            [200, 210, 220, 230, 240]
        """
        _require_count(step, "step", 0)
        _require_count(total_steps, "total_steps", 0)
        return (
            self.kind == "adaptive"
            and step >= max(self.begin, 1)
            and step % self.period == 0
            and step <= self.freeze * total_steps
        )

    def proposed(
        self,
        steps: Float[Tensor, "*members layers"],
        changes: Float[Tensor, "*members layers"],
        norms: Float[Tensor, "*members layers"],
        effective_depth: float | Float[Tensor, "*members"] = 0.0,
    ) -> Float[Tensor, "*members layers"]:
        r"""Apply the adaptive rule once, with its safeguards (whatever ``kind`` is; see the class).

        Args:
            steps: :math:`\rho` now, positive; sums other than 1 are normalised.
            changes: :math:`\|A_l - A_{l-1}\|_F`; any common factor is irrelevant.
            norms: :math:`\|A_l\|_F`.
            effective_depth: :math:`\tilde L`, one number or one for each member; 0 caps nothing.

        Returns:
            New steps, positive, sum 1 (to rounding), :math:`\rho_l \tilde L` at most ``cap`` exactly; float64. Where no layer
            moves (all changes 0) the steps as they were, normalised and capped.

        Raises:
            InputError: for shapes that do not fit, a NaN, infinite or negative number, a step of 0, or a cap that no steps
                can keep (layers times cap below the effective depth).
        """
        rho, change, norm = (tensor.detach().to(torch.float64) for tensor in (steps, changes, norms))
        if rho.ndim == 0 or not rho.shape == change.shape == norm.shape:
            raise InputError(
                "steps, changes and norms must have the same shape (..., layers), but have "
                f"{tuple(rho.shape)}, {tuple(change.shape)} and {tuple(norm.shape)}."
            )
        for name, tensor in (("changes", change), ("norms", norm)):
            if not bool((torch.isfinite(tensor) & (tensor >= 0)).all()):
                raise InputError(
                    f"{name} must be finite norms of at least 0, but hold {_offender(tensor, 0.0)}; has training diverged?"
                )
        if not bool((torch.isfinite(rho) & (rho > 0)).all()):
            raise InputError(f"steps must be finite and above 0, but hold {_offender(rho, 5e-324)}.")
        rho = rho / rho.sum(-1, keepdim=True)
        target = 1 / self._speeds(rho, change, norm)
        shares = rho.log().mul(1 - self.mixing) + target.log().mul(self.mixing)
        shares = torch.softmax(shares, dim=-1)
        moving = ((change > 0) & (norm > 0)).any(-1, keepdim=True)
        return capped_shares(torch.where(moving, shares, rho), self.cap, effective_depth)

    def drive(
        self,
        blocks: Iterable[nn.Module] | Mapping[str, nn.Module],
        total_steps: int,
        optimizer: Optimizer | None = None,
        *,
        combine: "Callable[[Tensor], Tensor] | None" = None,
    ) -> "StepDriver":
        r"""Let this policy set the step sizes of any residual stack, :math:`x \mapsto x + L \rho_l (\mathrm{block}_l(x) - x)`.

        Args:
            blocks: the blocks in the order in which data runs through them, each of which keeps the shape of its input.
            total_steps: steps that training takes in all.
            optimizer: after each of its steps the driver counts one; without it call ``driver.step()``.
            combine: for training in several processes, see :class:`~learnmech.leaky.StepDriver`.

        Returns:
            The driver, in force from now on; see :class:`~learnmech.leaky.StepDriver`.
        """
        from learnmech.leaky.step_driver import StepDriver

        return StepDriver(self, blocks, total_steps, optimizer, combine=combine)

    def _start(self, layers: int) -> Tensor:
        if self.kind != "irregular":
            return torch.full((layers,), 1 / layers, dtype=torch.float64)
        position = torch.arange(1, layers + 1, dtype=torch.float64) / layers
        steps = (1 + self.irregularity * (0.25 - (position - 0.5).abs())) / layers
        return steps / steps.sum()

    def _stable(self, steps: Tensor, effective_depth: float) -> bool:
        longest = float(steps.max()) * effective_depth
        reachable = self.kind != "adaptive" or self.cap is None or len(steps) * self.cap >= effective_depth
        return longest < 1 and reachable

    def _enough(self, effective_depth: float) -> int:
        layers = max(1, math.floor(effective_depth))
        while not self._stable(self._start(layers), effective_depth):
            layers += 1
        return layers

    def _speeds(self, rho: Tensor, change: Tensor, norm: Tensor) -> Tensor:
        """Give speeds within the limits that ``floor`` sets, up to a factor common to the layers."""
        speeds = change / (rho * norm)  # 0/0 is NaN: no speed; x/0 is infinite: limited below
        known = torch.where((speeds > 0) & torch.isfinite(speeds), speeds, torch.nan)
        middle = torch.nan_to_num(known.nanmedian(-1, keepdim=True).values, nan=1.0)
        speeds = torch.where(torch.isnan(speeds), middle, speeds)
        return torch.minimum(
            torch.maximum(speeds / middle, speeds.new_tensor(self.floor)), 1 / speeds.new_tensor(self.floor)
        )


def step_norms(
    path: Shaped[Tensor, "..."], dimension: int = 0
) -> tuple[Float[Tensor, "*members layers"], Float[Tensor, "*members layers"]]:
    r"""Measure how far representations move from node to node, and how large they are.

    Args:
        path: representations (layers + 1, ..., width, samples), nodes along ``dimension``.
        dimension: where the nodes are; not one of the last two.

    Returns:
        :math:`\|A_l - A_{l-1}\|_F` and :math:`\|A_l\|_F` for l = 1, ..., layers: (..., layers) each, float64.

    Raises:
        InputError: for fewer than three dimensions or two nodes, or a NaN or infinite entry.

    Example:
        >>> changes, norms = step_norms(torch.tensor([[[1.0]], [[3.0]], [[2.0]]]))
        >>> changes.tolist(), norms.tolist()
        ([2.0, 1.0], [3.0, 2.0])
    """
    if path.ndim < 3 or not -path.ndim <= dimension < path.ndim or dimension % path.ndim >= path.ndim - 2:
        raise InputError(
            f"path must have the shape (layers + 1, ..., width, samples) with its nodes along dimension {dimension}, "
            f"but has {tuple(path.shape)}."
        )
    nodes = path.detach().movedim(dimension, -3).to(torch.float64)
    if nodes.shape[-3] < 2:
        raise InputError("path must hold at least two nodes, the input and one layer, but holds fewer.")
    if not bool(torch.isfinite(nodes).all()):
        raise InputError("path holds NaN or infinite entries; has training diverged?")
    changes = torch.linalg.vector_norm(nodes.diff(dim=-3), dim=(-2, -1))
    return changes, torch.linalg.vector_norm(nodes[..., 1:, :, :], dim=(-2, -1))


def relative_steps(path: Shaped[Tensor, "..."], dimension: int = 0) -> Float[Tensor, "*members layers"]:
    r"""Measure the relative steps :math:`\|A_l - A_{l-1}\|_F / \|A_l\|_F` of a path of representations.

    Source: Jacot and Kaiser (arXiv 2405.17573), whose adaptive steps make them equal. They are pure
    numbers, invariant under a common factor on the path, and defined for any residual stack.

    Args:
        path: representations (layers + 1, ..., width, samples), nodes along ``dimension``.
        dimension: where the nodes are; not one of the last two.

    Returns:
        (..., layers), layers last, float64. NaN where a representation is zero and did not move, infinite where it became
        zero.

    Raises:
        InputError: as :func:`step_norms`.

    Example:
        >>> relative_steps(torch.tensor([[[1.0]], [[2.0]], [[3.0]]]))
        tensor([0.5000, 0.3333], dtype=torch.float64)
    """
    changes, norms = step_norms(path, dimension)
    return changes / norms


def step_spread(relative: Float[Tensor, "*members layers"]) -> Float[Tensor, "*members"]:
    r"""Give how unequal relative steps are: the largest over the smallest.

    Defined in learnmech. 1 is the fixed point of the adaptive rule; trained nets with uniform steps have 2 or more.

    Args:
        relative: what :func:`relative_steps` gave, (..., layers).

    Returns:
        At least 1, float64; infinite if a layer does not move while others do, NaN if a relative step is NaN or no layer
        moves.

    Raises:
        InputError: for a negative entry or no layers.

    Example:
        >>> step_spread(torch.tensor([0.1, 0.2, 0.4]))
        tensor(4., dtype=torch.float64)
    """
    relative = relative.detach().to(torch.float64)
    if relative.ndim == 0 or relative.shape[-1] == 0:
        raise InputError(f"relative steps must have the shape (..., layers), but have {tuple(relative.shape)}.")
    if bool((relative < 0).any()):
        raise InputError("relative steps are ratios of norms and cannot be negative; see relative_steps.")
    return relative.amax(-1) / relative.amin(-1)


def _require(value: float, name: str, fits: "Callable[[float], bool]", range_: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not fits(value):
        raise InputError(f"{name} must be a number {range_}, got {value!r}.")


def _require_count(value: int, name: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}.")


def _offender(tensor: Tensor, least: float) -> float:
    return float(tensor[~(torch.isfinite(tensor) & (tensor >= least))][0])
