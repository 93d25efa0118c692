"""Checks of arguments that several functions of this folder share."""

from typing import Any

from learnmech.errors import InputError


def require_integer(name: str, value: Any, minimum: int, maximum: int | None = None, advice: str = "") -> int:
    """Refuse a value that is not a whole number within bounds.

    Args:
        name: the argument's name, for the message.
        value: what came; booleans are not numbers here.
        minimum: the smallest value allowed.
        maximum: the largest value allowed, or None for no bound.
        advice: a sentence on what to do, added to the message.

    Returns:
        The value.

    Raises:
        InputError: if it is not an integer or lies outside the bounds.

    Example:
        >>> require_integer("train_samples", 2560, 2, 60000)
        2560
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if minimum <= value and (maximum is None or value <= maximum):
            return value
        got = str(value)
    else:
        got = f"{value!r} ({type(value).__name__})"
    bounds = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
    raise InputError(f"{name}: expected an integer {bounds}, got {got}. {advice}".rstrip())
