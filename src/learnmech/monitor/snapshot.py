"""The probe pass: one forward (and backward) pass over the probe, chunk by chunk, that leaves no trace in the model.

Features are handed to the meters the moment a layer gives them, and backward signals the moment they arrive: nothing is
kept, so a probe needs hardly more memory than a training step, and what a later in-place operation does to a tensor does not
matter.
"""

import contextlib
import functools
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from learnmech.monitor.calls import CHECKPOINT_WARNING
from learnmech.monitor.criterion import Criterion, nothing_of
from learnmech.monitor.layers import Layer, LayerChoice, device_of
from learnmech.monitor.probe import IGNORED_LABEL, Probe, call_model, count_correct
from learnmech.monitor.reader import LayerReader
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


@runtime_checkable
class InputMeter(Protocol):
    """A meter that wants to see what goes into a layer, too; any :class:`Meter` with this method is one."""

    def on_input(self, layer: str, tensor: Tensor, chunk: Chunk) -> None:
        """Take what a layer is about to work on, before :meth:`Meter.on_features` brings what it made of it.

        Called for layers that are one module read at its output (see :attr:`Layer.is_module`), with the first tensor of real
        numbers among its arguments. The layer may write over it: clone what is needed later.
        """


class Tracer(Protocol):
    """Looks at the graph of a pass before it is differentiated, chunk by chunk."""

    def note(self, layer: Layer, tensor: Tensor) -> None:
        """Take a layer's output as the model made it, with its graph."""

    def finish(self, loss: Tensor, leaves: Mapping[str, Tensor]) -> None:
        """Take the loss of the chunk and the leaves in the place of parameters, by name."""


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
        unused: trainable parameters on which L does not depend at all.
        source: the pass that made it, for instruments that need further passes over the same probe; or None.
        chunk_size: samples in one chunk; None for all at once.
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
    unused: frozenset[str] = frozenset()
    source: "ProbePass | None" = None
    chunk_size: int | None = None


class ProbePass:
    """Runs probes of one model.

    Args:
        model: the eager model.
        layers: what to read.
        criterion: the loss.
        evaluate: whether to run the model in evaluation mode, or else with the train/eval flags that it has.
    """

    def __init__(self, model: nn.Module, layers: LayerChoice, criterion: Criterion, *, evaluate: bool = True) -> None:
        self.model, self.layers, self.criterion, self.evaluate = model, layers, criterion, evaluate
        self.parameters = layers.parameters(model)
        self._modules = eager_modules(model)
        self._reentrant = layers.checkpointed

    @property
    def reentrant(self) -> bool:
        """Whether parts of the model are known to run under re-entrant activation checkpoints, which hide their graph."""
        return self._reentrant

    def run(
        self,
        probe: Probe,
        meters: Sequence[Meter],
        *,
        step: int,
        backward: bool,
        chunk_size: int | None = None,
        updates: Mapping[str, Tensor] | None = None,
        values: Mapping[str, Tensor] | None = None,
        tracer: Tracer | None = None,
    ) -> Snapshot:
        """Run the probe once. Every chunk starts from the same state of the model and of the random numbers.

        Args:
            probe: the batch.
            meters: who gets the features and backward signals.
            step: the optimizer step that the snapshot belongs to.
            backward: whether to differentiate too.
            chunk_size: samples in a chunk; None for all at once.
            updates: displacements of the latest step, passed on.
            values: parameters to use in the place of the model's own, by name; those not named are the model's.
            tracer: who gets to see the graph.

        Returns:
            The snapshot of the whole probe. Raises :class:`RestartProbe` if it must begin anew with fresh meters.
        """
        aliases = self.aliases(values, differentiable=backward) if backward or values else {}
        loss, correct, counted = 0.0, 0, 0
        for start, stop in probe.chunk_bounds(chunk_size):
            outputs, labels, value = self.read(probe, start, stop, aliases, meters, tracer)
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
            unused=frozenset(name for name, alias in aliases.items() if alias.requires_grad and alias.grad is None),
            source=self,
            chunk_size=chunk_size,
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
            self.read(probe, *bounds, {}, ())[2] for bounds in ((0, stop), (0, stop // 2), (stop // 2, stop))
        )
        return abs(whole - first - second) / max(abs(whole), 1e-30)

    def aliases(self, values: Mapping[str, Tensor] | None = None, *, differentiable: bool = True) -> dict[str, Tensor]:
        """Make leaves that share the parameters' memory, so that ``.grad`` and the user's hooks are not touched.

        Args:
            values: tensors in the place of the model's parameters; each decides itself whether it requires a gradient.
            differentiable: whether leaves require a gradient at all.

        Returns:
            One leaf a parameter, by name.
        """
        sources = {**dict(self.model.named_parameters()), **(values or {})}
        with torch.inference_mode(False):
            return {
                name: source.detach().requires_grad_(differentiable and source.requires_grad)
                for name, source in sources.items()
            }

    def call(self, aliases: Mapping[str, Tensor], inputs: Any) -> Any:
        """Call the model with other parameters: nothing else, no context, no hooks.

        Args:
            aliases: tensors in the place of parameters, by name.
            inputs: what the model takes.

        Returns:
            What it returns.
        """
        return torch.func.functional_call(_Call(self.model, inputs), _prefixed(aliases), ())

    def read(
        self,
        probe: Probe,
        start: int,
        stop: int,
        aliases: dict[str, Tensor],
        meters: Sequence[Meter],
        tracer: Tracer | None = None,
    ) -> tuple[Any, Tensor | None, float]:
        """Run one chunk, and add to the gradients of those leaves that require one.

        Args:
            probe: the batch.
            start: first sample.
            stop: one past the last.
            aliases: leaves in the place of parameters, see :meth:`aliases`.
            meters: who gets features and backward signals.
            tracer: who gets to see the graph.

        Returns:
            Outputs, flat labels on the CPU, and the chunk's part of the loss.

        Raises:
            RestartProbe: if the pass has to begin anew, see there.
            RuntimeError: what the model raises.
        """
        device = device_of(self.model)  # looked up each time: models are moved
        share = self.criterion.share(
            probe.target_labels_of(start, stop), probe.target_labels, stop - start, probe.samples
        )
        leaves = {name: alias for name, alias in aliases.items() if alias.requires_grad}
        with untouched(self.model, device, evaluate=self.evaluate), torch.set_grad_enabled(bool(leaves)):
            inputs, targets, labels = probe.chunk(start, stop, device)
            per = probe.labels_per_sample
            chunk = Chunk(labels, start, stop, slice(start * per, stop * per))
            feed = _MeterFeed(self.layers.layers, self._modules, meters, chunk, tracer, backward=bool(leaves))
            attempt = _Attempt(self.model, self.criterion, feed, inputs, targets, share, leaves, self._reentrant)
            try:
                with feed.attached(), _quiet(self._reentrant):
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


class _Call(nn.Module):
    def __init__(self, model: nn.Module, inputs: Any) -> None:
        super().__init__()
        self.model, self._inputs = model, inputs

    def forward(self) -> Any:
        return call_model(self.model, self._inputs)


class _Attempt(nn.Module):
    """Forward, loss and backward as one module, so that parameters stay replaced while checkpoints are recomputed."""

    def __init__(
        self,
        model: nn.Module,
        criterion: Criterion,
        feed: "_MeterFeed",
        inputs: Any,
        targets: Any,
        share: float,
        leaves: Mapping[str, Tensor],
        reentrant: bool,
    ) -> None:
        super().__init__()
        self.model = model
        self._criterion, self._feed, self._inputs, self._targets = criterion, feed, inputs, targets
        self._share, self._leaves, self._reentrant = share, leaves, reentrant

    def forward(self) -> tuple[Any, float]:
        outputs = call_model(self.model, self._inputs)
        self._feed.forward_done()
        if self._share == 0:  # every label is left out: a mean over none of them would be NaN
            loss, scaled = nothing_of(outputs), nothing_of(outputs)
        else:
            loss = self._criterion(outputs, self._targets)
            scaled = loss * self._share
        if scaled.requires_grad and self._leaves:
            self._feed.show_graph(scaled, self._leaves)
            self._differentiate(scaled)
        return outputs, float(loss.detach())

    def _differentiate(self, loss: Tensor) -> None:
        if not self._reentrant:
            loss.backward(inputs=list(self._leaves.values()))  # type: ignore[no-untyped-call]
            return
        # A re-entrant checkpoint forbids to name what to differentiate by, so other leaves (the parameters of the loss) get
        # a gradient too, which is taken back.
        others = _leaves_behind(loss, self._leaves.values())
        gradients = [leaf.grad for leaf in others]
        for leaf in others:
            leaf.grad = None
        try:
            loss.backward()  # type: ignore[no-untyped-call]
        finally:
            for leaf, gradient in zip(others, gradients, strict=True):
                leaf.grad = gradient


def _leaves_behind(loss: Tensor, known: Iterable[Tensor]) -> list[Tensor]:
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


class _MeterFeed:
    """Hands features and backward signals of one chunk to the meters."""

    def __init__(
        self,
        layers: Sequence[Layer],
        modules: Mapping[str, nn.Module],
        meters: Sequence[Meter],
        chunk: Chunk,
        tracer: Tracer | None,
        *,
        backward: bool,
    ) -> None:
        self._layers, self._meters, self._chunk, self._tracer = layers, meters, chunk, tracer
        self._input_meters = [meter for meter in meters if isinstance(meter, InputMeter)]
        self._reader = LayerReader(layers, modules, self._take, self._take_input if self._input_meters else None)
        self._wants_backward = backward
        self._in_forward = True
        self._hooked: set[str] = set()
        self.attached = self._reader.attached

    def forward_done(self) -> None:
        """Say that what fires from now on is the recomputation of checkpointed parts."""
        self._in_forward = False
        self._reader.restart()

    def show_graph(self, loss: Tensor, leaves: Mapping[str, Tensor]) -> None:
        """Let the tracer look at the graph of this chunk."""
        if self._tracer is not None:
            self._tracer.finish(loss, leaves)

    def _take(self, layer: Layer, tensor: Tensor) -> None:
        if self._in_forward and self._tracer is not None:
            self._tracer.note(layer, tensor)
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

    def _take_input(self, layer: Layer, tensor: Tensor) -> None:
        if self._in_forward:
            with torch.no_grad():
                for meter in self._input_meters:
                    meter.on_input(layer.name, tensor.detach(), self._chunk)

    def _give_backward(self, name: str, gradient: Tensor) -> None:
        with torch.no_grad():
            for meter in self._meters:
                meter.on_backward(name, gradient.detach(), self._chunk)
