"""The optimal cost as a function of the effective depth: its expansion, and what it says about the bottleneck."""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from learnmech.errors import InputError, LearnmechWarning

Reduce = Literal["lowest", "mean"]

LEVEL = 0.95
LARGEST_AMPLIFICATION = 10.0


@dataclass(frozen=True, eq=False)
class DepthExpansion:
    r"""The fit :math:`(2/\lambda)\,J^* = k \tilde L + R_1 + R_2 / \tilde L`; unpacks as ``k, R1, R2``.

    Attributes:
        k: slope for large effective depths, an estimate of the number of directions that the bottleneck keeps.
        R1: constant part; :math:`2 \sum_i r_i` in the aligned case (r_i: log growth of direction i).
        R2: part that falls with the effective depth; :math:`\sum_i r_i^2` in the aligned case.
        covariance: (3, 3) of the three; NaN where nothing says how large errors are.
        freedom: degrees of freedom of the errors of ``k``: infinite where they were given.
        effective_depths: those fitted, in the order given.
        costs: :math:`(2/\lambda) J^*` at each, after the reduction over seeds.
        amplification: standard error that ``k`` would have if each cost had an independent error of 1: how much the choice of
            depths amplifies errors.
    """

    k: float
    R1: float
    R2: float
    covariance: np.ndarray
    freedom: float
    effective_depths: np.ndarray
    costs: np.ndarray
    amplification: float

    def __iter__(self) -> Iterator[float]:
        return iter((self.k, self.R1, self.R2))

    @property
    def errors(self) -> np.ndarray:
        """Standard errors (3,) of k, R1 and R2; NaN where unknown."""
        found: np.ndarray = np.sqrt(np.diag(self.covariance))
        return found

    @property
    def k_interval(self) -> tuple[float, float]:
        """Interval of probability 95 % for k, of Student's (or of a normal) distribution; NaN where unknown."""
        reach = float(self.errors[0] * _quantile(self.freedom)) if not math.isnan(self.errors[0]) else math.nan
        return self.k - reach, self.k + reach

    @property
    def residuals(self) -> np.ndarray:
        """Costs less the fitted ones, at each effective depth."""
        left: np.ndarray = self.costs - self.cost(self.effective_depths)
        return left

    def cost(self, effective_depth: Any) -> Any:
        r"""Evaluate the fit.

        Args:
            effective_depth: :math:`\tilde L`, a positive number or an array of them.

        Returns:
            :math:`(2/\lambda) J^*`, a number or an array.
        """
        depth = positive(effective_depth, "effective_depth")
        return _plain(self.k * depth + self.R1 + self.R2 / depth)

    def slope(self, effective_depth: Any) -> Any:
        r"""Evaluate the derivative :math:`(2/\lambda)\,dJ^*/d\tilde L = k - R_2 / \tilde L^2`.

        By the envelope identity it equals the effective dimension of the trained net, averaged over depth
        (:func:`~learnmech.leaky.envelope_slope`).

        Args:
            effective_depth: :math:`\tilde L`, a positive number or an array of them.

        Returns:
            A number or an array.
        """
        depth = positive(effective_depth, "effective_depth")
        return _plain(self.k - self.R2 / depth**2)

    def __str__(self) -> str:
        low, high = self.k_interval
        known = "no errors known" if math.isnan(low) else f"95 %: {low:.2f} to {high:.2f}"
        return f"k = {self.k:.3f} ({known}), R1 = {self.R1:.3f}, R2 = {self.R2:.3f}"


def fit_depth_expansion(
    effective_depths: Sequence[float] | np.ndarray,
    costs: Sequence[float] | Sequence[Sequence[float]] | np.ndarray,
    *,
    penalty: float | None = None,
    errors: Sequence[float] | np.ndarray | None = None,
    reduce: Reduce = "lowest",
) -> DepthExpansion:
    r"""Fit the optimal costs of nets of several effective depths, to read the dimension of the bottleneck off their slope.

    .. math:: \frac{2}{\lambda} J^*(\tilde L) = k\,\tilde L + R_1 + \frac{R_2}{\tilde L}, \qquad
        \frac{2}{\lambda}\frac{dJ^*}{d\tilde L} = k - \frac{R_2}{\tilde L^2}

    Source: derived in learnmech. It is exact in continuous depth where directions decouple (representations linear or non-negative,
    singular vectors aligned, end points fixed): k directions, :math:`R_1 = 2 \sum r_i`, :math:`R_2 = \sum r_i^2`; elsewhere an
    expansion for large :math:`\tilde L`, as that of the representation cost of fully connected nets in Jacot (2023,
    arXiv 2305.19008). What the data cost gains with depth, and nets with few layers, make it approximate.

    How errors are found, and the interval of k:

    - ``errors`` given: weighted least squares, normal distribution.
    - several seeds, ``reduce="mean"``: standard error of the mean at each depth; ``"lowest"``: the gap between the two lowest
      costs times (n - 1)/n, the jackknife's standard error of a minimum. Both go through unweighted least squares; degrees of
      freedom by Welch and Satterthwaite. Two seeds or three give wide intervals.
    - one cost for each of more than 3 depths: scatter about the fit, Student's distribution.
    - otherwise NaN: three numbers through three points leave no scatter.

    :math:`J^*` is the *global* minimum over weights. A run ends in a local one, so the lowest over seeds is its estimate, too
    high rather than too low; the mean mixes in how badly training did. A net that collapsed to zero is no minimum of
    this branch: leave it out.

    Args:
        effective_depths: :math:`\tilde L`, at least three different positive numbers.
        costs: :math:`(2/\lambda) J^*` at each, or with several seeds (depths, seeds); J itself if ``penalty`` is given.
        penalty: :math:`\lambda`, by which to turn J into :math:`(2/\lambda) J`.
        errors: standard error of each cost (depths,), in the unit of ``costs``; not together with seeds.
        reduce: what to take of several seeds, ``lowest`` or ``mean``.

    Returns:
        The expansion, which unpacks as ``k, R1, R2``.

    Raises:
        InputError: for fewer than three different depths, shapes that do not fit, NaN, infinite or negative costs, depths,
            errors or a penalty that are not positive, or errors beside seeds.

    Example:
        >>> k, R1, R2 = fit_depth_expansion([2, 4, 8], [90.87, 77.86, 80.77])
        >>> round(k, 2), round(R1, 1), round(R2, 1)
        (3.14, 46.0, 77.1)
    """
    depths, table = depths_and_costs(effective_depths, costs, penalty)
    given = _errors(errors, table, penalty)
    if reduce not in ("lowest", "mean"):
        raise InputError(f"unknown reduction over seeds {reduce!r}: expected 'lowest' or 'mean'.")
    values = table.min(axis=1) if reduce == "lowest" else table.mean(axis=1)
    design = np.stack([depths, np.ones_like(depths), 1 / depths], axis=1)
    plain = np.linalg.pinv(design)
    amplification = float(np.linalg.norm(plain[0]))
    if amplification > LARGEST_AMPLIFICATION:
        warnings.warn(
            f"the effective depths {depths.tolist()} are too close to each other: an error of 1 in the costs moves k by about "
            f"{amplification:.0f}; spread them, for example over a factor of 4.",
            LearnmechWarning,
            stacklevel=2,
        )
    weights = plain if given is None else np.linalg.pinv(design / given[:, None]) / given
    fitted = weights @ values
    variances, freedom = _variances(table, values - design @ fitted, given, reduce, weights[0])
    k, constant, falling = fitted.tolist()
    covariance = (weights * variances) @ weights.T
    return DepthExpansion(k, constant, falling, covariance, freedom, depths, values, amplification)


def depths_and_costs(effective_depths: Any, costs: Any, penalty: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Check the runs of a depth expansion.

    Args:
        effective_depths: one for each row of the costs.
        costs: (depths,) or (depths, seeds).
        penalty: by which to turn J into (2/penalty) J; None where that has been done.

    Returns:
        Depths (depths,) and costs (depths, seeds) in the order in which they came.

    Raises:
        InputError: as :func:`fit_depth_expansion`.
    """
    depths = positive(effective_depths, "effective_depths")
    table = np.asarray(costs, dtype=float)
    if depths.ndim != 1 or len(np.unique(depths)) < 3:
        raise InputError(
            f"effective_depths must hold at least three different numbers in a row, but is {depths.tolist()}: the expansion has "
            "three coefficients."
        )
    if table.ndim not in (1, 2) or table.shape[0] != len(depths) or table.size == 0:
        raise InputError(
            f"costs must have the shape ({len(depths)},) or ({len(depths)}, seeds), one row a depth, but has {table.shape}."
        )
    if not (np.isfinite(table).all() and (table >= 0).all()):
        raise InputError("costs must be finite numbers of at least 0, but hold NaN, infinite or negative ones.")
    return depths, table.reshape(len(depths), -1) * _per_penalty(penalty)


def positive(values: Any, name: str) -> np.ndarray:
    """Check numbers that must be positive.

    Args:
        values: a number or an array of them.
        name: what the message calls them.

    Returns:
        A float64 array of the same shape.

    Raises:
        InputError: if one is not finite or not above 0.
    """
    numbers = np.asarray(values, dtype=float)
    if not (np.isfinite(numbers).all() and (numbers > 0).all()):
        raise InputError(f"{name} must be positive finite numbers, but is {numbers.tolist()}.")
    return numbers


def _per_penalty(penalty: float | None) -> float:
    return 1.0 if penalty is None else 2 / float(positive(penalty, "penalty"))


def _errors(errors: Any, table: np.ndarray, penalty: float | None) -> np.ndarray | None:
    if errors is None:
        return None
    if table.shape[1] > 1:
        raise InputError(
            "costs of several seeds tell their own errors; give errors, or one cost for each depth, not both."
        )
    found = positive(errors, "errors") * _per_penalty(penalty)
    if found.shape != table.shape[:1]:
        raise InputError(f"errors must be one for each of {len(table)} costs, but have the shape {found.shape}.")
    return found


def _variances(
    table: np.ndarray, residuals: np.ndarray, errors: np.ndarray | None, reduce: Reduce, weights: np.ndarray
) -> tuple[np.ndarray, float]:
    """Give the squared standard error of the cost at each depth, and the degrees of freedom of that of k."""
    depths, seeds = table.shape
    if errors is not None:
        return errors**2, math.inf
    if seeds > 1:
        if reduce == "mean":
            variances = table.var(axis=1, ddof=1) / seeds
        else:
            lowest = np.sort(table, axis=1)[:, :2]
            variances = ((seeds - 1) / seeds * (lowest[:, 1] - lowest[:, 0])) ** 2
        parts = weights**2 * variances
        squares = float((parts**2).sum())
        return variances, (seeds - 1) * float(parts.sum()) ** 2 / squares if squares > 0 else math.inf
    freedom = depths - 3
    variance = float(residuals @ residuals) / freedom if freedom > 0 else math.nan
    return np.full(depths, variance), float(freedom)


def _quantile(freedom: float) -> float:
    return float(stats.norm.ppf((1 + LEVEL) / 2) if math.isinf(freedom) else stats.t.ppf((1 + LEVEL) / 2, freedom))


def _plain(values: Any) -> Any:
    return float(values) if np.ndim(values) == 0 else values
