"""The regime instrument: whether a network in training learns features, from how far its tangent kernel turns."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from learnmech.dynamics.kernel_statistics import effective_rank, kernel_alignment
from learnmech.dynamics.regime_figures import draw_all
from learnmech.dynamics.regime_findings import findings_of
from learnmech.dynamics.regime_kernel import FollowedKernel
from learnmech.dynamics.regime_reference import distance_with_error
from learnmech.errors import InputError
from learnmech.monitor.criterion import out_of_memory
from learnmech.monitor.instrument import Figure, Finding, Level, Variable
from learnmech.monitor.layers import LayerChoice
from learnmech.monitor.memory import ProbeMemory
from learnmech.monitor.probe import Probe
from learnmech.monitor.snapshot import Chunk, Snapshot

_PAPER = "Fort et al., arXiv 2010.15110; Kunin et al., arXiv 2406.06158"
_VARIABLES = {
    "kernel_distance": Variable(
        (),
        "kernel distance from the first probe, 1 - <K_0, K_t> / (|K_0| |K_t|)",
        "0 (same features) to 1; a lazy network stays near 0",
        _PAPER,
    ),
    "kernel_distance_error": Variable(
        (), "standard error of the kernel distance, jackknife over blocks of samples", "as the distance", "learnmech"
    ),
    "centred_kernel_distance": Variable(
        (),
        "distance of the centred kernels H K H, H = I - 11'/n, from the first probe",
        "0 (same features) to 1; below 0.04 lazy, above 0.07 rich, from networks that we know to be so",
        "learnmech; the centring as in Cortes, Mohri, Rostamizadeh, arXiv 1203.0550",
    ),
    "centred_kernel_distance_error": Variable(
        (),
        "standard error of the centred kernel distance, jackknife over blocks of samples",
        "as the distance",
        "learnmech",
    ),
    "kernel_turn": Variable((), "centred kernel distance from the probe before", "0 to 1", "learnmech"),
    "kernel_alignment": Variable(
        (),
        "centred alignment of the kernel with the labels",
        "0 to 1; cosine of the centred kernel with that of the one-hot labels, or of real targets",
        "Cortes, Mohri, Rostamizadeh, arXiv 1203.0550",
    ),
    "kernel_effective_rank": Variable(
        (), "effective rank of the kernel, (tr K)^2 / |K|^2", "1 to the number of samples", "participation ratio"
    ),
    "kernel_norm": Variable((), "Frobenius norm of the kernel", "squared gradient of the outputs", "learnmech"),
    "kernel_reference_norm": Variable(
        (),
        "Frobenius norm of the kernel that distances are from",
        "as the norm; changes where a watch was taken up again",
        "learnmech",
    ),
    "parameter_distance": Variable(
        (),
        "distance of the trainable parameters from the first probe, relative to their size there",
        "|theta_t - theta_0| / |theta_0|",
        "Chizat, Oyallon, Bach, arXiv 1812.07956",
    ),
}


class RegimeInstrument:
    r"""Measures the tangent kernel of a few samples, how far it turned since the first probe, and how it fits the labels.

    At most 48 samples of the probe, all classes alike. For nets on vectors with up to 10 outputs it is the kernel's trace over
    outputs; for others a pass an output would cost too much, and 4 (2 for sequences) fixed random combinations of
    outputs are taken, whose kernel is the trace on average over draws but reads somewhat larger distances in lazy nets.
    See :func:`learnmech.dynamics.kernel` for how it is computed and
    :func:`learnmech.dynamics.kernel_distance` for how to read it. Where exact layer formulas cover at least half of the
    trainable parameters the others are left out; the attribute ``regime_covered`` says how much they cover.

    The reading rests on the **centred** distance. Inputs with a mean, such as pixels, and biases give every kernel a large constant
    part, which does not turn: the plain distance of an MLP on digits whose parameters moved by 95 % of their size was 0.017,
    its centred distance 0.19. The plain one stands beside it, as papers give it.

    Distances are from the first probe of this watch: begin it before training. A watch that goes on from a checkpoint of the
    monitor measures from where the first one began; one that begins anew, from there, which the reading notices.

    Args:
        level: has no effect: every level measures the same.
    """

    name = "regime"
    citations: tuple[str, ...] = ("chizat2019", "kunin2024")
    needs_backward = False
    needs_updates = False
    held_out = False
    columns: Mapping[str, str] = {}

    def __init__(self, level: Level = "standard") -> None:
        self.memory = ProbeMemory(FollowedKernel)

    def variables(self) -> Mapping[str, Variable]:
        """Describe what is measured."""
        return _VARIABLES

    @property
    def attributes(self) -> dict[str, str | int | float]:
        """On how many samples and combinations the numbers rest, what they leave out, and why there are none."""
        found: dict[str, str | int | float] = {}
        for known in self.memory.every():
            found |= {"regime_samples": len(known.rows), "regime_combinations": known.combinations}
            found["regime_covered"] = round(known.covered, 4)
            if known.reason:
                found["regime_unknown"] = known.reason
        return found

    def start(self, probe: Probe, layers: LayerChoice) -> "_RegimeMeter":
        """Begin one probe.

        Args:
            probe: the batch.
            layers: the layers that will come.

        Returns:
            A meter.
        """
        return _RegimeMeter(self.memory.of(probe))

    def read(self, history: xr.Dataset) -> Sequence[Finding]:
        """Say whether training is lazy, rich or delayed rich so far.

        Args:
            history: a history with this instrument's variables.

        Returns:
            One finding.
        """
        return findings_of(history)

    def figures(self, history: xr.Dataset) -> Sequence[Figure]:
        """Draw kernel distance, alignment and loss over training.

        Args:
            history: a history with this instrument's variables.

        Returns:
            One figure; none before a second probe.
        """
        return draw_all(history)


class _RegimeMeter:
    """Measures the kernel when the probe's own pass is done."""

    def __init__(self, known: FollowedKernel) -> None:
        self._known = known

    def on_features(self, layer: str, features: Tensor, chunk: Chunk) -> None:
        """Passes of its own are needed."""

    def on_backward(self, layer: str, gradient: Tensor, chunk: Chunk) -> None:
        """Passes of its own are needed."""

    def compute(self, snapshot: Snapshot) -> Mapping[str, Any]:
        known = self._known
        try:
            with torch.inference_mode(False):
                matrix = known.measure(snapshot)
        except Exception as error:  # no measurement is worth the numbers of other instruments
            if out_of_memory(error):
                raise
            known.reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            return {}
        if not (np.isfinite(matrix).all() and matrix.any()):
            known.reason = "the kernel is zero or not finite."
            return {}
        known.reason = ""
        if known.first is None:
            known.first = matrix
        distance, error_of_distance = distance_with_error(known.first, matrix)
        centred, error_of_centred = distance_with_error(known.first, matrix, centred=True)
        before = known.before(snapshot.step, matrix)
        assert known.parameters is not None
        return {
            "kernel_distance": distance,
            "kernel_distance_error": error_of_distance,
            "centred_kernel_distance": centred,
            "centred_kernel_distance_error": error_of_centred,
            "kernel_turn": np.nan if before is None else distance_with_error(before, matrix, centred=True)[0],
            "kernel_alignment": _alignment(matrix, snapshot.probe, known.rows),
            "kernel_effective_rank": effective_rank(matrix),
            "kernel_norm": float(np.linalg.norm(matrix)),
            "kernel_reference_norm": float(np.linalg.norm(known.first)),
            "parameter_distance": known.parameters.relative_distance(snapshot.model),
        }


def _alignment(matrix: np.ndarray, probe: Probe, rows: np.ndarray) -> float:
    """Align with the labels of the chosen samples; NaN without labels, or with several a sample."""
    if probe.labels is None or probe.labels.is_complex() or len(probe.labels) != probe.samples:
        return np.nan
    chosen = probe.labels[rows].numpy()
    if probe.classification:
        counted = np.flatnonzero(chosen >= 0)
        chosen, matrix = chosen[counted], matrix[np.ix_(counted, counted)]
    if len(chosen) == 0 or not np.isfinite(chosen).all() or not matrix.any():
        return np.nan
    return kernel_alignment(matrix, chosen)
