"""Reading the many small files of a sweep: straight from HDF5, about ten times as fast as through xarray.

The files are netCDF-4, written by :func:`learnmech.history.save`. What the shortcut does not know it leaves to
:func:`learnmech.history.load`.
"""

from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import xarray as xr

from learnmech import history as histories
from learnmech.errors import HistoryError

_BARE_DIMENSION = "This is a netCDF dimension but not a netCDF variable"
_OF_THE_FORMAT = {"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_FillValue", "coordinates", "_NCProperties"}
_ENCODED = {"scale_factor", "add_offset", "missing_value", "calendar", "dtype"}


class CellReader:
    """Reads histories of the cells of one sweep.

    The attributes of variables are read from the first file that holds the variable, as cells of one sweep mean the same by
    it.
    """

    def __init__(self) -> None:
        self._attributes: dict[str, dict[str, Any]] = {}
        self._beside: set[str] = set()

    def read(self, path: Path) -> xr.Dataset:
        """Read one history.

        Args:
            path: the file.

        Returns:
            The history, in memory.

        Raises:
            HistoryError: if it is missing, corrupt or holds no history; the message says how to redo the cell.
        """
        try:
            history = self._read_fast(path)
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError):
            history = None
        if history is not None:
            return history
        try:
            return histories.load(path)
        except HistoryError as error:
            raise HistoryError(
                f"{error} Remove the folder {path.parent} and run the sweep again to redo it."
            ) from error

    def _read_fast(self, path: Path) -> xr.Dataset | None:
        variables, scales = {}, set()
        with h5py.File(path, "r", locking=False) as file:
            for name, stored in file.items():
                if not isinstance(stored, h5py.Dataset):
                    return None
                if stored.is_scale:
                    if _text(stored.attrs["NAME"]).startswith(_BARE_DIMENSION):
                        continue
                    scales.add(name)
                    dimensions: tuple[str, ...] = (name,)
                else:
                    dimensions = tuple(stored.dims[place][0].name[1:] for place in range(stored.ndim))
                if name not in self._attributes and not self._learn(name, stored):
                    return None
                values = stored.asstr()[()] if h5py.check_string_dtype(stored.dtype) else stored[()]
                variables[name] = xr.Variable(dimensions, np.asarray(values), self._attributes[name])
            attributes = _attributes(file)
            self._beside |= set(str(attributes.pop("coordinates", "")).split())
        beside = (self._beside & set(variables)) | scales
        history = xr.Dataset(
            {name: variable for name, variable in variables.items() if name not in beside},
            {name: variables[name] for name in beside},
            attributes,
        )
        return history if "learnmech_version" in history.attrs else None

    def _learn(self, name: str, stored: Any) -> bool:
        attributes = _attributes(stored)
        if _ENCODED & set(attributes) or " since " in str(attributes.get("units", "")):
            return False
        self._beside |= set(str(attributes.get("coordinates", "")).split())
        self._attributes[name] = {
            key: value
            for key, value in attributes.items()
            if key not in _OF_THE_FORMAT and not key.startswith("_Netcdf4")
        }
        return True


def _attributes(stored: Any) -> dict[str, Any]:
    found = {}
    for key, value in stored.attrs.items():
        if key in _OF_THE_FORMAT - {"coordinates"}:
            continue
        if isinstance(value, bytes | str):
            found[key] = _text(value)
        elif isinstance(value, np.ndarray) and value.size == 1:
            found[key] = _text(value.item()) if isinstance(value.item(), bytes | str) else value.reshape(-1)[0]
        else:
            found[key] = value
    return found


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
