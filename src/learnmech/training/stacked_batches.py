"""The batches of several members: each in the order and with the noise of its own seed, shared where they are equal."""

from collections.abc import Sequence

import torch
from torch import Tensor

from learnmech.training.config import TrainConfig
from learnmech.training.seeds import make_generator
from learnmech.training.stacked_noise import noisy_batches


class StackedBatches:
    """Batches with a leading axis for members, of length 1 if all members see the same numbers.

    The full batch without noise is the data itself: no copy is made. Mini-batches are gathered for each member, since
    each has its own order, and noise makes a copy for each member.

    Args:
        inputs: all training inputs (samples, ...), on the device.
        targets: all training targets.
        classes: number of classes, None for regression.
        bounds: first and past-the-last position of each batch of an epoch.
        configs: the settings, one a member.
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        classes: int | None,
        bounds: Sequence[tuple[int, int]],
        configs: Sequence[TrainConfig],
    ) -> None:
        self._inputs, self._targets, self._classes = inputs, targets, classes
        self._bounds = list(bounds)
        self._configs = list(configs)
        self._orders = [make_generator(config.seed, "order") for config in configs]
        self._noises = [make_generator(config.seed, "noise", inputs.device) for config in configs]
        self._order: Tensor | None = None
        self._noisy = any(config.label_noise or config.data_noise for config in configs)

    def __len__(self) -> int:
        return len(self._bounds)

    def start_epoch(self) -> None:
        """Draw the order of the samples for each member; the full batch needs none."""
        if len(self._bounds) > 1:
            samples = len(self._inputs)
            orders = [torch.randperm(samples, generator=generator) for generator in self._orders]
            self._order = torch.stack(orders).to(self._inputs.device)

    def get(self, position: int) -> tuple[Tensor, Tensor]:
        """Give a batch.

        Args:
            position: its number in the epoch.

        Returns:
            Inputs (stack, samples, ...) and targets (stack, samples, ...).
        """
        start, stop = self._bounds[position]
        if self._order is None:
            inputs, targets = self._inputs[None], self._targets[None]
        else:
            chosen = self._order[:, start:stop]
            inputs, targets = self._inputs[chosen], self._targets[chosen]
        if not self._noisy:
            return inputs, targets
        return noisy_batches(inputs, targets, configs=self._configs, classes=self._classes, generators=self._noises)

    def keep(self, positions: Sequence[int]) -> None:
        """Drop all members but some, between two epochs.

        Args:
            positions: which to keep.
        """
        self._configs = [self._configs[position] for position in positions]
        self._noisy = any(config.label_noise or config.data_noise for config in self._configs)
        self._orders = [self._orders[position] for position in positions]
        self._noises = [self._noises[position] for position in positions]
