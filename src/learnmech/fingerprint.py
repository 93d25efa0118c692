"""Short stable names for data and configurations: the same content gives the same name on any machine."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_LENGTH = 16


def _update(digest: "hashlib._Hash", value: Any) -> None:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        if value.dtype == torch.bfloat16:
            value = value.view(torch.int16)
        value = value.numpy()
    if isinstance(value, np.ndarray):
        digest.update(f"array {value.dtype.str} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).data)
    elif isinstance(value, Mapping):
        digest.update(f"mapping {len(value)}".encode())
        for key in sorted(value, key=str):
            digest.update(str(key).encode())
            _update(digest, value[key])
    elif isinstance(value, list | tuple):
        digest.update(f"sequence {len(value)}".encode())
        for item in value:
            _update(digest, item)
    else:
        digest.update(repr(value).encode())


def fingerprint_data(*values: Any) -> str:
    """Name the content of tensors, arrays and nested tuples, lists or mappings of them by 16 hexadecimal digits.

    The name is the start of the SHA-256 of types, shapes and bytes: equal content gives an equal name, on any device.

    Args:
        *values: tensors, arrays, numbers, strings, or sequences and mappings of these.

    Returns:
        16 hexadecimal digits.

    Example:
        >>> import torch
        >>> fingerprint_data(torch.zeros(2)) == fingerprint_data(torch.zeros(2))
        True
        >>> fingerprint_data(torch.zeros(2)) == fingerprint_data(torch.zeros(2, 1))
        False
    """
    digest = hashlib.sha256()
    for value in values:
        _update(digest, value)
    return digest.hexdigest()[:_LENGTH]


def to_plain(value: Any) -> Any:
    """Turn a configuration into what JSON can hold: dataclasses become mappings, paths, types and tensors become text.

    Args:
        value: a configuration value of any nesting.

    Returns:
        Mappings, lists, numbers, strings, booleans and None only.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [to_plain(item) for item in items]
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, np.generic) or (isinstance(value, Tensor) and value.numel() == 1):
        return value.item()
    if isinstance(value, Path):
        return value.as_posix()
    return str(value)


def canonical_json(config: Any) -> str:
    """Write a configuration as JSON with sorted keys and no spaces, the form that is fingerprinted.

    Args:
        config: a dataclass, mapping or plain value.

    Returns:
        JSON text.
    """
    return json.dumps(to_plain(config), sort_keys=True, separators=(",", ":"), allow_nan=True)


def fingerprint_config(config: Any) -> str:
    """Name a configuration by 16 hexadecimal digits; the order of its keys does not matter.

    Args:
        config: a dataclass, mapping or plain value.

    Returns:
        16 hexadecimal digits of the SHA-256 of its canonical JSON.

    Example:
        >>> fingerprint_config({"a": 1, "b": 2}) == fingerprint_config({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(canonical_json(config).encode()).hexdigest()[:_LENGTH]
