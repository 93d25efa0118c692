"""The probe: one fixed batch on which everything is measured."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from learnmech.errors import InputError
from learnmech.fingerprint import fingerprint_data
from learnmech.monitor.tensors import cut, samples_in, tensors_in

IGNORED_LABEL = -100
Loss = Callable[[Any, Any], Tensor]


class Probe:
    """A fixed batch of inputs and targets, cut into chunks that are moved to the model's device one at a time.

    Args:
        inputs: what the model takes: a tensor, a tuple of positional or a mapping of keyword arguments.
        targets: what the loss takes as its second argument.
        labels: the class of each sample (or token), if it is not ``targets`` itself.
        ignored: the label that the loss leaves out; -100 is what it becomes here.

    Attributes:
        samples: length of the batch.
        labels: integer classes or real-valued targets as one flat tensor on the CPU, one row a sample; None if the targets
            are not one tensor. Labels that the loss leaves out are -100.
        target_labels: integer targets as one flat tensor on the CPU; None for other targets.

    Raises:
        InputError: if inputs, targets and labels have different lengths, there is no sample, or inputs hold NaN.
    """

    def __init__(
        self, inputs: Any, targets: Any, labels: Tensor | None = None, *, ignored: int = IGNORED_LABEL
    ) -> None:
        samples = samples_in(inputs)
        if samples is None or samples == 0:
            raise InputError(
                "the probe must be (inputs, targets) with at least one sample, the samples along the first dimension of "
                f"every tensor; inputs of type {type(inputs).__name__} hold none."
            )
        self.inputs, self.targets, self.samples = inputs, targets, samples
        target_samples = samples_in(targets)
        if isinstance(targets, Tensor) and target_samples is not None and not _fits(target_samples, samples):
            raise InputError(f"the probe has {samples} inputs but {target_samples} targets; give one target a sample.")
        if labels is not None and not _fits(labels.numel() if not labels.is_floating_point() else len(labels), samples):
            raise InputError(f"the probe has {samples} inputs but {labels.numel()} labels; give one label a sample.")
        for path, tensor in tensors_in(inputs):
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                bad = int((~torch.isfinite(tensor)).sum())
                raise InputError(f"the probe's inputs{path} hold {bad} NaN or infinite entries of {tensor.numel()}.")
        flat_targets = _flat_labels(targets, ignored)
        self.labels = flat_targets if labels is None else _flat_labels(labels, IGNORED_LABEL)
        integers = flat_targets is not None and flat_targets.ndim == 1
        self.target_labels = flat_targets if integers else None
        self._fingerprint: str | None = None

    @property
    def classification(self) -> bool:
        """Whether the labels are integer classes."""
        return self.labels is not None and self.labels.ndim == 1

    @property
    def labels_per_sample(self) -> int:
        """How many labels each sample has: 1, or the number of tokens."""
        return 1 if self.labels is None else len(self.labels) // self.samples

    def fingerprint(self) -> str:
        """Name the content of the batch.

        Returns:
            16 hexadecimal digits.
        """
        if self._fingerprint is None:
            tensors = (tensor for part in (self.inputs, self.targets) for _, tensor in tensors_in(part))
            self._fingerprint = fingerprint_data(*tensors)
        return self._fingerprint

    def chunk_bounds(self, size: int | None) -> list[tuple[int, int]]:
        """Cut the batch into chunks.

        Args:
            size: samples in a chunk; None for one chunk.

        Returns:
            (start, stop) of each chunk.
        """
        size = self.samples if size is None else max(1, min(size, self.samples))
        return [(start, min(start + size, self.samples)) for start in range(0, self.samples, size)]

    def chunk(self, start: int, stop: int, device: torch.device | None) -> tuple[Any, Any, Tensor | None]:
        """Take one chunk.

        Args:
            start: first sample.
            stop: one past the last.
            device: where to bring it.

        Returns:
            Inputs, targets, and the flat labels (on the CPU).
        """
        inputs = cut(self.inputs, start, stop, self.samples, device)
        length = samples_in(self.targets)
        if isinstance(self.targets, Tensor) and length is not None:
            per = length // self.samples  # token labels may come flattened: (batch * tokens,)
            targets = cut(self.targets, start * per, stop * per, length, device)
        else:
            targets = cut(self.targets, start, stop, self.samples, device)
        labels = None if self.labels is None else _part(self.labels, start, stop, self.samples)
        return inputs, targets, labels

    def target_labels_of(self, start: int, stop: int) -> Tensor | None:
        """Take the integer targets of one chunk.

        Args:
            start: first sample.
            stop: one past the last.

        Returns:
            Flat labels on the CPU; None for other targets.
        """
        return None if self.target_labels is None else _part(self.target_labels, start, stop, self.samples)


def _fits(length: int, samples: int) -> bool:
    return length >= samples and length % samples == 0


def _part(labels: Tensor, start: int, stop: int, samples: int) -> Tensor:
    per = len(labels) // samples
    part: Tensor = labels[start * per : stop * per]
    return part


def _flat_labels(labels: Any, ignored: int) -> Tensor | None:
    if not isinstance(labels, Tensor) or labels.ndim == 0:
        return None
    given: Tensor = labels.detach().cpu()
    if given.is_floating_point() or given.is_complex():
        return given.reshape(len(given), -1)
    flat = given.reshape(-1).long()
    return flat if ignored == IGNORED_LABEL else torch.where(flat == ignored, IGNORED_LABEL, flat)


def call_model(model: nn.Module, inputs: Any) -> Any:
    """Call a model the way its inputs say.

    Args:
        model: the module.
        inputs: a tensor, a tuple or list of positional arguments, or a mapping of keyword arguments.

    Returns:
        What the model returns.
    """
    args, kwargs = arguments_of(inputs)
    return model(*args, **kwargs)


def arguments_of(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Split a model's inputs into positional and keyword arguments.

    Args:
        inputs: a tensor, a tuple or list of positional arguments, or a mapping of keyword arguments.

    Returns:
        Positional and keyword arguments.
    """
    if isinstance(inputs, list | tuple):
        return tuple(inputs), {}
    if isinstance(inputs, dict) or (hasattr(inputs, "keys") and hasattr(inputs, "__getitem__")):
        return (), dict(inputs)
    return (inputs,), {}


def count_correct(outputs: Any, labels: Tensor | None) -> tuple[int, int] | None:
    """Count correct classifications.

    The logits are the model's output, its ``logits`` entry, or its first floating tensor, with the classes along the last
    dimension (or the second, as in images).

    Args:
        outputs: what the model returned.
        labels: flat labels; -100 is left out.

    Returns:
        (correct, counted), or None if outputs and labels are not those of a classifier.
    """
    if labels is None or labels.is_floating_point():
        return None
    candidates = [tensor for path, tensor in tensors_in(outputs) if tensor.is_floating_point()]
    named = [tensor for path, tensor in tensors_in(outputs) if "logits" in path and tensor.is_floating_point()]
    for logits in named + candidates:
        for dimension in (-1, 1):
            if (
                logits.ndim < 2
                or logits.numel() // logits.shape[dimension] != len(labels)
                or logits.shape[dimension] < 2
            ):
                continue
            guesses = logits.detach().argmax(dim=dimension).reshape(-1)
            wanted = labels.to(guesses.device)
            counted = wanted != IGNORED_LABEL
            return int(((guesses == wanted) & counted).sum()), int(counted.sum())
    return None
