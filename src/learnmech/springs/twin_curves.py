"""What the twin is fitted to: contributions of the layers over training or over a chain's time."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from jaxtyping import Float

from learnmech.errors import InputError
from learnmech.springs.regime import LEAST_GAIN

WallLayer = Literal["last_hidden", "readout"]

MOST_TIMES = 60
"""Of longer histories, about this many evenly spread moments are used: neighbours say nearly the same."""
FIRST_SHARE = 0.1
"""A network's fit starts once this share of the final total drop is there: before, the curve has no shape."""


@dataclass(frozen=True)
class MeasuredCurves:
    """Load curves at the moments of a fit, the first of which is its start.

    Attributes:
        axis: ``time`` for a chain, ``step`` for a network.
        times: the moments.
        first_load: load D_0 at the input, one a moment.
        contributions: contribution of each layer, mean over chains, in units of load.
        chains: contributions of the single chains, shape (chain, moment, layer), or None.
        errors: measured standard errors of the contributions, NaN where unknown.
        layers: names of the layers that contribute.
        input_name: name of the input, or None for a chain, whose histories do not list it.
        stiffness: spring constant that made a chain's history, NaN if unknown.
        logarithmic: whether the load is a logarithm, so that its unit is the nat.
        notes: what a reader must know.
    """

    axis: Literal["time", "step"]
    times: Float[np.ndarray, " moments"]
    first_load: Float[np.ndarray, " moments"]
    contributions: Float[np.ndarray, "moments layers"]
    chains: Float[np.ndarray, "chains moments layers"] | None
    errors: Float[np.ndarray, "moments layers"]
    layers: tuple[str, ...]
    input_name: str | None
    stiffness: float
    logarithmic: bool
    notes: tuple[str, ...]

    @property
    def total(self) -> Float[np.ndarray, " moments"]:
        """Total drop of the load from the input to the wall, one a moment."""
        return np.asarray(self.contributions.sum(axis=-1))


def read_curves(history: xr.Dataset, wall: WallLayer = "last_hidden") -> MeasuredCurves:
    """Take the load curves out of a history.

    Args:
        history: of a network (``learnmech.watch``: ``load`` over step and layer, with ``role``) or of one chain
            (``SpringChain.simulate`` or ``.drift``: ``load`` over time and layer, perhaps over ``chain``, with ``target``).
        wall: for networks, the layer whose load the wall stands for.

    Returns:
        The curves.

    Raises:
        InputError: if there is no such curve, or nothing to learn from it.
    """
    if not isinstance(history, xr.Dataset) or "load" not in history:
        raise InputError(
            "the twin is fitted to a history with the variable 'load' (learnmech.watch with springs, or SpringChain.simulate), "
            f"but got {_kind(history)}."
        )
    axis: Literal["time", "step"] = "time" if "time" in history["load"].dims else "step"
    kept = {axis, "layer", "chain"} if axis == "time" else {axis, "layer"}
    long = {
        str(name): history.sizes[name] for name in history["load"].dims if name not in kept and history.sizes[name] > 1
    }
    if long:
        raise InputError(
            f"the twin is fitted to one run, but 'load' also runs over {long}; choose one with history.isel(...) and fit "
            "each by itself."
        )
    history = history.squeeze([str(name) for name in history.dims if name not in kept and history.sizes[name] == 1])
    missing = [name for name in (axis, "layer") if name not in history["load"].dims]
    if missing:
        raise InputError(
            f"'load' must run over step (or time) and layer, but it lacks {missing}: its dimensions are "
            f"{tuple(map(str, history['load'].dims))}. One moment alone says nothing about friction and noise."
        )
    curves = _of_chain(history) if axis == "time" else _of_network(history, wall)
    if len(curves.layers) < 2:
        raise InputError(
            f"a chain needs at least two layers behind the input, one of them the wall, but the curve has "
            f"{len(curves.layers)}; watch a deeper network."
        )
    return _thin(_check_finite(curves))


def _kind(history: Any) -> str:
    if isinstance(history, xr.Dataset):
        return f"a dataset with {sorted(map(str, history.data_vars))}"
    return f"a {type(history).__name__}"


def _of_chain(history: xr.Dataset) -> MeasuredCurves:
    if "target" not in history:
        raise InputError("a chain's history needs the variable (or coordinate) 'target', the load at the start.")
    order = [name for name in ("chain", "time", "layer") if name in history["load"].dims]
    load = history["load"].transpose(*order).values.astype(np.float64)
    target = float(history["target"])
    whole = np.concatenate([np.full((*load.shape[:-1], 1), target), load], axis=-1)
    single = -np.diff(whole, axis=-1)
    mean = single.mean(axis=0) if "chain" in order else single
    chains = single if "chain" in order and len(single) > 1 else None
    config = json.loads(history.attrs.get("config", "{}"))
    config = config if isinstance(config, dict) else {}
    notes = []
    dynamics = str(history.attrs.get("dynamics", config.get("dynamics", "")))
    if dynamics not in ("", "drift", "first_order", "first order", "overdamped"):
        notes.append(
            f"the history was made with the dynamics '{dynamics}'; the twin moves without inertia, so its parameters are "
            "effective ones"
        )
    if config.get("noise_kind", "gaussian") != "gaussian" or config.get("noise_decay", 0.0) not in (0, 0.0):
        notes.append("the history was made with another noise than Gaussian of constant level, which the twin has")
    stiffness = history.coords["stiffness"].item() if "stiffness" in history.coords else config.get("stiffness")
    return MeasuredCurves(
        axis="time",
        times=history["time"].values.astype(np.float64),
        first_load=np.full(mean.shape[0], target),
        contributions=mean,
        chains=chains,
        errors=np.full(mean.shape, np.nan) if chains is None else chains.std(axis=0, ddof=1) / np.sqrt(len(chains)),
        layers=tuple(str(name) for name in history["layer"].values),
        input_name=None,
        stiffness=float(stiffness) if isinstance(stiffness, int | float) else np.nan,
        logarithmic=True,
        notes=tuple(notes),
    )


def _of_network(history: xr.Dataset, wall: WallLayer) -> MeasuredCurves:
    if wall not in ("last_hidden", "readout"):
        raise InputError(f"wall must be 'last_hidden' or 'readout', but is {wall!r}.")
    notes = []
    names = [str(name) for name in history["layer"].values]
    if "role" in history.coords:
        roles = [str(role) for role in history["role"].values]
    else:
        roles = ["input", *["block"] * (len(names) - 1)]
        notes.append("the history does not say the role of each layer: the first is taken as input, the last as wall")
    if "input" not in roles[:1]:
        raise InputError(
            f"the first layer of the curve must be the network's input, whose load the chain starts from, but it is "
            f"{names[0] if names else 'missing'}; let learnmech.watch choose the layers."
        )
    if wall == "readout" and "readout" not in roles:
        notes.append("no layer is known as the read-out: the last layer is taken as wall")
    used = [place for place, role in enumerate(roles) if wall == "readout" or role != "readout"]
    load = history["load"].transpose("step", "layer").values.astype(np.float64)[:, used]
    errors = np.full((len(load), len(used) - 1), np.nan)
    if "contribution_error" in history:
        errors = history["contribution_error"].transpose("step", "layer").values[:, used[1:]].astype(np.float64)
    logarithmic = int(history.attrs.get("classes", 2)) > 0
    if not logarithmic:
        notes.append(
            "the load is a regression error, for which the theory was hardly tried; its unit is that of the error"
        )
    return MeasuredCurves(
        axis="step",
        times=history["step"].values.astype(np.float64),
        first_load=load[:, 0],
        contributions=-np.diff(load, axis=-1),
        chains=None,
        errors=errors,
        layers=tuple(names[place] for place in used[1:]),
        input_name=names[0],
        stiffness=np.nan,
        logarithmic=logarithmic,
        notes=tuple(notes),
    )


def _check_finite(curves: MeasuredCurves) -> MeasuredCurves:
    finite = np.isfinite(curves.contributions)
    if not finite.all():
        moments = curves.times[~finite.all(axis=1)]
        layers = [name for name, fine in zip(curves.layers, finite.all(axis=0), strict=True) if not fine]
        raise InputError(
            f"the load must be finite, but at {len(moments)} of {len(finite)} {curves.axis}s it is not (first at "
            f"{moments[0]:g}; beside the layers {layers}): the run diverged or a layer collapsed. Fit the part before, "
            f"history.sel({curves.axis}=slice(None, ...)), or mend the network."
        )
    total = curves.total
    start = 0
    if curves.axis == "step":
        least = LEAST_GAIN if curves.logarithmic else 0.05 * abs(float(curves.first_load[-1]))
        if total[-1] <= least:
            raise InputError(
                f"the network is under-trained: the load falls by {total[-1]:.2f} from the input to {curves.layers[-1]}, and "
                f"at least {least:.2f} is needed for a shape; train longer."
            )
        before = np.flatnonzero(total < max(least, FIRST_SHARE * total[-1]))
        start = int(before[-1]) + 1 if len(before) else 0
    if len(total) - start < 3:
        raise InputError(
            f"the fit needs at least 3 moments of a curve that has a shape, but there are {len(total) - start} (of "
            f"{len(total)}); probe more often, for example every=5."
        )
    return _take(curves, np.arange(start, len(total)))


def _thin(curves: MeasuredCurves) -> MeasuredCurves:
    count = len(curves.times)
    if count <= MOST_TIMES:
        return curves
    return _take(curves, np.unique(np.linspace(0, count - 1, MOST_TIMES).round().astype(int)))


def _take(curves: MeasuredCurves, kept: np.ndarray) -> MeasuredCurves:
    return dataclasses.replace(
        curves,
        times=curves.times[kept],
        first_load=curves.first_load[kept],
        contributions=curves.contributions[kept],
        chains=None if curves.chains is None else curves.chains[:, kept],
        errors=curves.errors[kept],
    )
