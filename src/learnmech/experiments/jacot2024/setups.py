"""Settings of a cell, from the plain mapping in which a sweep keeps them."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from learnmech.errors import InputError

Settings = TypeVar("Settings")


def make_settings(kind: type[Settings], config: Mapping[str, Any], what: str) -> Settings:
    """Turn the configuration of a cell into settings.

    Args:
        kind: a dataclass.
        config: values by its names; lists become tuples.
        what: whose settings they are, for the message.

    Returns:
        The settings.

    Raises:
        InputError: for a name that is none of these.
    """
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(config) - known)
    if unknown:
        raise InputError(f"unknown settings {', '.join(unknown)} of {what}; known are {', '.join(sorted(known))}.")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in config.items()})
