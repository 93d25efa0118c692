"""The file from which a stopped training of leaky ResNets goes on."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from learnmech.errors import DataError, InputError
from learnmech.files import write_atomically
from learnmech.fingerprint import fingerprint_config
from learnmech.leaky.network import LeakyResNet
from learnmech.leaky.training_settings import LeakySettings

_FORMAT = "learnmech leaky training, version 1"


def identify(nets: Sequence[LeakyResNet], inputs: Tensor, targets: Tensor, settings: LeakySettings) -> dict[str, Any]:
    """Describe what a checkpoint may only be continued with.

    Args:
        nets: the nets as they were before training.
        inputs: inputs.
        targets: targets.
        settings: how to train; the polish may be lengthened.

    Returns:
        Plain values.
    """
    plain = {
        "nets": [
            [
                net.effective_depth,
                net.penalty,
                repr(net.policy),
                *map(str, (tuple(net.weights.shape), net.loss, net.embeddings)),
            ]
            for net in nets
        ],
        "start": [float(net.weights.double().square().sum()) for net in nets],
        "data": [list(inputs.shape), float(inputs.double().sum()), float(targets.double().sum())],
        "settings": [
            settings.adam_steps,
            settings.learning_rate,
            settings.warmup,
            settings.last_rate,
            settings.batch_size,
            settings.seed,
        ],
    }
    return {"nets, data and settings": fingerprint_config(plain)}


def save(path: Path, identity: dict[str, Any], state: dict[str, Any]) -> None:
    """Write a checkpoint in one step.

    Args:
        path: the file. One that cannot be written raises :class:`~learnmech.errors.StorageError`.
        identity: from :func:`identify`.
        state: tensors, numbers, and lists and mappings of these.
    """
    stream = io.BytesIO()
    torch.save({"format": _FORMAT, "identity": identity, "state": state}, stream)
    write_atomically(path, stream.getbuffer())


def load(path: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Read a checkpoint; nothing in it is executed.

    Args:
        path: the file.
        identity: from :func:`identify`, of the training that wants to go on.

    Returns:
        The state, or None if there is no file.

    Raises:
        DataError: if the file is no such checkpoint, or damaged.
        InputError: if it belongs to another training.
    """
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises errors of almost any kind
        raise DataError(f"{path} cannot be read ({type(error).__name__}); delete it to start over.") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise DataError(f"{path} holds something else than a checkpoint of a leaky training; name another file.")
    if content["identity"] != identity:
        raise InputError(
            f"the checkpoint {path} belongs to another training: nets, data or settings differ. Start from the same nets (same "
            "seed) with the same data and settings, or name another file."
        )
    state: dict[str, Any] = content["state"]
    return state
