"""Which parameters of a network belong to its input, its hidden layers and its read-out."""

import fnmatch
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from learnmech.errors import InputError
from learnmech.monitor.calls import Call, walk
from learnmech.monitor.layers import LayerChoice

Role = Literal["input", "hidden", "output", "vector", "keep"]


@dataclass
class WeightUnit:
    """A module with weight matrices of its own.

    Attributes:
        name: the module's name; empty for the model itself.
        module: the module.
        role: ``input``, ``hidden`` or ``output``.
        matrices: names of its matrices to the parameters.
        calls: how often it was called itself.
    """

    name: str
    module: nn.Module
    role: Role = "hidden"
    matrices: dict[str, nn.Parameter] = field(default_factory=dict)
    calls: int = 1


@dataclass
class Assignment:
    """Every parameter in its role.

    Attributes:
        units: modules with matrices, in the order in which they are called.
        vectors: names of all other parameters that are set up to the parameters.
        kept: names of the parameters that are neither drawn nor put into a group.
    """

    units: list[WeightUnit]
    vectors: dict[str, nn.Parameter]
    kept: set[str]

    @property
    def readout(self) -> WeightUnit:
        """The one read-out."""
        return next(unit for unit in self.units if unit.role == "output")

    @property
    def inputs(self) -> list[WeightUnit]:
        """Modules that take up the input."""
        return [unit for unit in self.units if unit.role == "input"]

    @property
    def hidden(self) -> list[WeightUnit]:
        """All other modules with matrices."""
        return [unit for unit in self.units if unit.role == "hidden"]


def assign_roles(model: nn.Module, root: Call, choice: LayerChoice, roles: Mapping[str, str]) -> Assignment:
    """Find the role of every parameter.

    Embeddings, or else the first weight layer called, take up the input; the weight layer that gives the model's output is
    the read-out; all others are hidden. Parameters that are not trained are left alone.

    Args:
        model: the eager model.
        root: the recorded calls.
        choice: its layers, chosen automatically.
        roles: names or globs of parameters to roles, which win.

    Returns:
        The assignment.

    Raises:
        InputError: naming what cannot be identified.
    """
    given = _given_roles(model, roles)
    kept = {name for name, role in given.items() if role == "keep"}
    kept |= {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    units, vectors = _collect(model, root, given, kept)
    _assign(units, choice, given)
    assignment = Assignment(units, vectors, kept)
    _require_complete(model, assignment, given)
    return assignment


def fan_in_of(parameter: nn.Parameter, module: nn.Module) -> int:
    """Count the numbers that one output of a weight matrix sums over.

    Args:
        parameter: the matrix.
        module: its owner.

    Returns:
        The fan-in; 1 for embeddings, which pick one row.
    """
    return 1 if isinstance(module, nn.Embedding) else math.prod(parameter.shape[1:])


def is_norm(module: nn.Module) -> bool:
    """Tell whether a module is a normalisation.

    Args:
        module: any module.

    Returns:
        Whether its class is called so.
    """
    return "Norm" in type(module).__name__


def _given_roles(model: nn.Module, roles: Mapping[str, str]) -> dict[str, str]:
    names = [name for name, _ in model.named_parameters()]
    given: dict[str, str] = {}
    for pattern, role in roles.items():
        if role not in get_args(Role):
            raise InputError(f"roles: {role!r} is no role; choose one of {', '.join(map(repr, get_args(Role)))}.")
        matched = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
        if not matched:
            raise InputError(f"roles: {pattern!r} matches no parameter; there are {', '.join(names[:10])}, ...")
        given.update(dict.fromkeys(matched, role))
    return given


def _collect(
    model: nn.Module, root: Call, given: Mapping[str, str], kept: set[str]
) -> tuple[list[WeightUnit], dict[str, nn.Parameter]]:
    order, counts = _order_of_calls(root)
    units: list[tuple[tuple[float, int], WeightUnit]] = []
    vectors: dict[str, nn.Parameter] = {}
    canonical = {id(parameter): name for name, parameter in model.named_parameters()}
    owners: dict[int, str] = {}
    for position, (name, module) in enumerate(model.named_modules()):
        unit = WeightUnit(name, module, calls=counts.get(name, 0))
        for key, parameter in module.named_parameters(recurse=False):
            full = canonical[id(parameter)]
            if full in kept:
                continue
            here = f"{name}.{key}".lstrip(".")
            if id(parameter) in owners:
                raise InputError(
                    f"{owners[id(parameter)]} and {here} are the same parameter: a shared weight has two roles at once, "
                    "which no scaling here covers. Untie them."
                )
            owners[id(parameter)] = here
            if given.get(full) == "vector" or (full not in given and (parameter.ndim < 2 or is_norm(module))):
                vectors[full] = parameter
            else:
                unit.matrices[full] = parameter
        if unit.matrices:
            units.append(((_place(name, order), position), unit))
    units.sort(key=lambda item: item[0])
    return [unit for _, unit in units], vectors


def _order_of_calls(root: Call) -> tuple[dict[str, float], dict[str, int]]:
    order: dict[str, float] = {}
    counts: dict[str, int] = {}
    for position, call in enumerate(walk(root)):
        order.setdefault(call.name, float(position))
        counts[call.name] = max(counts.get(call.name, 0), call.index + 1)
    return order, counts


def _place(name: str, order: Mapping[str, float]) -> float:
    """Give where a module is called; parts that their parent uses without calling them come right behind it."""
    late = 0.0
    while name not in order:
        name, late = name.rpartition(".")[0], 0.5
    return order[name] + late


def _assign(units: list[WeightUnit], choice: LayerChoice, given: Mapping[str, str]) -> None:
    for unit in units:
        asked = {given[name] for name in unit.matrices if name in given}
        if len(asked) > 1:
            raise InputError(f"roles gives the matrices of {unit.name or 'the model'} several roles: {sorted(asked)}.")
        if asked:
            unit.role = asked.pop()  # type: ignore[assignment]
    open_units = [unit for unit in units if not any(name in given for name in unit.matrices)]
    if all(unit.role != "output" for unit in units):
        last = choice.layers[-1]
        for unit in open_units:
            if last.role == "readout" and unit.name in last.members:
                unit.role = "output"
                open_units.remove(unit)
                break
        else:
            raise InputError(
                "no read-out found: the model's output is not that of one weight layer. Name its weight, "
                "roles={'name.weight': 'output'}."
            )
    for unit in open_units:
        if isinstance(unit.module, nn.Embedding):
            unit.role = "input"
    if open_units and all(unit.role != "input" for unit in units):
        open_units[0].role = "input"


def _require_complete(model: nn.Module, found: Assignment, given: Mapping[str, str]) -> None:
    outputs = [unit.name for unit in found.units if unit.role == "output"]
    if len(outputs) != 1 or len(found.readout.matrices) != 1:
        raise InputError(f"expected one read-out with one weight matrix, found {', '.join(outputs)}.")
    if not found.inputs:
        raise InputError(
            f"{type(model).__name__} has no trained weight layer before its read-out, so there is nothing to scale; "
            "roles= can name the parameters of the input."
        )
    for unit in found.units:
        where = unit.name or f"{type(model).__name__} itself"
        named = all(name in given for name in unit.matrices)
        known = isinstance(unit.module, nn.Linear | nn.Embedding | _ConvNd | nn.MultiheadAttention)
        if isinstance(unit.module, _ConvTransposeNd) or not (known or named):
            names = ", ".join(unit.matrices)
            raise InputError(
                f"{names}: {where} ({type(unit.module).__name__}) is not a layer whose fan-in is known (Linear, Conv, "
                f"Embedding, MultiheadAttention). Say what it is, roles={{'{next(iter(unit.matrices))}': 'hidden'}} "
                "(one output along the first dimension, fan-in along the others), 'input', 'vector' or 'keep'."
            )
        if unit.calls > 1:
            raise InputError(
                f"{where} is called {unit.calls} times in a pass: a shared weight, which no scaling here covers."
            )
        if unit.calls == 0 and not named and not _parent_called(unit, found):
            raise InputError(f"{where} is not used on this batch; roles={{'{where}.*': 'keep'}} leaves it alone.")


def _parent_called(unit: WeightUnit, found: Assignment) -> bool:
    """Tell whether a module is used by the one that holds it, as torch's attention uses its projection, uncalled."""
    parent = unit.name.rpartition(".")[0]
    return any(other.name == parent and isinstance(other.module, nn.MultiheadAttention) for other in found.units)
