"""What a run learned against what was to be learned: how far the orders agree."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr
from scipy.stats import kendalltau

from learnmech.errors import InputError

Learned = Sequence[Hashable] | Callable[[xr.Dataset, float, float], Hashable]
"""What a run learned at each jump, in order of time; or a function of the history and the moments of the plateaus before and after."""


@dataclass(frozen=True)
class OrderAgreement:
    """How two orders agree.

    Attributes:
        learned: by the run, jump by jump.
        share: of the jumps that are in the run, how many learned what was predicted at that place.
        kendall: rank correlation of the places of what is in both, from -1 (reversed) to 1; None with fewer than two.
    """

    learned: tuple[Hashable, ...]
    share: float
    kendall: float | None


def order_agreement(predicted: Sequence[Hashable], learned: Sequence[Hashable]) -> OrderAgreement:
    r"""Compare an order with that predicted.

    The correlation is Kendall's :math:`\tau` of the places of first occurrence.

    Args:
        predicted: what is learned, in order.
        learned: what was learned; it may be shorter.

    Returns:
        The agreement.

    Raises:
        InputError: if nothing was learned, or something cannot be compared.

    Example:
        Of three pairs two are in order, one is not.

        >>> found = order_agreement(["a", "b", "c"], ["a", "c", "b"])
        >>> round(found.share, 6), round(found.kendall, 6)
        (0.333333, 0.333333)
    """
    wanted, found = tuple(predicted), tuple(learned)
    if not found or not wanted:
        raise InputError("order can only be compared if at least one thing was predicted and one learned.")
    try:
        common = [what for what in dict.fromkeys(wanted) if what in set(found)]
    except TypeError as error:
        raise InputError(f"what is learned must be words, numbers or tuples of them: {error}.") from error
    same = sum(first == second for first, second in zip(wanted, found, strict=False))
    places = [found.index(what) for what in common]
    kendall = float(kendalltau(range(len(places)), places).statistic) if len(places) > 1 else None
    return OrderAgreement(found, same / min(len(wanted), len(found)), kendall)


def learned_by(learned: Learned, history: Any, moments: Sequence[tuple[float, float]]) -> tuple[Hashable, ...]:
    """Ask what a run learned at each jump.

    Args:
        learned: a sequence, taken as it is, or a function.
        history: the run.
        moments: of the plateaus before and after each jump that is in the run.

    Returns:
        One thing a jump.

    Raises:
        InputError: if it is neither.
    """
    if callable(learned):
        return tuple(learned(history, before, after) for before, after in moments)
    if isinstance(learned, str) or not hasattr(learned, "__iter__"):
        raise InputError(
            "learned must be a sequence of what the run learned, in order, or a function (history, before, after), got "
            f"{type(learned).__name__}."
        )
    return tuple(getattr(what, "item", lambda what=what: what)() for what in learned)
