"""What a greedy training notes down after each round, and the check of its settings."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from learnmech import history
from learnmech.errors import InputError

SOURCE = "greedy training by utility and cost, derived here from Kunin et al. 2025 (arXiv 2506.06489)"
_MEANINGS = {
    "neurons": ("neurons in the network", "neurons"),
    "loss": ("half the mean squared error of the training samples, summed over outputs", "targets squared"),
    "validation_loss": ("half the mean squared error of the validation samples", "targets squared"),
    "cost": ("loss and weight decay, of scaled data", "1"),
    "utility": ("utility of the best unit neuron when it was found, of scaled data", "1"),
    "seconds": ("wall time spent so far", "s"),
}


@dataclass(frozen=True)
class Record:
    """The state after a round.

    Attributes:
        neurons: how many.
        loss: of the training samples.
        validation_loss: NaN without validation samples.
        cost: with weight decay.
        utility: of the best neuron of the round; NaN where none was sought.
        seconds: since the start.
    """

    neurons: int
    loss: float
    validation_loss: float
    cost: float
    utility: float
    seconds: float


@dataclass
class Records:
    """All rounds, and how the training ended.

    Attributes:
        rounds: the records.
        reason: why it ended.
        kept_round: the round whose neurons were kept.
        last_utility: the largest utility found last, added or not.
    """

    rounds: list[Record] = field(default_factory=list)
    reason: str = ""
    kept_round: int = 0
    last_utility: float = math.nan

    def __len__(self) -> int:
        return len(self.rounds)

    @property
    def seconds(self) -> float:
        """Wall time of the rounds so far."""
        return self.rounds[-1].seconds if self.rounds else 0.0

    def append(self, record: Record) -> None:
        """Add a round.

        Args:
            record: of it.
        """
        self.rounds.append(record)

    def to_history(self, config: dict[str, Any]) -> xr.Dataset:
        """Put them into a history.

        Args:
            config: settings of the training.

        Returns:
            Over ``round``.
        """
        return history.build(
            {
                name: (
                    ("round",),
                    np.array([getattr(record, name) for record in self.rounds]),
                    {"long_name": title, "units": units, "source": SOURCE},
                )
                for name, (title, units) in _MEANINGS.items()
            },
            {"round": np.arange(len(self.rounds))},
            config=config,
            attributes={"reason": self.reason, "kept_round": self.kept_round, "last_utility": self.last_utility},
        )


def require_settings(
    width: int,
    per_round: int,
    starts: int,
    weight_decay: float,
    steps: int,
    tolerance: float,
    patience: int,
    seed: int,
) -> None:
    """Check the settings of a greedy training.

    Args:
        width: at least 1.
        per_round: at least 1.
        starts: at least 1.
        weight_decay: at least 0.
        steps: at least 1.
        tolerance: at least 0, below 1.
        patience: at least 1.
        seed: at least 0.

    Raises:
        InputError: naming the first that is wrong.
    """
    for name, value, least in (
        ("width", width, 1),
        ("per_round", per_round, 1),
        ("starts", starts, 1),
        ("steps", steps, 1),
        ("patience", patience, 1),
        ("seed", seed, 0),
    ):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InputError(f"{name} must be an integer of at least {least}, got {value!r}.")
    if not (isinstance(weight_decay, int | float) and math.isfinite(weight_decay) and weight_decay >= 0):
        raise InputError(f"weight_decay must be a finite number of at least 0, got {weight_decay!r}.")
    if not (isinstance(tolerance, int | float) and 0 <= tolerance < 1):
        raise InputError(f"tolerance must be at least 0 and below 1, got {tolerance!r}.")
