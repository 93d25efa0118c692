"""How a leaky ResNet is trained."""

import dataclasses
import math

from learnmech.errors import InputError


@dataclasses.dataclass(frozen=True)
class LeakySettings:
    """Settings of :func:`learnmech.leaky.train`.

    Args:
        adam_steps: steps of Adam, in float32.
        learning_rate: its highest learning rate.
        warmup: steps over which the rate rises to it.
        last_rate: the share of it at the end of the half cosine that follows.
        polish_iterations: iterations of L-BFGS that follow, in float64 on all data.
        polish_memory: corrections that L-BFGS keeps.
        batch_size: samples of an Adam step; None for all.
        seed: of the order of batches.
        checkpoint_seconds: least time between two checkpoints.

    Raises:
        InputError: if a number is out of range.
    """

    adam_steps: int = 6000
    learning_rate: float = 3e-3
    warmup: int = 100
    last_rate: float = 0.005
    polish_iterations: int = 1500
    polish_memory: int = 30
    batch_size: int | None = None
    seed: int = 0
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name in ("adam_steps", "warmup", "polish_iterations"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 0:
                raise InputError(f"{name} must be an integer of at least 0, got {getattr(self, name)!r}.")
        for name in ("polish_memory", "batch_size"):
            number = getattr(self, name)
            if number is not None and (not isinstance(number, int) or number < 1):
                raise InputError(f"{name} must be a positive integer, got {number!r}.")
        for name in ("learning_rate", "last_rate"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InputError(f"{name} must be a positive finite number, got {getattr(self, name)!r}.")

    def rate(self, step: int) -> float:
        """Give the learning rate of a step.

        Args:
            step: its number, from 0.

        Returns:
            The rate.
        """
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(self.adam_steps - self.warmup, 1)
        cosine = (1 + math.cos(math.pi * progress)) / 2
        return self.learning_rate * (self.last_rate + (1 - self.last_rate) * cosine)
