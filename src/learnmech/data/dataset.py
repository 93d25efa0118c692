"""The form every data set takes here: four tensors, the number of classes, and where they came from."""

import dataclasses
from functools import cached_property

import torch
from torch import Tensor

from learnmech.data.checks import require_integer
from learnmech.errors import InputError
from learnmech.fingerprint import fingerprint_data


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A training set and a test set, checked once when it is made.

    Inputs are float tensors of shape (samples, ...). Targets are int64 class labels of shape (samples,) when ``classes``
    is a number, and floats of shape (samples, width) when ``classes`` is None (regression). The test set may be empty.

    Args:
        name: a short name, such as ``"mnist"``.
        train_inputs: (training samples, ...), float.
        train_targets: (training samples,) labels, or (training samples, width) floats.
        test_inputs: (test samples, ...), float, each of the same shape as a training input.
        test_targets: as ``train_targets``, for the test samples.
        classes: the number of classes; labels run from 0 to ``classes - 1``. None for regression.
        source: where the data came from and how it was cut, in words.

    Raises:
        InputError: if lengths, shapes or types do not fit together, a label is out of range, a float is not finite, or
            there are fewer than 2 training samples.

    Example:
        >>> inputs, labels = torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
        >>> data = Dataset("blank", inputs, labels, inputs[:1], labels[:1], classes=3, source="zeros")
        >>> data.input_shape, data.outputs, data.flatten().input_shape
        ((1, 8, 8), 3, (64,))
    """

    name: str
    train_inputs: Tensor
    train_targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor
    classes: int | None
    source: str

    def __post_init__(self) -> None:
        if self.classes is not None:
            require_integer("classes", self.classes, 2, advice="Give None for regression.")
        for part in ("train", "test"):
            self._check_part(part, getattr(self, f"{part}_inputs"), getattr(self, f"{part}_targets"))
        if len(self.train_inputs) < 2:
            raise InputError(
                f"data set {self.name!r}: expected at least 2 training samples, got {len(self.train_inputs)}."
            )
        for what in ("inputs", "targets"):
            train, test = getattr(self, f"train_{what}"), getattr(self, f"test_{what}")
            if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
                raise InputError(
                    f"data set {self.name!r}: expected test {what} like the training {what}, {tuple(train.shape[1:])} of "
                    f"{train.dtype} each, got {tuple(test.shape[1:])} of {test.dtype}. Prepare both in the same way."
                )

    def _check_part(self, part: str, inputs: Tensor, targets: Tensor) -> None:
        where = f"data set {self.name!r}, {part}"
        if not inputs.is_floating_point() or inputs.ndim < 2:
            raise InputError(
                f"{where}_inputs: expected floats of shape (samples, ...), got {inputs.dtype} of shape "
                f"{tuple(inputs.shape)}. Convert with inputs.float() and give samples the first axis."
            )
        if self.classes is not None:
            if targets.dtype != torch.int64 or targets.ndim != 1:
                raise InputError(
                    f"{where}_targets: expected int64 labels of shape (samples,), got {targets.dtype} of shape "
                    f"{tuple(targets.shape)}. Give class numbers, or classes=None for regression."
                )
        elif not targets.is_floating_point() or targets.ndim != 2:
            raise InputError(
                f"{where}_targets: expected floats of shape (samples, width) for regression, got {targets.dtype} of "
                f"shape {tuple(targets.shape)}. Use targets.float()[:, None] for one number a sample."
            )
        if len(inputs) != len(targets):
            raise InputError(
                f"{where}: expected one target for each input, got {len(inputs)} inputs and {len(targets)} targets."
            )
        for what, values in (("inputs", inputs), ("targets", targets)):
            if values.is_floating_point() and not bool(torch.isfinite(values).all()):
                raise InputError(
                    f"{where}_{what}: expected finite numbers, got nan or infinity. Remove or fill those samples."
                )
        if self.classes is not None and len(targets):
            low, high = int(targets.min()), int(targets.max())
            if low < 0 or high >= self.classes:
                raise InputError(
                    f"{where}_targets: expected labels from 0 to {self.classes - 1}, got labels from {low} to {high}. "
                    "Renumber the classes or correct the number of classes."
                )

    def __repr__(self) -> str:
        return f"Dataset({self.describe()})"

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that name the content of the four tensors, computed once."""
        return fingerprint_data(self.train_inputs, self.train_targets, self.test_inputs, self.test_targets)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input, without the axis of samples."""
        return tuple(self.train_inputs.shape[1:])

    @property
    def outputs(self) -> int:
        """How many outputs a network needs: the number of classes, or the width of the regression target."""
        return self.train_targets.shape[1] if self.classes is None else self.classes

    def flatten(self) -> "Dataset":
        """Lay every input out as one vector, as a multilayer perceptron needs it.

        Returns:
            The same data with inputs of shape (samples, d).
        """
        return dataclasses.replace(
            self, train_inputs=self.train_inputs.flatten(1), test_inputs=self.test_inputs.flatten(1)
        )

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "Dataset":
        """Convert to another float type, or move to another device.

        Args:
            dtype: the float type of inputs and of regression targets; class labels stay int64. None keeps it.
            device: where the tensors shall live. None keeps it.

        Returns:
            A new data set; its fingerprint changes with the type, not with the device.

        Raises:
            InputError: if ``dtype`` is no float type, or a value does not fit in it.
        """
        if dtype is not None and not dtype.is_floating_point:
            raise InputError(f"dtype: expected a float type such as torch.float64, got {dtype}.")

        def convert(values: Tensor) -> Tensor:
            return values.to(device=device, dtype=dtype if values.is_floating_point() else None)

        return dataclasses.replace(
            self,
            train_inputs=convert(self.train_inputs),
            train_targets=convert(self.train_targets),
            test_inputs=convert(self.test_inputs),
            test_targets=convert(self.test_targets),
        )

    def describe(self) -> str:
        """Say in one line what this is: name, sizes, shape, task, fingerprint and source.

        Returns:
            One line of text.
        """
        task = f"{self.classes} classes" if self.classes is not None else f"regression of {self.outputs} number(s)"
        return (
            f"{self.name}: {len(self.train_inputs)} training and {len(self.test_inputs)} test samples of shape "
            f"{self.input_shape}, {task}, fingerprint {self.fingerprint}, from {self.source}"
        )
