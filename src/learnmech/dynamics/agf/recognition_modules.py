"""Which two-layer network a module is, found by trying formulas on it."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Literal

import torch
from torch import Tensor, nn

from learnmech.errors import InputError

Kind = Literal["linear", "diagonal", "quadratic", "relu", "linear attention"]
_SAME = 1e-8
_DRAWS = 3
_SLOPES = (0.01, 0.1, 0.2, 0.5)


@dataclass(frozen=True)
class Recognised:
    """A module whose outputs are those of a formula.

    Attributes:
        kind: of network.
        roles: what each parameter is in the formula, by role: ``a`` and ``w`` of a two-layer net, ``u`` and ``v`` of a diagonal one, ``v``,
            ``q`` and ``k`` of attention heads; ``inner_bias`` and ``outer_bias`` where there are biases.
        leak: slope of a ReLU below 0.
        error: largest difference to the formula over random parameters and inputs, relative to the largest output.
    """

    kind: Kind
    roles: Mapping[str, str]
    leak: float
    error: float

    @property
    def formula(self) -> str:
        """What it computes, for people."""
        bias = {name: f" + {name}" for name in ("inner_bias", "outer_bias") if name in self.roles}
        inside = f"W x{bias.get('inner_bias', '')}"
        inner = {"linear": f"({inside})", "quadratic": f"({inside})²", "relu": f"relu({inside})"}
        if self.kind in inner:
            return f"A {inner[self.kind]}{bias.get('outer_bias', '')}"
        return "(u ∘ v) · x" if self.kind == "diagonal" else "x_query · Σ v q kᵀ Σ_n x_n y_n"


def recognise(model: nn.Module, inputs: Any) -> Recognised:
    """Find the formula of a module by comparing its outputs with each, on random parameters and inputs.

    A copy in float64 is tried; the module itself is not run. A formula counts if it agrees to 1e-8 in three draws of all
    parameters, so what is recognised is certain but for coincidences of measure zero.

    Args:
        model: the module.
        inputs: what it takes: a tensor (samples, inputs), or for attention (pairs x, pairs y, query).

    Returns:
        The formula.

    Raises:
        InputError: if none fits, naming what was tried.
    """
    try:
        twin = copy.deepcopy(model).double()
    except Exception as error:
        raise InputError(
            f"the model cannot be copied, so it cannot be tried: {type(error).__name__}: {error}."
        ) from error
    values = {name: parameter for name, parameter in twin.named_parameters() if parameter.requires_grad}
    draws = torch.Generator().manual_seed(0)
    tried = []
    for kind, roles, formula, leak in _candidates(twin, values, inputs):
        tried.append(kind)
        gap = _difference(twin, values, roles, formula, inputs, draws)
        if gap <= _SAME:
            return Recognised(kind, roles, leak, gap)
    shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in values.items()) or "none"
    raise InputError(
        "the model is no two-layer network of a known kind: linear, diagonal (two vectors u and v), quadratic, ReLU (one read-in, one "
        f"read-out) or linear attention (v, q, k). Its trainable parameters are {shapes}; formulas tried: {len(tried)}. "
        "Write it as agf.NeuronProblem and call agf.run instead."
    )


Formula = Callable[[Mapping[str, Tensor], Any], Tensor]


def _candidates(
    twin: nn.Module, values: Mapping[str, Tensor], inputs: Any
) -> Iterator[tuple[Kind, dict[str, str], Formula, float]]:
    """Formulas whose shapes fit, with the role of every parameter."""
    names = list(values)
    if isinstance(inputs, tuple | list):
        if len(inputs) == 3:
            yield from _attention(values, inputs)
        return
    width = inputs.shape[-1]
    vectors = [name for name in names if values[name].numel() == width and values[name].squeeze().ndim <= 1]
    if len(names) == 2 == len(vectors):
        yield "diagonal", {"u": names[0], "v": names[1]}, _diagonal, 0.0
    matrices = [name for name in names if values[name].ndim == 2]
    slopes = [module.negative_slope for module in twin.modules() if isinstance(module, nn.LeakyReLU)]
    for w, a in permutations(matrices, 2):
        if values[w].shape[1] != width or values[a].shape[1] != values[w].shape[0]:
            continue
        rest = [name for name in names if name not in (w, a)]
        for biases in _biases(rest, values, values[w].shape[0], values[a].shape[0]):
            roles = {"a": a, "w": w, **biases}
            yield "linear", roles, _two_layers(lambda z: z), 0.0
            yield "relu", roles, _two_layers(torch.relu), 0.0
            yield "quadratic", roles, _two_layers(torch.square), 0.0
            for slope in dict.fromkeys([*slopes, *_SLOPES]):
                yield "relu", roles, _two_layers(nn.LeakyReLU(slope)), slope


def _biases(rest: list[str], values: Mapping[str, Tensor], hidden: int, outputs: int) -> Iterator[dict[str, str]]:
    if not rest:
        yield {}
    if len(rest) == 1 and values[rest[0]].shape == (hidden,):
        yield {"inner_bias": rest[0]}
    if len(rest) == 1 and values[rest[0]].shape == (outputs,):
        yield {"outer_bias": rest[0]}
    if len(rest) == 2:
        for inner, outer in permutations(rest):
            if values[inner].shape == (hidden,) and values[outer].shape == (outputs,):
                yield {"inner_bias": inner, "outer_bias": outer}


def _two_layers(activation: Callable[[Tensor], Tensor]) -> Formula:
    def formula(roles: Mapping[str, Tensor], inputs: Any) -> Tensor:
        hidden = inputs @ roles["w"].T + roles.get("inner_bias", torch.zeros(()))
        return activation(hidden) @ roles["a"].T + roles.get("outer_bias", torch.zeros(()))

    return formula


def _diagonal(roles: Mapping[str, Tensor], inputs: Any) -> Tensor:
    product: Tensor = inputs @ (roles["u"].reshape(-1) * roles["v"].reshape(-1))
    return product


def _attention(values: Mapping[str, Tensor], inputs: Any) -> Iterator[tuple[Kind, dict[str, str], Formula, float]]:
    size = inputs[2].shape[-1]
    for v, q, k in permutations(values, 3):
        heads = values[q].shape[0]
        if values[q].shape == values[k].shape == (heads, size) and values[v].numel() == heads and len(values) == 3:
            yield "linear attention", {"v": v, "q": q, "k": k}, _heads, 0.0


def _heads(roles: Mapping[str, Tensor], inputs: Any) -> Tensor:
    shown, answers, query = inputs
    summed = torch.einsum("bnd,bn->bd", shown, answers.reshape(shown.shape[:2]))
    found: Tensor = ((query @ roles["q"].T) * (summed @ roles["k"].T)) @ roles["v"].reshape(-1)
    return found


def _difference(
    twin: nn.Module,
    values: Mapping[str, Tensor],
    roles: Mapping[str, str],
    formula: Formula,
    inputs: Any,
    draws: torch.Generator,
) -> float:
    worst = 0.0
    for _ in range(_DRAWS):
        drawn = {name: torch.randn(value.shape, generator=draws, dtype=torch.float64) for name, value in values.items()}
        batch = _like(inputs, draws)
        try:
            with torch.no_grad(), torch.random.fork_rng():
                found = torch.func.functional_call(
                    twin, drawn, tuple(batch) if isinstance(batch, tuple | list) else (batch,)
                )
        except Exception as error:
            raise InputError(
                f"the model does not take these inputs in float64: {type(error).__name__}: {error}."
            ) from error
        if not isinstance(found, Tensor):
            raise InputError(f"the model must return a tensor, but returned {type(found).__name__}.")
        expected = formula({role: drawn[name] for role, name in roles.items()}, batch)
        if found.numel() != expected.numel():
            return float("inf")
        gap = (found.reshape(-1) - expected.reshape(-1)).abs().max() / expected.abs().max().clamp_min(1e-300)
        worst = max(worst, float(gap)) if torch.isfinite(gap) else float("inf")
        if worst > _SAME:
            break
    return worst


def _like(inputs: Any, draws: torch.Generator) -> Any:
    if isinstance(inputs, tuple | list):
        return tuple(_like(part, draws) for part in inputs)
    few = inputs[:7]
    return torch.randn(few.shape, generator=draws, dtype=torch.float64)
