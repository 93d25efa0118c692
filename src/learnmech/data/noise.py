"""Label noise and data noise, drawn afresh for every batch."""

import math

import torch
from torch import Tensor

from learnmech.data.checks import require_integer
from learnmech.errors import InputError


def _gaussian(values: Tensor, level: float, generator: torch.Generator, name: str) -> Tensor:
    if not values.is_floating_point() or values.numel() < 2:
        raise InputError(
            f"{name}: expected at least 2 floats to take a standard deviation of, got {values.numel()} values of "
            f"{values.dtype}. Convert with .float(), or use larger batches."
        )
    draw = torch.randn(values.shape, generator=generator, dtype=values.dtype, device=generator.device)
    return values + level * values.std() * draw.to(values.device)


def noisy_batch(
    inputs: Tensor,
    targets: Tensor,
    *,
    label_noise: float = 0.0,
    data_noise: float = 0.0,
    classes: int | None,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Add the noise of the spring-block paper to one batch of n samples; call it anew for every batch.

    Labels: floor(p n) samples, chosen without repetition, get a class drawn uniformly from all ``classes``, which may be
    the true one; so the share of wrong labels is about p (1 - 1/classes), 0.9 p for ten classes, not p.
    Data: X + q std(X) N(0, 1), with std(X) the sample standard deviation over all entries of the batch, so the added
    variance is q^2 Var X.

    Source: reference code of Shi, Pan, Dokmanic (arXiv 2407.19353), Fig. 1(a), where p = q. It is meant for training
    batches only; load curves and accuracy are measured on clean data. For regression (``classes=None``) the paper has no
    rule; ours adds p std(targets) N(0, 1) to the targets.

    Args:
        inputs: (n, ...) floats; never changed in place.
        targets: (n,) integer labels, or floats for regression; never changed in place.
        label_noise: p, from 0 to 1.
        data_noise: q, at least 0.
        classes: the number of classes, or None for regression.
        generator: the source of randomness. Labels are drawn before data; a part at level 0 draws nothing, and is handed
            back as it came. It may live on another device than the batch.

    Returns:
        The noisy inputs and targets.

    Raises:
        InputError: if a level is out of range, or targets and ``classes`` do not fit together.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> inputs, labels = torch.randn(100, 5, generator=generator), torch.zeros(100, dtype=torch.int64)
        >>> _, noisy = noisy_batch(inputs, labels, label_noise=0.5, classes=10, generator=generator)
        >>> bool((noisy != labels).sum() <= 50)
        True
    """
    if not 0 <= label_noise <= 1:
        raise InputError(f"label_noise: expected a level from 0 to 1, got {label_noise}.")
    if not 0 <= data_noise < math.inf:
        raise InputError(f"data_noise: expected a finite level of at least 0, got {data_noise}.")
    if len(inputs) != len(targets):
        raise InputError(f"expected one target for each input, got {len(inputs)} inputs and {len(targets)} targets.")
    if classes is None:
        if not targets.is_floating_point():
            raise InputError(
                f"targets: expected floats because classes is None (regression), got {targets.dtype}. "
                "Give the number of classes, or convert the targets with .float()."
            )
    else:
        require_integer("classes", classes, 2, advice="Give None for regression.")
        if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool or targets.ndim != 1:
            raise InputError(
                f"targets: expected integer labels of shape (n,) for {classes} classes, got {targets.dtype} of shape "
                f"{tuple(targets.shape)}. Give class numbers, or classes=None for regression."
            )
    if label_noise:
        if classes is None:
            targets = _gaussian(targets, label_noise, generator, "targets")
        else:
            count = math.floor(label_noise * len(targets))
            chosen = torch.randperm(len(targets), generator=generator, device=generator.device)[:count]
            drawn = torch.randint(classes, (count,), generator=generator, device=generator.device)
            targets = targets.clone()
            targets[chosen.to(targets.device)] = drawn.to(targets)
    if data_noise:
        inputs = _gaussian(inputs, data_noise, generator, "inputs")
    return inputs, targets
