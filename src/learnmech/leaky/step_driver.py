"""A policy of step sizes put in charge of a residual stack while it trains."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from learnmech import history as histories
from learnmech.errors import InputError, LearnmechWarning
from learnmech.leaky.block_order import BlockOrder, named_blocks
from learnmech.leaky.block_outputs import block_input, block_output, stretched, with_output
from learnmech.leaky.step_sizes import StepSizePolicy, step_spread

SEARCHED_STEPS = 2
"""During how many steps of training the graph is searched for blocks that run twice."""

_SOURCE = "Jacot and Kaiser (arXiv 2405.17573), adaptive step sizes; on general residual stacks: learnmech"


class StepDriver:
    r"""Scale the step of every block of a residual stack, and adapt the scale while it trains.

    .. math:: x_l = x_{l-1} + L \rho_l\,\bigl(\mathrm{block}_l(x_{l-1}) - x_{l-1}\bigr), \qquad l = 1, \ldots, L

    Forward hooks do it, in training and in evaluation alike. Uniform steps leave every output as it is, bit for bit.
    Adaptive steps follow the rule of :class:`~learnmech.leaky.StepSizePolicy` towards equal relative steps
    :math:`\|x_l - x_{l-1}\|_F / \|x_l\|_F`. The rule is that of leaky ResNets (Jacot and Kaiser, arXiv 2405.17573); to let it
    drive other residual stacks is learnmech's, without a theory that the result generalises better. For a
    :class:`~learnmech.leaky.LeakyResNet` use its own ``steps``, which act on the leak too.

    Norms are read in the forward pass of training itself: every ``period`` steps and at the last one, in the first pass after
    an optimizer step in which every block ran in order with its ``training`` flag set. Later passes of the same step (gradient
    accumulation, closures, recomputed checkpoints) and passes in evaluation mode are not read. Multipliers change only
    after the optimizer's step, so all passes of one step see the same network. A step that a gradient scaler skips is
    not counted.

    The network that was trained includes its multipliers. :meth:`remove` (and the end of a ``with`` block) takes them away:
    keep the driver while the network is in use, and store :meth:`state_dict` with its weights. A deep copy of the network
    (an average of weights, say) follows the multipliers of this driver and is never read.

    Blocks may take keyword arguments and return a tensor or a tuple or list that begins with one; what else it holds
    passes unchanged. In half precision the scaled output is rounded once more. In distributed data-parallel training every
    process reads its own batch, and their networks would drift apart: give ``combine``, which gets the squared norms
    (2, layers) of this process on the CPU (NaN where none were read) and returns their sum over all processes. Models under
    torch.compile, torch.nn.DataParallel and FSDP are not supported.

    Args:
        policy: how steps are chosen.
        blocks: the blocks in the order in which data runs through them: a list, ModuleList, Sequential, or a mapping from names
            (ModuleDict). Each keeps the shape of its input and runs once in a forward pass.
        total_steps: steps that training takes in all.
        optimizer: after each of its steps the driver counts one; without it call :meth:`step`.
        combine: see above.

    Raises:
        InputError: if there are no blocks, one is listed twice or is compiled, the count is not positive, an adaptive
            policy would never adapt in so many steps, or the optimizer has no hooks. In the forward pass: if a block changes
            the shape of its input or writes into it, returns something else, or runs several times or in another order.

    Example:
        >>> from learnmech.nets import ResidualMLP
        >>> _ = torch.manual_seed(0)
        >>> net = ResidualMLP(10, 2, width=16, depth=4)
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
        >>> policy = StepSizePolicy("adaptive", period=2, begin=2)
        >>> driver = policy.drive(net.blocks, 10, optimizer)
        >>> for _ in range(10):
        ...     optimizer.zero_grad()
        ...     net(torch.ones(8, 10)).square().mean().backward()
        ...     optimizer.step()
        >>> round(float(driver.steps.sum()), 12), driver.history().sizes["step"]
        (1.0, 5)
        >>> driver.remove()
    """

    def __init__(
        self,
        policy: StepSizePolicy,
        blocks: Iterable[nn.Module] | Mapping[str, nn.Module],
        total_steps: int,
        optimizer: Optimizer | None = None,
        *,
        combine: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.policy = policy
        named = named_blocks(blocks)
        self._names, self._blocks = list(named), list(named.values())
        self._total_steps = _check_total(total_steps, policy)
        if optimizer is not None and not hasattr(optimizer, "register_step_post_hook"):
            raise InputError(
                f"{type(optimizer).__name__} has no register_step_post_hook (torch.optim.Optimizer has); leave optimizer= out "
                "and call driver.step() after each step."
            )
        self._combine = combine
        self._count = 0
        self._set_steps(policy.initial(len(named)))
        self._order = BlockOrder(self._names)
        self._entered: dict[int, tuple[int, int]] = {}
        self._read: list[tuple[Tensor, Tensor]] = []
        self._rows: list[tuple[int, Tensor, Tensor]] = []
        self._warned: set[str] = set()
        self._by_hand = optimizer is None
        self._handles: list[Any] = []
        for number, block in enumerate(self._blocks):
            self._handles.append(block.register_forward_pre_hook(self._before_block(number), with_kwargs=True))
            self._handles.append(block.register_forward_hook(self._after_block(number), with_kwargs=True))
        if optimizer is not None:
            self._handles.append(optimizer.register_step_post_hook(self._after_step))

    # ------------------------------------------------------------------ what it knows

    @property
    def steps(self) -> Float[Tensor, " layers"]:
        r"""The step sizes :math:`\rho` in force, sum 1, float64."""
        return self._steps.clone()

    @property
    def multipliers(self) -> Float[Tensor, " layers"]:
        r"""What each block's change is multiplied with, :math:`L \rho_l`, float64."""
        return torch.tensor(self._multipliers, dtype=torch.float64)

    @property
    def relative_steps(self) -> Float[Tensor, " layers"]:
        r"""The relative steps :math:`\|x_l - x_{l-1}\| / \|x_l\|` read last, float64; NaN before the first reading."""
        return (
            self._rows[-1][2].clone() if self._rows else torch.full((len(self._names),), torch.nan, dtype=torch.float64)
        )

    @property
    def spread(self) -> float:
        """Largest over smallest of the relative steps read last; NaN before the first reading."""
        return float(step_spread(self.relative_steps))

    def history(self) -> xr.Dataset:
        """Give the step sizes and relative steps over training.

        Returns:
            A history over ``step`` (those at which norms were read) and ``layer`` (the names of the blocks): ``step_size``,
            in force during that step, and ``relative_step``, read in it.

        Raises:
            InputError: if nothing has been read yet.
        """
        if not self._rows:
            raise InputError(
                f"nothing has been read yet: norms are read every {self.policy.period} steps of training and at step "
                f"{self._total_steps}, and {self._count} steps were counted."
            )
        last = max(len(self._names) - 1, 1)
        dimensions = ("step", "layer")
        return histories.build(
            {
                "step_size": (
                    dimensions,
                    torch.stack([row[1] for row in self._rows]).numpy(),
                    {"long_name": "step size of the block", "scale": "fraction of the depth, sum 1", "source": _SOURCE},
                ),
                "relative_step": (
                    dimensions,
                    torch.stack([row[2] for row in self._rows]).numpy(),
                    {
                        "long_name": "change of the features over their size",
                        "scale": "ratio of norms",
                        "source": _SOURCE,
                    },
                ),
            },
            {
                "step": [row[0] for row in self._rows],
                "layer": self._names,
                "depth": ("layer", [position / last for position in range(len(self._names))]),
            },
            config={"policy": asdict(self.policy), "total_steps": self._total_steps},
        )

    # ------------------------------------------------------------------ going on

    def step(self) -> None:
        """Count a step of training, and adapt where one is due. Only for a driver without an optimizer.

        Raises:
            InputError: if an optimizer was given, which does it by itself.
        """
        if not self._by_hand:
            raise InputError("this driver counts the steps of its optimizer by itself; do not call step().")
        self._finish_step()

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint needs to go on exactly, between two steps of training.

        Returns:
            Tensors, numbers and text, as ``torch.load(weights_only=True)`` reads them.
        """
        layers = len(self._names)
        empty = torch.empty(0, layers, dtype=torch.float64)
        return {
            "policy": asdict(self.policy),
            "layers": list(self._names),
            "count": self._count,
            "steps": self._steps.clone(),
            "read_at": [row[0] for row in self._rows],
            "read_steps": torch.stack([row[1] for row in self._rows]) if self._rows else empty,
            "read_relative": torch.stack([row[2] for row in self._rows]) if self._rows else empty.clone(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint.

        Args:
            state: what :meth:`state_dict` gave.

        Raises:
            InputError: if it is something else, or of another policy or other blocks; nothing is changed then.
        """
        wanted = set(self.state_dict())
        if set(state) != wanted:
            raise InputError(
                f"this is no checkpoint of a step driver: expected the entries {', '.join(sorted(wanted))}."
            )
        for name, own in (("policy", asdict(self.policy)), ("layers", self._names)):
            if state[name] != own:
                raise InputError(f"the checkpoint has other {name}: {state[name]!r}, but this driver has {own!r}.")
        steps = torch.as_tensor(state["steps"], dtype=torch.float64).cpu()
        if steps.shape != self._steps.shape or not bool((steps > 0).all()):
            raise InputError(
                f"the checkpoint's steps must be {len(self._names)} positive numbers, but are {steps.tolist()}."
            )
        tables = [torch.as_tensor(state[name], dtype=torch.float64).cpu() for name in ("read_steps", "read_relative")]
        self._set_steps(steps.clone())
        self._count = int(state["count"])
        self._rows = [
            (int(at), before.clone(), relative.clone())
            for at, before, relative in zip(state["read_at"], *tables, strict=True)
        ]
        self._read = []

    def remove(self) -> None:
        """Take the hooks off: the blocks are again as they were, without multipliers (see the class)."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"<StepDriver of {len(self._names)} blocks: {self.policy.kind} steps, {self._count} of {self._total_steps} done>"

    # ------------------------------------------------------------------ hooks

    def _before_block(self, number: int) -> Callable[..., None]:
        def hook(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            features = block_input(block, self._names[number], args, kwargs)
            self._entered[number] = (id(features), _version(features))
            if block.training and block is self._blocks[number]:
                self._order.enters(number, features, search=self._count < SEARCHED_STEPS)

        return hook

    def _after_block(self, number: int) -> Callable[..., Any]:
        def hook(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            name = self._names[number]
            features = block_input(block, name, args, kwargs)
            given = block_output(block, name, output, features)
            identity, version = self._entered.pop(number, (0, 0))
            if identity == id(features) and version != _version(features):
                raise InputError(
                    f"block {name} ({type(block).__name__}) writes into its input, so the change that it makes cannot be told; "
                    "make its operations out of place (x = x + f(x), inplace=False)."
                )
            scaled = stretched(features, given, self._multipliers[number])
            if block.training and block is self._blocks[number]:
                if scaled is not features:
                    self._order.leaves(number, scaled)
                if self._reading:
                    self._take(number, features, scaled)
            return None if scaled is given else with_output(output, scaled)

        return hook

    @property
    def _reading(self) -> bool:
        coming = self._count + 1
        return coming % self.policy.period == 0 or coming == self._total_steps

    def _take(self, number: int, features: Tensor, scaled: Tensor) -> None:
        """Read norms in the first pass in which every block runs in order; a pass that broke off starts again."""
        if len(self._read) == len(self._names):
            return
        if number == 0:
            self._read = []
        if number != len(self._read):
            return
        with torch.no_grad():
            before, after = features.detach(), scaled.detach()
            wide = torch.promote_types(torch.promote_types(before.dtype, after.dtype), torch.float32)
            change = torch.linalg.vector_norm(after.to(wide) - before.to(wide))
            self._read.append((change, torch.linalg.vector_norm(after, dtype=wide)))

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        found_inf = getattr(
            optimizer, "found_inf", None
        )  # a fused optimizer under a GradScaler skips the step by itself
        if isinstance(found_inf, Tensor) and bool(found_inf):
            self._read = []
            return
        self._finish_step()

    def _finish_step(self) -> None:
        reading, read = self._reading, self._read
        self._count += 1
        self._read = []
        if not reading:
            return
        squares = self._combined(read)
        if squares is None:
            self._warn_once(
                "unread",
                f"no norms were read at step {self._count}: no forward pass in training mode ran through all blocks in the order "
                "listed (are they compiled, skipped, or in evaluation mode?); step sizes stay as they are.",
            )
            return
        changes, norms = squares.to("cpu", torch.float64).sqrt()
        self._rows.append((self._count, self._steps, changes / norms))
        if self.policy.due(self._count, self._total_steps):
            if bool(torch.isfinite(changes).all() and torch.isfinite(norms).all()):
                self._set_steps(self.policy.proposed(self._steps, changes, norms))
            else:
                self._warn_once(
                    "infinite", f"features were not finite at step {self._count}; step sizes stay as they are."
                )

    def _combined(self, read: list[tuple[Tensor, Tensor]]) -> Tensor | None:
        """Give squared norms (2, layers) over all processes; None if this process read none."""
        layers = len(self._names)
        complete = len(read) == layers
        squares = torch.full((2, layers), torch.nan, dtype=torch.float64)
        if complete:
            squares = torch.tensor(
                [[float(norm) for norm in norms] for norms in zip(*read, strict=True)], dtype=torch.float64
            ).square()
        if self._combine is None:
            return squares if complete else None
        squares = self._combine(squares)  # also where nothing was read: the other processes wait for it
        if squares.shape != (2, layers):
            raise InputError(
                f"combine must return squared norms of shape (2, {layers}), but gave {tuple(squares.shape)}."
            )
        return squares if complete else None

    def _set_steps(self, steps: Tensor) -> None:
        self._steps = steps
        multipliers = (steps * len(steps)).tolist()
        self._multipliers = [1.0 if abs(value - 1) < 1e-12 else value for value in multipliers]

    def _warn_once(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(message, LearnmechWarning, stacklevel=3)


def _check_total(total_steps: int, policy: StepSizePolicy) -> int:
    if isinstance(total_steps, bool) or not isinstance(total_steps, int) or total_steps < 1:
        raise InputError(f"total_steps must be a whole number of at least 1, got {total_steps!r}.")
    first = max(policy.period, -(-max(policy.begin, 1) // policy.period) * policy.period)
    if policy.kind == "adaptive" and not policy.due(first, total_steps):
        raise InputError(
            f"in {total_steps} steps of training adaptive steps would never adapt: the first update is at step {first} and the "
            f"last at {int(policy.freeze * total_steps)}; make begin or period smaller, or train for longer."
        )
    return total_steps


def _version(features: Tensor) -> int:
    return 0 if features.is_inference() else features._version
