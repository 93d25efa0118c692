"""The data model: a history is an ``xarray.Dataset`` of named quantities over training step and layer.

A monitor makes one from a training run, a simulator from parameters; verdicts, reports, fits and sweeps read them.

Dimensions
    ``step`` (optimizer steps, increasing integers), ``layer`` (unique names, with ``depth`` in [0, 1] beside it),
    ``time`` (continuous, simulators), ``member`` (networks trained as one), ``sample``; any further dimension is a sweep
    axis and has a coordinate that holds its values.
Variables
    numbers, each with the attributes ``long_name``, ``units`` or ``scale``, and ``source`` (paper, equation).
Global attributes
    ``learnmech_version``, ``config`` (JSON), ``config_fingerprint``, and, where known, ``seed`` and ``data_fingerprint``.
File
    one netCDF-4 file, written in one step: an interrupted write leaves the earlier file intact.
"""

import json
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from learnmech import __version__
from learnmech.errors import HistoryError
from learnmech.files import write_atomically
from learnmech.fingerprint import canonical_json, fingerprint_config, fingerprint_data

__all__ = ["build", "concat", "fingerprint_config", "fingerprint_data", "latest", "load", "save", "validate"]

DIMENSIONS = ("step", "layer", "time", "member", "sample")
REQUIRED_ATTRIBUTES = ("long_name", "source")
_SAVING = threading.Lock()


def build(
    variables: Mapping[str, tuple[Sequence[str], Any, Mapping[str, str]]],
    coordinates: Mapping[str, Any],
    *,
    config: Any = None,
    attributes: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Build a history and check it.

    Args:
        variables: name to (dimensions, values, attributes); attributes hold ``long_name``, ``units`` or ``scale``, and
            ``source``.
        coordinates: name to values, or to (dimension, values) for one that lies along another dimension, as ``depth`` does
            along ``layer``.
        config: what made this history; stored as JSON and fingerprinted.
        attributes: further attributes: text, numbers, or what JSON can hold (stored as JSON text).

    Returns:
        A valid history.

    Raises:
        HistoryError: if it would break the data model; the message names the variable.

    Example:
        >>> meaning = {"long_name": "training loss", "units": "nat", "source": "cross-entropy"}
        >>> run = build({"loss": (("step",), [2.3, 0.7], meaning)}, {"step": [0, 50]}, config={"lr": 0.1})
        >>> float(run.loss.sel(step=50))
        0.7
    """
    arrays = {}
    for name, (dimensions, values, meaning) in variables.items():
        values = np.asarray(values)
        if values.ndim != len(tuple(dimensions)):
            raise HistoryError(
                f"variable {name!r} has {values.ndim} dimensions (shape {values.shape}) but is declared over "
                f"{tuple(dimensions)}."
            )
        arrays[name] = xr.Variable(tuple(dimensions), values, dict(meaning))
    try:
        dataset = xr.Dataset(arrays, coords=dict(coordinates))
    except ValueError as error:
        raise HistoryError(f"the variables do not fit together: {error}") from error
    dataset.attrs = {
        "learnmech_version": __version__,
        "config": canonical_json(config if config is not None else {}),
        "config_fingerprint": fingerprint_config(config if config is not None else {}),
        **{name: _plain_attribute(value) for name, value in (attributes or {}).items()},
    }
    return validate(dataset)


def _plain_attribute(value: Any) -> Any:
    return value if isinstance(value, str | int | float) and not isinstance(value, bool) else canonical_json(value)


def validate(dataset: xr.Dataset) -> xr.Dataset:
    """Check that a dataset keeps to the data model.

    Args:
        dataset: what to check.

    Returns:
        The same dataset.

    Raises:
        HistoryError: naming the variable or coordinate that offends, what was expected and what came.
    """
    if not isinstance(dataset, xr.Dataset):
        raise HistoryError(f"a history is an xarray.Dataset, but a {type(dataset).__name__} came.")
    for name, variable in dataset.data_vars.items():
        if variable.dtype.kind not in "fiub":
            raise HistoryError(f"variable {name!r} must hold real numbers, but has dtype {variable.dtype}.")
        for attribute in REQUIRED_ATTRIBUTES:
            if not str(variable.attrs.get(attribute, "")).strip():
                raise HistoryError(f"variable {name!r} lacks the attribute {attribute!r}.")
        if not ("units" in variable.attrs or "scale" in variable.attrs):
            raise HistoryError(f"variable {name!r} lacks the attribute 'units' (or 'scale').")
        for dimension in variable.dims:
            if dimension not in dataset.coords and dimension not in ("sample", "member"):
                raise HistoryError(
                    f"variable {name!r} has the dimension {dimension!r} without a coordinate that says what it counts; "
                    f"give one (dimensions of every history: {', '.join(DIMENSIONS)}; others are sweep axes)."
                )
    for dimension in ("step", "time"):
        if dimension in dataset.dims:
            values = dataset[dimension].values
            if values.dtype.kind not in "fiu" or np.any(np.diff(values) <= 0):
                raise HistoryError(f"coordinate {dimension!r} must increase strictly, but holds {_start(values)}.")
    if "layer" in dataset.dims:
        names = [str(name) for name in dataset["layer"].values]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise HistoryError(f"coordinate 'layer' must hold unique names, but has {doubled} more than once.")
        if "depth" not in dataset.coords:
            raise HistoryError("coordinate 'depth' (position of each layer in [0, 1]) is missing beside 'layer'.")
        depth = dataset["depth"].values
        if not np.all((depth >= 0) & (depth <= 1)):
            raise HistoryError(f"coordinate 'depth' must lie in [0, 1], but holds {_start(depth)}.")
    for attribute in ("learnmech_version", "config"):
        if attribute not in dataset.attrs:
            raise HistoryError(f"the history lacks the attribute {attribute!r}; make it with learnmech.history.build.")
    try:
        json.loads(dataset.attrs["config"])
    except (TypeError, ValueError) as error:
        raise HistoryError(f"the attribute 'config' must be JSON, but holds {dataset.attrs['config']!r}.") from error
    return dataset


def _start(values: np.ndarray) -> str:
    return f"{values[:6].tolist()}{' ...' if len(values) > 6 else ''}"


def latest(dataset: xr.Dataset, name: str) -> xr.DataArray:
    """Give a variable at the last step at which it was measured.

    Some quantities are not measured at every step: the update by an optimizer step, only where that step was watched.

    Args:
        dataset: a history over ``step``.
        name: the variable.

    Returns:
        The variable without ``step``: at the last step with a finite entry, or at the last step if there is none.

    Example:
        >>> meaning = {"long_name": "update", "units": "1", "source": "test"}
        >>> run = build({"update": (("step",), [float("nan"), 0.5, float("nan")], meaning)}, {"step": [0, 1, 2]})
        >>> float(latest(run, "update"))
        0.5
    """
    values = dataset[name]
    finite = np.isfinite(values.transpose("step", ...).values)
    measured = finite.reshape(len(finite), -1).any(axis=1)
    return values.isel(step=int(np.flatnonzero(measured)[-1]) if measured.any() else -1)


def save(dataset: xr.Dataset, path: str | Path) -> Path:
    """Write a history to one netCDF file, in one step.

    Args:
        dataset: a valid history.
        path: the file; an earlier one is replaced, or left intact if writing fails.

    Returns:
        The path written. Raises what :func:`validate` and :func:`learnmech.files.write_atomically` raise.
    """
    validate(dataset)
    # netCDF has no booleans and h5netcdf no NumPy 2 strings as dimension scales: store plain integers and objects.
    plain = dataset.copy()
    for name in plain.variables:
        if plain[name].dtype.kind == "b":
            plain[name] = plain[name].astype("int8")
    with _no_cluster_locks():
        payload = plain.to_netcdf(engine="h5netcdf")
    return write_atomically(path, memoryview(payload))


@contextmanager
def _no_cluster_locks() -> Iterator[None]:
    """Keep xarray from asking the Dask scheduler for a lock, as it does inside a worker: a file in memory has no name."""
    if "dask" not in sys.modules:
        yield
        return
    import dask

    with _SAVING, dask.config.set(scheduler="threads"):
        yield


def load(path: str | Path) -> xr.Dataset:
    """Read a history from a netCDF file into memory. Nothing in the file can run code.

    Args:
        path: a file that :func:`save` wrote, or a run folder that holds ``history.nc``.

    Returns:
        The history.

    Raises:
        HistoryError: if there is no such file, it is not netCDF, or it does not hold a history.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "history.nc"
    if not path.is_file():
        raise HistoryError(f"there is no history at {path}; expected a netCDF file or a run folder with history.nc.")
    try:
        with xr.open_dataset(path, engine="h5netcdf") as stored:
            dataset = stored.load()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise HistoryError(f"{path} is not a readable netCDF file (corrupt, or of another kind): {error}") from error
    try:
        return validate(dataset)
    except HistoryError as error:
        raise HistoryError(f"{path} does not hold a history: {error}") from error


def concat(histories: Sequence[xr.Dataset], dimension: str, values: Sequence[Any]) -> xr.Dataset:
    """Join runs along a new axis: seeds, a swept parameter, or members.

    Steps may differ between runs (missing ones become NaN); layers must be the same.

    Args:
        histories: one history a run.
        dimension: name of the new axis, for example ``seed`` or ``learning_rate``.
        values: the value of each run along it, all different.

    Returns:
        One history with the new dimension first. Attributes that all runs share are kept; of those that differ
        ``config`` becomes the list of all configurations.

    Raises:
        HistoryError: if the numbers do not fit, values repeat, or the runs have different layers or variables.
    """
    if len(histories) == 0 or len(histories) != len(values):
        raise HistoryError(f"{len(histories)} histories and {len(values)} values of {dimension!r} do not fit together.")
    if len(set(values)) != len(values):
        raise HistoryError(f"the values of {dimension!r} must all differ, but are {list(values)}.")
    first = histories[0]
    for position, run in enumerate(histories):
        validate(run)
        if dimension in run.dims:
            raise HistoryError(f"run {position} already has the dimension {dimension!r}.")
        if set(run.data_vars) != set(first.data_vars):
            differing = sorted(set(map(str, run.data_vars)) ^ set(map(str, first.data_vars)))
            raise HistoryError(f"run {position} differs from run 0 in the variables {differing}.")
        if "layer" in first.dims and list(run["layer"].values) != list(first["layer"].values):
            raise HistoryError(
                f"run {position} has the layers {run['layer'].values.tolist()}, run 0 has {first['layer'].values.tolist()}."
            )
    axis = xr.DataArray(list(values), dims=dimension, name=dimension)
    joined = xr.concat(
        list(histories), dim=axis, join="outer", combine_attrs="drop_conflicts", coords="minimal", compat="override"
    )
    configs = [json.loads(run.attrs["config"]) for run in histories]
    if any(config != configs[0] for config in configs):
        joined.attrs["config"] = canonical_json(configs)
        joined.attrs["config_fingerprint"] = fingerprint_config(configs)
    return validate(joined)
