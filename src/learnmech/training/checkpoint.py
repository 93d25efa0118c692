"""The one file that a run can be continued from: written in one step, read without running any code in it."""

import io
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from learnmech.errors import DataError, InputError
from learnmech.files import write_atomically
from learnmech.training.config import TrainConfig, describe_changes

CHECKPOINT_NAME = "checkpoint.pt"

_FORMAT = "learnmech training checkpoint, version 1"
_PARTS = {"identity", "model", "optimizer", "stateful", "rng", "generators", "progress"}


def save_checkpoint(folder: Path, parts: Mapping[str, Any]) -> Path:
    """Write a checkpoint so that an interruption leaves the earlier one, never half of one.

    Args:
        folder: the folder of the run.
        parts: what belongs into it, made of tensors, numbers, strings, lists, tuples and mappings.

    Returns:
        The path written. A disk that is full, or a folder that cannot be written, raises
        :class:`~learnmech.errors.StorageError`.
    """
    stream = io.BytesIO()
    torch.save({"format": _FORMAT, **parts}, stream)
    return write_atomically(folder / CHECKPOINT_NAME, stream.getbuffer())


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Read the checkpoint of a folder onto the CPU; nothing that is stored in it is executed.

    Args:
        folder: the folder of the run.

    Returns:
        Its parts, or None if there is no checkpoint.

    Raises:
        DataError: if the file is cut short, damaged, holds something else than a checkpoint, or asks for code to run.
    """
    path = folder / CHECKPOINT_NAME
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not compare the checksums of what it reads
            damaged = archive.testzip()
        content = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises errors of almost any kind
        raise DataError(_refusal(path, f"reading it gave {type(error).__name__}")) from error
    if damaged:
        raise DataError(_refusal(path, f"its part {damaged} is damaged"))
    if not isinstance(content, dict) or content.get("format") != _FORMAT or not content.keys() >= _PARTS:
        raise DataError(_refusal(path, "it holds something else"))
    return content


def _refusal(path: Path, reason: str) -> str:
    return (
        f"{path} is not a usable checkpoint ({reason}): it is damaged, or was not written by this version of learnmech. "
        "Delete it to start the run over, or name another folder."
    )


def describe_run(
    config: TrainConfig, data_name: str, data: str, model: nn.Module, device: torch.device
) -> dict[str, Any]:
    """Describe what a checkpoint may only be continued with: settings, data, architecture and kind of device.

    Args:
        config: the settings.
        data_name: name of the data set.
        data: fingerprint of the data set.
        model: the model, of which the printed form is kept, without memory addresses.
        device: where it runs.

    Returns:
        A mapping of plain values.
    """
    return {
        "config": config.identity,
        "config_fingerprint": config.fingerprint,
        "data_name": data_name,
        "data_fingerprint": data,
        "architecture": re.sub(r"0x[0-9a-fA-F]+", "0x", repr(model)),
        "tensors": {name: f"{tuple(t.shape)} {t.dtype}" for name, t in model.state_dict().items()},
        "device": device.type,
    }


def require_same_run(stored: Mapping[str, Any], current: Mapping[str, Any], config: TrainConfig, folder: Path) -> None:
    """Check that a checkpoint belongs to the run that wants to continue from it.

    Args:
        stored: :func:`describe_run` of the checkpoint.
        current: :func:`describe_run` now.
        config: the settings now.
        folder: the folder of the run.

    Raises:
        InputError: if settings, data, model or device differ; the message says in what.
    """
    changes = []
    if stored["config_fingerprint"] != current["config_fingerprint"]:
        changes += describe_changes(stored["config"], config)
    if stored["data_fingerprint"] != current["data_fingerprint"]:
        changes.append(
            f"the data set was {stored['data_name']!r} ({stored['data_fingerprint']}), "
            f"is {current['data_name']!r} ({current['data_fingerprint']})"
        )
    changes += _model_changes(stored, current)
    if stored["device"] != current["device"]:
        changes.append(f"device was {stored['device']!r}, is {current['device']!r}")
    if changes:
        raise InputError(
            f"the checkpoint in {folder} belongs to another run: {'; '.join(changes)}. Only epochs and "
            "checkpoint_seconds may change; put the rest back, or name another folder."
        )


def _model_changes(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    before, now = stored["architecture"].splitlines(), current["architecture"].splitlines()
    for old, new in zip(before, now, strict=False):
        if old != new:
            return [f"the model had {old.strip()!r}, has {new.strip()!r}"]
    if len(before) != len(now):
        return [f"the model printed as {len(before)} lines, prints as {len(now)}"]
    tensors = stored["tensors"] | current["tensors"]
    for name in tensors:
        old, new = stored["tensors"].get(name), current["tensors"].get(name)
        if old != new:
            return [f"the model's {name} was {old}, is {new}"]
    return []


def require_plain(value: Any, where: str) -> None:
    """Check that a state can be read back from a checkpoint without running code.

    Args:
        value: the state.
        where: whose state it is, for the message.

    Raises:
        InputError: if it holds anything but tensors, numbers, strings, None, and lists, tuples and dicts of these.
    """
    if value is None or type(value) in {bool, int, float, str, bytes, Tensor, nn.Parameter}:
        return
    if type(value) in {dict, OrderedDict}:
        for key, item in value.items():
            require_plain(key, f"{where} (a key)")
            require_plain(item, f"{where}[{key!r}]")
    elif type(value) in {list, tuple}:
        for position, item in enumerate(value):
            require_plain(item, f"{where}[{position}]")
    else:
        raise InputError(
            f"{where} is a {type(value).__module__}.{type(value).__name__}, which a checkpoint does not store; "
            "expected tensors, numbers, strings, and lists, tuples and dicts of these."
        )
