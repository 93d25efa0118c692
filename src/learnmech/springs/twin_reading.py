"""From the numbers of a fit to its result: estimates, goodness, fitted curves, and what to say about them."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy import stats

from learnmech import history as histories
from learnmech.springs.chain import SpringChain
from learnmech.springs.regime import Reading, Shape, classify
from learnmech.springs.twin_model import TwinModel
from learnmech.springs.twin_profile import Interval
from learnmech.springs.twin_result import ChainFit, Estimate, Goodness
from learnmech.springs.twin_statements import statements
from learnmech.springs.twin_uncertainty import Noise

_SOURCE = "drift model of Eq. 5 of Shi, Pan, Dokmanić 2024 (arXiv 2407.19353), fitted by learnmech"
_FACTOR = 5.0  # an interval of a positive number from v/2.2 to 2.2 v identifies it
_NARROW = 0.1  # so does one of this many even forces, zero included
_SIGNED, _SIGNED_NARROW = (
    2.0,
    0.2,
)  # widths of an interval of a number of either sign, in units of it and of the even force
_FROZEN = 1e-3


def make_result(
    model: TwinModel,
    best: Float[np.ndarray, " parameters"],
    slopes: np.ndarray,
    noise: Noise,
    intervals: Mapping[str, Interval],
) -> ChainFit:
    """Gather a fit.

    Args:
        model: the model.
        best: the optimum, as logarithms.
        slopes: derivatives of the predicted contributions after the first moment, one row a value.
        noise: errors of the fit.
        intervals: by profile, for each of the model's quantities.

    Returns:
        The result.
    """
    predicted = model.predict(best[None])[0]
    values = {name: float(value[0]) for name, value in model.values(best[None]).items()}
    parameters = {
        name: _estimate(values[name], np.sqrt(noise.covariance[place, place]), intervals[name], model.even_force)
        for place, name in enumerate(model.names)
    }
    parameters = {name: _relative_only(each) if name == "time_scale" else each for name, each in parameters.items()}
    if model.fixed_time_scale is not None:
        scale = model.fixed_time_scale
        parameters["time_scale"] = Estimate(scale, 0.0, scale, scale, identified=True)
    combinations = {
        "effective_friction": _end_friction(model, predicted, slopes, noise),
        "bias": _bias(model, best, noise, intervals["bias"]),
        "mobility": _mobility(model, best, intervals["mobility"]),
    }
    reading, measured_reading = (_read(model, curve) for curve in (predicted, model.curves.contributions))
    chain = SpringChain(
        blocks=model.blocks,
        stiffness=model.stiffness,
        target=1.0 if model.forces == "share" else float(model.curves.total[-1]),
        friction_forward=values["friction_forward"],
        friction_backward=values["friction_backward"],
    )
    goodness = _goodness(model, predicted, noise)
    return ChainFit(
        parameters=parameters,
        combinations=combinations,
        measured_friction=float(model.end_friction(model.curves.contributions[-1])),
        force_unit="share of the total drop" if model.forces == "share" else "load",
        even_force=model.even_force,
        reading=reading,
        measured_reading=measured_reading,
        goodness=goodness,
        curves=_curves(model, predicted, values),
        chain=chain,
        warnings=statements(model, parameters, combinations, goodness, noise),
    )


def _estimate(value: float, error: float, interval: Interval, even_force: float) -> Estimate:
    """Turn an interval of a logarithm into one of the number."""
    low = 0.0 if interval.open_below else float(np.exp(interval.low))
    high = np.inf if interval.open_above else float(np.exp(interval.high))
    closed = not interval.open_below and not interval.open_above
    width = high - low
    identified = (closed and high <= _FACTOR * low) or width <= _NARROW * even_force
    return Estimate(value, float(value * error) if closed else np.nan, low, high, bool(identified))


def _relative_only(estimate: Estimate) -> Estimate:
    closed = estimate.low > 0 and np.isfinite(estimate.high)
    identified = closed and estimate.high <= _FACTOR * estimate.low
    return Estimate(estimate.value, estimate.error, estimate.low, estimate.high, bool(identified))


def _bias(model: TwinModel, best: np.ndarray, noise: Noise, interval: Interval) -> Estimate:
    function, force = model.quantities()["bias"], model.even_force
    value = float(function(best[None])[0]) * force
    numbers = np.exp(best)
    gradient = np.zeros(len(best))
    gradient[0], gradient[1] = numbers[0] / 2, -numbers[1] / 2
    low = -np.inf if interval.open_below else interval.low * force
    high = np.inf if interval.open_above else interval.high * force
    closed = not interval.open_below and not interval.open_above
    error = float(np.sqrt(gradient @ noise.covariance @ gradient)) if closed else np.nan
    identified = closed and high - low <= max(_SIGNED * abs(value), _SIGNED_NARROW * force)
    return Estimate(value, error, float(low), float(high), bool(identified))


def _mobility(model: TwinModel, best: np.ndarray, interval: Interval) -> Estimate:
    value = float(np.exp(model.quantities()["mobility"](best[None])[0]))
    if value < _FROZEN * float(model.values(best[None])["time_scale"][0]):  # no noise to speak of: friction holds
        return Estimate(value, np.nan, 0.0, np.inf, identified=False)
    return _relative_only(_estimate(value, np.nan, interval, 0.0))


def _end_friction(model: TwinModel, predicted: np.ndarray, slopes: np.ndarray, noise: Noise) -> Estimate:
    value = float(model.end_friction(predicted[-1]))
    last = slopes.reshape(len(predicted) - 1, -1, slopes.shape[1])[-1]
    gradient = model.end_friction(last.T)
    error = float(np.sqrt(gradient @ noise.covariance @ gradient))
    reach = float(stats.t.ppf(0.975, noise.freedom)) * error
    identified = 2 * reach <= max(_SIGNED * abs(value), _SIGNED_NARROW * model.even_force)
    return Estimate(value, error, value - reach, value + reach, bool(identified))


def _read(model: TwinModel, contributions: np.ndarray) -> Reading:
    curves = model.curves
    load = curves.first_load[-1] - np.concatenate([[0.0], np.cumsum(contributions[-1])])
    return classify(Shape(load=load, logarithmic=curves.logarithmic and curves.axis == "step"))


def _goodness(model: TwinModel, predicted: np.ndarray, noise: Noise) -> Goodness:
    measured, total = model.curves.contributions[1:], model.curves.total[1:]
    variance = float(np.sum((measured - measured.mean()) ** 2))
    shares = total @ measured / np.sum(total**2)
    even = np.full(measured.shape[1], 1 / measured.shape[1])
    residual = predicted[1:] - measured

    def explained(curve: np.ndarray) -> float:
        return 1 - float(np.sum((curve - measured) ** 2)) / variance if variance > 0 else np.nan

    positions = np.cumsum(residual, axis=1)[:, :-1]
    return Goodness(
        r_squared=explained(predicted[1:]),
        even=explained(total[:, None] * even),
        constant_shares=explained(total[:, None] * shares),
        rms_contribution=float(np.sqrt(np.mean(residual**2))),
        rms_load=float(np.sqrt(np.mean(positions**2))),
        observations=measured.size,
        effective=noise.effective,
    )


def _curves(model: TwinModel, predicted: np.ndarray, values: Mapping[str, float]) -> xr.Dataset:
    curves = model.curves
    names = list(curves.layers)
    loads = {
        "": curves.first_load[:, None] - np.cumsum(predicted, axis=1),
        "_measured": curves.first_load[:, None] - np.cumsum(curves.contributions, axis=1),
    }
    contributions = {"": predicted, "_measured": curves.contributions}
    if curves.input_name is not None:
        names = [curves.input_name, *names]
        loads = {key: np.concatenate([curves.first_load[:, None], load], axis=1) for key, load in loads.items()}
        empty = np.full((len(curves.times), 1), np.nan)
        contributions = {key: np.concatenate([empty, each], axis=1) for key, each in contributions.items()}
    words = {"": "of the fitted chain", "_measured": "as measured"}
    unit = "natural logarithm of within-class over between-class scatter" if curves.logarithmic else "error"
    variables = {
        **{
            f"load{key}": (
                (curves.axis, "layer"),
                load,
                {"long_name": f"load {words[key]}", "scale": unit, "source": _SOURCE},
            )
            for key, load in loads.items()
        },
        **{
            f"contribution{key}": (
                (curves.axis, "layer"),
                each,
                {"long_name": f"contribution {words[key]}", "scale": "that of the load", "source": _SOURCE},
            )
            for key, each in contributions.items()
        },
    }
    times = curves.times.astype(np.int64) if curves.axis == "step" else curves.times
    depth = (
        np.linspace(0, 1, len(names)) if curves.input_name is not None else np.arange(1, len(names) + 1) / len(names)
    )
    return histories.build(
        variables,
        {curves.axis: times, "layer": names, "depth": ("layer", depth)},
        config={"model": "spring chain twin", "forces": model.forces, "stiffness": model.stiffness, **values},
        attributes={"citations": ["shi2024"]},
    )
