"""Checks of the arguments of closed forms."""

import math

from learnmech.errors import InputError


def require_positive_number(value: float, name: str) -> float:
    """Refuse what is no positive finite number.

    Args:
        value: what came.
        name: what it is called.

    Returns:
        The number as a float.

    Raises:
        InputError: for anything else.
    """
    number = require_number(value, name)
    if number <= 0:
        raise InputError(f"{name} must be a positive number, but {number!r} came.")
    return number


def require_number(value: float, name: str) -> float:
    """Refuse what is no finite number.

    Args:
        value: what came; 0-d tensors and arrays are numbers too.
        name: what it is called.

    Returns:
        The number as a float.

    Raises:
        InputError: for anything else.
    """
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be a number, but {value!r} came.") from error
    if not math.isfinite(number):
        raise InputError(f"{name} must be a finite number, but {number!r} came.")
    return number


def require_depth(depth: float) -> float:
    """Refuse a depth outside [0, 1].

    Args:
        depth: what came.

    Returns:
        The depth as a float.

    Raises:
        InputError: for anything else.
    """
    number = require_number(depth, "depth")
    if not 0 <= number <= 1:
        raise InputError(f"depth runs from 0 (input) to 1 (output), but {number!r} came.")
    return number
