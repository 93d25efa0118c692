"""The twin: a spring chain fitted to the load curves of a network, or of another chain."""

from typing import Literal

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.stats import qmc

from learnmech.errors import InputError
from learnmech.springs.twin_curves import MeasuredCurves, WallLayer, read_curves
from learnmech.springs.twin_least_squares import Residuals, linearise, minimise
from learnmech.springs.twin_model import Box, Forces, TwinModel
from learnmech.springs.twin_profile import profile
from learnmech.springs.twin_reading import make_result
from learnmech.springs.twin_result import ChainFit
from learnmech.springs.twin_uncertainty import estimate_noise

__all__ = ["ChainFit", "fit_chain"]

_SCAN = 256  # points of the box that are tried first
_STARTS = 10  # of which this many are improved
_OTHERS = 2  # minima beside the best that intervals are searched from as well
_ABOUT_AS_WELL = 1.5  # their sum of squares relative to the least


def fit_chain(
    history: xr.Dataset,
    *,
    wall: WallLayer = "last_hidden",
    forces: Forces = "share",
    stiffness: float | None = None,
    time_scale: float | Literal["fit"] | None = None,
) -> ChainFit:
    r"""Fit friction and noise of a spring chain to load curves over training: the network's twin.

    The chain is :class:`~learnmech.springs.SpringChain` in its drift model,
    :math:`dx_l/dt = \tau\,g\big(k(x_{l+1} - 2x_l + x_{l-1})\big)`, started from the measured curve. Friction
    :math:`\mu_+, \mu_-`, noise :math:`\bar\epsilon` and, for networks, the chain time :math:`\tau` of an optimizer step are
    found by least squares over the contributions :math:`d_l = D_{l-1} - D_l` of all layers and moments, from several starts.

    For a network the input is the fixed end, every hidden layer but the last is a block, and the last hidden layer is the
    wall (``wall``). The chain explains how the layers share the total drop :math:`D_0 - D_L`, not how large it is: with
    ``forces="share"`` lengths and forces are shares of the measured total at each moment. With ``forces="load"`` they are
    in units of the load (nats) and the wall is driven along the measured total; this explains real runs less well.

    Theory: Shi, Pan, Dokmanić 2024 (arXiv 2407.19353), Eq. 5, who fit nothing; the mapping of time and load is learnmech's.

    Args:
        history: of a network (``learnmech.watch``, :func:`learnmech.history.load`) or of one chain
            (:meth:`~learnmech.springs.SpringChain.simulate`; several chains of the same parameters make the errors surer).
        wall: for networks, which layer the wall stands for: ``last_hidden`` or ``readout``.
        forces: for networks, the unit of forces: ``share`` or ``load``.
        stiffness: spring constant k; that of the history if it says so, else 1. Only :math:`\mu/k`, :math:`\bar\epsilon/k`
            and :math:`\tau k` can be learned from curves.
        time_scale: chain time in one unit of the history's axis; ``"fit"`` to fit it. Fitted for networks and 1 for chains
            if not given.

    Returns:
        The fit. Print it; ``identified`` says which parameters the curves determine at all.

    Raises:
        InputError: if the history has no load curve, more than one run, too few layers or moments, loads that are not
            finite, or a network that has learned nothing; or for arguments out of range.

    Example:
        >>> from learnmech.springs import SpringChain
        >>> chain = SpringChain(blocks=7, friction_forward=0.02, friction_backward=0.05)
        >>> twin = fit_chain(chain.drift(np.linspace(0, 60, 31), noise=0.03))
        >>> [round(twin.parameters[name].value, 3) for name in ("friction_forward", "friction_backward", "noise")]
        [0.02, 0.05, 0.03]
    """
    curves = read_curves(history, wall)
    model = _make_model(curves, forces, stiffness, time_scale)
    measured = curves.contributions[1:]

    def residuals(rows: Float[np.ndarray, "rows parameters"], _: np.ndarray) -> Float[np.ndarray, "rows values"]:
        return np.reshape(model.predict(rows)[:, 1:] - measured, (len(rows), -1))

    bounds = model.bounds()
    negligible = 0.1 * model.resolution**2 * measured.size
    best, others = _search(residuals, bounds, model.start_box(), negligible)
    chains = None if curves.chains is None else curves.chains[:, 1:]
    for _ in range(2):  # again if the profile meets a better optimum than the search did
        value, slopes = linearise(residuals, best[None], np.zeros(1, dtype=int), bounds[1])
        noise = estimate_noise(value.reshape(measured.shape), slopes[0], chains, model.resolution)
        intervals, better, square = profile(residuals, best, bounds, model.quantities(), noise, others)
        if square > 0.99 * float(np.sum(value**2)):
            break
        best = minimise(residuals, better[None], *bounds, negligible=negligible)[0][0]
    return make_result(model, best, slopes[0], noise, intervals)


def _make_model(
    curves: MeasuredCurves, forces: Forces, stiffness: float | None, time_scale: float | Literal["fit"] | None
) -> TwinModel:
    if forces not in ("share", "load"):
        raise InputError(f"forces must be 'share' or 'load', but is {forces!r}.")
    chain = curves.axis == "time"
    if stiffness is None:
        stiffness = curves.stiffness if np.isfinite(curves.stiffness) else 1.0
    if time_scale is None:
        time_scale = 1.0 if chain else "fit"
    for name, value in (("stiffness", stiffness), ("time_scale", time_scale)):
        fine = (name == "time_scale" and value == "fit") or (isinstance(value, int | float) and 0 < value < np.inf)
        if not fine:
            raise InputError(f"{name} must be a finite number above 0, but is {value!r}.")
    return TwinModel(
        curves=curves,
        forces="load" if chain else forces,
        stiffness=float(stiffness),
        fixed_time_scale=None if time_scale == "fit" else float(time_scale),
    )


def _search(
    residuals: Residuals, bounds: Box, starts_from: Box, negligible: float
) -> tuple[Float[np.ndarray, " parameters"], Float[np.ndarray, "others parameters"]]:
    """Scan the box of starts, improve the best places; give the best, and others far from it that fit about as well."""
    lower, upper = bounds
    rows = qmc.scale(qmc.Sobol(len(lower), seed=0).random(_SCAN), *starts_from)
    square = np.sum(residuals(rows, np.zeros(len(rows), dtype=int)) ** 2, axis=1)
    starts: list[np.ndarray] = []
    for row in rows[np.argsort(square)]:
        if all(np.max(np.abs(row - other)) > 0.7 for other in starts):  # a factor of two apart in some parameter
            starts.append(row)
        if len(starts) == _STARTS:
            break
    found, cost = minimise(residuals, np.array(starts), lower, upper, negligible=negligible)
    kept = [found[int(np.argmin(cost))]]
    close = found[cost <= _ABOUT_AS_WELL * cost.min() + 10 * negligible]
    while len(kept) <= _OTHERS:
        distance = np.min([np.max(np.abs(close - one), axis=1) for one in kept], axis=0)
        if distance.max() < 0.7:
            break
        kept.append(close[int(np.argmax(distance))])
    return kept[0], np.reshape(kept[1:], (-1, len(lower)))
