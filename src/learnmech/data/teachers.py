"""Regression tasks whose function passes through few dimensions: compositions of random teacher networks."""

import itertools
import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from learnmech.data.checks import require_integer
from learnmech.data.dataset import Dataset
from learnmech.errors import InputError

Teacher = Literal["fully_connected", "residual"]
_BLOCKS = 4
_BIAS = 0.3


def bottleneck_task(
    widths: Sequence[int] = (20, 5, 20),
    samples: int = 1000,
    *,
    test_samples: int = 1000,
    teacher: Teacher = "fully_connected",
    hidden: int | None = None,
    seed: int = 0,
) -> Dataset:
    r"""Draw a regression task :math:`y = f_m \circ \cdots \circ f_1(x)` through given numbers of dimensions.

    Inputs are normal. Each :math:`f_j` from a to b dimensions is a random network with h hidden neurons, either fully connected,
    :math:`V \max(U z + c, 0)`, or residual: a linear map to h dimensions, four blocks
    :math:`z + \tfrac{1}{2} V \max(U z + c, 0)`, and a linear map to b. Entries of U are N(0, 2 / fan-in), those of V and of the
    linear maps N(0, 1 / fan-in), biases N(0, 0.09). What leaves a teacher is centred and scaled to unit variance, coordinate by
    coordinate, with the numbers of the training samples, and so are inputs.

    The **bottleneck rank** of such a function, the smallest inner dimension over all ways to write it as a composition, is at most the
    smallest width, and a trained net may need more directions than it.

    Source: Jacot and Kaiser (arXiv 2405.17573) use 20-5-20 with "fully connected" and 30-6-3-30 with residual teachers, 1000 training
    and 1000 test samples, centred and normalised; they do not give the teachers' depth, width and scale, nor the law of inputs.
    Those are ours.

    Args:
        widths: dimensions of inputs, of what passes between teachers, and of targets.
        samples: training samples.
        test_samples: test samples, drawn after them.
        teacher: ``fully_connected`` or ``residual``.
        hidden: hidden neurons h; None for twice the larger of the two dimensions that a teacher connects.
        seed: the seed of teachers and inputs.

    Returns:
        Inputs (samples, widths[0]) and targets (samples, widths[-1]), float32.

    Raises:
        InputError: if a size is too small, fewer than two widths are given, or the kind of teacher is unknown.

    Example:
        >>> task = bottleneck_task((20, 5, 20), 100, test_samples=10)
        >>> task.train_inputs.shape, task.train_targets.shape
        (torch.Size([100, 20]), torch.Size([100, 20]))
    """
    if not isinstance(widths, list | tuple) or len(widths) < 2:
        raise InputError(f"widths: expected at least two dimensions, such as (20, 5, 20), got {widths!r}.")
    for width in widths:
        require_integer("widths", width, 1)
    require_integer("samples", samples, 2)
    require_integer("test_samples", test_samples, 0)
    require_integer("seed", seed, 0)
    if hidden is not None:
        require_integer("hidden", hidden, 1)
    if teacher not in get_args(Teacher):
        raise InputError(f"teacher: expected one of {', '.join(get_args(Teacher))}, got {teacher!r}.")
    generator = torch.Generator().manual_seed(seed)
    inputs = _standardise(_normal(generator, samples + test_samples, widths[0]), samples)
    values = inputs
    for before, after in itertools.pairwise(widths):
        neurons = 2 * max(before, after) if hidden is None else hidden
        apply = _fully_connected if teacher == "fully_connected" else _residual
        values = _standardise(apply(values, neurons, after, generator), samples)
    inputs, targets = inputs.float(), values.float()
    name = "-".join(map(str, widths))
    return Dataset(
        name=f"bottleneck_task_{name}",
        train_inputs=inputs[:samples],
        train_targets=targets[:samples],
        test_inputs=inputs[samples:],
        test_targets=targets[samples:],
        classes=None,
        source=f"random {teacher.replace('_', ' ')} teachers {name}, seed {seed}",
    )


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    drawn: Tensor = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return drawn


def _standardise(values: Tensor, samples: int) -> Tensor:
    train = values[:samples]
    spread = train.std(0, correction=0)
    if bool((spread < 1e-12).any()):
        raise InputError(
            "a coordinate of the task does not vary over the training samples; take another seed or more hidden."
        )
    return (values - train.mean(0)) / spread


def _fully_connected(values: Tensor, hidden: int, out: int, generator: torch.Generator) -> Tensor:
    return _layer(values, hidden, generator) @ _normal(generator, hidden, out) / math.sqrt(hidden)


def _residual(values: Tensor, hidden: int, out: int, generator: torch.Generator) -> Tensor:
    width = values.shape[1]
    state = values @ _normal(generator, width, hidden) / math.sqrt(width)
    for _ in range(_BLOCKS):
        state = state + _layer(state, hidden, generator) @ _normal(generator, hidden, hidden) / math.sqrt(
            hidden * _BLOCKS
        )
    return state @ _normal(generator, hidden, out) / math.sqrt(hidden)


def _layer(values: Tensor, hidden: int, generator: torch.Generator) -> Tensor:
    width = values.shape[1]
    weights = _normal(generator, width, hidden) * math.sqrt(2 / width)
    return (values @ weights + _BIAS * _normal(generator, hidden)).clamp(min=0)
