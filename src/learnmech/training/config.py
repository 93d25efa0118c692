"""What a training run is told: one frozen, validated record."""

import math
import numbers
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from learnmech.errors import InputError
from learnmech.fingerprint import fingerprint_config

Optimizer = Literal["adam", "adamw", "sgd"]
Loss = Literal["cross_entropy", "mse"]

_NOT_PART_OF_THE_RUN = ("epochs", "checkpoint_seconds")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings of one training run; the defaults are those of the spring-block paper.

    Source: Shi, Pan and Dokmanić, arXiv 2407.19353, section on experiments and its code (main.py): Adam, learning rate
    1e-3, full batch, 100 epochs, no dropout, stop rule below.

    Training stops after the first epoch whose mean loss is below ``stop_loss``, or differs from that of the epoch
    before by less than ``stop_change``; 0 switches a rule off.

    Args:
        epochs: passes over the training samples; may be raised when a run is resumed.
        batch_size: samples of a step; None (or as many as there are samples) is the full batch.
        optimizer: "adam" (weight decay as an L2 penalty), "adamw" (decoupled weight decay) or "sgd".
        lr: learning rate.
        momentum: momentum of "sgd".
        weight_decay: weight decay.
        loss: "cross_entropy", or "mse" (against one-hot vectors if the data set has classes).
        label_noise: part of the labels of each batch that are replaced by random ones, see ``learnmech.data``.
        data_noise: strength of the Gaussian noise added to each batch, in standard deviations of the batch.
        seed: seed of everything random in training, each purpose with a stream of its own.
        stop_loss: stop when an epoch's mean loss is below this.
        stop_change: stop when the mean loss changes by less than this from one epoch to the next.
        checkpoint_seconds: time between two checkpoints; 0 writes one after every step.

    Raises:
        InputError: if a value is of the wrong kind or out of range.

    Example:
        >>> TrainConfig(lr=1).fingerprint == TrainConfig(lr=1.0, epochs=5).fingerprint
        True
    """

    epochs: int = 100
    batch_size: int | None = None
    optimizer: Optimizer = "adam"
    lr: float = 1e-3
    momentum: float = 0.0
    weight_decay: float = 0.0
    loss: Loss = "cross_entropy"
    label_noise: float = 0.0
    data_noise: float = 0.0
    seed: int = 0
    stop_loss: float = 1e-4
    stop_change: float = 1e-10
    checkpoint_seconds: float = 10.0

    def __post_init__(self) -> None:
        self._require_choice("optimizer", get_args(Optimizer))
        self._require_choice("loss", get_args(Loss))
        self._require_integer("epochs", minimum=0)
        self._require_integer("seed")
        if self.batch_size is not None:
            self._require_integer("batch_size", minimum=1)
        self._require_number("lr", minimum=0.0)
        self._require_number("momentum", minimum=0.0, below=1.0)
        self._require_number("weight_decay", minimum=0.0)
        self._require_number("label_noise", minimum=0.0, maximum=1.0)
        self._require_number("data_noise", minimum=0.0)
        self._require_number("stop_loss", minimum=-math.inf)
        self._require_number("stop_change", minimum=0.0)
        self._require_number("checkpoint_seconds", minimum=0.0, infinite=True)
        if self.momentum and self.optimizer != "sgd":
            raise InputError(
                f"momentum={self.momentum} has no effect on optimizer={self.optimizer!r}; "
                "use optimizer='sgd' or leave momentum at 0."
            )

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that decide what is computed: all but ``epochs`` and ``checkpoint_seconds``."""
        return {name: value for name, value in asdict(self).items() if name not in _NOT_PART_OF_THE_RUN}

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that name the :attr:`identity`."""
        return fingerprint_config(self.identity)

    def _require_choice(self, name: str, choices: tuple[str, ...]) -> None:
        if getattr(self, name) not in choices:
            raise InputError(f"{name} must be one of {', '.join(map(repr, choices))}, got {getattr(self, name)!r}.")

    def _require_integer(self, name: str, minimum: int | None = None) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise InputError(f"{name} must be an integer, got {value!r}.")
        if minimum is not None and value < minimum:
            raise InputError(f"{name} must be at least {minimum}, got {value!r}.")
        object.__setattr__(self, name, int(value))  # so that numpy's 1 and 1 name the same run

    def _require_number(
        self,
        name: str,
        *,
        minimum: float,
        maximum: float = math.inf,
        below: float = math.inf,
        infinite: bool = False,
    ) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise InputError(f"{name} must be a number, got {value!r}.")
        number = float(value)
        in_range = minimum <= number <= maximum and (number < below or below == math.inf)
        if not in_range or (math.isinf(number) and not infinite):
            upper = f" and below {below:g}" if below < math.inf else f" and at most {maximum:g}" * (maximum < math.inf)
            raise InputError(f"{name} must be a finite number of at least {minimum:g}{upper}, got {value!r}.")
        object.__setattr__(self, name, number)


def describe_changes(stored: dict[str, Any], current: TrainConfig) -> list[str]:
    """List the settings in which a stored configuration differs from the current one.

    Args:
        stored: the :attr:`TrainConfig.identity` of an earlier run.
        current: the configuration now.

    Returns:
        One text for each setting that differs, such as "lr was 0.1, is 0.2"; empty if none does.
    """
    now = current.identity
    names = [field.name for field in fields(current) if field.name in now]
    names += sorted(set(stored) - set(names))
    return [
        f"{name} was {stored.get(name)!r}, is {now.get(name)!r}" for name in names if stored.get(name) != now.get(name)
    ]
