"""The symmetries of a watched model, found once, and what a probe says of them."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from learnmech.dynamics.conservation_findings import SLIGHT
from learnmech.dynamics.conservation_followed import name_symmetries, rounding_unit
from learnmech.dynamics.conservation_forms import relative_violation
from learnmech.dynamics.conservation_track import ChargeTrack
from learnmech.dynamics.finding import find_symmetries
from learnmech.dynamics.finding_loss import settle
from learnmech.dynamics.symmetries import Symmetry
from learnmech.monitor.layers import device_of
from learnmech.monitor.probe import Probe
from learnmech.monitor.snapshot import ProbePass, Snapshot
from learnmech.monitor.untouched import untouched

GRADIENT_UNITS = 2e4
"""Rounding units by which a gradient may violate a symmetry: its own sum over samples cancels more than its parts show."""
_SAMPLES = 4


@dataclass(frozen=True)
class Reading:
    """What a probe says of one symmetry.

    Attributes:
        parameters: of the symmetry.
        count: how many charges it has.
        numbers: by name of variable; NaN for what is not known.
    """

    parameters: tuple[str, ...]
    count: int
    numbers: Mapping[str, float]


class KnownSymmetries:
    """The symmetries of the model behind a probe, and their charges at its first pass.

    Attributes:
        failure: why they could not be found; empty if they were.
        left_out: what the search said of symmetries that do not hold on gradients.
        descriptions: of those found.
    """

    def __init__(self) -> None:
        self.failure, self.left_out, self.descriptions = "", list[str](), list[str]()
        self._tracks: list[ChargeTrack] | None = None
        self._testable: list[bool] = []
        self._start: list[tuple[Tensor, float]] = []
        self._earlier: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """Give the charges that drifts are from.

        Returns:
            Names of the symmetries, their charges, and sizes; empty before the first pass.
        """
        if self._tracks is None or not self._start:
            return {}
        return {
            "names": self.descriptions,
            "charges": [charges.cpu() for charges, _ in self._start],
            "sizes": [size for _, size in self._start],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Count drifts from what :meth:`state_dict` gave, if it is of the same symmetries.

        Args:
            state: the state.
        """
        self._earlier = dict(state)
        self._take_up()

    def _take_up(self) -> None:
        state = self._earlier
        if not state or self._tracks is None or state["names"] != self.descriptions or not self._start:
            return
        if all(old.shape == new.shape for old, (new, _) in zip(state["charges"], self._start, strict=True)):
            self._start = [
                (old.to(new), float(size))
                for old, size, (new, _) in zip(state["charges"], state["sizes"], self._start, strict=True)
            ]

    def read(self, snapshot: Snapshot) -> list[Reading] | None:
        """Measure charges and violations; find the symmetries first if this is the first pass.

        Args:
            snapshot: the pass.

        Returns:
            A reading of every symmetry; None if they could not be found or measured, see :attr:`failure`.
        """
        if self.failure:
            return None
        try:
            if self._tracks is None:
                self._find(snapshot)
            return self._read(snapshot)
        except Exception as error:  # a model of any kind: measuring its symmetries must not cost the other measures
            self.failure = f"{type(error).__name__}: {error}"
            return None

    def _find(self, snapshot: Snapshot) -> None:
        source, model = snapshot.source, snapshot.model
        if source is None:
            raise RuntimeError("the snapshot does not say how it was made")
        device = device_of(model)
        inputs, _, _ = snapshot.probe.chunk(0, min(_SAMPLES, snapshot.probe.samples), device)
        loss = source.criterion.loss
        known_loss = loss if isinstance(settle(loss), str) else None
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            with untouched(model, device, evaluate=False):
                found = find_symmetries(model, inputs, loss=known_loss)
        self.left_out = [str(item.message) for item in said]
        self._tracks = [
            ChargeTrack(symmetry, name) for symmetry, name in zip(found, name_symmetries(found), strict=True)
        ]
        self._testable = self._tested(found, source, snapshot.probe, known_loss)
        self.descriptions = [f"{track.name}: {track.symmetry.count}" for track in self._tracks]

    @staticmethod
    def _tested(found: list[Symmetry], source: ProbePass, probe: Probe, loss: object) -> list[bool]:
        """Which symmetries hold in the mode of the probe, too."""
        if not source.evaluate or not any(module.training for module in source.model.modules()):
            return [True] * len(found)
        device = device_of(source.model)
        inputs, _, _ = probe.chunk(0, min(_SAMPLES, probe.samples), device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with untouched(source.model, device, evaluate=True):
                evaluated = find_symmetries(source.model, inputs, loss=loss)  # type: ignore[arg-type]
        views = {(item.kind, item.views) for item in evaluated}
        return [(item.kind, item.views) in views for item in found]

    def _read(self, snapshot: Snapshot) -> list[Reading]:
        assert self._tracks is not None
        with torch.no_grad():
            values = {name: value.detach() for name, value in snapshot.model.named_parameters()}
            measured = [track.measure(values) for track in self._tracks]
            if not self._start:
                self._start = [(charges, float(size.norm())) for charges, size in measured]
                self._take_up()
            return [
                self._reading(position, track.symmetry, values, *measured[position], snapshot)
                for position, track in enumerate(self._tracks)
            ]

    def _reading(
        self,
        position: int,
        symmetry: Symmetry,
        values: dict[str, Tensor],
        charges: Tensor,
        size: Tensor,
        snapshot: Snapshot,
    ) -> Reading:
        start, start_size = self._start[position]
        whole = max(start_size, float(size.norm()))
        violation, step = math.nan, math.nan
        names = symmetry.parameters
        if self._testable[position] and all(name in snapshot.gradients for name in names):
            violation = relative_violation(symmetry, values, snapshot.gradients)
        if all(name in snapshot.updates for name in names):
            before = {name: values[name] - snapshot.updates[name] for name in names}
            step = relative_violation(symmetry, before, snapshot.updates)
        limit = GRADIENT_UNITS * rounding_unit(symmetry, values)
        limit = max(limit, SLIGHT) if symmetry.broken_by else limit
        return Reading(
            names,
            symmetry.count,
            {
                "charge_drift": float((charges - start).norm()) / whole if whole > 0 else 0.0,
                "symmetry_violation": violation,
                "step_violation": step,
                "symmetry_broken": float(violation > limit) if math.isfinite(violation) else math.nan,
            },
        )
