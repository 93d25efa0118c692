"""Which two-layer network a module is, found by trying formulas on it."""

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Literal

import torch
from torch import Tensor, nn

from learnmech.dynamics.agf.recognition_formulas import (
    Formula,
    activation_parts,
    as_tokens,
    decode_attention,
    difference_of_squares,
    heads,
    product_of_vectors,
)
from learnmech.errors import InputError

Kind = Literal["linear", "diagonal", "quadratic", "relu", "homogeneous", "linear attention"]
_SAME = 1e-8
_DRAWS = 3
_SAMPLES = 7
_MOST_PARAMETERS = 6


@dataclass(frozen=True)
class Recognised:
    r"""A module whose outputs are those of a formula.

    Attributes:
        kind: of network; "homogeneous" is a two-layer net with another activation that is homogeneous.
        formula: in symbols, for people.
        roles: name of the parameter for each symbol, with ``.T`` behind those that are transposed: ``a`` and ``w`` of two layers, ``u`` and ``v`` of a
            diagonal network, ``v``, ``q`` and ``k`` of attention heads; ``inner_bias`` and ``outer_bias`` where there are biases.
        power: of the activation, 1 for linear and ReLU nets.
        up: factor of its positive side: the activation is ``up * z**power`` for positive z.
        down: of its negative side, ``down * (-z)**power``; -1 for linear, 0 for ReLU.
        scale: constant factor of the output.
        squares: whether a diagonal network is :math:`p^2 - m^2`, and the roles u and v hold p and m.
        error: largest difference to the formula, relative to the largest output, over random parameters and inputs.
    """

    kind: Kind
    formula: str
    roles: Mapping[str, str]
    power: int
    up: float
    down: float
    scale: float
    squares: bool
    error: float

    @property
    def degree(self) -> int:
        """Of homogeneity of a neuron."""
        if self.kind == "linear attention":
            return 3
        return 2 if self.kind == "diagonal" else 1 + self.power

    def values(self, model: nn.Module) -> dict[str, Tensor]:
        """Give the parameters by role, in float64, transposed where the formula needs it.

        Args:
            model: the module.

        Returns:
            Copies on the CPU.
        """
        named = dict(model.named_parameters())
        found = {}
        for role, name in self.roles.items():
            tensor = named[name.removesuffix(".T")].detach().cpu().double().clone()
            found[role] = tensor.T if name.endswith(".T") else tensor
        return found

    def outputs(self, values: Mapping[str, Tensor], inputs: Any) -> Tensor:
        """Give what the formula gives.

        Args:
            values: parameters by role.
            inputs: as the module takes them.

        Returns:
            Outputs, flat.
        """
        formula = (
            heads
            if self.kind == "linear attention"
            else (difference_of_squares if self.squares else product_of_vectors)
            if self.kind == "diagonal"
            else activation_parts(self.power)
        )
        parts = formula.parts(values, inputs)
        factors = [self.scale] if formula.power == 0 else [self.scale * self.up, self.scale * self.down]
        factors += [1.0] if formula.biased(self.roles) else []
        return parts @ torch.tensor(factors, dtype=torch.float64)


def recognise(model: nn.Module, inputs: Any) -> Recognised:
    """Find the formula of a module by comparing its outputs with each, on random parameters and inputs.

    A copy in float64 is tried; the module itself is not run. A formula counts if it agrees to 1e-8 in three draws of all trainable
    parameters and inputs, so what is recognised is certain but for coincidences of measure zero.

    Args:
        model: the module, in the mode in which it trains.
        inputs: what it takes: a tensor with samples first; for attention (pairs x, pairs y, query), or tokens (x, y) with the query last.

    Returns:
        The formula.

    Raises:
        InputError: if none fits, or the model cannot be tried.
    """
    twin = float_copy(model)
    values = {name: parameter for name, parameter in twin.named_parameters() if parameter.requires_grad}
    generator = torch.Generator().manual_seed(0)
    draws = []
    for _ in range(_DRAWS):
        drawn = {
            name: torch.randn(value.shape, generator=generator, dtype=torch.float64) for name, value in values.items()
        }
        batch = _like(inputs, generator)
        draws.append((drawn, batch, run_copy(twin, drawn, batch)))
    shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in values.items()) or "none"
    tried = 0
    if 0 < len(values) <= _MOST_PARAMETERS:
        for formula, roles in _candidates(values, inputs):
            tried += 1
            found = _fit(formula, roles, draws)
            if found is not None:
                return found
    raise InputError(
        "the model is no two-layer network of a known kind: linear, quadratic, ReLU or another homogeneous activation between one read-in "
        "and one read-out, diagonal (two vectors), or linear attention (v, q, k of each head). Its trainable parameters are "
        f"{shapes}; formulas tried: {tried}. Write its neuron as agf.NeuronProblem and call agf.run instead."
    )


def float_copy(model: nn.Module) -> nn.Module:
    """Copy a module to the CPU in float64.

    Args:
        model: the module; its random state, buffers and parameters stay as they are.

    Returns:
        The copy.

    Raises:
        InputError: if it is no module or cannot be copied.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be a torch.nn.Module, got {type(model).__name__}.")
    try:
        return copy.deepcopy(model).cpu().double()
    except Exception as error:
        raise InputError(
            f"the model cannot be copied, so it cannot be tried: {type(error).__name__}: {error}."
        ) from error


def run_copy(twin: nn.Module, parameters: Mapping[str, Tensor], batch: Any) -> Tensor:
    """Run a copy of a model with other parameters, without touching the random state.

    Args:
        twin: the copy.
        parameters: by name.
        batch: its inputs.

    Returns:
        Its output.

    Raises:
        InputError: if it fails, or returns no tensor.
    """
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            found = torch.func.functional_call(twin, dict(parameters), batch if isinstance(batch, tuple) else (batch,))
    except Exception as error:
        raise InputError(
            f"the model does not take these inputs in float64: {type(error).__name__}: {error}."
        ) from error
    if not isinstance(found, Tensor):
        raise InputError(f"the model must return a tensor, but returned {type(found).__name__}.")
    return found


def _like(inputs: Any, generator: torch.Generator) -> Any:
    if isinstance(inputs, tuple):
        return tuple(_like(part, generator) for part in inputs)
    batch = torch.randn((_SAMPLES, *inputs.shape[1:]), generator=generator, dtype=torch.float64)
    if as_tokens(inputs):
        batch[:, -1, -1] = 0
    return batch


def _candidates(values: Mapping[str, Tensor], inputs: Any) -> Iterator[tuple[Formula, dict[str, str]]]:
    """Formulas whose shapes fit, with the role of every parameter."""
    names = list(values)
    shown = decode_attention(inputs)
    if shown is not None:
        size = shown[2].shape[-1]
        for v, q, k in permutations(names, 3) if len(names) == 3 else ():
            count = values[v].numel()
            if max(values[v].shape, default=1) == count:
                for query in _oriented(values[q], q, (count, size)):
                    for key in _oriented(values[k], k, (count, size)):
                        yield heads, {"v": v, "q": query, "k": key}
    if isinstance(inputs, tuple):
        return
    width = math.prod(inputs.shape[1:])
    for w, a in permutations(names, 2):
        if values[w].ndim != 2 or values[a].ndim not in (1, 2):
            continue
        rest = [name for name in names if name not in (w, a)]
        for hidden in dict.fromkeys(values[w].shape):
            for inside in _oriented(values[w], w, (hidden, width)):
                outputs = values[a].numel() // hidden
                for outside in _oriented(values[a], a, (outputs, hidden)):
                    for biases in _biases(rest, values, hidden, outputs):
                        roles = {"a": outside, "w": inside, **biases}
                        yield from ((activation_parts(power), roles) for power in (1, 2, 3))
    if len(names) == 2 and all(values[name].numel() == width == max(values[name].shape) for name in names):
        yield product_of_vectors, {"u": names[0], "v": names[1]}
        for first, second in permutations(names):
            yield difference_of_squares, {"u": first, "v": second}


def _oriented(value: Tensor, name: str, shape: tuple[int, int]) -> Iterator[str]:
    """The name, and with ``.T`` if the transposed fits; a vector fits one row."""
    if tuple(value.shape) == shape or (value.ndim == 1 and shape == (1, len(value))):
        yield name
    if value.ndim == 2 and tuple(value.T.shape) == shape:
        yield name + ".T"


def _biases(rest: list[str], values: Mapping[str, Tensor], hidden: int, outputs: int) -> Iterator[dict[str, str]]:
    sizes = {"inner_bias": hidden, "outer_bias": outputs}
    for roles in ((), ("inner_bias",), ("outer_bias",), ("inner_bias", "outer_bias")):
        if len(roles) == len(rest):
            for names in permutations(rest):
                if all(values[name].numel() == sizes[role] for role, name in zip(roles, names, strict=True)):
                    yield dict(zip(roles, names, strict=True))


def _fit(
    formula: Formula, roles: dict[str, str], draws: list[tuple[dict[str, Tensor], Any, Tensor]]
) -> Recognised | None:
    """Fit the constant factors of a formula's parts to the outputs, and accept it if nothing is left."""
    columns, outputs = [], []
    for drawn, batch, output in draws:
        given = {
            role: drawn[name.removesuffix(".T")].T if name.endswith(".T") else drawn[name]
            for role, name in roles.items()
        }
        parts = formula.parts(given, batch)
        if output.numel() != parts.shape[0]:
            return None
        columns.append(parts)
        outputs.append(output.reshape(-1))
    whole, wanted = torch.cat(columns), torch.cat(outputs)
    if not bool(wanted.isfinite().all()):
        return None
    factors = torch.linalg.lstsq(whole, wanted[:, None]).solution[:, 0]
    size = max(float(wanted.abs().max()), 1e-300)
    error = float((whole @ factors - wanted).abs().max()) / size
    if not error <= _SAME:
        return None
    numbers = [round(factor, 12) for factor in factors.tolist()]
    if formula.biased(roles) and abs(numbers.pop() - 1) > 1e-8:
        return None
    return _describe(formula, roles, numbers, error)


def _describe(formula: Formula, roles: dict[str, str], factors: list[float], error: float) -> Recognised | None:
    squares = formula is difference_of_squares
    if formula.power == 0:
        if abs(factors[0]) < _SAME:
            return None
        kind: Kind = "linear attention" if formula is heads else "diagonal"
        return Recognised(kind, formula.words, roles, 1, 1.0, 0.0, factors[0], squares, error)
    up, down = factors
    if max(abs(up), abs(down)) < _SAME:
        return None
    scale = up if abs(up) >= _SAME else down
    up, down = up / scale, down / scale
    down = round(down, 9) + 0.0
    power = formula.power
    inside = "W x + b" if "inner_bias" in roles else "W x"
    outside = " + c" if "outer_bias" in roles else ""
    if power == 1 and down == -1:
        return Recognised("linear", f"A ({inside}){outside}", roles, 1, 1.0, -1.0, scale, False, error)
    if power == 1 and up == 1 and -1 < down <= 0:
        name = "relu" if down == 0 else f"leaky_relu[{-down:g}]"
        return Recognised("relu", f"A {name}({inside}){outside}", roles, 1, 1.0, down, scale, False, error)
    if power == 2 and down == 1:
        return Recognised("quadratic", f"A ({inside})^2{outside}", roles, 2, 1.0, 1.0, scale, False, error)
    words = f"A s({inside}){outside}, s(z) = {up:g} z^{power} for z > 0 and {down:g} (-z)^{power} for z < 0"
    return Recognised("homogeneous", words, roles, power, up, down, scale, False, error)
