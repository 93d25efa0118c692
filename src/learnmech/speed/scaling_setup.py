"""Giving a network the initial weights and the learning rates of a scaling."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from learnmech.errors import InputError
from learnmech.monitor.calls import record_calls
from learnmech.monitor.choice import choose_layers
from learnmech.monitor.layers import device_of
from learnmech.monitor.probe import Probe, call_model
from learnmech.monitor.tensors import first_floating
from learnmech.monitor.untouched import untouched
from learnmech.monitor.unwrap import unwrap
from learnmech.speed.residual_branches import ResidualBlock, find_residual_blocks, has_factor
from learnmech.speed.scalings import RESIDUAL_KINDS, Priority, Scaling, require_kind, scaling
from learnmech.speed.weight_roles import Assignment, WeightUnit, assign_roles, fan_in_of, is_norm

_SQUARE_ROOT_OF_TWO = math.sqrt(2.0)


def apply_scaling(
    model: nn.Module,
    kind: str,
    batch: tuple[Any, Any],
    *,
    optimizer: str = "sgd",
    width: int | None = None,
    depth: int | None = None,
    outputs: int | None = None,
    gain: float = _SQUARE_ROOT_OF_TWO,
    priority: Priority = "loss_decay",
    base_learning_rate: float = 1.0,
    roles: Mapping[str, str] | None = None,
    seed: int | None = None,
) -> list[dict[str, Any]]:
    r"""Draw a network's weights anew, in place, by a scaling, and give the groups of parameters with their learning rates.

    The layer that takes up the input, the hidden layers and the read-out are found by running the model once. Every weight is
    drawn normal, biases become zero, normalisations are reset. With n the fan-in of a layer, m the width (the read-out's
    fan-in), :math:`\|x\|` the root mean square norm of what the input layer gets on the batch, and
    :math:`\sigma_L, \beta, \eta` of :func:`learnmech.speed.scaling`:

    =============  =========================  ==============================================================================
    parameters     standard deviation         learning rate for sgd (the factor is 1 in nets of one width)
    =============  =========================  ==============================================================================
    input          1/:math:`\|x\|`            :math:`\eta_\mathrm{input}` with the measured :math:`\|x\|`
    hidden         gain/sqrt(n)               :math:`\eta_\mathrm{hidden}\, m/n`
    read-out       :math:`\sigma_L`           :math:`\eta_\mathrm{output}`
    vectors        0 (biases)                 as an input layer whose input is a single 1; the read-out's bias
                                              :math:`m\,\eta_\mathrm{output}`
    =============  =========================  ==============================================================================

    For ``adam`` and ``muon`` the factors follow from the norms of :mod:`learnmech.speed.scaling_laws` in the same way.

    In residual nets (depth_mup, complete_p) the branch factor :math:`\beta` goes into the float attribute ``branch`` of the
    blocks where there is one, as in :class:`learnmech.nets.ResidualMLP`. Elsewhere it goes into the last weights of each
    branch, which is the same function and, with rates changed by :math:`V' = \beta V`, the same training: the standard
    deviation times :math:`\beta`, the rate times :math:`\beta^2` for sgd and :math:`\beta` for adam and muon. A block is
    residual if it is the identity when its weights are zero; this is tried on the batch.

    Source: the scalings as in :func:`learnmech.speed.scaling`. The rates of vectors and of layers of unlike width, and the
    folded branch factor, are derived here from the same norms.

    Constants of order one (positions of a convolution, tokens, heads, branches in a block) are not accounted for, weight
    decay, momentum and the scale of attention scores are left to you. Measure a step with :func:`learnmech.speed.measure`,
    and the powers with :func:`learnmech.speed.scan`.

    Args:
        model: the network; its weights are replaced. Parameters without ``requires_grad`` are left alone.
        kind: a scaling, see :func:`learnmech.speed.scaling`.
        batch: ``(inputs, targets)``, with inputs as in training.
        optimizer: ``sgd``, ``adam`` or ``muon``: muon for hidden matrices, adam for all the rest.
        width: m; the read-out's fan-in if not given.
        depth: L; weight layers on the way, or residual blocks, if not given.
        outputs: k, the numbers that the loss averages over; the read-out's outputs if not given.
        gain: root of n times the variance of hidden weights: sqrt 2 keeps the size of features through ReLU, 1 without it.
        priority: as in :func:`learnmech.speed.scaling`.
        base_learning_rate: factor on all rates.
        roles: names or globs of parameters to ``input``, ``hidden``, ``output``, ``vector`` or ``keep`` (neither drawn nor
            put into a group), where they are not found by themselves.
        seed: of the draw; torch's global generator is used if not given.

    Returns:
        Groups for a torch optimizer, with ``params``, ``lr`` and ``name``, and ``optimizer`` where kind is muon: which of
        the two it is for.

    Raises:
        InputError: if roles or blocks cannot be identified, the scaling does not fit the net, or an argument is wrong. The
            model is then unchanged.

    Example:
        >>> from learnmech.nets import MLP
        >>> net = MLP(10, 1, width=64, depth=4, batch_norm=False, bias=False)
        >>> groups = apply_scaling(net, "fsc", (torch.ones(8, 10), torch.zeros(8, 1)), seed=0)
        >>> {group["name"]: group["lr"] for group in groups}
        {'input': 0.4, 'hidden': 0.0625, 'output': 0.00390625}
        >>> optimizer = torch.optim.SGD(groups)
    """
    kind = require_kind(kind)
    if not (isinstance(gain, int | float) and math.isfinite(gain) and gain > 0):
        raise InputError(f"gain must be a positive number, got {gain!r}; sqrt 2 suits ReLU.")
    if not isinstance(batch, list | tuple) or len(batch) != 2:
        raise InputError(f"batch must be (inputs, targets), got {type(batch).__name__}.")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
        raise InputError(f"seed must be an integer or None, got {seed!r}.")
    eager = unwrap(model)
    probe = Probe(*batch)
    device = device_of(eager)
    root, _ = record_calls(eager, probe, device)
    choice = choose_layers(eager, probe)
    found = assign_roles(eager, root, choice, roles or {})
    inputs, _, _ = probe.chunk(0, probe.samples, device)
    blocks = find_residual_blocks(eager, inputs, device, choice, found)
    _require_fitting(eager, kind, blocks)
    sizes = _Sizes.of(eager, kind, found, blocks, inputs, device, width=width, depth=depth, outputs=outputs)
    plan = _Plan(kind, optimizer, sizes, priority, base_learning_rate, float(gain), blocks)
    steps = [plan.step(unit, name, matrix) for unit in found.units for name, matrix in unit.matrices.items()]
    rates = {name: plan.vector_rate(name, vector, found) for name, vector in found.vectors.items()}
    _draw(eager, steps, found, blocks, plan.branch, seed)
    return _groups(steps, found, rates, optimizer)


@dataclass(frozen=True)
class _Sizes:
    """The sizes that the formulas ask for."""

    width: int
    depth: int
    outputs: int
    block: int
    norms: dict[str, tuple[float, float]]  # of input units: mean squared 2-norm, mean 1-norm

    @classmethod
    def of(
        cls,
        model: nn.Module,
        kind: str,
        found: Assignment,
        blocks: list[ResidualBlock],
        inputs: Any,
        device: torch.device,
        *,
        width: int | None,
        depth: int | None,
        outputs: int | None,
    ) -> "_Sizes":
        readout = next(iter(found.readout.matrices.values()))
        layers = len(blocks) if kind in RESIDUAL_KINDS else len(found.hidden) + 2
        return cls(
            fan_in_of(readout, found.readout.module) if width is None else width,
            layers if depth is None else depth,
            len(readout) if outputs is None else outputs,
            max((len(block.units) for block in blocks), default=1),
            _input_norms(model, found.inputs, inputs, device),
        )


def _input_norms(
    model: nn.Module, units: list[WeightUnit], inputs: Any, device: torch.device
) -> dict[str, tuple[float, float]]:
    """Measure what each input layer sums over, per output: for a convolution, the entries under the kernel."""
    seen: dict[str, tuple[float, float]] = {}
    handles = []
    for unit in units:
        if isinstance(unit.module, nn.Embedding) or unit.calls == 0 or next(unit.module.children(), None) is not None:
            seen[unit.name] = (1.0, 1.0)
            continue
        matrix = next(iter(unit.matrices.values()))
        fan_in = fan_in_of(matrix, unit.module)

        def look(module: nn.Module, args: Any, name: str = unit.name, fan_in: int = fan_in) -> None:
            features = first_floating(args)
            if features is not None:
                entries = features[1].detach().double()
                seen[name] = (fan_in * float(entries.square().mean()), fan_in * float(entries.abs().mean()))

        handles.append(unit.module.register_forward_pre_hook(look))
    try:
        with untouched(model, device), torch.no_grad():
            call_model(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    for unit in units:
        square = seen.get(unit.name, (0.0, 0.0))[0]
        if not (math.isfinite(square) and square > 0):
            raise InputError(
                f"the input of {unit.name} has the squared norm {square} on this batch; it must be positive and finite."
            )
    return seen


def _require_fitting(model: nn.Module, kind: str, blocks: list[ResidualBlock]) -> None:
    name = type(model).__name__
    if kind in RESIDUAL_KINDS and not blocks:
        raise InputError(
            f"{kind!r} scales the branches of residual blocks, but none were found in {name}; for a plain net take 'ntk', "
            "'mean_field' or 'fsc'."
        )
    if kind not in RESIDUAL_KINDS and blocks:
        raise InputError(
            f"{kind!r} is for plain nets, but {name} has {len(blocks)} residual blocks ({blocks[0].name}, ...); take "
            f"{' or '.join(map(repr, RESIDUAL_KINDS))}."
        )
    if kind not in RESIDUAL_KINDS:
        for name, module in model.named_modules():
            if has_factor(module) and module.branch != 1:
                raise InputError(f"block {name} multiplies its weights by branch = {module.branch}; {kind!r} needs 1.")


@dataclass(frozen=True)
class _Step:
    """What becomes of one weight matrix."""

    name: str
    role: str
    parameter: nn.Parameter
    std: float
    rate: float
    optimizer: str


class _Plan:
    """Standard deviations and rates of every parameter."""

    def __init__(
        self,
        kind: str,
        optimizer: str,
        sizes: _Sizes,
        priority: Priority,
        base_learning_rate: float,
        gain: float,
        blocks: list[ResidualBlock],
    ) -> None:
        def table(rule: str) -> Scaling:
            return scaling(
                kind,
                width=sizes.width,
                depth=sizes.depth,
                d_in=1,
                d_out=sizes.outputs,
                optimizer=rule,
                inputs="sparse",
                priority=priority,
                block=sizes.block if kind in RESIDUAL_KINDS else 1,
                base_learning_rate=base_learning_rate,
            )

        self.sizes, self.gain = sizes, gain
        self.uniform = kind == "standard"
        self.hidden_rule = optimizer
        self.other_rule = "adam" if optimizer == "muon" else optimizer
        self.hidden, self.other = table(self.hidden_rule), table(self.other_rule)
        self.branch = self.hidden.multiplier.get("branch", 1.0)
        self.ends = {end for block in blocks for end in block.ends}
        self.inside = {block.name for block in blocks}
        self.units_inside = {unit for block in blocks for unit in block.units}

    def step(self, unit: WeightUnit, name: str, parameter: nn.Parameter) -> _Step:
        width, fan_in, fan_out = self.sizes.width, fan_in_of(parameter, unit.module), len(parameter)
        if unit.role == "output":
            return _Step(
                name, "output", parameter, self.other.init_std["output"], self._other("output"), self.other_rule
            )
        if unit.role == "input":
            if isinstance(unit.module, nn.Embedding):
                fan_out = parameter.shape[1]
            square, one = self.sizes.norms[unit.name]
            factor = {"sgd": 1 / square, "adam": math.sqrt(width / fan_out) / one}[self.other_rule]
            return _Step(name, "input", parameter, 1 / math.sqrt(square), self._other("input", factor), self.other_rule)
        std, rate = self.gain / math.sqrt(fan_in), self.hidden.learning_rate["hidden"]
        if not self.uniform:
            rate *= {
                "sgd": width / fan_in,
                "adam": width**1.5 / (fan_in * math.sqrt(fan_out)),
                "muon": math.sqrt(width / fan_in),
            }[self.hidden_rule]
        if unit.name in self.ends:
            std, rate = std * self.branch, rate * self.branch ** (2 if self.hidden_rule == "sgd" else 1)
        elif unit.name not in self.units_inside:
            # Outside of blocks the gradient lacks the branch factor that the table's rate makes up for.
            rate *= self.branch ** (2 if self.hidden_rule == "sgd" else 1)
        return _Step(name, "hidden", parameter, std, rate, self.hidden_rule)

    def vector_rate(self, name: str, vector: Tensor, found: Assignment) -> float:
        """Give the learning rate of a vector: an input layer whose input is a single 1."""
        owner = name.rpartition(".")[0]
        adaptive = self.other_rule == "adam"
        if owner == found.readout.name:
            return self._other("output", self.sizes.width)
        rate = self._other("input", math.sqrt(self.sizes.width / max(vector.numel(), 1)) if adaptive else 1.0)
        inside = any(owner == block or owner.startswith(f"{block}.") for block in self.inside)
        if inside and owner not in self.ends and not self.uniform:
            rate /= self.branch ** (1 if adaptive else 2)
        return rate

    def _other(self, role: str, factor: float = 1.0) -> float:
        return self.other.learning_rate[role] * (1.0 if self.uniform else factor)


def _draw(
    model: nn.Module,
    steps: list[_Step],
    found: Assignment,
    blocks: list[ResidualBlock],
    branch: float,
    seed: int | None,
) -> None:
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for step in steps:
            noise = torch.randn(step.parameter.shape, generator=generator, dtype=torch.float64)
            step.parameter.copy_(noise * step.std)
        for name, module in model.named_modules():
            own = {f"{name}.{key}".lstrip(".") for key, _ in module.named_parameters(recurse=False)}
            if is_norm(module) and not own & found.kept and callable(getattr(module, "reset_parameters", None)):
                module.reset_parameters()
        for name, vector in found.vectors.items():
            if "bias" in name.rpartition(".")[2]:
                vector.zero_()
        for module in model.modules():
            if isinstance(module, nn.Embedding) and module.padding_idx is not None and module.weight.requires_grad:
                module.weight[module.padding_idx].zero_()
    for block in blocks:
        if block.has_factor:
            block.module.branch = branch  # type: ignore[assignment]


def _groups(steps: list[_Step], found: Assignment, rates: Mapping[str, float], optimizer: str) -> list[dict[str, Any]]:
    """Gather parameters of one role and one rate."""
    gathered: dict[tuple[str, float, str], list[nn.Parameter]] = {}
    for step in steps:
        gathered.setdefault((step.role, step.rate, step.optimizer), []).append(step.parameter)
    other = "adam" if optimizer == "muon" else optimizer
    for name, vector in found.vectors.items():
        gathered.setdefault(("vector", rates[name], other), []).append(vector)
    groups: list[dict[str, Any]] = []
    counts: dict[str, int] = {}
    for (role, rate, rule), parameters in gathered.items():
        counts[role] = counts.get(role, 0) + 1
        label = role if counts[role] == 1 else f"{role} {counts[role]}"
        groups.append({"params": parameters, "lr": rate, "name": label})
        if optimizer == "muon":
            groups[-1]["optimizer"] = rule
    return groups
