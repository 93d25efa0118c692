"""Scanning sizes: train small networks of several widths and depths for a few steps, and test how their features scale."""

import functools
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from learnmech.errors import InputError
from learnmech.fingerprint import fingerprint_data
from learnmech.monitor.layers import LayerSpec
from learnmech.speed.scalings import require_kind
from learnmech.speed.scan_cell import ScanCell, ScanParts
from learnmech.speed.scan_claims import claimed_powers
from learnmech.speed.scan_result import ScanResult, read_scan
from learnmech.sweep import Sweep
from learnmech.sweep.reference import refer


def scan(
    model_factory: Callable[..., Any],
    *,
    batch: Any,
    loss: Callable[..., Tensor],
    widths: Sequence[int] = (256, 512, 1024),
    depths: Sequence[int] = (6, 12, 24),
    kind: str | None = None,
    optimizer: str = "sgd",
    optimizer_factory: Callable[[Any], torch.optim.Optimizer] | None = None,
    options: Mapping[str, Any] | None = None,
    claim: str | Mapping[str, Any] | None = None,
    steps: int = 3,
    seeds: int | Sequence[int] = 10,
    judged_step: int = 0,
    tolerance: float = 0.25,
    nodes: LayerSpec = "auto",
    mode: Literal["eval", "current"] = "current",
    out: Any = None,
    executor: Any = None,
    threads: int | None = None,
    on_cell: Callable[[int, int], None] | None = None,
) -> ScanResult:
    r"""Test with numbers how features move as a network grows: a coordinate check with a verdict, over width and depth.

    A network of every width, depth and seed is made and trained for a few steps. Before each step
    :func:`learnmech.speed.measure` reads, at the last hidden feature, its speed, sensitivity, size, and the loss decay. The
    powers in :math:`Q \propto m^p L^q` are fitted on logarithms over all nets (:func:`learnmech.speed.fit_powers`, with
    weights :math:`m/L`), each with
    a 95 % interval, and held against those claimed: ``pass`` if the whole interval lies within ``tolerance`` of the claimed
    power, ``fail`` if all of it lies outside, ``unclear`` if it is too wide to tell; more seeds or a wider range of sizes
    make it narrower. A network that diverges is a result: it is counted, left out of fits from there on, and fails a claim.

    What to read: the sensitivity is what no learning rate changes. If it has a power, initial sizes must change (of the
    read-out, of branches); if it has none while speed and loss decay have, learning rates must.

    Source: the powers are those of :func:`learnmech.speed.scaling`. The coordinate check of Yang and Hu's muP code logs sizes
    of activations over steps and is judged by eye; this measures changes, over depth too, and judges by intervals.

    Valid for the sizes that were scanned. The powers hold for depths well below the width: the logarithm of sizes of features
    scatters with variance of order L/m, and its mean falls by as much, so that L/m below 0.1 is good. Over a batch of many
    inputs the features of a plain net grow alike with depth, which adds to the power of the sensitivity at depths of some
    tens; one input is the clean test. Errors that vanish by chance widen intervals: a loss linear in the outputs keeps them
    fixed. One batch, the first steps: nothing is said about later training or other data.

    Args:
        model_factory: called as ``model_factory(width=, depth=)``; returns a module, or a pair of it and its optimizer or
            groups of parameters. It should draw weights from torch's global generator, which is seeded for each net.
        batch: ``(inputs, targets)`` for all steps of all nets, or a function of step and seed that gives fresh ones.
        loss: ``loss(outputs, targets)``.
        widths: widths, all different.
        depths: depths, counted as the factory and the scaling count them.
        kind: a scaling to set every net up with, see :func:`learnmech.speed.apply_scaling`; None takes nets as they come.
        optimizer: ``sgd`` or ``adam``: rule that the scaling and the claim are for.
        optimizer_factory: makes the optimizer of the groups (of all parameters, where there are none); by default plain
            torch SGD or Adam of the groups.
        options: further arguments of ``apply_scaling``, such as ``priority`` or ``base_learning_rate``; plain values.
        claim: a scaling whose powers are to be tested, by default ``kind``; or quantities to axes to a power or a range,
            ``{"speed_rms": {"depth": 0.0, "width": (None, 0.0)}}``; quantities: ``speed_rms``, ``sensitivity``,
            ``loss_decay``, ``activation_rms``. None without ``kind``: powers are fitted, nothing is judged.
        steps: optimizer steps of every net, at least 0.
        seeds: how many draws of each net, or their seeds.
        judged_step: before which step the judged numbers are read: 0 is the initial net; -1 the last.
        tolerance: by how much a power may miss the claimed one.
        nodes: which features, as in :func:`learnmech.speed.measure`.
        mode: as in :func:`learnmech.speed.measure`.
        out: folder that keeps every net's numbers: the same call goes on there after Ctrl-C; None keeps nothing.
        executor: as in :meth:`learnmech.Sweep.run`; others than None need a factory, loss and batch that can be pickled.
        threads: threads for torch; those it has now, if not given.
        on_cell: called with the nets done and all nets.

    Returns:
        The result: print it, ``.verdict``, ``.history``, ``.figure()``, ``.to_dict()``.

    Raises:
        InputError: if an argument does not fit, or not one net could be made and measured; the message says why.
        KeyboardInterrupt: on Ctrl-C; what is in ``out`` is safe.

    Example:
        >>> from learnmech.nets import MLP
        >>> def make(width, depth):
        ...     return MLP(8, 4, width=width, depth=depth, batch_norm=False, bias=False)
        >>> data = torch.ones(4, 8), torch.zeros(4, 4)
        >>> result = scan(make, batch=data, loss=nn.functional.mse_loss, widths=[8, 16], depths=[3], kind="ntk", steps=1)
        >>> result.history.speed_rms.dims
        ('width', 'depth', 'seed', 'step')
    """
    kind = None if kind is None else require_kind(kind)
    chosen = dict(options or {})
    claims = claimed_powers(kind if claim is None else claim, chosen, optimizer)
    _check(model_factory, loss, kind, optimizer, steps, judged_step, tolerance, chosen)
    if isinstance(claim, str):
        claim = require_kind(claim)
    grid = {"net_width": _sizes("widths", widths), "net_depth": _sizes("depths", depths), "seed": _seeds(seeds)}
    settings = {
        "kind": kind,
        "optimizer": optimizer,
        "options": chosen,
        "steps": steps,
        "nodes": nodes if isinstance(nodes, str) else _name(nodes) if callable(nodes) else list(nodes),
        "mode": mode,
        "factory": _name(model_factory),
        "loss": _name(loss),
        "optimizer_factory": None if optimizer_factory is None else _name(optimizer_factory),
        "batch": _name(batch) if callable(batch) else fingerprint_data(*_pair(batch)),
    }
    cell = ScanCell(settings, ScanParts(model_factory, batch, loss, optimizer_factory, nodes))
    sweep = Sweep(cell, grid, name="scan")
    with tempfile.TemporaryDirectory() as scratch:
        history = sweep.run(
            executor,
            scratch if out is None else out,
            threads=torch.get_num_threads() if threads is None else threads,
            on_cell=on_cell,
            retry=True,
        )
    return read_scan(history, claims, settings, judged_step=judged_step, tolerance=tolerance, claim=claim or kind)


def _check(
    model_factory: Any,
    loss: Any,
    kind: str | None,
    optimizer: str,
    steps: int,
    judged_step: int,
    tolerance: float,
    options: Mapping[str, Any],
) -> None:
    for name, value in (("model_factory", model_factory), ("loss", loss)):
        if not callable(value) or (name == "model_factory" and isinstance(value, nn.Module)):
            raise InputError(f"{name} must be a function, got {type(value).__name__}.")
    if optimizer not in ("sgd", "adam"):
        raise InputError(
            f"optimizer must be 'sgd' or 'adam', got {optimizer!r}; for others let model_factory return its optimizer."
        )
    if options and kind is None:
        raise InputError(f"options ({', '.join(options)}) are for the scaling that kind= names, but kind is None.")
    if taken := sorted(set(options) & {"optimizer", "seed"}):
        raise InputError(f"options cannot hold {', '.join(taken)}: the scan sets it.")
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 0:
        raise InputError(f"steps must be an integer of at least 0, got {steps!r}.")
    if not isinstance(judged_step, int) or not -steps - 1 <= judged_step <= steps:
        raise InputError(
            f"judged_step must be from 0 to steps = {steps}, or negative from the end, got {judged_step!r}."
        )
    if not (isinstance(tolerance, int | float) and math.isfinite(tolerance) and tolerance >= 0):
        raise InputError(f"tolerance must be a number of at least 0, got {tolerance!r}.")


def _sizes(name: str, sizes: Sequence[int]) -> list[int]:
    values = list(sizes)
    if not values or not all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in values):
        raise InputError(f"{name} must be positive integers, such as [128, 256, 512], got {sizes!r}.")
    return values


def _seeds(seeds: int | Sequence[int]) -> list[int]:
    if isinstance(seeds, int) and not isinstance(seeds, bool) and seeds > 0:
        return list(range(seeds))
    if not isinstance(seeds, int) and seeds and all(isinstance(seed, int) for seed in seeds):
        return list(seeds)
    raise InputError(f"seeds must be a positive number of draws, or a list of integers, got {seeds!r}.")


def _pair(batch: Any) -> tuple[Any, Any]:
    if not isinstance(batch, list | tuple) or len(batch) != 2:
        raise InputError(
            f"batch must be (inputs, targets), or a function of step and seed that gives this, got {type(batch).__name__}."
        )
    return batch[0], batch[1]


def _name(value: Any) -> str:
    """Name a callable so that the same program names it the same again."""
    if isinstance(value, functools.partial):
        return f"{_name(value.func)} {value.args} {value.keywords}"
    try:
        return refer(value)[1].text
    except InputError:
        text = repr(value)
        return f"{type(value).__module__}.{type(value).__qualname__}" if " at 0x" in text else text
