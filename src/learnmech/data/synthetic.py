"""Made-up data whose statistics are known in closed form."""

import math

import torch
from torch import Tensor

from learnmech.data.checks import require_integer
from learnmech.data.dataset import Dataset
from learnmech.errors import InputError


def _simplex(classes: int, features: int, separation: float, generator: torch.Generator) -> Tensor:
    # Centres (classes, features) of mean zero, any two of them `separation` apart, turned at random.
    corners = torch.eye(classes, dtype=torch.float64) - 1 / classes
    plane = torch.linalg.svd(corners)[2][: classes - 1]
    frame = torch.linalg.qr(torch.randn(features, classes - 1, generator=generator, dtype=torch.float64))[0]
    centres: Tensor = separation / math.sqrt(2) * corners @ plane.T @ frame.T
    return centres


def gaussian_clusters(
    samples: int,
    features: int,
    classes: int,
    *,
    separation: float,
    seed: int,
    test_samples: int | None = None,
) -> Dataset:
    """Draw Gaussian clusters of unit variance whose centres are all equally far apart.

    The K centres are the corners of a regular simplex around the origin, any two a distance s apart, turned at random;
    sample i belongs to class i mod K and is its centre plus N(0, identity). With equal class sizes and many samples,
    Tr S_w = d and Tr S_b = s^2 (K - 1) / (2 K), so the data separation of the spring-block paper is
    D_s = ln(Tr S_w / Tr S_b) = ln(2 K d / ((K - 1) s^2)). Ours, for tests and first trials.

    Args:
        samples: training samples, at least one a class.
        features: d, at least K - 1.
        classes: K, at least 2.
        separation: s, the distance of any two centres in units of a cluster's standard deviation along one axis.
        seed: the seed of centres and samples.
        test_samples: test samples; None for as many as ``samples``.

    Returns:
        Inputs (samples, features), float32, and labels (samples,).

    Raises:
        InputError: if a size is too small, or the separation is negative or not finite.

    Example:
        >>> data = gaussian_clusters(300, 20, 3, separation=10.0, seed=0)
        >>> data.train_inputs.shape, data.classes
        (torch.Size([300, 20]), 3)
    """
    require_integer("classes", classes, 2)
    require_integer("samples", samples, classes, advice="Give each class at least one sample.")
    require_integer("features", features, classes - 1, advice="So many directions hold centres equally far apart.")
    require_integer("seed", seed, 0)
    testing = samples if test_samples is None else require_integer("test_samples", test_samples, 0)
    if not 0 <= separation < math.inf:
        raise InputError(f"separation: expected a finite distance of at least 0, got {separation}.")
    generator = torch.Generator().manual_seed(seed)
    centres = _simplex(classes, features, separation, generator)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(count) % classes
        spread = torch.randn(count, features, generator=generator, dtype=torch.float64)
        return (centres[labels] + spread).float(), labels

    train_inputs, train_labels = draw(samples)
    test_inputs, test_labels = draw(testing)
    return Dataset(
        name="gaussian_clusters",
        train_inputs=train_inputs,
        train_targets=train_labels,
        test_inputs=test_inputs,
        test_targets=test_labels,
        classes=classes,
        source=f"{classes} Gaussian clusters {separation} apart, seed {seed}",
    )
