"""Reading pickles of plain values and byte arrays without letting them run anything.

A pickle is a program that may call any function it names. Here every name resolves to an inert :class:`Recorded` that
only remembers its arguments, and only for the few names that a pickled NumPy array needs. Arrays are then built from the
recorded bytes; no function of NumPy, of codecs or of anyone else is ever called on behalf of the file.
"""

import io
import math
import pickle
import pickletools
from typing import Any

import numpy as np
import numpy.typing as npt

from learnmech.errors import DataError

_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): "array",
    ("numpy._core.multiarray", "_reconstruct"): "array",
    ("numpy.core.numeric", "_frombuffer"): "buffer",
    ("numpy._core.numeric", "_frombuffer"): "buffer",
    ("numpy", "ndarray"): "type",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "text",
}


class _RefusedNameError(Exception):
    pass


class Recorded:
    """One call that a pickle asked for and that was not made: what kind, with which arguments, and the state given to it.

    Args:
        kind: which of the known names was asked for.
        arguments: the arguments of the call.
    """

    __slots__ = ("arguments", "kind", "state")

    def __init__(self, kind: str, arguments: tuple[Any, ...]) -> None:
        self.kind = kind
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _InertName:
    __slots__ = ("_kind",)

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __call__(self, *arguments: Any) -> Recorded:
        return Recorded(self._kind, arguments)

    def __setstate__(self, state: Any) -> None:
        raise _RefusedNameError("changing a function")


class _InertUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise _RefusedNameError(f"{module}.{name}")
        return _InertName(_NAMES[module, name])


def _require_sane_sizes(content: bytes) -> None:
    # genops() refuses a length beyond the end of the file. A memo index may not exceed the number of opcodes so far: the
    # unpickler would take memory for every index below it.
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if opcode.name in {"PUT", "BINPUT", "LONG_BINPUT"} and argument is not None and argument > count:
            raise ValueError(f"memo index {argument} after {count} opcodes")


def load_inert(content: bytes, where: str) -> Any:
    """Read a pickle whose only names are those of NumPy arrays; nothing it asks for is run.

    The opcodes are first read through once, so that no absurd size takes memory.
    Both Python 2 pickles (byte strings stay bytes) and later ones are read, protocols 0 to 5.

    Args:
        content: the whole pickle.
        where: the file it came from, for the message.

    Returns:
        Plain values, in which each array, type or encoded text is a :class:`Recorded`.

    Raises:
        DataError: if the pickle is damaged, or names anything else.
    """
    try:
        _require_sane_sizes(content)
        return _InertUnpickler(io.BytesIO(content), encoding="bytes").load()
    except _RefusedNameError as refusal:
        raise DataError(
            f"{where}: expected a pickle of plain values and arrays, but it asks for {refusal}: refused, nothing was run. "
            "Do not trust this file; fetch the original again."
        ) from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise DataError(
            f"{where}: expected a whole pickle, got a damaged one ({type(error).__name__}: {str(error)[:120]}). "
            "Fetch it again."
        ) from None


def as_bytes(value: Any) -> bytes | None:
    """Read a byte string in any of the forms that Python 2 and 3 pickle it in.

    Args:
        value: bytes, a byte array, text, or a recorded latin-1 encoding of text.

    Returns:
        The bytes, or None if it is nothing of the kind.
    """
    if isinstance(value, Recorded) and value.kind == "text":
        text, *encoding = value.arguments or (None,)
        if encoding not in (["latin1"], [b"latin1"]):
            return None
        value = text
    if isinstance(value, str):
        try:
            return value.encode("latin1")
        except UnicodeEncodeError:
            return None
    return bytes(value) if isinstance(value, bytes | bytearray) else None


def _array_parts(value: Any) -> tuple[Any, Any, Any] | None:
    # Shape, type and bytes of a recorded array in C order; None for anything else.
    if not isinstance(value, Recorded):
        return None
    if value.kind == "buffer" and len(value.arguments) == 4:
        content, dtype, shape, order = value.arguments
        return (shape, dtype, content) if as_bytes(order) == b"C" else None
    if value.kind == "array" and isinstance(value.state, tuple) and len(value.state) == 5:
        _, shape, dtype, fortran, content = value.state
        return None if fortran else (shape, dtype, content)
    return None


def as_byte_array(value: Any, where: str) -> npt.NDArray[np.uint8]:
    """Build a uint8 array from the bytes that were recorded for it.

    Args:
        value: what :func:`load_inert` returned in place of the array.
        where: the file and key it came from, for the message.

    Returns:
        A writable array.

    Raises:
        DataError: if it is not a uint8 array in C order, or has more or fewer bytes than its shape needs.
    """
    parts = _array_parts(value)
    if parts is None:
        raise DataError(f"{where}: expected an array in C order, got {type(value).__name__}. Fetch the original again.")
    shape, dtype, content = parts
    code = as_bytes(dtype.arguments[0]) if isinstance(dtype, Recorded) and dtype.arguments else None
    if code not in (b"u1", b"uint8", b"|u1"):
        raise DataError(f"{where}: expected an array of uint8, got the type {code!r}. Fetch the original again.")
    payload = as_bytes(content)
    axes = isinstance(shape, tuple) and all(type(axis) is int and axis >= 0 for axis in shape)
    if payload is None or not axes or math.prod(shape) != len(payload):
        raise DataError(
            f"{where}: expected as many bytes as the array's shape needs, got {0 if payload is None else len(payload)} "
            f"bytes for the shape {shape!r}. Fetch the original again."
        )
    return np.frombuffer(bytearray(payload), dtype=np.uint8).reshape(shape)
