"""Dimensions and coordinates of histories that need not agree, merged."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr


@dataclass(frozen=True)
class Dimensions:
    """The merged dimensions.

    Attributes:
        values: dimension to its merged coordinate; None for one without.
        sizes: dimension to its size.
        attributes: dimension to the attributes of its coordinate.
    """

    values: dict[str, np.ndarray | None]
    sizes: dict[str, int]
    attributes: dict[str, dict[str, Any]]

    def places(self, history: xr.Dataset, dimension: str) -> np.ndarray:
        """Say where a history's entries along a dimension stand in the merged one.

        Args:
            history: one of the histories.
            dimension: the dimension.

        Returns:
            Their positions.
        """
        merged = self.values[dimension]
        if merged is None or dimension not in history.coords:
            return np.arange(history.sizes[dimension])
        own = history[dimension].values
        if own.shape == merged.shape and (own is merged or bool(np.all(own == merged))):
            return np.arange(len(own))
        where = {value: place for place, value in enumerate(merged.tolist())}
        return np.array([where[value] for value in own.tolist()], dtype=int)


def merge_dimensions(runs: Sequence[xr.Dataset]) -> Dimensions:
    """Merge the dimensions of histories: numbers sorted, names in the order of the history that has most of them.

    Args:
        runs: the histories.

    Returns:
        The merged dimensions.
    """
    values: dict[str, np.ndarray | None] = {}
    sizes: dict[str, int] = {}
    attributes: dict[str, dict[str, Any]] = {}
    for dimension in dict.fromkeys(str(name) for run in runs for name in run.dims):
        having = [run for run in runs if dimension in run.dims]
        arrays = [run[dimension].values for run in having if dimension in run.coords]
        if not arrays:
            values[dimension], sizes[dimension] = None, max(run.sizes[dimension] for run in having)
            continue
        values[dimension] = merged = _union(arrays)
        sizes[dimension] = max([len(merged), *(run.sizes[dimension] for run in having if dimension not in run.coords)])
        attributes[dimension] = dict(next(run for run in having if dimension in run.coords)[dimension].attrs)
    return Dimensions(values, sizes, attributes)


def _union(arrays: list[np.ndarray]) -> np.ndarray:
    first = arrays[0]
    if all(array.shape == first.shape and bool(np.all(array == first)) for array in arrays[1:]):
        return first
    if all(array.dtype.kind in "fiu" for array in arrays):
        return np.unique(np.concatenate(arrays))
    longest_first = sorted(arrays, key=len, reverse=True)
    names = dict.fromkeys(value for array in longest_first for value in array.tolist())
    return np.array(list(names), dtype=object)


def merge_coordinates(
    runs: Sequence[xr.Dataset], dimensions: Dimensions, *, skip: set[str]
) -> tuple[dict[str, Any], list[str]]:
    """Merge the coordinates of histories, those of dimensions and those beside them.

    Args:
        runs: the histories.
        dimensions: their merged dimensions.
        skip: names to leave out.

    Returns:
        The coordinates, and the names of the numeric ones on which histories differ: there the history with most entries
        wins.
    """
    coordinates: dict[str, Any] = {
        name: xr.Variable((name,), values, dimensions.attributes[name])
        for name, values in dimensions.values.items()
        if values is not None
    }
    differing = []
    beside = dict.fromkeys(str(name) for run in runs for name in run.coords if name not in run.dims)
    for name in beside:
        if name in skip or name in coordinates:
            continue
        having = sorted((run for run in runs if name in run.coords), key=lambda run: run[name].size, reverse=True)
        merged, agree = _merge_beside(having, dimensions, name)
        coordinates[name] = merged
        if not agree and all(run[name].dtype.kind in "fiu" for run in having):
            differing.append(name)
    return coordinates, differing


def _merge_beside(having: list[xr.Dataset], dimensions: Dimensions, name: str) -> tuple[xr.Variable, bool]:
    first = having[0][name].variable
    dims = tuple(map(str, first.dims))
    shape = tuple(dimensions.sizes[dimension] for dimension in dims)
    numeric = all(run[name].dtype.kind in "fiub" for run in having)
    result = np.full(shape, np.nan if numeric else "", dtype=np.float64 if numeric else object)
    known = np.zeros(shape, dtype=bool)
    agree = True
    for run in having:
        variable = run[name].variable
        if set(map(str, variable.dims)) != set(dims):
            agree = False
            continue
        own = variable.transpose(*dims).values
        where = np.ix_(*(dimensions.places(run, one) for one in dims))
        old, old_known = result[where], known[where]
        agree = agree and bool(np.all(~old_known | (old == own)))
        result[where] = np.where(old_known, old, own)
        known[where] = True
    if numeric and known.all() and first.dtype.kind in "fiu":
        result = result.astype(first.dtype)
    return xr.Variable(dims, result, dict(first.attrs)), agree
