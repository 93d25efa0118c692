"""Which numbers of a model's output a tangent kernel is about: one row a sample, and combinations of its entries."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.errors import InputError
from learnmech.monitor.tensors import describe_tensors, tensors_in

OutputChoice = Literal["trace", "full"] | int | Sequence[int] | Tensor | None
"""What a caller may ask for: the trace over all outputs, all pairs of outputs, some outputs, or combinations."""


def output_rows(value: Any, samples: int) -> Float[Tensor, "samples outputs"]:
    """Find the model's output: the first tensor of real numbers whose first dimension holds the samples.

    Args:
        value: what the model returned.
        samples: how many samples it was given.

    Returns:
        One row a sample; logits of all tokens of a sequence stand in one row, position by position, also where the model gives
        them as (samples * positions, classes).

    Raises:
        InputError: if there is no such tensor.
    """
    for _, tensor in tensors_in(value):
        if tensor.is_floating_point() and tensor.ndim > 0 and tensor.numel() > 0 and len(tensor) % samples == 0:
            return tensor.reshape(samples, -1)
    raise InputError(
        f"the model must return a floating-point tensor with the {samples} samples along its first dimension, but returned "
        f"{describe_tensors(value)}."
    )


def combinations(
    choice: OutputChoice, outputs: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "combinations outputs"]:
    """Write down the combinations of outputs whose kernels are added up.

    Args:
        choice: what was asked for.
        outputs: how many numbers the model gives for one sample.
        dtype: of the result.
        device: of the result.

    Returns:
        One combination a row; the unit matrix for all outputs.

    Raises:
        InputError: for another choice, an index out of range or twice, a matrix of another width or with NaN.
    """
    if choice is None or (isinstance(choice, str) and choice in ("trace", "full")):
        return torch.eye(outputs, dtype=dtype, device=device)
    if isinstance(choice, Tensor):
        return _given(choice, outputs).to(dtype=dtype, device=device)
    indices = [choice] if isinstance(choice, int) else list(choice) if isinstance(choice, list | tuple | range) else []
    whole = all(isinstance(index, int) and not isinstance(index, bool) for index in indices)
    if not indices or not whole or len(set(indices)) < len(indices):
        raise InputError(
            "outputs must be 'trace', 'full', an index, a list of different indices, or a tensor (combinations, outputs), "
            f"but is {choice!r}."
        )
    wrong = [index for index in indices if not 0 <= index < outputs]
    if wrong:
        raise InputError(
            f"outputs names {wrong[0]}, but the model gives {outputs} numbers a sample, 0 .. {outputs - 1}."
        )
    return torch.eye(outputs, dtype=dtype, device=device)[indices]


def random_combinations(count: int, outputs: int, seed: int = 0) -> Float[Tensor, "count outputs"]:
    r"""Draw fixed random combinations whose kernels add up to the trace on average.

    Signs :math:`v_{rc} = \pm 1/\sqrt{R}`, so that :math:`E\sum_r v_r v_r^T = I`.

    Args:
        count: R.
        outputs: how many numbers the model gives for one sample.
        seed: of the signs.

    Returns:
        One combination a row, float64.
    """
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (count, outputs), generator=generator)
    scaled: Tensor = (2.0 * signs.double() - 1.0) / count**0.5
    return scaled


def _given(matrix: Tensor, outputs: int) -> Tensor:
    rows = matrix.detach()
    if rows.ndim != 2 or rows.shape[0] == 0 or rows.shape[1] != outputs or rows.is_complex():
        raise InputError(
            f"combinations of outputs must have shape (combinations, {outputs}), one row each, but have "
            f"{tuple(rows.shape)}."
        )
    if not bool(torch.isfinite(rows).all()):
        raise InputError("combinations of outputs hold NaN or infinite entries.")
    return rows
