"""Collecting the cells of a sweep into one history over the axes of its grid."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from learnmech import history as histories
from learnmech.errors import HistoryError
from learnmech.sweep.coordinates import Dimensions, merge_coordinates, merge_dimensions
from learnmech.sweep.grid import Cell, read_grid, span_cells
from learnmech.sweep.reading import CellReader
from learnmech.sweep.store import FAILURE, HISTORY, cell_state, cells_folder, read_description, read_json

_OF_ONE_CELL = ("config", "config_fingerprint", "learnmech_version", "seconds", "stack_size")


def collect(out: str | Path) -> xr.Dataset:
    """Collect the cells of a sweep that are there into one history.

    The dimensions are the axes of the grid in its order, then those of the cells. Cells that are missing or failed are
    NaN. Cells may differ in steps, times or layers: what one lacks is NaN there. Where cells place a layer at different
    depths, ``depth`` is that of the cell with most layers, and ``depth_of_cell`` that of each.

    Args:
        out: the folder of the sweep. Its ``sweep.json`` names the grid: that of the latest run.

    Returns:
        A history. Attributes: ``config`` (experiment, fixed settings and grid), ``sweep``, ``cells_total``, ``cells_done``,
        ``cells_failed``, ``cells_missing``, ``failures`` (JSON: ``cell``, ``point`` and ``error`` of each), ``seconds`` (of
        all cells together), and what all cells have in common.

    Raises:
        HistoryError: if the histories of cells do not fit together; the message names the cell.
    """
    root = Path(out)
    description = read_description(root)
    axes = read_grid(dict(description["grid"]))
    cells = span_cells(description["experiment"], axes, description["fixed"])
    reader, done, failures = CellReader(), [], []
    for cell in cells:
        state = cell_state(root, cell.name)
        if state == "done":
            done.append((cell, reader.read(cells_folder(root) / cell.name / HISTORY)))
        elif state == "failed":
            error = read_json(cells_folder(root) / cell.name / FAILURE).get("error", "")
            failures.append({"cell": cell.name, "point": cell.point, "error": error})
    attributes = _common_attributes([history for _, history in done]) | {
        "sweep": description.get("name", ""),
        "cells_total": len(cells),
        "cells_done": len(done),
        "cells_failed": len(failures),
        "cells_missing": len(cells) - len(done) - len(failures),
        "failures": failures,
        "seconds": float(sum(history.attrs.get("seconds", 0.0) for _, history in done)),
    }
    variables, coordinates = _assemble(axes, done)
    config = {name: description[name] for name in ("experiment", "fixed")} | {"grid": axes}
    return histories.build(variables, coordinates, config=config, attributes=attributes)


def _assemble(
    axes: dict[str, Any], done: list[tuple[Cell, xr.Dataset]]
) -> tuple[dict[str, tuple[tuple[str, ...], Any, dict[str, str]]], dict[str, Any]]:
    coordinates: dict[str, Any] = {name: _axis(name, values) for name, values in axes.items()}
    dimensions = merge_dimensions([history for _, history in done])
    along, differing = merge_coordinates([history for _, history in done], dimensions, skip=set(axes))
    coordinates |= along
    names = dict.fromkeys(str(name) for _, history in done for name in history.data_vars)
    variables = {name: _fill(axes, done, dimensions, name) for name in names}
    for name in differing:
        meaning = {
            "long_name": f"{name} in each cell",
            "units": "1",
            "source": f"coordinate {name!r} of the cells, which differs between them",
        }
        dims, values, attributes = _fill(axes, done, dimensions, name)
        variables[f"{name}_of_cell"] = (dims, values, meaning | attributes)
    return variables, coordinates


def _axis(name: str, values: tuple[Any, ...]) -> xr.Variable:
    content = np.asarray(values, dtype=object) if isinstance(values[0], str) else np.asarray(values)
    return xr.Variable((name,), content, {"long_name": name.replace("_", " ")})


def _fill(
    axes: dict[str, Any], done: list[tuple[Cell, xr.Dataset]], dimensions: Dimensions, name: str
) -> tuple[tuple[str, ...], np.ndarray, dict[str, str]]:
    """Put one variable or coordinate of all cells into one array; NaN where it is missing."""
    found = [(cell, history, history[name].variable) for cell, history in done if name in history.variables]
    first = found[0][2]
    inner = tuple(map(str, first.dims))
    sizes = tuple(dimensions.sizes[dimension] for dimension in inner)
    shape = (*(len(values) for values in axes.values()), *sizes)
    whole = math.prod(shape) == sum(variable.size for _, _, variable in found)
    kind = np.result_type(*{variable.dtype for _, _, variable in found})
    if not whole and kind.kind != "f":
        kind = np.dtype(np.float64)
    result = np.zeros(shape, dtype=kind) if whole else np.full(shape, np.nan, dtype=kind)
    for cell, history, variable in found:
        if set(map(str, variable.dims)) != set(inner):
            raise HistoryError(
                f"{name!r} lies along {variable.dims} in cell {cell.name} ({cell.point}) but along {inner} in others; "
                "cells of one sweep must agree."
            )
        places = [dimensions.places(history, dimension) for dimension in inner]
        values = variable.transpose(*inner).values
        if inner:
            result[cell.index][np.ix_(*places)] = values
        else:
            result[cell.index] = values
    return (*axes, *inner), result, {str(key): value for key, value in first.attrs.items()}


def _common_attributes(runs: list[xr.Dataset]) -> dict[str, Any]:
    if not runs:
        return {}
    common = {}
    for name, value in runs[0].attrs.items():
        if name not in _OF_ONE_CELL and all(
            name in run.attrs and np.array_equal(run.attrs[name], value) for run in runs[1:]
        ):
            common[str(name)] = value
    return common
