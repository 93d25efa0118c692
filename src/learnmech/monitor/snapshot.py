"""The probe pass: one forward (and backward) pass over the probe, chunk by chunk, that leaves no trace in the model.

Features are handed to the meters the moment a layer gives them, and backward signals the moment they arrive: nothing is
kept, so a probe needs hardly more memory than a training step, and what a later in-place operation does to a tensor does not
matter.
"""

import contextlib
import functools
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from learnmech.monitor.calls import CHECKPOINT_WARNING
from learnmech.monitor.criterion import Criterion, nothing_of
from learnmech.monitor.layers import Layer, LayerChoice, device_of
from learnmech.monitor.probe import IGNORED_LABEL, Probe, call_model, count_correct
from learnmech.monitor.tensors import first_floating
from learnmech.monitor.untouched import untouched
from learnmech.monitor.unwrap import eager_modules


@dataclass(frozen=True)
class Chunk:
    """Which samples of the probe are being looked at.

    Attributes:
        labels: flat labels of the chunk on the CPU, or None.
        start: first sample of the chunk in the probe.
        stop: one past the last.
        label_slice: where the chunk's labels lie among the flat labels of the probe.
    """

    labels: Tensor | None
    start: int
    stop: int
    label_slice: slice


class Meter(Protocol):
    """Takes one probe piece by piece and gives its numbers at the end.

    Tensors are on the model's device, detached, and valid only during the call: reduce them at once, or clone them.
    """

    def on_features(self, layer: str, features: Tensor, chunk: Chunk) -> None:
        """Take a layer's output on a chunk, samples first, as the model computed it."""

    def on_backward(self, layer: str, gradient: Tensor, chunk: Chunk) -> None:
        """Take dL/df at a layer on a chunk, L being the loss of the whole probe. Not called in forward passes."""

    def compute(self, snapshot: "Snapshot") -> Mapping[str, Any]:
        """Give the measured variables: a number, or one number a layer."""


class RestartProbe(Exception):
    """The pass has to begin anew, with fresh meters, in another mode that it has just found to be needed."""


@dataclass(frozen=True)
class Snapshot:
    """What one probe showed as a whole.

    Attributes:
        model: the eager model, for reading only.
        layers: the layers that were read.
        probe: the batch.
        step: the optimizer step it belongs to.
        loss: loss over the whole probe.
        accuracy: share of correct classifications, or None.
        gradients: trainable parameter's name to dL/dw, zero where L does not depend on it; empty for forward passes.
        updates: parameter name to the displacement by the latest optimizer step; empty if it was not watched.
        parameters: layer name to the names of its parameters.
    """

    model: nn.Module
    layers: LayerChoice
    probe: Probe
    step: int
    loss: float
    accuracy: float | None
    gradients: Mapping[str, Tensor] = field(default_factory=dict)
    updates: Mapping[str, Tensor] = field(default_factory=dict)
    parameters: Mapping[str, Sequence[str]] = field(default_factory=dict)


class ProbePass:
    """Runs probes of one model.

    Args:
        model: the eager model.
        layers: what to read.
        criterion: the loss.
    """

    def __init__(self, model: nn.Module, layers: LayerChoice, criterion: Criterion) -> None:
        self.model, self.layers, self.criterion = model, layers, criterion
        self.parameters = layers.parameters(model)
        self._modules = eager_modules(model)
        self._reentrant = layers.checkpointed

    def run(
        self,
        probe: Probe,
        meters: Sequence[Meter],
        *,
        step: int,
        backward: bool,
        chunk_size: int | None = None,
        updates: Mapping[str, Tensor] | None = None,
    ) -> Snapshot:
        """Run the probe once. Every chunk starts from the same state of the model and of the random numbers.

        Args:
            probe: the batch.
            meters: who gets the features and backward signals.
            step: the optimizer step that the snapshot belongs to.
            backward: whether to differentiate too.
            chunk_size: samples in a chunk; None for all at once.
            updates: displacements of the latest step, passed on.

        Returns:
            The snapshot of the whole probe. Raises :class:`RestartProbe` if it must begin anew with fresh meters.
        """
        aliases = self._aliases() if backward else {}
        loss, correct, counted = 0.0, 0, 0
        for start, stop in probe.chunk_bounds(chunk_size):
            outputs, labels, value = self._read(probe, start, stop, aliases, meters)
            loss += value
            scored = count_correct(outputs, labels)
            if scored is not None:
                correct, counted = correct + scored[0], counted + scored[1]
            del outputs
        nothing_counted = probe.target_labels is not None and bool((probe.target_labels == IGNORED_LABEL).all())
        return Snapshot(
            model=self.model,
            layers=self.layers,
            probe=probe,
            step=step,
            loss=float("nan") if nothing_counted else loss,
            accuracy=correct / counted if counted else None,
            gradients={name: _gradient(alias) for name, alias in aliases.items() if alias.requires_grad},
            updates=updates or {},
            parameters=self.parameters,
        )

    def deviation_of_chunks(self, probe: Probe, samples: int = 8) -> float:
        """Measure whether the loss of a batch is that of its parts, on a few samples: else chunks give other numbers.

        Args:
            probe: the batch.
            samples: how many of its samples to use.

        Returns:
            Difference between the loss of the samples and that of two halves, relative to the loss.
        """
        stop = min(samples, probe.samples)
        whole, first, second = (
            self._read(probe, *bounds, {}, ())[2] for bounds in ((0, stop), (0, stop // 2), (stop // 2, stop))
        )
        return abs(whole - first - second) / max(abs(whole), 1e-30)

    def _aliases(self) -> dict[str, Tensor]:
        """Make leaves that share the parameters' memory, so that ``.grad`` and the user's hooks are not touched."""
        with torch.inference_mode(False):
            return {
                name: parameter.detach().requires_grad_(parameter.requires_grad)
                for name, parameter in self.model.named_parameters()
            }

    def _read(
        self, probe: Probe, start: int, stop: int, aliases: dict[str, Tensor], meters: Sequence[Meter]
    ) -> tuple[Any, Tensor | None, float]:
        """Run one chunk; give outputs, flat labels and the chunk's part of the loss, and add to the aliases' gradients."""
        device = device_of(self.model)  # looked up each time: models are moved
        share = self.criterion.share(
            probe.target_labels_of(start, stop), probe.target_labels, stop - start, probe.samples
        )
        leaves = [alias for alias in aliases.values() if alias.requires_grad]
        with untouched(self.model, device), torch.set_grad_enabled(bool(leaves)):
            inputs, targets, labels = probe.chunk(start, stop, device)
            per = probe.labels_per_sample
            chunk = Chunk(labels, start, stop, slice(start * per, stop * per))
            reader = _Reader(self.layers.layers, self._modules, meters, chunk, backward=bool(leaves))
            attempt = _Attempt(self.model, self.criterion, reader, inputs, targets, share, leaves, self._reentrant)
            try:
                with reader.attached(), _quiet(self._reentrant):
                    outputs, loss = torch.func.functional_call(attempt, _prefixed(aliases), ())
            except RuntimeError as error:
                if self._reentrant or "use_reentrant=True" not in str(error):
                    raise
                self._reentrant = True
                raise RestartProbe from error
        return outputs, labels, share * loss


def _prefixed(aliases: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"model.{name}": alias for name, alias in aliases.items()}


def _gradient(alias: Tensor) -> Tensor:
    """Give the gradient of a trainable parameter, which is zero where the loss does not depend on it."""
    if alias.grad is None:
        return torch.zeros_like(alias)
    return alias.grad.to_dense() if alias.grad.is_sparse else alias.grad


@contextlib.contextmanager
def _quiet(reentrant: bool) -> Iterator[None]:
    """Keep a re-entrant checkpoint from complaining that it is given nothing to differentiate."""
    if not reentrant:
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=CHECKPOINT_WARNING)
        yield


class _Attempt(nn.Module):
    """Forward, loss and backward as one module, so that parameters stay replaced while checkpoints are recomputed."""

    def __init__(
        self,
        model: nn.Module,
        criterion: Criterion,
        reader: "_Reader",
        inputs: Any,
        targets: Any,
        share: float,
        leaves: list[Tensor],
        reentrant: bool,
    ) -> None:
        super().__init__()
        self.model = model
        self._criterion, self._reader, self._inputs, self._targets = criterion, reader, inputs, targets
        self._share, self._leaves, self._reentrant = share, leaves, reentrant

    def forward(self) -> tuple[Any, float]:
        outputs = call_model(self.model, self._inputs)
        self._reader.forward_done()
        if self._share == 0:  # every label is left out: a mean over none of them would be NaN
            loss, scaled = nothing_of(outputs), nothing_of(outputs)
        else:
            loss = self._criterion(outputs, self._targets)
            scaled = loss * self._share
        if scaled.requires_grad and self._leaves:
            self._differentiate(scaled)
        return outputs, float(loss.detach())

    def _differentiate(self, loss: Tensor) -> None:
        if not self._reentrant:
            loss.backward(inputs=self._leaves)  # type: ignore[no-untyped-call]
            return
        # A re-entrant checkpoint forbids to name what to differentiate by, so other leaves (the parameters of the loss) get
        # a gradient too, which is taken back.
        others = _leaves_behind(loss, self._leaves)
        gradients = [leaf.grad for leaf in others]
        for leaf in others:
            leaf.grad = None
        try:
            loss.backward()  # type: ignore[no-untyped-call]
        finally:
            for leaf, gradient in zip(others, gradients, strict=True):
                leaf.grad = gradient


def _leaves_behind(loss: Tensor, known: list[Tensor]) -> list[Tensor]:
    """Find the leaves that a backward pass would reach, other than the known ones."""
    own = {id(leaf) for leaf in known}
    found: list[Tensor] = []
    seen: set[Any] = set()
    stack: list[Any] = [loss.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, Tensor) and id(leaf) not in own:
            found.append(leaf)
        stack.extend(following for following, _ in node.next_functions)
    return found


class _Reader:
    """Hooks that hand features and backward signals of one chunk to the meters."""

    def __init__(
        self,
        layers: Sequence[Layer],
        modules: Mapping[str, nn.Module],
        meters: Sequence[Meter],
        chunk: Chunk,
        *,
        backward: bool,
    ) -> None:
        self._layers, self._modules, self._meters, self._chunk = layers, modules, meters, chunk
        self._wants_backward = backward
        self._calls: Counter[nn.Module] = Counter()
        self._in_forward = True
        self._hooked: set[str] = set()

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Keep the hooks in place for the length of the block."""
        by_module: dict[nn.Module, list[Layer]] = {}
        for layer in self._layers:
            by_module.setdefault(self._modules[layer.module], []).append(layer)
        with contextlib.ExitStack() as stack:
            for module, layers in by_module.items():
                enter, leave = self._hooks(module, layers)
                stack.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(leave).remove)
            yield

    def _hooks(self, module: nn.Module, layers: list[Layer]) -> tuple[Callable[..., None], Callable[..., None]]:
        def enter(_: nn.Module, args: Any, kwargs: Any) -> None:
            call = self._calls[module]
            self._calls[module] += 1
            for layer in layers:
                if layer.side == "input" and layer.call == call:
                    self._take(layer, (args, kwargs))

        def leave(_: nn.Module, args: Any, output: Any) -> None:
            call = self._calls[module] - 1
            for layer in layers:
                if layer.side == "output" and layer.call == call:
                    self._take(layer, output)

        return enter, leave

    def forward_done(self) -> None:
        """Say that what fires from now on is the recomputation of checkpointed parts."""
        self._in_forward = False
        self._calls.clear()

    def _take(self, layer: Layer, value: Any) -> None:
        found = first_floating(value)
        if found is None:
            return
        tensor = found[1]
        if self._in_forward:
            with torch.no_grad():
                for meter in self._meters:
                    meter.on_features(layer.name, tensor.detach(), self._chunk)
        if self._wants_backward and tensor.requires_grad and layer.name not in self._hooked:
            # A re-entrant checkpoint runs its first pass without a graph: then the recomputation is hooked instead, unless
            # the module runs several times, whose order in a recomputation is not known.
            repeated = any(other.module == layer.module and other.call != layer.call for other in self._layers)
            if not self._in_forward and repeated:
                return
            self._hooked.add(layer.name)
            tensor.register_hook(functools.partial(self._give_backward, layer.name))  # type: ignore[no-untyped-call]

    def _give_backward(self, name: str, gradient: Tensor) -> None:
        with torch.no_grad():
            for meter in self._meters:
                meter.on_backward(name, gradient.detach(), self._chunk)
