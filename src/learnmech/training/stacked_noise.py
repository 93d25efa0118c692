"""The noise of :func:`~learnmech.data.noise.noisy_batch` for several members: the same draws, the sums done together."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from learnmech.training.config import TrainConfig


def noisy_batches(
    inputs: Tensor,
    targets: Tensor,
    *,
    configs: Sequence[TrainConfig],
    classes: int | None,
    generators: Sequence[torch.Generator],
) -> tuple[Tensor, Tensor]:
    """Add the noise of each member to its batch.

    Args:
        inputs: (stack, samples, ...) floats, stack 1 if all members see the same; never changed in place.
        targets: (stack, samples) labels or (stack, samples, width) floats; never changed in place.
        configs: the settings, one a member.
        classes: number of classes, None for regression.
        generators: the source of each member's noise; a member draws what ``noisy_batch`` would draw for it alone.

    Returns:
        Inputs and targets, with a copy for each member of what at least one of them has noise on; else as they came.

    Example:
        >>> configs = [TrainConfig(), TrainConfig(data_noise=0.5)]
        >>> generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
        >>> inputs, labels = torch.tensor([[[1.0], [2.0]]]), torch.tensor([[0, 1]])
        >>> noisy, same = noisy_batches(inputs, labels, configs=configs, classes=2, generators=generators)
        >>> noisy.shape, noisy[0].tolist() == inputs[0].tolist(), same is labels
        (torch.Size([2, 2, 1]), True, True)
    """
    members = len(configs)
    blurred = any(config.data_noise for config in configs)
    relabelled = any(config.label_noise for config in configs)
    new_targets = targets
    if relabelled:
        new_targets = torch.zeros_like(
            targets.expand(members, *targets.shape[1:]), memory_format=torch.contiguous_format
        )
        if classes is not None:
            new_targets.copy_(targets)
    new_inputs = inputs.new_zeros(members, *inputs.shape[1:]) if blurred else inputs
    for member, (config, generator) in enumerate(zip(configs, generators, strict=True)):
        if config.label_noise:
            _draw_targets(new_targets[member], config.label_noise, classes, generator)
        if config.data_noise:
            new_inputs[member].normal_(generator=generator)
    if relabelled and classes is None:
        _scale(new_targets, targets, [config.label_noise for config in configs])
    if blurred:
        _scale(new_inputs, inputs, [config.data_noise for config in configs])
    return new_inputs, new_targets


def _draw_targets(targets: Tensor, level: float, classes: int | None, generator: torch.Generator) -> None:
    if classes is None:
        targets.normal_(generator=generator)
        return
    count = math.floor(level * len(targets))
    chosen = torch.randperm(len(targets), generator=generator, device=generator.device)[:count]
    targets[chosen] = torch.randint(classes, (count,), generator=generator, device=generator.device).to(targets.dtype)


def _scale(draws: Tensor, values: Tensor, levels: Sequence[float]) -> None:
    # values + level * std(values) * draws, in the place of the draws; torch's own std is many times slower.
    flat = values.flatten(1)
    spread = (flat - flat.mean(dim=1, keepdim=True)).square_().sum(dim=1).div_(flat.shape[1] - 1).sqrt_()
    factors = spread * torch.tensor(levels, dtype=values.dtype, device=values.device)
    draws.mul_(factors.view(-1, *[1] * (draws.ndim - 1))).add_(values)
