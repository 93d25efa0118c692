"""The spring-block instrument: the load curve of a network in training, its shape, and what to do about it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from learnmech.errors import InputError
from learnmech.monitor.instrument import Figure, Finding, Level, Variable
from learnmech.monitor.layers import LayerChoice
from learnmech.monitor.probe import Probe
from learnmech.monitor.snapshot import Chunk, Snapshot
from learnmech.monitor.tensors import rows_of
from learnmech.springs.advice import findings_of
from learnmech.springs.figures import draw_contributions, draw_load_curves, draw_shape
from learnmech.springs.load_curve import curvature, end_difference, increments, linearity
from learnmech.springs.regression import RegressionAccumulator
from learnmech.springs.separation import IGNORED_LABEL, check_labels
from learnmech.springs.statistics import GroupStatistics

_PAPER = "Shi, Pan, Dokmanić 2024, arXiv 2407.19353"
_FOLDS = 4
_HALVES = ((0, 1), (0, 2), (0, 3))  # with their complements: the three ways to halve four folds
_WIDEST_REGRESSION = 2048

_VARIABLES = {
    "load": Variable(
        ("layer",),
        "load D of each layer: what is left to separate after it",
        "natural logarithm of within-class over between-class scatter (or squared error for real-valued targets); falls",
        f"{_PAPER}, Eq. 3",
    ),
    "contribution": Variable(
        ("layer",),
        "contribution of each layer, D of the layer before minus its own",
        "units of the load; positive where the layer separates further",
        _PAPER,
    ),
    "contribution_error": Variable(
        ("layer",), "standard error of the contribution over halves of the probe", "units of the load", "learnmech"
    ),
    "curvature": Variable(
        (), "parabola coefficient q of the normalised load curve", "< 0 concave, 0 linear, > 0 convex", "learnmech"
    ),
    "curvature_error": Variable((), "standard error of q over halves of the probe", "as q", "learnmech"),
    "linearity": Variable(
        (), "R squared of the load curve", "0 to 1; 1 is a straight line", "He, Su 2023, arXiv 2210.17020"
    ),
    "end_difference": Variable(
        (), "first contribution minus last, c", "units of the load; < 0 concave, > 0 convex", f"{_PAPER}, code"
    ),
    "gain_error": Variable(
        (), "standard error of the total drop of the load over halves of the probe", "units of the load", "learnmech"
    ),
}
_PINV = {
    "load_pinv": Variable(
        ("layer",),
        "load by tr(S_w pinv(S_b))",
        "natural logarithm; almost flat over linear layers",
        "He, Su 2023, arXiv 2210.17020; Shi et al. 2024, S4",
    )
}


class SpringInstrument:
    """Measures the load curve on the probe and reads its regime.

    Classes are read with :func:`learnmech.springs.separation`, real-valued targets with
    :func:`learnmech.springs.regression_load`. The shape numbers leave the read-out out, as the paper does.

    Args:
        level: ``full`` adds the load by pseudo-inverse.
    """

    name = "springs"
    citations = ("shi2024",)
    needs_backward = False
    needs_updates = False
    held_out = True
    columns: Mapping[str, str] = {"load": "load D", "contribution": "contribution", "contribution_error": "±"}

    def __init__(self, level: Level = "standard") -> None:
        self._pinv = level == "full"
        self._groups: WeakKeyDictionary[Probe, _Groups] = WeakKeyDictionary()  # the probe is fixed: sorted once

    def variables(self) -> Mapping[str, Variable]:
        """Describe what is measured."""
        return {**_VARIABLES, **(_PINV if self._pinv else {})}

    def start(self, probe: Probe, layers: LayerChoice) -> "_SeparationMeter | _RegressionMeter":
        """Begin one probe.

        Args:
            probe: the batch.
            layers: the layers that will come.

        Returns:
            A meter for classes or for real-valued targets, by the kind of the labels.

        Raises:
            InputError: if the probe has no labels, fewer than two classes, or classes below zero.
        """
        if probe.labels is None:
            raise InputError(
                "springs needs one class or one real-valued target a sample, but the targets are not one tensor; pass "
                "labels=... to watch, or choose measures without springs."
            )
        if not probe.classification:
            return _RegressionMeter(probe.labels, layers)
        if probe in self._groups:
            return _SeparationMeter(self._groups[probe], layers, pinv=self._pinv)
        check_labels(probe.labels)
        found = len(torch.unique(probe.labels[probe.labels != IGNORED_LABEL]))
        if found < 2:
            raise InputError(
                f"the probe has samples of {found} class only ({len(probe.labels)} samples): separation needs at least two "
                "classes, and some 30 samples of each."
            )
        self._groups[probe] = _Groups(probe.labels, probe.labels_per_sample)
        return _SeparationMeter(self._groups[probe], layers, pinv=self._pinv)

    def read(self, history: xr.Dataset) -> Sequence[Finding]:
        """Name the regime at the last step and say which knob moves it.

        Args:
            history: a history with this instrument's variables.

        Returns:
            One finding for the regime, and others where there is something to say.
        """
        return findings_of(history, json.loads(history.attrs["config"]), int(history.attrs.get("classes", 0)))

    def figures(self, history: xr.Dataset) -> Sequence[Figure]:
        """Draw the load curve over training, who contributed when, and the shape against accuracy.

        Args:
            history: a history with this instrument's variables.

        Returns:
            Three figures.
        """
        return [draw_load_curves(history), draw_contributions(history), draw_shape(history)]


def shape_positions(layers: LayerChoice) -> list[int]:
    """Find the layers that the shape of the curve is read from: all but the read-out.

    Args:
        layers: the chosen layers.

    Returns:
        Their positions.
    """
    return [position for position, layer in enumerate(layers.layers) if layer.role != "readout"]


def summarise(load: np.ndarray, positions: Sequence[int], halves: np.ndarray) -> dict[str, Any]:
    """Compute contributions, shape numbers and their standard errors from loads.

    A half of the probe has half the samples, so the spread of the difference between two halves estimates twice the
    standard error of the whole: SE = rms over halvings of (A - B)/2.

    Args:
        load: shape (layers,).
        positions: the layers that make the curve.
        halves: loads on both halves of each halving, shape (halvings, 2, layers).

    Returns:
        The variables of the instrument.
    """
    values: dict[str, Any] = {"load": load, "contribution": _contributions(load)}
    curve = load[list(positions)]
    if len(curve) >= 3 and np.isfinite(curve).all():
        values["curvature"], values["linearity"] = float(curvature(curve)), float(linearity(curve))
        values["end_difference"] = float(end_difference(curve))
    values["contribution_error"] = _half_difference(_contributions(halves))
    curves = halves[..., list(positions)]
    if len(positions) >= 2:
        with np.errstate(invalid="ignore"):  # both ends of a half may be infinite: then its error is unknown
            values["gain_error"] = float(_half_difference(curves[..., 0] - curves[..., -1]))
    if len(positions) >= 3 and np.isfinite(curves).all():
        values["curvature_error"] = float(_half_difference(curvature(curves).numpy()))
    return values


def _contributions(load: np.ndarray) -> np.ndarray:
    if load.shape[-1] < 2:
        return np.full(load.shape, np.nan)
    return np.concatenate([np.full((*load.shape[:-1], 1), np.nan), increments(load).numpy()], axis=-1)


def _half_difference(values: np.ndarray) -> np.ndarray:
    """Root mean square over halvings of (A - B)/2, for values of shape (halvings, 2, ...)."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sqrt(np.mean(np.square((values[:, 0] - values[:, 1]) / 2), axis=0)))


class _Groups:
    """The samples of a probe by fold and class: group = fold * classes + class, -1 for samples that are left out."""

    def __init__(self, labels: Tensor, per_sample: int) -> None:
        counted = labels != IGNORED_LABEL
        classes, index = torch.unique(labels[counted], return_inverse=True)
        self.classes = len(classes)
        self.group = torch.full_like(labels, -1)
        # Tokens of one sequence depend on each other, so whole sequences go into one fold.
        sequence = torch.arange(len(labels), device=labels.device) // per_sample
        fold = _folds(index) if per_sample == 1 else sequence[counted] % _FOLDS
        self.group[counted] = index + self.classes * fold
        self.partial = not bool(counted.all())
        self.number = torch.bincount(self.group[counted], minlength=_FOLDS * self.classes).numpy().reshape(_FOLDS, -1)


class _SeparationMeter:
    """Group statistics by fold and class for every layer; halves are unions of folds."""

    def __init__(self, groups: _Groups, layers: LayerChoice, *, pinv: bool) -> None:
        self._names, self._positions, self._pinv = layers.names, shape_positions(layers), pinv
        self._groups, self._classes = groups, groups.classes
        self._statistics: dict[str, GroupStatistics] = {}
        self._broken: set[str] = set()

    def on_features(self, layer: str, features: Tensor, chunk: Chunk) -> None:
        group = self._groups.group[chunk.label_slice]
        rows = rows_of(features, len(group))
        if rows is None or layer in self._broken:
            self._broken.add(layer)
            return
        if rows.device.type == "mps":  # no float64 there
            rows = rows.cpu()
        group = group.to(rows.device)
        if self._groups.partial:
            kept = group >= 0
            rows, group = rows[kept], group[kept]
        if len(rows) == 0:
            return
        batch = GroupStatistics.of(rows, group, _FOLDS * self._classes, keep_factor=self._pinv)
        known = self._statistics.get(layer)
        self._statistics[layer] = batch if known is None else known.merge(batch)

    def on_backward(self, layer: str, gradient: Tensor, chunk: Chunk) -> None:
        """Separation reads the forward pass only."""

    def compute(self, snapshot: Snapshot) -> Mapping[str, Any]:
        count = len(self._names)
        pinv = np.full(count, np.nan)
        grams = np.full((count, _FOLDS * self._classes, _FOLDS * self._classes), np.nan)
        scatters = np.full((count, _FOLDS * self._classes), np.nan)
        for position, name in enumerate(self._names):
            statistics = None if name in self._broken else self._statistics.get(name)
            if statistics is None:
                continue
            scatters[position] = statistics.scatters.cpu().numpy()
            if not np.isfinite(scatters[position]).all():
                scatters[position] = np.nan
                continue
            if self._pinv:
                kind = torch.arange(self._classes, device=statistics.counts.device).repeat(_FOLDS)
                pinv[position] = float(statistics.pool(kind, self._classes).log_pinv_trace())
            centred = statistics.means - (statistics.counts @ statistics.means) / statistics.counts.sum()
            grams[position] = (centred @ centred.T).cpu().numpy()
        loads = _union_loads(grams, scatters, self._groups.number)
        values = summarise(loads[0], self._positions, loads[1:].reshape(len(_HALVES), 2, count))
        if self._pinv:
            values["load_pinv"] = pinv
        return values


def _union_loads(grams: np.ndarray, scatters: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Loads of the whole probe and of both halves of each halving, shape (1 + 2 * halvings, layers)."""
    # For the union u of some folds f with class counts n_fk the pooled mean of class k is sum_f share_ufk m_fk, so all
    # squared lengths follow from the Gram matrix of the fold means alone, without another pass over the features.
    folds, classes = number.shape
    chosen = np.ones((1 + 2 * len(_HALVES), folds))
    for row, half in enumerate(_HALVES):
        chosen[1 + 2 * row] = np.isin(np.arange(folds), half)
        chosen[2 + 2 * row] = 1 - chosen[1 + 2 * row]
    counts = chosen[:, :, None] * number
    total = counts.sum(axis=1)
    share = counts / np.maximum(total, 1)[:, None]
    gram = grams.reshape(-1, folds, classes, folds, classes)
    inside = np.einsum("lfkfk->lfk", gram)
    half_way = np.einsum("ufk,lfkgm->lukgm", share, gram)
    products = np.einsum("lukgm,ugm->lukm", half_way, share)
    own = np.einsum("uk,lukk->lu", total, products)
    scatter = np.einsum("uf,lfk->lu", chosen, scatters.reshape(-1, folds, classes))
    within = scatter + np.einsum("ufk,lfk->lu", counts, inside) - own
    between = own - np.einsum("uk,lukm,um->lu", total, products, total) / np.maximum(total.sum(axis=1), 1)
    # As in statistics.log_ratio: parts that are only rounding count as zero, so that dead layers give NaN and collapsed ones
    # an infinite load. The Gram route rounds in proportion to all scatter, not to its square.
    floor = 1e-13 * (within + between)
    within, between = np.where(within <= floor, 0, within), np.where(between <= floor, 0, between)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((np.log(within) - np.log(between)).T)


def _folds(index: Tensor) -> Tensor:
    """Deal the samples of each class to the folds in turn, so that folds hold equal shares of every class."""
    order = torch.argsort(index, stable=True)
    counts = torch.bincount(index)
    starts = torch.cumsum(counts, 0) - counts
    rank = torch.empty_like(index)
    rank[order] = torch.arange(len(index), device=index.device) - starts[index[order]]
    return rank % _FOLDS


class _RegressionMeter:
    """Second moments of features and targets for every layer, by two halves."""

    def __init__(self, targets: Tensor, layers: LayerChoice) -> None:
        self._targets, self._names, self._positions = targets, layers.names, shape_positions(layers)
        self._halves: dict[str, tuple[RegressionAccumulator, RegressionAccumulator]] = {}
        self._broken: set[str] = set()

    def on_features(self, layer: str, features: Tensor, chunk: Chunk) -> None:
        targets = self._targets[chunk.label_slice]
        rows = rows_of(features, len(targets))
        if rows is None or rows.shape[1] > _WIDEST_REGRESSION or not bool(torch.isfinite(rows).all()):
            self._broken.add(layer)
        if rows is None or layer in self._broken:
            return
        pair = self._halves.setdefault(layer, (RegressionAccumulator(), RegressionAccumulator()))
        position = torch.arange(chunk.label_slice.start, chunk.label_slice.stop, device=targets.device)
        odd = position % 2 == 1
        for accumulator, part in zip(pair, (~odd, odd), strict=True):
            accumulator.update(rows[part.to(rows.device)], targets[part])

    def on_backward(self, layer: str, gradient: Tensor, chunk: Chunk) -> None:
        """The regression load reads the forward pass only."""

    def compute(self, snapshot: Snapshot) -> Mapping[str, Any]:
        loads, halves = [], []
        for name in self._names:
            pair = None if name in self._broken else self._halves.get(name)
            if pair is None or min(half.samples for half in pair) < 2:
                loads.append(np.nan)
                halves.append([np.nan, np.nan])
                continue
            halves.append([float(half.compute()) for half in pair])
            loads.append(float(RegressionAccumulator().merge(pair[0]).merge(pair[1]).compute()))
        return summarise(np.array(loads), self._positions, np.array(halves).T[None])
