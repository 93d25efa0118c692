"""What a conservation monitor keeps: a summary for every symmetry at every record, and all charges if wanted."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from learnmech import history as histories

_LAWS = "exact discrete laws derived in learnmech from the optimizer's equations; charges: Kunin et al. 2020, section on symmetries"
COLUMNS: dict[str, dict[str, str]] = {
    "violation": {
        "long_name": "distance of the charges from their law, over the size of the parts that cancel in them",
        "scale": "rounding (see rounding_limit) if the law holds; for optimizers without a law, how far the charges drifted",
        "source": _LAWS,
    },
    "rounding_limit": {
        "long_name": "the most that rounding may add to the violation by this step",
        "scale": "rounding units: 64 and 2 for every step",
        "source": "learnmech",
    },
    "drift": {
        "long_name": "how far the charges moved since the start, over the size of their parts, now or at the start",
        "scale": "0 under gradient flow",
        "source": _LAWS,
    },
    "charge_norm": {
        "long_name": "Euclidean norm of the charges",
        "scale": "as the parameters, squared",
        "source": _LAWS,
    },
    "predicted_norm": {
        "long_name": "Euclidean norm of the charges by their law",
        "scale": "as the parameters, squared",
        "source": _LAWS,
    },
    "update_violation": {
        "long_name": "<theta, T s> of the step's direction s over its parts before they cancel",
        "scale": "0 for a step along the gradient; NaN where the optimizer has a law",
        "source": _LAWS,
    },
}
_SINGLE = {
    "charge": {"long_name": "every conserved charge", "scale": "as the parameters, squared", "source": _LAWS},
    "predicted": {"long_name": "every charge by its law", "scale": "as the parameters, squared", "source": _LAWS},
}


class ChargeRecords:
    """Numbers over records and symmetries.

    Args:
        counts: how many charges each symmetry has.
        keep_charges: whether to keep all of them.

    Attributes:
        broken: whether the law of each symmetry was off by more than rounding at any record.
        first_broken: the step of the first such record; -1 for none.
        first_lost: the step of the first record with charges that are not finite; -1 for none.
        size: size of the parts of each symmetry's charges at the latest record.
    """

    def __init__(self, counts: Sequence[int], *, keep_charges: bool) -> None:
        self._counts, self._keep = list(counts), keep_charges
        self.broken = [False] * len(counts)
        self.first_broken, self.first_lost = [-1] * len(counts), [-1] * len(counts)
        self.size = [math.nan] * len(counts)
        self._steps: list[int] = []
        self._rows: dict[str, list[list[float]]] = {name: [] for name in COLUMNS}
        self._charges: list[Tensor] = []
        self._predicted: list[Tensor] = []
        self._start: list[tuple[Tensor, float]] = []
        self._noted: dict[int, float] = {}

    @property
    def any_broken(self) -> bool:
        """Whether any law was found broken."""
        return any(self.broken)

    def note(self, position: int, violation: float) -> None:
        """Keep the violation by an update for the next record.

        Args:
            position: of the symmetry.
            violation: relative.
        """
        self._noted[position] = violation

    def add(
        self, step: int, readings: Sequence[tuple[Tensor, float, Tensor]], limits: Sequence[float], *, judged: bool
    ) -> None:
        """Record a step.

        Args:
            step: its number.
            readings: charges, size of their parts, and prediction of each symmetry.
            limits: what rounding may add to each relative violation.
            judged: whether a violation beyond the limit breaks a law.
        """
        if not self._start:
            self._start = [(charges.clone(), size) for charges, size, _ in readings]
        row: dict[str, list[float]] = {name: [] for name in COLUMNS}
        for position, ((charges, whole, predicted), limit) in enumerate(zip(readings, limits, strict=True)):
            violation = _ratio(float((charges - predicted).norm()), whole)
            start, start_size = self._start[position]
            row["violation"].append(violation)
            row["rounding_limit"].append(limit)
            row["drift"].append(_ratio(float((charges - start).norm()), max(start_size, whole)))
            row["charge_norm"].append(float(charges.norm()))
            row["predicted_norm"].append(float(predicted.norm()))
            row["update_violation"].append(self._noted.pop(position, math.nan))
            self.size[position] = whole
            if not math.isfinite(whole) or not math.isfinite(violation):
                self.first_lost[position] = step if self.first_lost[position] < 0 else self.first_lost[position]
            elif judged and violation > limit and not self.broken[position]:
                self.broken[position], self.first_broken[position] = True, step
        self._steps.append(step)
        for name, values in row.items():
            self._rows[name].append(values)
        if self._keep:
            self._charges.append(torch.cat([charges for charges, _, _ in readings]))
            self._predicted.append(torch.cat([predicted for _, _, predicted in readings]))

    def latest(self, column: str, position: int) -> float:
        """Give a number at the last record.

        Args:
            column: which.
            position: of the symmetry.

        Returns:
            The number; NaN for none.
        """
        return self._rows[column][-1][position] if self._rows[column] else math.nan

    def history(
        self, names: Sequence[str], kinds: Sequence[str], *, config: Mapping[str, Any], attributes: Mapping[str, Any]
    ) -> xr.Dataset:
        """Make a history.

        Args:
            names: of the symmetries.
            kinds: of the symmetries.
            config: how it was made.
            attributes: further attributes.

        Returns:
            Over ``step`` and ``symmetry``, and ``charge`` if charges are kept.
        """
        shape = (len(self._steps), len(names))
        variables: dict[str, Any] = {
            name: (("step", "symmetry"), np.array(self._rows[name], dtype=float).reshape(shape), COLUMNS[name])
            for name in COLUMNS
        }
        coordinates: dict[str, Any] = {
            "step": ("step", self._steps, {"long_name": "optimizer step"}),
            "symmetry": ("symmetry", list(names)),
            "kind": ("symmetry", list(kinds)),
            "count": ("symmetry", self._counts),
        }
        if self._keep:
            total = sum(self._counts)
            owners = [name for name, count in zip(names, self._counts, strict=True) for _ in range(count)]
            coordinates["charge_number"] = ("charge_number", np.arange(total))
            coordinates["owner"] = ("charge_number", owners)
            for name, kept in (("charge", self._charges), ("predicted", self._predicted)):
                values = torch.stack(kept).numpy() if kept else np.zeros((0, total))
                variables[name] = (("step", "charge_number"), values, _SINGLE[name])
        return histories.build(variables, coordinates, config=config, attributes=attributes)

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint needs."""
        return {
            "steps": list(self._steps),
            "rows": {name: torch.tensor(rows, dtype=torch.float64) for name, rows in self._rows.items()},
            "charges": list(self._charges),
            "predicted": list(self._predicted),
            "start": [[charges, size] for charges, size in self._start],
            "broken": list(self.broken),
            "first_broken": list(self.first_broken),
            "first_lost": list(self.first_lost),
            "size": list(self.size),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint.

        Args:
            state: what :meth:`state_dict` gave.
        """
        self._steps = [int(step) for step in state["steps"]]
        self._rows = {name: rows.tolist() for name, rows in state["rows"].items()}
        self._keep = self._keep and len(state["charges"]) == len(self._steps)
        self._charges, self._predicted = list(state["charges"]), list(state["predicted"])
        self._start = [(charges, float(size)) for charges, size in state["start"]]
        self.broken = [bool(value) for value in state["broken"]]
        self.first_broken, self.first_lost = list(state["first_broken"]), list(state["first_lost"])
        self.size = list(state["size"])


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else (0.0 if part == 0 else math.inf) if whole == 0 else math.nan
