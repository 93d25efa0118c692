"""Powers of width and depth fitted to a scan, with intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from learnmech.errors import InputError

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A fitted power.

    Attributes:
        value: the power; NaN if it cannot be fitted.
        error: standard error.
        low: lower end of the interval; minus infinity if there are too few points for one.
        high: upper end.
        points: numbers that went into the fit.
    """

    value: float
    error: float
    low: float
    high: float
    points: int

    def __str__(self) -> str:
        return "-" if math.isnan(self.value) else f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def fit_powers(
    values: np.ndarray,
    axes: Mapping[str, Sequence[float]],
    *,
    level: float = LEVEL,
    weights: np.ndarray | None = None,
) -> dict[str, Estimate]:
    r"""Fit :math:`\log Q = c + \sum_a p_a \log a + \text{noise}` by least squares, with an interval for each power.

    Errors are those of White's estimator in its form HC3 (MacKinnon and White 1985), since the noise of random networks grows
    with depth over width; the interval is Student's with as many degrees of freedom as points less parameters. It covers the
    scatter between draws. A curve that is no power yet (small sizes) makes it wider only as far as it looks like scatter.

    Args:
        values: positive numbers, one axis of the array for each of ``axes`` and a last one for repetitions. NaN, infinite and
            numbers of at most 0 are left out.
        axes: names to the positive sizes along each axis.
        level: probability that the interval covers the power.
        weights: positive weights of the squares, of a shape that broadcasts to that of ``values`` without the last axis; equal
            ones if not given. Best are ones in proportion to one over the variance of the noise.

    Returns:
        Name to estimate, for every axis; NaN for one along which fewer than two sizes have a number.

    Raises:
        InputError: if the shapes do not fit, level is not between 0 and 1, or a weight is not positive.

    Example:
        >>> sizes = {"width": [2.0, 4.0, 8.0]}
        >>> round(fit_powers(np.array([[4.0], [16.0], [64.0]]), sizes)["width"].value, 6)
        2.0
    """
    values = np.asarray(values, dtype=float)
    lengths = tuple(len(sizes) for sizes in axes.values())
    if values.shape[:-1] != lengths or values.ndim != len(lengths) + 1:
        raise InputError(f"values must have the shape {(*lengths, 'repetitions')}, got {values.shape}.")
    if not 0 < level < 1:
        raise InputError(f"level must be between 0 and 1, got {level!r}.")
    weight = np.broadcast_to(np.ones(()) if weights is None else np.asarray(weights, dtype=float), lengths)
    if not bool((weight > 0).all()):
        raise InputError(f"weights must be positive, but one is {weight.min()!r}.")
    kept = np.isfinite(values) & (values > 0)
    mesh = np.meshgrid(*(np.log(np.asarray(sizes, dtype=float)) for sizes in axes.values()), indexing="ij")
    columns = {
        name: np.broadcast_to(grid[..., None], values.shape)[kept] for name, grid in zip(axes, mesh, strict=True)
    }
    used = [name for name, column in columns.items() if len(np.unique(column)) > 1]
    found = dict.fromkeys(axes, Estimate(math.nan, math.nan, -math.inf, math.inf, int(kept.sum())))
    if used:
        design = np.stack([np.ones(int(kept.sum())), *(columns[name] for name in used)], axis=1)
        root = np.sqrt(np.broadcast_to(weight[..., None], values.shape)[kept])
        slopes, errors = _least_squares(design * root[:, None], np.log(values[kept]) * root)
        freedom = len(design) - design.shape[1]
        reach = float(stats.t.ppf((1 + level) / 2, freedom)) if freedom > 0 else math.inf
        for name, slope, error in zip(used, slopes[1:], errors[1:], strict=True):
            if math.isnan(error) or freedom <= 0:
                found[name] = Estimate(float(slope), math.nan, -math.inf, math.inf, len(design))
            else:
                found[name] = Estimate(
                    float(slope), float(error), float(slope - reach * error), float(slope + reach * error), len(design)
                )
    return found


def _least_squares(design: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give slopes and their HC3 errors; NaN where a point alone decides or the columns depend on each other."""
    slopes, _, rank, _ = np.linalg.lstsq(design, target, rcond=None)
    if rank < design.shape[1]:
        return np.full(design.shape[1], math.nan), np.full(design.shape[1], math.nan)
    inverse = np.linalg.inv(design.T @ design)
    leverage = np.einsum("ni,ij,nj->n", design, inverse, design)
    if (leverage > 1 - 1e-9).any():
        return slopes, np.full(design.shape[1], math.nan)
    weighted = design * ((target - design @ slopes) / (1 - leverage))[:, None]
    return slopes, np.sqrt(np.diag(inverse @ (weighted.T @ weighted) @ inverse))
