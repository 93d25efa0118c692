"""Measuring a network of an experiment on its own data: on the training samples, and on test samples if there are any."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from learnmech.data import Dataset
from learnmech.monitor.monitor import Monitor, watch
from learnmech.training import make_loss
from learnmech.training.config import Loss

HELD_OUT = 2560
"""Test samples on which the held-out curve is measured; the accuracy at the end is of all of them."""


def observe(
    model: nn.Module, dataset: Dataset, loss: Loss, *, measures: str | Sequence[str] = "springs", **named: Any
) -> Monitor:
    """Watch a network on the clean training samples, with a part of the test samples held out.

    Args:
        model: the network.
        dataset: its data.
        loss: name of its loss.
        measures: what to measure, see :func:`learnmech.watch`.
        **named: further arguments of :func:`learnmech.watch`.

    Returns:
        A monitor that has measured once.
    """
    dtype = next(model.parameters()).dtype
    data = dataset if dataset.train_inputs.dtype == dtype else dataset.to(dtype=dtype)
    tested = len(data.test_inputs) > 1
    return watch(
        model,
        (data.train_inputs, data.train_targets),
        make_loss(loss, dataset.classes),
        measures=measures,
        held_out=(data.test_inputs[:HELD_OUT], data.test_targets[:HELD_OUT]) if tested else None,
        **named,
    )
