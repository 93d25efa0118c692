"""The claims about effective depth, C1 to C7 and C9, as checks of a sweep over it."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from learnmech.experiments.jacot2024.shared import (
    alive,
    median_over_depth,
    node_depths,
    numbers,
    order_correlation,
    power,
    readable,
    setting,
    spread,
    task_rank,
)
from learnmech.experiments.jacot2024.trained_nets import least_cost_layer, stack_values
from learnmech.experiments.reproduction import Claim, Scale, judge, untested
from learnmech.leaky.depth_expansion import fit_depth_expansion
from learnmech.leaky.training_result import RESIDUAL_LIMIT

_DEEP, _FEW = 5.0, 4
"""From this effective depth a bottleneck is expected; claims need so many effective depths."""
TEXTS = {
    "C1a": "the Hamiltonian is nearly constant over depth: its spread is far below that of identity cost and kinetic energy",
    "C1b": "its spread over depth shrinks with the number of layers",
    "C2a": "the effective dimension rises with the effective depth",
    "C2b": "it stays below the least identity cost (plus γ c², c the largest norm of the momenta)",
    "C3a": "the least identity cost falls as the effective depth grows",
    "C3b": "it falls to the bottleneck dimension k*",
    "C3c": "it is attained in the middle or late part of the depth",
    "C3d": "the weights there have k* or k* + 1 large singular values",
    "C4": "features are hardly negative in the slow part of the depth and largely negative at both ends",
    "C5": "the speed of the features is L̃ times the root of identity cost less effective dimension",
    "C6a": "large singular values of the weights, less the effective depth, do not depend on it",
    "C6b": "the cost over effective depth has the slope of the number of directions kept",
    "C6c": "the slope of the cost in the effective depth is the mean effective dimension (ours, exact at critical points)",
    "C9": "a net with too large a penalty times depth, or too small a start, finds too few dimensions or trains to zero",
    "C7a": "the length of the path grows far less than the effective depth",
    "C7b": "the largest norm of the momenta hardly depends on the effective depth",
}


def check_bottleneck(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check Fig. 1.

    Args:
        history: the collected sweep, with the cases beside it.
        scale: the scale of the run.

    Returns:
        The claims C1a to C6c and C9.
    """
    del scale  # what can be tested depends on the nets that were trained
    few = _too_few(history, [key for key in TEXTS if not key.startswith("C7")])
    if few:
        return few
    return [
        *_check_constancy(history),
        *_check_dimension(history),
        *_check_cost(history),
        _check_negativity(history),
        _check_speed(history),
        *_check_expansion(history),
        _check_failures(history),
    ]


def check_sizes(history: xr.Dataset, scale: Scale) -> list[Claim]:
    """Check Fig. 3.

    Args:
        history: the collected sweep.
        scale: the scale of the run.

    Returns:
        The claims C7a and C7b.
    """
    del scale  # what can be tested depends on the nets that were trained
    few = _too_few(history, ["C7a", "C7b"])
    if few:
        return few
    nets = history.isel(effective_depth=alive(history))
    depths = nets["effective_depth"].values
    coarse = [float(ridge) for ridge in nets["ridge"].values if ridge >= 1e-3]
    lengths = stack_values(nets.sel(ridge=coarse), "path_length", "ridge", "effective_depth")
    exponents = [power(depths, row) for row in lengths]
    largest = largest_momentum(nets)
    exponent = power(depths, largest)
    limit = "exponent of a power of the effective depth below 0.75 (ours; the paper's curves have 0.56 to 0.68)"
    return [
        judge(
            "C7a",
            TEXTS["C7a"],
            f"{limit}, at ridges of 1e-3 and more",
            f"exponents {numbers(exponents, 2)} at ridges {numbers(coarse)}; lengths at the last {numbers(lengths[-1])}",
            all(value < 0.75 for value in exponents),
        ),
        judge(
            "C7b",
            TEXTS["C7b"],
            limit,
            f"exponent {exponent:.2f}; norms {numbers(largest)} at effective depths {numbers(depths)}",
            exponent < 0.75,
        ),
    ]


def largest_momentum(history: xr.Dataset) -> np.ndarray:
    """Give the largest norm of the momenta over depth.

    Args:
        history: the collected sweep.

    Returns:
        c (effective depths,).
    """
    return np.asarray(stack_values(history, "momentum_norm", "effective_depth", "layer").max(-1))


def _too_few(history: xr.Dataset, keys: Sequence[str]) -> list[Claim]:
    fine = alive(history)
    depths = history["effective_depth"].values[fine]
    if len(depths) >= _FEW and depths.max() >= _DEEP:
        return []
    reason = f"at least {_FEW} trained nets that did not collapse, the deepest of effective depth {_DEEP:g} or more"
    return [untested(key, TEXTS[key], reason) for key in keys]


def _not_stationary(history: xr.Dataset) -> str:
    residuals = history["residual"].values
    return (
        f"at least {_FEW} nets with a median stationarity residual below {RESIDUAL_LIMIT:g}; it is {numbers(residuals, 2)} at effective "
        f"depths {numbers(history['effective_depth'].values)}"
    )


def _check_constancy(history: xr.Dataset) -> list[Claim]:
    claims = []
    nets = history.isel(effective_depth=readable(history))
    if nets.sizes["effective_depth"] < _FEW:
        claims.append(untested("C1a", TEXTS["C1a"], _not_stationary(history)))
    else:
        order = ("effective_depth", "layer")
        sizes = stack_values(nets, "step_size", *order)
        own = spread(stack_values(nets, "effective_dimension", *order), sizes)
        pre = spread(stack_values(nets, "pre_effective_dimension", *order), sizes)
        coarse = nets.isel(ridge=int(nets["ridge"].values.argmax()))
        depths = nets["effective_depth"].values
        costs = stack_values(coarse, "identity_cost", *order)[:, :-1]
        kinetic = stack_values(coarse, "kinetic_energy", *order)[:, :-1] * 2 / depths[:, None]
        slow = np.argsort(costs, axis=1)[:, : costs.shape[1] // 2]
        beside = [np.take_along_axis(values, slow, 1).std(1) for values in (costs, kinetic)]
        claims.append(
            judge(
                "C1a",
                TEXTS["C1a"],
                "standard deviation of -2H/L̃ over all depth at most a tenth of those of identity cost and of (2/L̃) kinetic energy over the "
                f"slow half of the layers, where these vary least, at ridge {float(coarse['ridge']):g} and every effective depth (ours)",
                f"{numbers(own)} (pre-Hamiltonian {numbers(pre)}) against {numbers(beside[0])} and {numbers(beside[1])} at effective "
                f"depths {numbers(depths)}",
                bool((own <= beside[0] / 10).all() and (own <= beside[1] / 10).all()),
            )
        )
    return [*claims, _check_layers(history)]


def _check_layers(history: xr.Dataset) -> Claim:
    if "case_spread" not in history:
        return untested("C1b", TEXTS["C1b"], "nets of two numbers of layers")
    pair = history.sel(case=["half the layers", "twice the layers"])
    spreads, layers = pair["case_spread"].values, pair["case_layers"].values
    if not (pair["case_stationary"].values > 0).all():
        return untested(
            "C1b",
            TEXTS["C1b"],
            f"median stationarity residuals below {RESIDUAL_LIMIT:g} of both nets; they are {numbers(pair['case_residual'], 2)} at "
            f"{numbers(layers)} layers (spread {numbers(spreads)})",
        )
    return judge(
        "C1b",
        TEXTS["C1b"],
        "four times the layers at least halve the standard deviation of -2H/L̃ (ours; 1/L would quarter it)",
        f"{numbers(spreads)} at {numbers(layers)} layers (pre-Hamiltonian {numbers(pair['case_pre_spread'])}, residuals "
        f"{numbers(pair['case_residual'], 2)})",
        bool(spreads[1] <= spreads[0] / 2),
    )


def _check_dimension(history: xr.Dataset) -> list[Claim]:
    nets = history.isel(effective_depth=readable(history))
    if nets.sizes["effective_depth"] < _FEW:
        return [untested(key, TEXTS[key], _not_stationary(history)) for key in ("C2a", "C2b")]
    depths = nets["effective_depth"].values
    own = median_over_depth(nets, "effective_dimension", "effective_depth")
    pre = median_over_depth(nets, "pre_effective_dimension", "effective_depth")
    order = order_correlation(depths, own)
    ridges = nets["ridge"].values
    least = stack_values(nets, "identity_cost", "ridge", "effective_depth", "layer").min(-1)
    slack = ridges[:, None] * largest_momentum(nets) ** 2
    return [
        judge(
            "C2a",
            TEXTS["C2a"],
            "rank correlation of the median over depth with the effective depth at least 0.9 (ours)",
            f"rank correlation {order:.2f}; medians {numbers(own)} (pre-Hamiltonian {numbers(pre)}) at effective depths {numbers(depths)}",
            order >= 0.9,
        ),
        judge(
            "C2b",
            TEXTS["C2b"],
            f"the median over depth is below it at every effective depth and ridge of {numbers(ridges)}",
            f"it is below by at least {float((least + slack - own).min()):.3g}",
            bool((own <= least + slack).all()),
        ),
    ]


def _check_cost(history: xr.Dataset) -> list[Claim]:
    nets = history.isel(effective_depth=alive(history))
    rank = task_rank(history)
    depths, ridges = nets["effective_depth"].values, nets["ridge"].values
    costs = stack_values(nets, "identity_cost", "ridge", "effective_depth", "layer")
    least = costs.min(-1)
    orders = [order_correlation(depths, row) for row in least]
    at = least_cost_layer(costs[int(ridges.argmax())])
    where = node_depths(nets)[np.arange(len(at)), at]
    kept = stack_values(nets, "kept_directions", "effective_depth", "layer")[np.arange(len(at)), at]
    deep = depths >= _DEEP
    last = least[:, -1]
    return [
        judge(
            "C3a",
            TEXTS["C3a"],
            "rank correlation with the effective depth at most -0.9 at every ridge (ours)",
            f"rank correlations {numbers(orders, 2)}; least costs "
            + "; ".join(f"{numbers(row)} at ridge {ridge:g}" for ridge, row in zip(ridges, least, strict=True)),
            all(value <= -0.9 for value in orders),
        ),
        judge(
            "C3b",
            TEXTS["C3b"],
            f"within 1 of k* = {rank} at the largest effective depth, at the ridge nearest to it (the paper: 5.0 at 7.5)",
            f"{numbers(last)} at ridges {numbers(ridges)} and effective depth {depths[-1]:g}",
            bool((np.abs(last - rank) <= 1).any()),
        ),
        judge(
            "C3c",
            TEXTS["C3c"],
            f"at depths from 0.4 to 0.95 for effective depths of {_DEEP:g} and more, at the largest ridge",
            f"at depths {numbers(where, 2)} for effective depths {numbers(depths)}",
            bool(((where[deep] >= 0.4) & (where[deep] <= 0.95)).all()),
        ),
        judge(
            "C3d",
            TEXTS["C3d"],
            f"{rank} or {rank + 1} singular values above half the largest, for effective depths of {_DEEP:g} and more",
            f"{numbers(kept)} at effective depths {numbers(depths)}",
            bool(np.isin(kept[deep], (rank, rank + 1)).all()),
        ),
    ]


def _check_negativity(history: xr.Dataset) -> Claim:
    net = history.isel(effective_depth=alive(history)).isel(effective_depth=-1)
    shares = net["negativity"].values
    return judge(
        "C4",
        TEXTS["C4"],
        "share of the norm below 0.05 somewhere and above 0.2 at both ends, at the largest effective depth (ours)",
        f"least {shares.min():.3f}, at the ends {shares[0]:.2f} and {shares[-1]:.2f}",
        bool(shares.min() < 0.05 and shares[0] > 0.2 and shares[-1] > 0.2),
    )


def _check_speed(history: xr.Dataset) -> Claim:
    nets = history.isel(effective_depth=readable(history))
    if nets.sizes["effective_depth"] < _FEW:
        return untested("C5", TEXTS["C5"], _not_stationary(history))
    depths = nets["effective_depth"].values[:, None]
    coarse = nets.isel(ridge=int(nets["ridge"].values.argmax()))
    ridge = float(coarse["ridge"])
    order = ("effective_depth", "layer")
    speeds = np.sqrt(2 * depths * stack_values(coarse, "kinetic_energy", *order)[:, :-1])
    own = median_over_depth(nets, "effective_dimension", "effective_depth")[:, None]
    costs = stack_values(coarse, "identity_cost", *order)[:, :-1]
    expected = depths * np.sqrt(np.maximum(costs - own, 0))
    slack = 2 * depths * np.sqrt(ridge) * largest_momentum(nets)[:, None]
    share = float((np.abs(speeds - expected) <= slack).mean())
    alike = [float(np.corrcoef(row, other)[0, 1]) for row, other in zip(speeds, expected, strict=True)]
    narrow = int(least_cost_layer(stack_values(coarse, "identity_cost", *order))[-1])
    speed, with_it = speeds[-1, narrow], expected[-1, narrow]
    without = float(depths[-1, 0] * np.sqrt(costs[-1, narrow]))
    return judge(
        "C5",
        TEXTS["C5"],
        f"correlation over depth of at least 0.95 at every effective depth, within the bound of Theorem 4 in 9 of 10 layers, and, in the "
        f"bottleneck of the deepest net, nearer than without the effective dimension; at ridge {ridge:g}, with its median (ours)",
        f"correlations {numbers(alike)}; {share:.0%} of layers within the bound; in the bottleneck {speed:.3g}, expected {with_it:.3g}, "
        f"without the effective dimension {without:.3g}",
        bool(min(alike) >= 0.95 and share >= 0.9 and abs(speed - with_it) < abs(speed - without)),
    )


def _check_expansion(history: xr.Dataset) -> list[Claim]:
    nets = history.isel(effective_depth=alive(history))
    depths, rank = nets["effective_depth"].values, task_rank(history)
    order = ("effective_depth", "layer")
    middle = nets.sizes["layer"] // 2
    rates = stack_values(nets, "weight_spectrum", *order, "direction")[:, middle, :rank] - depths[:, None]
    deep = depths >= depths.max() / 2
    ranges = np.ptp(rates[deep], axis=0)
    fit = fit_depth_expansion(depths, nets["cost"].values, penalty=float(setting(history, "penalty")))
    costs = stack_values(nets.isel(ridge=int(nets["ridge"].values.argmax())), "identity_cost", *order)
    kept = float(stack_values(nets, "kept_directions", *order)[-1, least_cost_layer(costs)[-1]])
    claims = [
        judge(
            "C6a",
            TEXTS["C6a"],
            f"each of the {rank} largest at mid-depth, less L̃, varies by less than 1.5 while L̃ doubles to its largest (ours)",
            f"varies by {numbers(ranges)}; at the largest {numbers(rates[-1])}",
            bool((ranges < 1.5).all()),
        ),
        judge(
            "C6b",
            TEXTS["C6b"],
            "k of the fit (2/λ) J = k L̃ + R1 + R2/L̃ within 0.5 of the singular values kept in the bottleneck of the deepest net (ours)",
            f"{fit}; {kept:g} kept, k* = {rank}",
            abs(fit.k - kept) <= 0.5,
        ),
    ]
    trusted = nets.isel(effective_depth=readable(nets))
    if trusted.sizes["effective_depth"] < _FEW:
        return [*claims, untested("C6c", TEXTS["C6c"], _not_stationary(history))]
    places = trusted["effective_depth"].values
    gaps = fit.slope(places) - trusted["mean_pre_effective_dimension"].values
    tested = places >= 4
    return [
        *claims,
        judge(
            "C6c",
            TEXTS["C6c"],
            "slope of the fit within 1 of the mean effective dimension of the pre-Hamiltonian, for effective depths of 4 and more (ours)",
            f"off by {numbers(gaps, 2)} at effective depths {numbers(places)}",
            bool(tested.any() and (np.abs(gaps[tested]) < 1).all()),
            tested=bool(tested.any()),
        ),
    ]


def _check_failures(history: xr.Dataset) -> Claim:
    if "case_collapsed" not in history:
        return untested("C9", TEXTS["C9"], "nets that were made to fail")
    pair = history.sel(case=["start of torch", "penalty too large"])
    collapsed, kept = pair["case_collapsed"].values > 0, pair["case_kept"].values
    rank = task_rank(history)
    if not np.isfinite(kept).all():
        return untested("C9", TEXTS["C9"], "nets that were made to fail; their cells failed to run")
    return judge(
        "C9",
        TEXTS["C9"],
        f"each is flagged as collapsed, or keeps fewer than k* = {rank} directions",
        "; ".join(
            f"{name}: {'collapsed' if zero else f'{count:g} directions'}"
            for name, zero, count in zip(pair["case"].values, collapsed, kept, strict=True)
        ),
        bool((collapsed | (kept < rank)).all()),
    )
