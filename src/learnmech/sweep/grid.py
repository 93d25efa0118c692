"""The grid of a sweep: its axes, checked, and the cells that they span."""

import itertools
import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from learnmech.errors import InputError
from learnmech.fingerprint import fingerprint_config, to_plain

Value = bool | int | float | str

_RESERVED = ("step", "layer", "time", "member", "sample", "depth")


@dataclass(frozen=True)
class Cell:
    """One point of the grid.

    Attributes:
        name: 16 hexadecimal digits of experiment and configuration; the name of its folder.
        index: its position along each axis.
        point: axis to value.
        config: what the experiment is called with: the fixed settings, and the point.
    """

    name: str
    index: tuple[int, ...]
    point: dict[str, Value]
    config: dict[str, Any]


def read_grid(grid: Mapping[str, Iterable[Any]]) -> dict[str, tuple[Value, ...]]:
    """Check the axes of a grid and make their values plain.

    Args:
        grid: axis to its values: numbers, or strings, all different. Integers beside floats become floats.

    Returns:
        Axis to values, in the given order.

    Raises:
        InputError: naming the axis, what was expected and what came.
    """
    if not isinstance(grid, Mapping) or not grid:
        raise InputError(f"grid must map at least one axis to its values, such as {{'lr': [0.1, 0.01]}}, got {grid!r}.")
    return {_axis_name(name): _axis_values(name, values) for name, values in grid.items()}


def _axis_name(name: Any) -> str:
    if not isinstance(name, str) or not name.strip() or "/" in name:
        raise InputError(f"the name of an axis must be text without '/', got {name!r}.")
    if name in _RESERVED:
        raise InputError(
            f"an axis cannot be called {name!r}: histories have a dimension or coordinate of that name "
            f"({', '.join(_RESERVED)}); give it another name, such as 'net_{name}'."
        )
    return name


def _axis_values(name: str, values: Any) -> tuple[Value, ...]:
    if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
        raise InputError(f"axis {name!r} must be a sequence of numbers or strings, got {values!r}.")
    plain = [value.item() if hasattr(value, "item") else value for value in values]
    if not plain:
        raise InputError(f"axis {name!r} has no values; give at least one.")
    kinds = {_kind(value) for value in plain}
    if None in kinds or len(kinds) > 1:
        raise InputError(f"axis {name!r} must hold numbers only, or strings only, got {plain[:8]!r}.")
    if any(isinstance(value, float) for value in plain):
        plain = [float(value) for value in plain]
    if any(value != value for value in plain):
        raise InputError(f"axis {name!r} holds NaN, which names no cell; leave it out.")
    doubled = sorted({value for value in plain if plain.count(value) > 1}) if len(set(plain)) < len(plain) else []
    if doubled:
        raise InputError(f"the values of axis {name!r} must all differ, but {doubled} come more than once.")
    return tuple(plain)


def _kind(value: Any) -> str | None:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "text" if value else None
    return "number" if isinstance(value, int | float) else None


def read_settings(fixed: Mapping[str, Any] | None) -> dict[str, Any]:
    """Check the fixed settings and make them plain, as they come back from ``sweep.json``.

    Args:
        fixed: name to a number, text, boolean, None or path, or lists and mappings of these; tuples become lists.

    Returns:
        The settings as JSON holds them.

    Raises:
        InputError: naming the setting that cannot be stored.
    """
    fixed = {} if fixed is None else fixed
    if not isinstance(fixed, Mapping) or not all(isinstance(name, str) for name in fixed):
        raise InputError(f"fixed must map names to settings, such as {{'epochs': 10}}, got {fixed!r}.")
    for name, value in fixed.items():
        if not _storable(value):
            raise InputError(
                f"the fixed setting {name!r} must be a number, text, boolean, None or path, or lists and mappings of "
                f"these, so that it can be stored and named; got {value!r}."
            )
    plain: dict[str, Any] = to_plain(dict(fixed))
    return plain


def _storable(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _storable(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_storable, value))
    return value is None or isinstance(value, bool | numbers.Real | str | Path | np.generic)


def span_cells(reference: str, axes: Mapping[str, tuple[Value, ...]], fixed: Mapping[str, Any]) -> tuple[Cell, ...]:
    """Make all cells of a grid, the last axis running fastest.

    Args:
        reference: the name of the experiment.
        axes: what :func:`read_grid` returned.
        fixed: what :func:`read_settings` returned; an axis of the same name wins.

    Returns:
        The cells.
    """
    cells = []
    for places in itertools.product(*(range(len(values)) for values in axes.values())):
        point = {name: axes[name][place] for name, place in zip(axes, places, strict=True)}
        config = {**fixed, **point}
        name = fingerprint_config({"experiment": reference, "config": _one_form(config)})
        cells.append(Cell(name, places, point, config))
    return tuple(cells)


def _one_form(value: Any) -> Any:
    """Write whole floats as integers, so that 1 and 1.0 name the same cell."""
    if isinstance(value, Mapping):
        return {key: _one_form(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_one_form(item) for item in value]
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    return value
