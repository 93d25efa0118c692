"""One network of a scan: made, set up, trained for a few steps, measured before each."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from learnmech import history as histories
from learnmech.errors import InputError
from learnmech.fingerprint import fingerprint_config
from learnmech.monitor.layers import LayerSpec
from learnmech.monitor.probe import call_model
from learnmech.speed.measuring import SpeedMeasurement
from learnmech.speed.products import all_finite
from learnmech.speed.scaling_setup import apply_scaling

FEATURE = "of the last hidden feature"
SOURCE = "learnmech.speed.measure; Chizat and Netrapalli, arXiv 2311.18718"
MEANINGS = {
    "loss": ("loss on the batch before the step", "of the loss"),
    "speed_rms": (f"root mean square change {FEATURE} in the step, to first order", "of the features"),
    "real_speed_rms": (f"the same of the real step {FEATURE}", "of the features"),
    "sensitivity": ("speed for a loss decay of 1", "features per loss"),
    "loss_decay": ("first-order decay of the loss by the step", "of the loss"),
    "activation_rms": (f"root mean square {FEATURE} before the step", "of the features"),
    "cosine": (f"cosine of the backward-feature angle {FEATURE}", "-1 to 1"),
    "speed_rms_smallest": ("smallest speed among the blocks", "of the features"),
    "speed_rms_median": ("median speed of the blocks", "of the features"),
}


@dataclass(frozen=True)
class ScanParts:
    """The objects that a cell works with.

    Attributes:
        model_factory: makes the network.
        batch: ``(inputs, targets)``, or a function of step and seed that gives one.
        loss: the loss.
        optimizer_factory: makes the optimizer of groups of parameters; None for the usual ones.
        nodes: which features are read.
    """

    model_factory: Callable[..., Any]
    batch: Any
    loss: Callable[..., Tensor]
    optimizer_factory: Callable[[Any], torch.optim.Optimizer] | None
    nodes: LayerSpec = "auto"


@dataclass
class ScanCell:
    """The experiment of a scan's sweep, named by its plain settings.

    Attributes:
        settings: ``kind``, ``optimizer``, ``steps``, ``nodes``, ``mode``, ``options``, and names of the parts.
        parts: the objects that the names stand for.
    """

    settings: Mapping[str, Any]
    parts: InitVar[ScanParts]

    def __post_init__(self, parts: ScanParts) -> None:
        self._parts = parts

    def __call__(self, config: Mapping[str, Any]) -> xr.Dataset:
        """Make and measure one network.

        Args:
            config: ``net_width``, ``net_depth`` and ``seed``.

        Returns:
            Its history, with all readings in one variable; NaN from the step at which it diverged.
        """
        width, depth, seed = (int(config[name]) for name in ("net_width", "net_depth", "seed"))
        # A draw of its own for every size: equal seeds would give nets of unlike sizes the same first numbers.
        torch.manual_seed(int(fingerprint_config([seed, width, depth]), 16) % 2**63)
        model, optimizer = self._make(width, depth, seed)
        rows, diverged = self._train(model, optimizer, seed)
        count = int(self.settings["steps"]) + 1
        table = [[row[name] for row in rows] + [math.nan] * (count - len(rows)) for name in MEANINGS]
        meanings = {"long_name": "readings by name", "scale": "see MEANINGS", "source": SOURCE}
        meaning = {"long_name": "step at which it diverged", "units": "steps", "source": "finite numbers up to there"}
        # One variable for all readings: writing many small ones would take longer than training a small net.
        return histories.build(
            {
                "readings": (("reading", "step"), table, meanings),
                "diverged_at": ((), math.nan if diverged is None else float(diverged), meaning),
            },
            {"reading": list(MEANINGS), "step": list(range(count))},
            config=dict(config),
        )

    def _make(self, width: int, depth: int, seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
        made = self._parts.model_factory(width=width, depth=depth)
        model, given = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
        if not isinstance(model, nn.Module):
            raise InputError(
                "model_factory(width=, depth=) must return a torch.nn.Module, or a pair of it and its optimizer or groups "
                f"of parameters, got {type(made).__name__}."
            )
        kind = self.settings["kind"]
        if kind is not None:
            if given is not None:
                raise InputError("model_factory gives an optimizer or groups of its own, which kind= would replace.")
            options = dict(self.settings["options"])
            given = apply_scaling(model, kind, self._batch(0, seed), optimizer=self.settings["optimizer"], **options)
        if isinstance(given, torch.optim.Optimizer):
            return model, given
        return model, self._optimizer(list(model.parameters()) if given is None else given, given is None)

    def _optimizer(self, groups: Iterable[Any], bare: bool) -> torch.optim.Optimizer:
        factory = self._parts.optimizer_factory
        if factory is not None:
            optimizer = factory(groups)
            if not isinstance(optimizer, torch.optim.Optimizer):
                raise InputError(f"optimizer_factory must return a torch optimizer, got {type(optimizer).__name__}.")
            return optimizer
        if bare:
            raise InputError("no learning rate is given: name kind=, give optimizer_factory=, or return an optimizer.")
        return torch.optim.Adam(groups) if self.settings["optimizer"] == "adam" else torch.optim.SGD(groups)

    def _batch(self, step: int, seed: int) -> tuple[Any, Any]:
        batch = self._parts.batch
        made = batch(step, seed) if callable(batch) else batch
        if not isinstance(made, list | tuple) or len(made) != 2:
            raise InputError(
                f"batch must be (inputs, targets), or a function of step and seed that gives this, got {made!r}."
            )
        return made[0], made[1]

    def _train(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, seed: int
    ) -> tuple[list[dict[str, float]], int | None]:
        rows: list[dict[str, float]] = []
        measurement: SpeedMeasurement | None = None
        for step in range(int(self.settings["steps"]) + 1):
            batch = self._batch(step, seed)
            optimizer.zero_grad(set_to_none=True)
            loss = self._parts.loss(call_model(model, batch[0]), batch[1])
            loss.backward()  # type: ignore[no-untyped-call]
            gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
            if not (bool(torch.isfinite(loss)) and all(map(all_finite, gradients))):
                return rows, step
            if measurement is None or callable(self._parts.batch):
                measurement = SpeedMeasurement(
                    model, batch, self._parts.loss, nodes=self._parts.nodes, mode=self.settings["mode"]
                )
            row = _read(measurement.measure(optimizer))
            if not all(math.isfinite(row[name]) for name in ("loss", "speed_rms", "loss_decay", "activation_rms")):
                return rows, step
            rows.append(row)
            optimizer.step()
        return rows, None


def name_readings(swept: xr.Dataset) -> xr.Dataset:
    """Take the readings of cells apart into variables of their own.

    Args:
        swept: collected cells.

    Returns:
        The same with a variable for each of :data:`MEANINGS`.
    """
    variables: dict[str, tuple[Sequence[str], Any, Mapping[str, str]]] = {
        str(name): (list(map(str, array.dims)), array.values, {str(key): value for key, value in array.attrs.items()})
        for name, array in swept.data_vars.items()
        if name != "readings"
    }
    for name, (meaning, scale) in MEANINGS.items():
        array = swept["readings"].sel(reading=name)
        variables[name] = (
            list(map(str, array.dims)),
            array.values,
            {"long_name": meaning, "scale": scale, "source": SOURCE},
        )
    coordinates = {str(name): array for name, array in swept.coords.items() if name != "reading"}
    named = histories.build(variables, coordinates)
    named.attrs = dict(swept.attrs)
    return named


def _read(result: xr.Dataset) -> dict[str, float]:
    """Take the last hidden feature, and the blocks together, out of a measurement."""
    blocks = result.isel(layer=np.flatnonzero(result["role"].values == "block"))
    if blocks.sizes["layer"] == 0:
        raise InputError(
            "no hidden feature among the layers: "
            + ", ".join(map(str, result["layer"].values))
            + "; name some in nodes=."
        )
    last = blocks.isel(layer=-1)
    speeds = blocks["speed_rms"].values
    return {
        "loss": float(result["loss"]),
        "loss_decay": float(result["total_decay"]),
        "speed_rms_smallest": float(np.min(speeds)),
        "speed_rms_median": float(np.median(speeds)),
        **{
            name: float(last[name])
            for name in ("speed_rms", "real_speed_rms", "sensitivity", "activation_rms", "cosine")
        },
    }
