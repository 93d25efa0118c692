"""A predicted staircase: what is learned, in which order, at which times, down to which levels."""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import xarray as xr
from jaxtyping import Float

from learnmech import history
from learnmech.dynamics.agf.problems import SOURCE, as_array
from learnmech.errors import InputError

FLOW_TIME = "time of the gradient flow"
HALF_MEAN = "half the mean squared error"


@dataclass(frozen=True, kw_only=True)
class Prediction:
    r"""Plateaus and jumps of the loss, from theory.

    How to read it: the loss rests on ``levels[0]``, falls at ``times[0]`` to ``levels[1]``, and so on. A jump's time is when
    the loss crosses the mean of the two levels. The staircase is the limit of a small start; how far off it is at a finite
    one, each instance says. Hold it against a run with :func:`~learnmech.dynamics.agf.compare`.

    Source: Kunin et al. 2025 (arXiv 2506.06489).

    Attributes:
        times: of the jumps, increasing (equal for what is learned at once).
        levels: of the loss, one more than there are jumps: that before the first jump first.
        order: what is learned at each jump: indices of modes, coordinates, frequencies, directions, or what the problem's labels say.
        time_unit: of the times, for people.
        loss_unit: which loss the levels are of, for people.
        model: name of the instance.
        notes: assumptions and warnings, in whole sentences.
        crossings: when the loss crosses the mean of two levels, if that was given and is not ``times``; see ``crossing_times``.
    """

    times: Float[np.ndarray, " jumps"]
    levels: Float[np.ndarray, " plateaus"]
    order: tuple[Hashable, ...]
    time_unit: str = FLOW_TIME
    loss_unit: str = HALF_MEAN
    model: str = "alternating gradient flow"
    notes: tuple[str, ...] = ()
    crossings: Float[np.ndarray, " jumps"] | None = None

    def __post_init__(self) -> None:
        if not (len(self.times) == len(self.order) == len(self.levels) - 1):
            raise InputError(
                f"a prediction needs as many times as things learned and one level more, got {len(self.times)} times, "
                f"{len(self.order)} things and {len(self.levels)} levels."
            )

    @property
    def crossing_times(self) -> Float[np.ndarray, " jumps"]:
        """When the loss crosses the mean of two levels, where an instance knows that better than ``times``; else these."""
        return self.times if self.crossings is None else self.crossings

    def __len__(self) -> int:
        return len(self.times)

    def __str__(self) -> str:
        count = len(self)
        lines = [
            f"{self.model}: {count} jump{'' if count == 1 else 's'}, from level {self.levels[0]:.6g} ({self.loss_unit})"
        ]
        lines += [
            f"  at {time:.6g} learns {what} and falls to {level:.6g}"
            for time, what, level in zip(self.times, self.order, self.levels[1:], strict=True)
        ]
        if count:
            lines.append(f"  times: {self.time_unit}")
        return "\n".join(lines + [f"  {note}" for note in self.notes])

    def convert(
        self,
        *,
        time_factor: float = 1.0,
        loss_factor: float = 1.0,
        time_unit: str | None = None,
        loss_unit: str | None = None,
    ) -> Self:
        r"""Give the same prediction in other units.

        ``torch.nn.MSELoss`` with c outputs is 2/c times half the mean squared error, so SGD with learning rate :math:`\eta`
        and momentum b takes :math:`t (1-b)\,c / (2\eta)` steps for a time t of the flow.

        Args:
            time_factor: what each time is multiplied with.
            loss_factor: what each level is multiplied with.
            time_unit: name of the new unit.
            loss_unit: name of the new loss.

        Returns:
            A copy, ``crossing_times`` included; other fields that an instance adds stay in the units of the flow.

        Raises:
            InputError: if a factor is not positive.
        """
        for name, factor in (("time_factor", time_factor), ("loss_factor", loss_factor)):
            if not (np.isfinite(factor) and factor > 0):
                raise InputError(f"{name} must be a positive number, got {factor!r}.")
        return replace(
            self,
            times=self.times * time_factor,
            levels=self.levels * loss_factor,
            crossings=self.crossing_times * time_factor,
            time_unit=time_unit or self.time_unit,
            loss_unit=loss_unit or self.loss_unit,
        )

    def loss_at(self, times: Any) -> np.ndarray:
        """Give the loss of the staircase.

        Args:
            times: in the prediction's unit, of any number.

        Returns:
            The level at each; at the very time of a jump the new one.
        """
        return self.levels[np.searchsorted(self.times, as_array("times", times, 1), side="right")]

    def to_history(self) -> xr.Dataset:
        """Give the prediction as a history, to be saved or joined with others.

        Returns:
            Over ``stage`` 0, 1, ...: ``loss`` of the plateau, and the ``moment`` at which it is reached (0 for the first). What is learned is the
            attribute ``order``.
        """
        meaning = {"source": SOURCE}
        return history.build(
            {
                "loss": (("stage",), self.levels, {"long_name": self.loss_unit, "units": "1", **meaning}),
                "moment": (
                    ("stage",),
                    np.concatenate([[0.0], self.times]),
                    {"long_name": "when the plateau is reached", "units": self.time_unit, **meaning},
                ),
            },
            {"stage": np.arange(len(self.levels))},
            config={"model": self.model, "time_unit": self.time_unit, "loss_unit": self.loss_unit},
            attributes={"order": [str(what) for what in self.order]},
        )
