"""The leaky ResNet instrument: what it costs each block to keep its features, how many dimensions they have, how far it moves them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from learnmech.leaky.advice import findings_of
from learnmech.leaky.block_measures import LARGEST, NOTHING, RELATIVE_RIDGE, BlockNumbers, FeatureColumns
from learnmech.leaky.feature_axes import usual_axis, width_axes
from learnmech.leaky.figures import draw_all
from learnmech.leaky.skip_connections import residual_layers
from learnmech.monitor.criterion import out_of_memory
from learnmech.monitor.instrument import Figure, Finding, Level, Variable
from learnmech.monitor.layers import LayerChoice
from learnmech.monitor.norms import roots_of_sums, squared_norm
from learnmech.monitor.probe import Probe
from learnmech.monitor.snapshot import Chunk, ProbePass, Snapshot

_PAPER = "Jacot and Kaiser, arXiv 2405.17573"
_VARIABLES = {
    "identity_cost": Variable(
        ("layer",),
        "cost of identity: least squared size of a ReLU layer with bias that gives out the features that it gets in",
        f"about the number of dimensions if no feature is negative; ridge {RELATIVE_RIDGE:g} times the largest eigenvalue of K",
        f"{_PAPER}, the stable form of the cost of identity; relative ridge over channels or tokens: learnmech",
    ),
    "stable_rank": Variable(
        ("layer",),
        "stable rank of the features, squared sum of singular values over sum of squares",
        "1 to the width; not centred, so a large mean counts as one dimension; never above the rank",
        f"{_PAPER}, Proposition 1",
    ),
    "bottleneck_dimension": Variable(
        ("layer",),
        "dimensions that are kept: singular values above half of the largest one of the least ReLU layer that keeps the features",
        "a whole number; features below 3 % of the largest singular value do not count",
        f"learnmech; the threshold as in {_PAPER}, for the weights of a leaky ResNet",
    ),
    "negativity": Variable(
        ("layer",),
        "share of the features' size that is negative, |min(A, 0)| / |A|",
        "0 (no negative feature) to 1; 0.7 for features around zero",
        _PAPER,
    ),
    "relative_step": Variable(
        ("layer",),
        "how far a residual block moves its features, |A_l - A_(l-1)| / |A_l|",
        "0 (changes nothing) upwards; NaN for what is not residual",
        f"{_PAPER}, adaptive step sizes",
    ),
}


class LeakyInstrument:
    r"""Measures identity cost, rank, sign and relative step of every block, as in leaky ResNets, for any network.

    Features are a representation A, (width, columns). Columns are samples; in images every position of every sample, the width
    being the channels, and in sequences every token. So the layer whose size the identity cost counts is one that acts on this
    axis: a linear layer, a 1 x 1 convolution, a linear layer on each token, each behind a ReLU. The cost is
    :math:`\min_W \lVert W \rVert_F^2 + \lVert A - W\sigma(A)\rVert_F^2/\gamma`, with
    :math:`\sigma(A) = [\max(A, 0); 1^T]` and a ridge :math:`\gamma = 10^{-3} \lVert K \rVert`, relative to the largest
    eigenvalue of :math:`K = \sigma^T\sigma`, so that numbers do not depend on how many samples the probe has or, but for the
    bias, on the scale of the features. A residual block is recognised from the graph of a pass, see
    :func:`learnmech.leaky.skip_connections.residual_layers`.

    A layer of a dead network costs 0. A single column, NaN or infinite features give NaN.

    **What is valid for which network.** All five numbers are defined for every network. Identity cost reads as a count of
    dimensions only where features are hardly negative. That a network slows down where the cost is least, and the Hamiltonian
    and the effective dimension, are statements about leaky ResNets: their blocks have ReLU layers, a penalty on weights and no
    normalisation. Measure them with :func:`learnmech.leaky.profile`.

    Source: Jacot and Kaiser, "Hamiltonian mechanics of feature learning: bottleneck structure in leaky ResNets"
    (arXiv 2405.17573). Reading other networks so, and all thresholds, are ours.

    Args:
        level: has no effect: every level measures the same.
    """

    name = "leaky"
    citations = ("jacot2024",)
    needs_backward = False
    needs_updates = False
    held_out = False
    columns: Mapping[str, str] = {
        "identity_cost": "identity cost",
        "bottleneck_dimension": "dimensions",
        "relative_step": "rel. step",
    }

    def __init__(self, level: Level = "full") -> None:
        self._known: WeakKeyDictionary[Probe, _Known] = WeakKeyDictionary()

    def variables(self) -> Mapping[str, Variable]:
        """Describe what is measured."""
        return _VARIABLES

    @property
    def attributes(self) -> dict[str, str]:
        """The ridge, and the columns that the numbers of each layer rest on."""
        columns = {name: count for known in self._known.values() for name, count in known.columns.items()}
        errors = {known.trace_error for known in self._known.values() if known.trace_error}
        return {
            **({"leaky_trace_error": "; ".join(sorted(errors))} if errors else {}),
            "leaky_ridge": f"{RELATIVE_RIDGE:g} times the largest eigenvalue of K, with bias",
            "leaky_columns": json.dumps(columns),
            "leaky_largest": f"layers with more than {LARGEST} features and columns: {LARGEST} evenly spaced columns",
        }

    def start(self, probe: Probe, layers: LayerChoice) -> "_BlockMeter":
        """Begin one probe.

        Args:
            probe: the batch.
            layers: the layers that will come.

        Returns:
            A meter.
        """
        return _BlockMeter(probe, layers, self._known.setdefault(probe, _Known()))

    def read(self, history: xr.Dataset) -> Sequence[Finding]:
        """Say where the bottleneck is, whether blocks take even steps, and which of them do nothing.

        Args:
            history: a history with this instrument's variables.

        Returns:
            Findings at the last step.
        """
        return findings_of(history)

    def figures(self, history: xr.Dataset) -> Sequence[Figure]:
        """Draw the identity cost over depth, and the relative steps of residual blocks.

        Args:
            history: a history with this instrument's variables.

        Returns:
            One figure, two with residual blocks; none if nothing was measured.
        """
        return draw_all(history)


class _Known:
    """What is found once for a probe: widths and residual blocks; and the columns of the latest one."""

    def __init__(self) -> None:
        self.axes: dict[str, int] | None = None
        self.residual: frozenset[str] | None = None
        self.columns: dict[str, int] = {}
        self.trace_error = ""

    def look(self, snapshot: Snapshot, source: ProbePass, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Find the residual blocks and the widths."""
        self.axes = width_axes(snapshot.model, snapshot.layers, shapes)
        try:
            self.residual = residual_layers(source, snapshot.probe)
        except (
            RuntimeError
        ) as error:  # what runs on data may not run on tensors with a graph, such as a way through NumPy
            if out_of_memory(error):
                raise
            self.residual, self.trace_error = frozenset(), f"residual blocks could not be looked for: {error}"


class _BlockMeter:
    """Gathers the columns of each layer; reduces them when its last chunk has come."""

    def __init__(self, probe: Probe, layers: LayerChoice, known: _Known) -> None:
        self._probe, self._names, self._known = probe, layers.names, known
        self._gathered: dict[str, FeatureColumns] = {}
        self._numbers: dict[str, BlockNumbers] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._used: dict[str, int] = {}
        self._inputs: dict[str, Tensor] = {}
        self._moved: dict[str, list[Tensor | float]] = {name: [] for name in self._names}
        self._sizes: dict[str, list[Tensor | float]] = {name: [] for name in self._names}

    def on_input(self, layer: str, tensor: Tensor, chunk: Chunk) -> None:
        if self._known.residual is None or layer in self._known.residual:
            self._inputs[layer] = tensor.clone()  # blocks may write over it

    def on_features(self, layer: str, features: Tensor, chunk: Chunk) -> None:
        before = self._inputs.pop(layer, None)
        if before is not None and before.shape == features.shape:
            precise = torch.promote_types(features.dtype, torch.float32)
            after, before = features.to(precise), before.to(precise)
            self._moved[layer].append(squared_norm(after - before))
            self._sizes[layer].append(squared_norm(after))
        if features.ndim == 0 or features.numel() == 0:
            return
        if layer not in self._gathered:
            axis = (self._known.axes or {}).get(layer, usual_axis(features.ndim))
            self._used[layer], self._shapes[layer] = axis, tuple(features.shape)
            self._gathered[layer] = FeatureColumns(self._probe.samples, axis)
        self._gathered[layer].add(features, chunk)
        if chunk.stop == self._probe.samples:
            gathered = self._gathered.pop(layer)
            self._numbers[layer] = gathered.numbers()

    def on_backward(self, layer: str, gradient: Tensor, chunk: Chunk) -> None:
        """Everything is read in the forward pass."""

    def compute(self, snapshot: Snapshot) -> Mapping[str, Any]:
        known = self._known
        if known.residual is None and snapshot.source is not None:
            known.look(snapshot, snapshot.source, self._shapes)
            if known.axes != self._used:  # once: the first probe took the usual axes
                again = _BlockMeter(self._probe, snapshot.layers, known)
                snapshot.source.run(
                    self._probe, [again], step=snapshot.step, backward=False, chunk_size=snapshot.chunk_size
                )
                return again.compute(snapshot)
        numbers = [self._numbers.get(name, NOTHING) for name in self._names]
        known.columns = {name: item.columns for name, item in zip(self._names, numbers, strict=True)}
        measured = {
            variable: np.array([float(getattr(item, variable)) for item in numbers])
            for variable in ("identity_cost", "stable_rank", "bottleneck_dimension", "negativity")
        }
        return {**measured, "relative_step": self._relative_steps(known.residual or frozenset())}

    def _relative_steps(self, residual: frozenset[str]) -> np.ndarray:
        moved = roots_of_sums([self._moved[name] for name in self._names])
        sizes = roots_of_sums([self._sizes[name] for name in self._names])
        wanted = np.array([name in residual for name in self._names]) & np.isfinite(sizes) & (sizes > 0)
        return np.asarray(np.divide(moved, sizes, where=wanted, out=np.full(len(moved), np.nan)))
