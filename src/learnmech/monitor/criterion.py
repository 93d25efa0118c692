"""What is known of a loss function: how it weighs samples, which labels it leaves out, and clear errors when it fails."""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from learnmech.errors import InputError
from learnmech.monitor.probe import IGNORED_LABEL, Loss
from learnmech.monitor.tensors import describe_tensors, first_floating


class Criterion:
    """A loss function with the settings that the probe must respect.

    Settings are read from attributes of a loss module (``nn.CrossEntropyLoss(weight=..., ignore_index=...)``) and from the
    keywords of a ``functools.partial``; anything else counts as a mean over samples that leaves label -100 out.

    Args:
        loss: ``loss(outputs, targets)``.

    Attributes:
        reduction: ``mean`` or ``sum``.
        ignored: the label that is left out.
        class_weights: the weight of each class in a weighted mean, or None.
    """

    def __init__(self, loss: Loss) -> None:
        self.loss = loss
        function: Any = loss
        settings: dict[str, Any] = {}
        while isinstance(function, functools.partial):
            settings = {**function.keywords, **settings}
            function = function.func
        self._indexes_classes = isinstance(function, nn.CrossEntropyLoss | nn.NLLLoss) or function in (
            functional.cross_entropy,
            functional.nll_loss,
        )

        def setting(name: str, default: Any) -> Any:
            return settings.get(name, getattr(function, name, default))

        self.reduction: str = setting("reduction", "mean")
        self.ignored: int = setting("ignore_index", IGNORED_LABEL) if self._indexes_classes else IGNORED_LABEL
        weights = setting("weight", None) if self._indexes_classes else None
        self.class_weights: Tensor | None = weights.detach().cpu() if isinstance(weights, Tensor) else None

    def share(self, labels: Tensor | None, whole: Tensor | None, chunk: int, samples: int) -> float:
        """Find the weight of a chunk's loss in the loss of the whole probe.

        Args:
            labels: integer targets of the chunk, flat, -100 for those left out; None for other targets.
            whole: those of the probe.
            chunk: samples in the chunk.
            samples: samples in the probe.

        Returns:
            1 for a sum; else the chunk's part of the samples, tokens or class weights that a mean goes over.
        """
        if self.reduction == "sum":
            return 1.0
        if labels is None or whole is None:
            return chunk / samples
        total = self._weigh(whole)
        return self._weigh(labels) / total if total else 0.0

    def _weigh(self, labels: Tensor) -> float:
        counted = labels[labels != IGNORED_LABEL]
        if self.class_weights is None:
            return float(len(counted))
        return float(self.class_weights[counted.clamp(0, len(self.class_weights) - 1)].double().sum())

    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        """Compute the loss.

        Args:
            outputs: what the model returned.
            targets: the targets.

        Returns:
            A scalar tensor.

        Raises:
            InputError: if a label is out of range (checked first: on CUDA it would break the process), the loss fails, or it
                is not a scalar.
        """
        self._check_range(outputs, targets)
        try:
            loss = self.loss(outputs, targets)
        except Exception as error:
            if out_of_memory(error) or isinstance(error, InputError):
                raise
            raise InputError(
                f"the loss failed on outputs ({describe_tensors(outputs)}) and targets ({describe_tensors(targets)}): "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            came = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise InputError(f"loss(outputs, targets) must return a scalar tensor, but returned {came}.")
        return loss

    def _check_range(self, outputs: Any, targets: Any) -> None:
        if not self._indexes_classes or not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
            return
        if targets.is_floating_point() or outputs.ndim == 0 or targets.numel() == 0:
            return
        classes = outputs.shape[1 if outputs.ndim > 1 else 0]
        counted = targets[targets != self.ignored]
        if counted.numel() == 0:
            return
        lowest, highest = int(counted.min()), int(counted.max())
        if lowest < 0 or highest >= classes:
            raise InputError(
                f"the probe's labels go from {lowest} to {highest}, but the model has {classes} outputs: labels must lie in "
                f"0 .. {classes - 1} (or be {self.ignored} to leave a sample out)."
            )


def nothing_of(outputs: Any) -> Tensor:
    """Make a loss of zero that depends on the outputs, for chunks in which every label is left out.

    Args:
        outputs: what the model returned.

    Returns:
        Zero, differentiable where the outputs are.
    """
    found = first_floating(outputs)
    return torch.zeros(()) if found is None else (found[1] * 0).sum()


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out.

    Args:
        error: what was raised.

    Returns:
        Whether it did, on an accelerator or on the CPU.
    """
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("not enough memory" in text or "can't allocate memory" in text)
