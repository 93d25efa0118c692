"""Watching a training run: the monitor that fires probes and keeps what they show."""

import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.optim import Optimizer

from learnmech import history as histories
from learnmech.errors import HistoryError, InputError, LearnmechWarning
from learnmech.monitor.choice import choose_layers
from learnmech.monitor.criterion import Criterion, out_of_memory
from learnmech.monitor.describe import describe_loss, describe_model, describe_optimizer
from learnmech.monitor.instrument import (
    REPORT_WRITER,
    Instrument,
    Remembering,
    Variable,
    load_object,
    make_instruments,
)
from learnmech.monitor.layers import LayerChoice, LayerSpec
from learnmech.monitor.probe import Loss, Probe
from learnmech.monitor.records import Records
from learnmech.monitor.sinks import Sink
from learnmech.monitor.snapshot import ProbePass, RestartProbe, Snapshot
from learnmech.monitor.unwrap import unwrap
from learnmech.monitor.verdict import Verdict, read_verdict

HELD_OUT = "_held_out"
CHUNK_TOLERANCE = 1e-2
"""By how much the loss of two halves may differ, relatively, from that of the whole: bfloat16 stays below it."""
_OWN_VARIABLES = {
    "loss": Variable((), "loss on the probe", "as the loss function gives it", "the training run"),
    "accuracy": Variable((), "accuracy on the probe", "share of correct samples, 0 to 1", "the training run"),
}


def watch(
    model: nn.Module,
    probe: tuple[Any, Any],
    loss: Loss,
    *,
    optimizer: Optimizer | None = None,
    every: int = 50,
    measures: str | Sequence[str | Instrument] = "standard",
    layers: LayerSpec = "auto",
    sink: Sink | Sequence[Sink] | None = None,
    held_out: tuple[Any, Any] | None = None,
    labels: Tensor | None = None,
    chunk_size: int | None = None,
    config: Mapping[str, Any] | None = None,
) -> "Monitor":
    """Watch a model learn: measure it on a fixed probe batch now, and again every few optimizer steps.

    The training loop does not change: a hook on the optimizer's step fires the probe, a separate pass in evaluation mode
    that leaves parameters, buffers, ``.grad``, random state, train/eval flags and hooks as they were. Probes
    fire after steps ``every``, ``2 * every``, ...; one more is made when the monitor is closed.

    Args:
        model: any ``nn.Module``; compiled and data-parallel ones are unwrapped, with a message.
        probe: ``(inputs, targets)``, a fixed batch of some hundred to some thousand training samples: at least 30 a class
            for usable standard errors. ``inputs`` is a tensor, a tuple of positional or a mapping of keyword arguments.
        loss: ``loss(model(inputs), targets)``, a scalar, a mean over samples (or with ``reduction="sum"``).
        optimizer: whose steps are counted. Without one, call :meth:`Monitor.step` after each step, or
            :meth:`Monitor.observe` whenever you like.
        every: optimizer steps between probes.
        measures: ``light`` (forward pass only), ``standard`` (and the latest update) or ``full`` (and gradients); or names
            of instruments, which then measure all they can, or instruments of your own. Prices stand in the documentation.
        layers: ``auto``; a module name or glob or several; or a callable ``(name, module) -> bool``.
        sink: callables ``(values, step)`` that get the numbers of each probe, as a dictionary of plain floats.
        held_out: a second batch ``(inputs, targets)`` that was not trained on, for held-out curves.
        labels: the class of each probe sample (or token), if that is not ``targets`` itself.
        chunk_size: samples in one pass. The probe is cut into chunks of this size, which gives the same numbers with
            less memory. When memory runs out the size is halved by itself.
        config: what else to store with the history: batch size, data set, seed.

    Returns:
        The monitor, which has already measured once. Use it as a context manager or call :meth:`Monitor.close`.

    Raises:
        InputError: if a layer, probe, loss or measure cannot work; nothing was changed.

    Example:
        >>> import torch
        >>> from torch.nn import functional
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(60, 5), torch.arange(60) % 3
        >>> net = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> with watch(net, (x, y), functional.cross_entropy, optimizer=optimizer, every=10) as monitor:
        ...     for _ in range(20):
        ...         optimizer.zero_grad()
        ...         functional.cross_entropy(net(x), y).backward()
        ...         _ = optimizer.step()
        >>> monitor.history.step.values.tolist()
        [0, 10, 20]
        >>> monitor.history.layer.values.tolist()
        ['input', '0', '2']
    """
    return Monitor(
        model,
        probe,
        loss,
        optimizer=optimizer,
        every=every,
        measures=measures,
        layers=layers,
        sink=sink,
        held_out=held_out,
        labels=labels,
        chunk_size=chunk_size,
        config=config,
    )


class Monitor:
    """What :func:`watch` returns: fires probes, keeps their numbers, reads them. Takes the arguments of :func:`watch`.

    Attributes:
        layers: the layers that are read and the modules that are not, with reasons; print it.
        failures: what went wrong in probes that a hook fired: (step, message); training goes on after a failed probe.
    """

    layers: LayerChoice
    failures: list[tuple[int, str]]

    def __init__(
        self,
        model: nn.Module,
        probe: tuple[Any, Any],
        loss: Loss,
        *,
        optimizer: Optimizer | None = None,
        every: int = 50,
        measures: str | Sequence[str | Instrument] = "standard",
        layers: LayerSpec = "auto",
        sink: Sink | Sequence[Sink] | None = None,
        held_out: tuple[Any, Any] | None = None,
        labels: Tensor | None = None,
        chunk_size: int | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise InputError(f"every must be a whole number of optimizer steps, at least 1, but is {every!r}.")
        if chunk_size is not None and (not isinstance(chunk_size, int) or chunk_size < 1):
            raise InputError(f"chunk_size must be a whole number of samples, at least 1, but is {chunk_size!r}.")
        if not callable(loss):
            raise InputError(f"loss must be a callable (outputs, targets), but is {loss!r}.")
        _check_optimizer(optimizer)
        self._sinks = _sinks(sink)
        self._model = unwrap(model)
        self._instruments = make_instruments(measures)
        criterion = Criterion(loss)
        self._probe = Probe(*_pair(probe, "probe"), labels=labels, ignored=criterion.ignored)
        self._held_out = None if held_out is None else Probe(*_pair(held_out, "held_out"), ignored=criterion.ignored)
        self.layers = choose_layers(self._model, self._probe, layers)
        self._fingerprint = self._probe.fingerprint()
        self._pass = ProbePass(self._model, self.layers, criterion)
        self._parameters = [name for name, _ in self._model.named_parameters()]
        self._records = Records(self._collect_variables(), {"layer": self.layers.names, "parameter": self._parameters})
        self._every, self._chunk_size = every, chunk_size
        self._chunks_checked = False
        self._config = {
            "model": describe_model(self._model),
            "optimizer": describe_optimizer(optimizer),
            "loss": describe_loss(loss),
            "probe_samples": self._probe.samples,
            "every": every,
            "measures": self._instruments.name,
            **(dict(config) if config else {}),
        }
        self._steps = 0
        self._before: dict[str, Tensor] = {}
        self._updates: dict[str, Tensor] = {}
        self._warned: set[str] = set()
        self._messages: list[str] = []
        self._probe_seconds, self._started = 0.0, time.perf_counter()
        self._earlier_seconds = 0.0
        self._ended: float | None = None
        self._closed = False
        self.failures = []
        self.observe()
        self._handles = self._attach(optimizer)

    # ------------------------------------------------------------------ probing

    def observe(self) -> dict[str, float]:
        """Probe now, whatever the step; a record that this step already has is replaced.

        Returns:
            The numbers as sinks get them: one a probe by name, one a layer as ``name/layer``. Raises what the model, the
            loss and the instruments raise; probes that a step fires do not.
        """
        try:
            return self._observe()
        finally:
            self._say()

    def step(self) -> None:
        """Count one optimizer step, and probe when it is due. Called by the optimizer's hook if there is one.

        A probe that fails does not end training: it is warned of once, kept in :attr:`failures`, and left out.
        """
        self._steps += 1
        if self._steps % self._every == 0:
            self._observe_safely()
            self._say()

    def _observe(self) -> dict[str, float]:
        started = time.perf_counter()
        values = self._measure(self._probe, backward=self._instruments.needs_backward)
        if self._held_out is not None:
            for name, value in self._measure(self._held_out, backward=False).items():
                values[name + HELD_OUT] = value
        self._probe_seconds += time.perf_counter() - started
        self._records.add(self._steps, values)
        flat = self._records.flat(self._steps)
        for sink in self._sinks:
            self._send(sink, dict(flat))
        return flat

    def _observe_safely(self) -> None:
        try:
            self._observe()
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            self.failures.append((self._steps, message))
            self._warn_once(
                "probe", f"the probe at step {self._steps} failed and is left out; training goes on. {message}"
            )

    def _measure(self, probe: Probe, *, backward: bool) -> dict[str, Any]:
        while True:
            active = [item for item in self._instruments.instruments if probe is self._probe or item.held_out]
            meters = [instrument.start(probe, self.layers) for instrument in active]
            try:
                self._check_chunks()
                snapshot = self._pass.run(
                    probe,
                    meters,
                    step=self._steps,
                    backward=backward,
                    chunk_size=self._chunk_size,
                    updates=self._updates,
                )
                return self._values(snapshot, meters)
            except RestartProbe:
                continue
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or not self._halve_chunks(probe):
                    raise
            if torch.cuda.is_available():  # out here, where the error no longer keeps tensors alive
                torch.cuda.empty_cache()

    def _check_chunks(self) -> None:
        """Warn if chunks would give other numbers than the whole probe."""
        if self._chunks_checked or self._chunk_size is None or self._probe.samples < 2:
            return
        self._chunks_checked = True
        deviation = self._pass.deviation_of_chunks(self._probe)
        if deviation > CHUNK_TOLERANCE:
            self._warn_once(
                "chunks",
                f"the loss of a batch is not the mean over its samples (nor a loss with reduction='sum'): on two halves it "
                f"differs by {deviation:.1%}, so a probe in chunks gives other losses and gradients than a whole one.",
            )

    @staticmethod
    def _values(snapshot: Snapshot, meters: list[Any]) -> dict[str, Any]:
        accuracy = np.nan if snapshot.accuracy is None else snapshot.accuracy
        values: dict[str, Any] = {"loss": snapshot.loss, "accuracy": accuracy}
        for meter in meters:
            values.update(meter.compute(snapshot))
        return values

    def _halve_chunks(self, probe: Probe) -> bool:
        size = min(self._chunk_size or probe.samples, probe.samples)
        if size <= 1:
            return False
        self._chunk_size = max(1, size // 2)
        self._messages.append(
            f"the probe did not fit into memory; it is now cut into chunks of {self._chunk_size} samples."
        )
        return True

    # ------------------------------------------------------------------ hooks

    def _attach(self, optimizer: Optimizer | None) -> list[Any]:
        if optimizer is None:
            return []
        return [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._before = {}
        if self._instruments.needs_updates and (self._steps + 1) % self._every == 0:
            self._before = {
                name: parameter.detach().clone()
                for name, parameter in self._model.named_parameters()
                if parameter.requires_grad
            }

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        before, self._before = self._before, {}
        found_inf = getattr(
            optimizer, "found_inf", None
        )  # a fused optimizer under a GradScaler skips the step by itself
        if isinstance(found_inf, Tensor) and bool(found_inf):
            return
        try:
            parameters = dict(self._model.named_parameters())
            self._updates = {
                name: parameters[name].detach() - old for name, old in before.items() if name in parameters
            }
            self.step()
        finally:
            self._updates = {}

    def _send(self, sink: Sink, values: dict[str, float]) -> None:
        try:
            sink(values, self._steps)
        except Exception as error:
            name = getattr(sink, "__name__", type(sink).__name__)
            self._warn_once(
                f"sink {id(sink)}",
                f"the sink {name} failed; the history keeps the numbers. {type(error).__name__}: {error}",
            )

    def _warn_once(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            self._messages.append(message)

    def _say(self) -> None:
        """Give the warnings that came up, after everything is stored: where warnings are errors nothing is lost."""
        messages, self._messages = self._messages, []
        for message in messages:
            warnings.warn(message, LearnmechWarning, stacklevel=4)

    # ------------------------------------------------------------------ results

    @property
    def history(self) -> xr.Dataset:
        """Everything measured so far, as a history (see :mod:`learnmech.history`)."""
        layers = self.layers.layers
        coordinates: dict[str, Any] = {
            "step": ("step", self._records.steps, {"long_name": "optimizer step"}),
            "layer": ("layer", self.layers.names),
            "depth": ("layer", self.layers.depths),
            "role": ("layer", [layer.role for layer in layers]),
            "kinds": ("layer", [layer.kinds for layer in layers]),
        }
        columns = self._records.columns()
        if any("parameter" in dimensions for dimensions, _, _ in columns.values()):
            coordinates["parameter"] = ("parameter", self._parameters)
        attributes: dict[str, Any] = {
            "instruments": [instrument.name for instrument in self._instruments.instruments],
            "citations": [key for instrument in self._instruments.instruments for key in instrument.citations],
            "data_fingerprint": self._fingerprint,
            "classes": self._classes(),
            "skipped": [f"{item.name} ({item.kind}): {item.reason}" for item in self.layers.skipped],
            "probe_seconds": self._probe_seconds,
            "run_seconds": self._seconds(),
            "failures": [f"step {step}: {message}" for step, message in self.failures],
        }
        for instrument in self._instruments.instruments:
            attributes.update(getattr(instrument, "attributes", {}))
        if "seed" in self._config:
            attributes["seed"] = self._config["seed"]
        return histories.build(columns, coordinates, config=self._config, attributes=attributes)

    def verdict(self) -> Verdict:
        """Say what the measurements mean: regime, per-layer table, evidence, and which knob to turn.

        Returns:
            The verdict at the last probe; print it.
        """
        return read_verdict(self.history, self._instruments.instruments)

    def report(self, path: str | Path) -> Path:
        """Write everything as one HTML file that needs no network.

        Args:
            path: where to.

        Returns:
            The path written.
        """
        written: Path = load_object(REPORT_WRITER)(self.history, path, instruments=self._instruments.instruments)
        return written

    def close(self) -> None:
        """Stop watching: make a last probe if steps were taken since the latest one, and remove the hooks."""
        if self._closed:
            return
        try:
            if self._steps not in self._records:
                self._observe_safely()
        finally:
            self._detach()
        self._say()

    def _seconds(self) -> float:
        return self._earlier_seconds + (self._ended or time.perf_counter()) - self._started

    def _detach(self) -> None:
        self._ended = time.perf_counter()
        for handle in self._handles:
            handle.remove()
        self._handles, self._closed = [], True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._detach()

    # ------------------------------------------------------------------ saving

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint needs to go on: steps counted and numbers measured, as tensors, numbers and text.

        Returns:
            A mapping that ``torch.load(weights_only=True)`` reads.
        """
        return {
            **self._records.state_dict(),
            "steps": self._steps,
            "seconds": self._seconds(),
            "probe_seconds": self._probe_seconds,
            "failures": [list(failure) for failure in self.failures],
            "instruments": {
                instrument.name: instrument.memory.state_dict()
                for instrument in self._instruments.instruments
                if isinstance(instrument, Remembering)
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint: later probes are added to those that it holds.

        Args:
            state: what :meth:`state_dict` gave.

        Raises:
            HistoryError: if it is something else, or of another choice of layers or measures.
        """
        missing = {"layers", "variables", "steps", "seconds", "probe_seconds", "records"} - set(state)
        if missing:
            raise HistoryError(f"this is no checkpoint of a monitor: it lacks {', '.join(sorted(missing))}.")
        self._records.load_state_dict(state)
        self._steps = int(state["steps"])
        self._earlier_seconds, self._probe_seconds = float(state["seconds"]), float(state["probe_seconds"])
        self._started = time.perf_counter()
        self.failures = [(int(step), str(message)) for step, message in state.get("failures", [])]
        for instrument in self._instruments.instruments:
            if isinstance(instrument, Remembering) and instrument.name in state.get("instruments", {}):
                instrument.memory.load_state_dict(state["instruments"][instrument.name])

    # ------------------------------------------------------------------ small parts

    def _collect_variables(self) -> dict[str, Variable]:
        variables = dict(_OWN_VARIABLES)
        for instrument in self._instruments.instruments:
            variables.update(instrument.variables())
        if self._held_out is not None:
            shared = dict(_OWN_VARIABLES)
            for instrument in self._instruments.instruments:
                if instrument.held_out:
                    shared.update(instrument.variables())
            for name, variable in shared.items():
                variables[name + HELD_OUT] = Variable(
                    variable.dimensions, f"{variable.long_name}, held-out data", variable.scale, variable.source
                )
        return variables

    def _classes(self) -> int:
        labels = self._probe.labels
        return len(torch.unique(labels[labels >= 0])) if labels is not None and self._probe.classification else 0

    def __repr__(self) -> str:
        return (
            f"<Monitor of {type(self._model).__name__}: {len(self.layers.layers)} layers, measures "
            f"{self._instruments.name}, {len(self._records)} probes in {self._steps} steps>"
        )


def _pair(batch: Any, name: str) -> tuple[Any, Any]:
    if not isinstance(batch, list | tuple) or len(batch) != 2:
        raise InputError(f"{name} must be a pair (inputs, targets), but is {type(batch).__name__}.")
    return batch[0], batch[1]


def _check_optimizer(optimizer: Any) -> None:
    if optimizer is not None and not hasattr(optimizer, "register_step_post_hook"):
        raise InputError(
            f"{type(optimizer).__name__} has no register_step_post_hook (torch.optim.Optimizer has); leave optimizer= "
            "out and call monitor.step() after each step."
        )


def _sinks(given: Sink | Sequence[Sink] | None) -> list[Sink]:
    sinks: list[Any] = [] if given is None else [given] if callable(given) else list(given)
    for sink in sinks:
        if not callable(sink):
            raise InputError(
                f"a sink must be a callable (values, step), but {sink!r} came; for files there are CsvSink and JsonLinesSink."
            )
    return sinks


__all__ = ["Monitor", "watch"]
