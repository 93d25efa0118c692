"""Parameters that are numbers, arrays or data arrays, laid out on one grid with named axes."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from learnmech.errors import InputError
from learnmech.fingerprint import fingerprint_data

Parameter: TypeAlias = ArrayLike | Tensor | xr.DataArray

RESERVED = ("step", "layer", "time", "member", "sample", "chain", "position", "elongation", "load", "depth")


@dataclasses.dataclass(frozen=True)
class ParameterGrid:
    """Parameters broadcast against each other.

    Attributes:
        dims: names of the axes.
        shape: their lengths.
        coordinates: the values along each axis.
        values: each parameter with the full shape, float64.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    coordinates: dict[str, Float[np.ndarray, " axis"]]
    values: dict[str, Float[np.ndarray, "..."]]

    def labelled(self, name: str) -> xr.DataArray:
        """Give one parameter with its named axes.

        Args:
            name: the parameter.

        Returns:
            Its values over the whole grid.
        """
        return xr.DataArray(self.values[name], dims=self.dims, coords=self.coordinates, name=name)

    def describe(self) -> dict[str, Any]:
        """Describe the parameters in plain values, for the configuration of a history.

        Returns:
            Name to a number, or to nested lists over the axes along which the parameter varies, with their names; or to
            a fingerprint in place of more than a thousand values.
        """
        plain: dict[str, Any] = {}
        for name, values in self.values.items():
            fixed = tuple(axis for axis in range(values.ndim) if (values == np.take(values, [0], axis=axis)).all())
            own = values[tuple(0 if axis in fixed else slice(None) for axis in range(values.ndim))]
            if own.ndim == 0:
                plain[name] = float(own)
                continue
            axes = [axis for number, axis in enumerate(self.dims) if number not in fixed]
            content = {"values": own.tolist()} if own.size <= 1000 else {"fingerprint": fingerprint_data(own)}
            plain[name] = {"dims": axes, **content}
        return plain


def broadcast(parameters: Mapping[str, Parameter]) -> ParameterGrid:
    """Lay parameters out on one grid.

    Data arrays broadcast by the names of their dimensions. Plain arrays broadcast by NumPy's rules among themselves; an
    axis along which exactly one of them varies, and that one along no other axis, takes the name and the values of that
    parameter. The other axes are called ``parameter_0``, ``parameter_1``, ... and are numbered.

    Args:
        parameters: name to number, array, tensor or data array.

    Returns:
        The grid; its axes are those of the data arrays first, in order of appearance.

    Raises:
        InputError: if the shapes or coordinates do not fit, a name of an axis is taken, or a value is no number.

    Example:
        >>> grid = broadcast({"friction": [[0.0], [0.1], [0.2]], "noise": [0.5, 1.0], "stiffness": 1.0})
        >>> grid.dims, grid.shape, grid.coordinates["noise"].tolist()
        (('friction', 'noise'), (3, 2), [0.5, 1.0])
    """
    labelled = {name: value.astype(float) for name, value in parameters.items() if isinstance(value, xr.DataArray)}
    plain = {name: _numbers(name, value) for name, value in parameters.items() if name not in labelled}
    for name, array in labelled.items():
        for dimension in map(str, array.dims):
            if dimension in RESERVED:
                raise InputError(
                    f"{name} must not have a dimension called {dimension!r}: histories of chains use that name; rename it."
                )
    named = _name_axes(plain)
    shared = sorted({str(axis) for array in labelled.values() for axis in array.dims} & set(named.dims))
    if shared:
        raise InputError(
            f"the axis {shared[0]!r} comes both from a data array and from the plain array {shared[0]!r}; give that "
            "parameter as a data array as well, with the dimensions that you mean."
        )
    try:
        arrays = xr.broadcast(*xr.align(*(array.drop_vars(_extra(array)) for array in labelled.values()), join="exact"))
    except ValueError as error:
        raise InputError(f"the data arrays {sorted(labelled)} do not fit together: {error}") from error
    dims: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    coordinates: dict[str, Any] = {}
    if arrays:
        dims, shape = tuple(map(str, arrays[0].dims)), arrays[0].shape
        coordinates = {
            axis: arrays[0][axis].values if axis in arrays[0].coords else np.arange(length)
            for axis, length in zip(dims, shape, strict=True)
        }
    wide = {
        name: array.values.reshape(*shape, *[1] * len(named.dims)) for name, array in zip(labelled, arrays, strict=True)
    }
    shape = (*shape, *named.shape)
    values = {name: np.broadcast_to(wide[name] if name in wide else plain[name], shape) for name in parameters}
    return ParameterGrid((*dims, *named.dims), shape, {**coordinates, **named.coordinates}, values)


def _numbers(name: str, value: Any) -> Float[np.ndarray, "..."]:
    if isinstance(value, Tensor):
        value = value.detach().cpu().double().numpy()
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be a number or an array of numbers, but is {value!r}.") from error


def _extra(array: xr.DataArray) -> list[Any]:
    return [name for name in array.coords if name not in array.dims]


def _name_axes(plain: Mapping[str, Float[np.ndarray, "..."]]) -> ParameterGrid:
    try:
        shape = np.broadcast_shapes(*(array.shape for array in plain.values()))
    except ValueError as error:
        sizes = ", ".join(f"{name} {array.shape}" for name, array in plain.items() if array.ndim)
        raise InputError(f"the parameters must broadcast by NumPy's rules, but their shapes are {sizes}.") from error
    dims: list[str] = []
    coordinates: dict[str, Float[np.ndarray, " axis"]] = {}
    for axis, length in enumerate(shape):
        place = axis - len(shape)
        varying = [name for name, array in plain.items() if array.ndim >= -place and array.shape[place] != 1]
        if len(varying) == 1 and plain[varying[0]].size == length:
            dims.append(varying[0])
            coordinates[varying[0]] = plain[varying[0]].reshape(-1)
        else:
            dims.append(f"parameter_{axis}")
            coordinates[dims[-1]] = np.arange(length)
    return ParameterGrid(tuple(dims), tuple(shape), coordinates, {})
