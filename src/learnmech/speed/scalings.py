"""Scalings of initial weights and learning rates with width and depth, and what each makes of a step of training."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from learnmech.errors import InputError
from learnmech.speed.scaling_laws import LAWS, Inputs, Orders, Rule, derive_orders

Priority = Literal["loss_decay", "feature_learning"]
Kind = Literal["standard", "ntk", "mean_field", "fsc", "depth_mup", "complete_p"]
ALIASES = {"mup": "mean_field"}
RESIDUAL_KINDS = tuple(kind for kind, law in LAWS.items() if law.branch is not None)


class Exponents(NamedTuple):
    """Powers of width and depth with which a quantity grows.

    Attributes:
        width: power of the width.
        depth: power of the depth.
    """

    width: float
    depth: float


@dataclass(frozen=True)
class Scaling:
    """Initial weights and learning rates of a network of one size, and the properties that they have.

    Attributes:
        kind: name of the scaling.
        optimizer: rule of updates the rates are for.
        width: width m.
        depth: L: weight layers of a plain net, blocks of a residual net.
        d_in: inputs d.
        d_out: outputs k.
        block: weight layers of a residual block.
        inputs: ``dense`` or ``sparse``.
        priority: ``loss_decay`` or ``feature_learning``.
        base_learning_rate: factor on all rates.
        init_std: standard deviation of the initial weights of ``input``, ``hidden`` and ``output`` layers.
        learning_rate: learning rate of the same.
        multiplier: ``output``, 1: the read-out's size is in its weights; and ``branch`` for residual kinds.
        satisfies: ``stable_forward``, ``feature_learning``, ``loss_decay``, ``balanced_contributions`` and, for residual
            kinds, ``in_block_feature_learning``: whether it holds at every width and depth.
        exponents: ``speed_rms``, ``sensitivity``, ``loss_decay`` and ``activation_rms`` to the powers predicted for the last
            hidden feature.
        source: the works behind it.
    """

    kind: str
    optimizer: str
    width: int
    depth: int
    d_in: int
    d_out: int
    block: int
    inputs: str
    priority: str
    base_learning_rate: float
    init_std: Mapping[str, float]
    learning_rate: Mapping[str, float]
    multiplier: Mapping[str, float]
    satisfies: Mapping[str, bool]
    exponents: Mapping[str, Exponents]
    source: str

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain values.

        Returns:
            Attributes by name; exponents as ``{"width": ..., "depth": ...}``.
        """
        plain = {name: dict(value) if isinstance(value, Mapping) else value for name, value in vars(self).items()}
        plain["exponents"] = {name: powers._asdict() for name, powers in self.exponents.items()}
        return plain

    def __str__(self) -> str:
        residual = self.kind in RESIDUAL_KINDS
        what = f"{self.depth} blocks of {self.block}" if residual else f"{self.depth} layers"
        lines = [
            f"{self.kind} for {self.optimizer}: width {self.width}, {what}, {self.d_in} {self.inputs} inputs, {self.d_out} outputs",
            "",
            f"{'layer':10}{'initial std':>14}{'learning rate':>16}",
        ]
        lines += [f"{role:10}{std:>14.4g}{self.learning_rate[role]:>16.4g}" for role, std in self.init_std.items()]
        if residual:
            lines.append(f"branch factor {self.multiplier['branch']:.4g}")
        lines += ["", f"{'last hidden feature':22}{'grows with width to':>20}{'with depth to':>16}"]
        lines += [f"{name:22}{power.width:>20g}{power.depth:>16g}" for name, power in self.exponents.items()]
        lines += [
            "",
            *(f"{'yes' if holds else 'NO ':4}{name.replace('_', ' ')}" for name, holds in self.satisfies.items()),
        ]
        return "\n".join([*lines, f"source: {self.source}"])


def scaling(
    kind: str,
    *,
    width: int,
    depth: int,
    d_in: int,
    d_out: int,
    optimizer: str = "sgd",
    inputs: Inputs = "dense",
    priority: Priority = "loss_decay",
    block: int = 1,
    base_learning_rate: float = 1.0,
) -> Scaling:
    r"""Give initial weights and learning rates of a scaling for a net of one size.

    With width m, L layers of a plain ReLU net (input and read-out counted) or L blocks
    :math:`f \mapsto f + \beta V \mathrm{relu}(f)` of a residual net, k outputs and inputs of squared norm
    :math:`\|x\|^2` (d if dense, 1 if sparse), the initial standard deviations are :math:`1/\|x\|` at the input,
    :math:`\sqrt{2/m}` in hidden layers and :math:`\sigma_L` at the read-out, and the rates for gradient descent are

    =========================  ==================  ===========================  ====================  ====================  ===========================
    kind                       :math:`\sigma_L`    input                        hidden                read-out              sensitivity
    =========================  ==================  ===========================  ====================  ====================  ===========================
    standard                   1/sqrt(m)           1                            1                     1                     sqrt(L k/m)
    ntk                        1/sqrt(m)           k/(L \|x\|^2)                k/(m L)               k/(m L)               sqrt(L k/m): lazy
    mean_field                 sqrt(k)/m           m/(L \|x\|^2)                1/L                   k/(m L)               sqrt(L)
    the same, for features     sqrt(k)/m           m/(L^1.5 \|x\|^2)            L^-1.5                k/(m L^1.5)           sqrt(L)
    fsc                        sqrt(k L)/m         m/(L^2 \|x\|^2)              1/L^2                 k/(m L)               1
    depth_mup, beta=1/sqrt L   sqrt(k)/m           m/(L \|x\|^2)                1                     k/(m L)               1
    complete_p, beta=1/L       sqrt(k)/m           m/(L \|x\|^2)                L                     k/(m L)               1
    =========================  ==================  ===========================  ====================  ====================  ===========================

    times ``base_learning_rate``. All but ``standard`` (and ``mean_field`` for features) make the loss decay by an amount of
    order one in a step, 1/L of it by each layer: :math:`\eta = 1/(L\,\langle g, u\rangle)`. For ``adam`` u is the sign of the
    gradient (the first step of Adam), for ``muon`` its polar factor of spectral norm 1; the table then changes as
    :mod:`learnmech.speed.scaling_laws` derives. Hidden rates for ``adam`` are of order :math:`1/(L m^{1.5})` for ntk,
    :math:`1/(L m)` for mean_field, :math:`1/(L^{1.5} m)` for fsc, :math:`1/(m \sqrt{L})` for depth_mup and :math:`1/m` for
    complete_p.

    ``satisfies`` says what holds at every width and depth: ``stable_forward`` (features of order one), ``feature_learning``
    (the last hidden feature moves by order one in a step), ``loss_decay`` (the loss decays by order one),
    ``balanced_contributions`` (every layer gives a share of order 1/L of the decay) and, for residual kinds,
    ``in_block_feature_learning`` (so do features inside a block: false for depth_mup with blocks of two or more layers, where
    the weights of a block move its inner features by :math:`L^{-1/2}` only).

    Source: the feature speed formula and the scaling fsc, Chizat and Netrapalli, arXiv 2311.18718; all powers are derived
    here. ``mean_field`` for features has the rate :math:`L^{-3/2}` of Jelassi et al., arXiv 2305.07810. Branch factors:
    Yang et al., arXiv 2310.02244 (depth_mup), and Dey et al., arXiv 2505.01618 (complete_p, and the laziness inside blocks).
    Different from common recipes for residual nets: input and read-out get 1/L of the decay as every block does; where they
    are to get a share of order one each, multiply their rates by L.

    Valid to first order at the start, for one sample or a batch of fixed size, and constants are not tuned: the powers are
    what is claimed. fsc needs m much larger than L. Layers with normalisation keep the powers only roughly.
    :func:`learnmech.speed.scan` tests the powers on a net.

    Args:
        kind: ``standard``, ``ntk``, ``mean_field`` (also called ``mup``), ``fsc``, ``depth_mup`` or ``complete_p``.
        width: width m.
        depth: layers L of a plain net, at least 2; blocks L of a residual net (depth_mup, complete_p).
        d_in: inputs d.
        d_out: outputs k.
        optimizer: ``sgd``, ``adam`` or ``muon``.
        inputs: ``dense`` for inputs of mean square 1, ``sparse`` for a single entry 1 (one-hot, embedding).
        priority: for mean_field, whether the loss decay or the speed of the last feature is of order one; its sensitivity
            grows with depth, so that not both can be. Kinds of sensitivity 1 give the same for both.
        block: weight layers of a residual block.
        base_learning_rate: factor on all rates; with kinds that balance, about the loss decay wanted of a step.

    Returns:
        The scaling; print it for a table.

    Raises:
        InputError: if the kind or an option is unknown, a size is not a positive integer, or the options do not fit.

    Example:
        >>> fsc = scaling("fsc", width=1024, depth=16, d_in=10, d_out=1)
        >>> fsc.init_std["output"], fsc.learning_rate["hidden"]
        (0.00390625, 0.00390625)
        >>> scaling("mean_field", width=64, depth=4, d_in=10, d_out=1).exponents["sensitivity"]
        Exponents(width=0.0, depth=0.5)
    """
    kind = require_kind(kind)
    law = LAWS[kind]
    _require_choice("optimizer", optimizer, get_args(Rule))
    _require_choice("inputs", inputs, get_args(Inputs))
    _require_choice("priority", priority, get_args(Priority))
    _require_sizes(kind, width=width, depth=depth, d_in=d_in, d_out=d_out, block=block)
    if not (
        isinstance(base_learning_rate, int | float) and math.isfinite(base_learning_rate) and base_learning_rate > 0
    ):
        raise InputError(f"base_learning_rate must be a positive number, got {base_learning_rate!r}.")
    slowed = priority == "feature_learning"
    if slowed and kind in ("standard", "ntk"):
        raise InputError(
            f"priority='feature_learning' does not fit {kind!r}: its features are slow for the decay of the loss, so that "
            "faster features would mean a decay that grows with width; take 'mean_field' or 'fsc'."
        )
    rule: Rule = optimizer  # type: ignore[assignment]
    orders = derive_orders(law, rule, inputs, slowed=slowed)
    sizes = {"width": width, "depth": depth, "inputs": d_in, "outputs": d_out}
    multiplier = {"output": 1.0} | ({} if law.branch is None else {"branch": law.branch.value(**sizes)})
    return Scaling(
        kind=kind,
        optimizer=optimizer,
        width=width,
        depth=depth,
        d_in=d_in,
        d_out=d_out,
        block=block,
        inputs=inputs,
        priority=priority,
        base_learning_rate=float(base_learning_rate),
        init_std={
            "input": 1.0 / math.sqrt(d_in) if inputs == "dense" else 1.0,
            "hidden": math.sqrt(2.0 / width),
            "output": law.output_std.value(**sizes),
        },
        learning_rate={role: base_learning_rate * rate.value(**sizes) for role, rate in orders.rates.items()},
        multiplier=multiplier,
        satisfies=_properties(orders, block),
        exponents={
            "speed_rms": Exponents(orders.speed.width, orders.speed.depth),
            "sensitivity": Exponents(orders.sensitivity.width, orders.sensitivity.depth),
            "loss_decay": Exponents(orders.loss_decay.width, orders.loss_decay.depth),
            "activation_rms": Exponents(0.0, 0.0),
        },
        source=law.source,
    )


def require_kind(kind: str) -> str:
    """Check the name of a scaling.

    Args:
        kind: the name, or ``mup`` for ``mean_field``.

    Returns:
        The name that the tables use.

    Raises:
        InputError: if there is no such scaling.
    """
    name = ALIASES.get(kind, kind) if isinstance(kind, str) else kind
    if name not in LAWS:
        known = ", ".join(map(repr, [*LAWS, *ALIASES]))
        raise InputError(f"unknown scaling {kind!r}; choose one of {known}.")
    return name


def _properties(orders: Orders, block: int) -> dict[str, bool]:
    even = all((share.width, share.depth) == (0, -1) for share in orders.shares.values())
    properties = {
        "stable_forward": True,  # by the choice of the initial weights, in all kinds
        "feature_learning": orders.speed.free,
        "loss_decay": orders.loss_decay.free,
        "balanced_contributions": even,
    }
    if orders.inner_speed is not None:
        properties["in_block_feature_learning"] = block == 1 or orders.inner_speed.free
    return properties


def _require_choice(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}.")


def _require_sizes(kind: str, **sizes: object) -> None:
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise InputError(f"{name} must be a positive integer, got {size!r}.")
    if kind not in RESIDUAL_KINDS:
        if sizes["depth"] == 1:
            raise InputError(
                f"depth counts the input layer and the read-out for {kind!r} and must be at least 2, got 1."
            )
        if sizes["block"] != 1:
            raise InputError(f"block is for residual kinds ({', '.join(RESIDUAL_KINDS)}), not for {kind!r}.")
