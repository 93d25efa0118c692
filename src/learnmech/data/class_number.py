"""Classification data as a regression task: the number of the class is the target."""

import dataclasses

from learnmech.data.dataset import Dataset
from learnmech.errors import InputError


def class_number_regression(dataset: Dataset) -> Dataset:
    r"""Turn labels into real targets: the number of the class, such as a digit's value, standardised on the training set.

    With mean and standard deviation of the training labels, :math:`y_i = (k_i - \bar k) / s_k`, so that a constant
    prediction has a mean squared error of 1. It is how the load for regression is tried on images.

    Source: Shi, Pan, Dokmanić 2024 (arXiv 2407.19353), supplement S5; which targets the paper used is not said.

    Args:
        dataset: data with classes whose numbers mean something.

    Returns:
        The same inputs with float targets of shape (samples, 1) and ``classes=None``.

    Raises:
        InputError: if the data set has no classes, or only one class occurs.

    Example:
        >>> import torch
        >>> inputs = torch.zeros(4, 2)
        >>> data = Dataset("few", inputs, torch.tensor([0, 2, 0, 2]), inputs, torch.tensor([0, 1, 2, 1]), 3, "made up")
        >>> class_number_regression(data).test_targets.squeeze(1).tolist()
        [-1.0, 0.0, 1.0, 0.0]
    """
    if dataset.classes is None:
        raise InputError(
            f"data set {dataset.name!r} has real-valued targets already; regression needs no change there."
        )
    train = dataset.train_targets.to(dataset.train_inputs.dtype)
    centre, spread = train.mean(), train.std(correction=0)
    if not float(spread) > 0:
        raise InputError(f"data set {dataset.name!r} has one class only, so its number does not vary.")
    test = dataset.test_targets.to(dataset.test_inputs.dtype)
    return dataclasses.replace(
        dataset,
        train_targets=((train - centre) / spread)[:, None],
        test_targets=((test - centre) / spread)[:, None],
        classes=None,
        source=f"{dataset.source}; target: the number of the class, standardised",
    )
