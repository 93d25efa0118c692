"""How sure a fitted twin is: effective number of observations, covariance."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_LEAST_CHAINS = 8
_LEAST_FREEDOM = 3.0
_CORRELATIONS = np.array([0.0, 0.2, 0.4, 0.55, 0.7, 0.8, 0.87, 0.92, 0.95, 0.97, 0.985, 0.995])


@dataclass(frozen=True)
class Noise:
    r"""What is known of the errors of a fit.

    Attributes:
        factor: matrix F, and
        resolution: standard deviation s of what the model is not exact to, with the covariance
            :math:`\Sigma = FF^T + s^2` of the residuals.
        covariance: of the fitted parameters.
        freedom: degrees of freedom of Student's t for intervals.
        effective: effective number of independent observations (of chains, if there are enough).
        misfit: how many times the residuals exceed what the spread of the chains explains, squared (1 if unknown).
    """

    factor: Float[np.ndarray, "values sources"]
    resolution: float
    covariance: Float[np.ndarray, "parameters parameters"]
    freedom: float
    effective: float
    misfit: float

    def deviation(self, directions: Float[np.ndarray, "rows values"]) -> Float[np.ndarray, " rows"]:
        r"""Compute the standard deviation of the residuals along directions, :math:`\sqrt{\delta^T \Sigma \delta}`.

        Args:
            directions: one a row, of any length.

        Returns:
            Standard deviations, in units of the residuals times the length of the direction.
        """
        inside = np.sum((directions @ self.factor) ** 2, axis=1)
        return np.asarray(np.sqrt(inside + self.resolution**2 * np.sum(directions**2, axis=1)))


def estimate_noise(
    residuals: Float[np.ndarray, "moments layers"],
    slopes: Float[np.ndarray, "values parameters"],
    chains: Float[np.ndarray, "chains moments layers"] | None,
    resolution: float = 0.0,
) -> Noise:
    r"""Estimate the covariance of correlated residuals, and of the parameters.

    The covariance of a least-squares fit is :math:`H^{-1} J^T \Sigma J H^{-1}`, :math:`H = J^TJ`, with the covariance
    :math:`\Sigma` of the residuals. With at least 8 chains :math:`\Sigma` is the covariance between chains over their number
    (White 1980; Liang and Zeger 1986), times the misfit where the mean residual is larger than that spread explains. Otherwise
    it is modelled from the residuals as :math:`\rho^{|s-t|}\,\sigma_l^2`: first-order autoregression over moments, see
    :func:`correlation_in_time`, and independence between layers, which is what the contributions of a chain at rest have
    but for their constant sum. It is scaled so that the expected sum of squares, :math:`\mathrm{tr}\,M\Sigma` with
    :math:`M = 1 - JH^{-1}J^T`, is the one seen. Degrees of freedom after
    Satterthwaite: :math:`(\mathrm{tr}\,M\Sigma)^2 / \mathrm{tr}\,(M\Sigma)^2`.

    Args:
        residuals: at the optimum.
        slopes: Jacobian of the residuals, one row a value.
        chains: contributions of single chains, at the same moments.
        resolution: what the model itself is good to.

    Returns:
        What is known. A misfit of the model counts as if it were random noise with the same correlation.
    """
    size = slopes.shape[1]
    normal = slopes.T @ slopes
    inverse = np.linalg.inv(normal + 1e-9 * max(float(np.trace(normal)), 1e-300) * np.eye(size))
    influence = inverse @ slopes.T
    exact = resolution**2 * influence @ influence.T
    square = float(np.sum(residuals**2))
    if chains is not None and len(chains) >= _LEAST_CHAINS:
        count = len(chains)
        factor = (chains - chains.mean(axis=0)).reshape(count, -1).T / np.sqrt(count * (count - 1))
        misfit = max(1.0, square / max(float(np.sum(factor**2)), 1e-300))
        factor = np.sqrt(misfit) * factor
        moved = influence @ factor
        return Noise(factor, resolution, moved @ moved.T + exact, count - 1.0, float(count), misfit)
    sizes = np.sqrt(np.mean(residuals**2, axis=0))
    time = correlation_in_time(residuals, slopes)
    factor = np.kron(np.linalg.cholesky(time + 1e-12 * np.eye(len(time))), np.diag(sizes))
    correlated = factor @ factor.T
    left = correlated - slopes @ (influence @ correlated)
    expected = float(np.trace(left))
    factor = factor * np.sqrt(square / expected if expected > 0 else 1.0)
    freedom = max(expected**2 / max(float(np.sum(left * left.T)), 1e-300), _LEAST_FREEDOM)
    effective = float(np.trace(correlated)) ** 2 / max(float(np.sum(correlated**2)), 1e-300)
    moved = influence @ factor
    return Noise(factor, resolution, moved @ moved.T + exact, freedom, max(effective, 1.0), 1.0)


def correlation_in_time(
    residuals: Float[np.ndarray, "moments layers"], slopes: Float[np.ndarray, "values parameters"]
) -> Float[np.ndarray, "moments moments"]:
    r"""Estimate the correlation of errors between moments, :math:`\rho^{|s-t|}`.

    A fit takes slow errors up into its parameters, so that residuals look less correlated than errors are:
    :math:`\rho` is chosen such that the correlation of neighbouring residuals, which is
    :math:`\sum_{tl} (M\Sigma M)_{tl,t+1\,l} / \mathrm{tr}\,M\Sigma M`, is the one seen.

    Args:
        residuals: over moments and layers.
        slopes: Jacobian of the residuals, one row a value.

    Returns:
        Correlations. Moments count as evenly spaced.
    """
    count, width = residuals.shape
    square = float(np.sum(residuals**2))
    apart = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    if square == 0:
        return np.eye(count)
    layers = np.diag(np.sum(residuals**2, axis=0) / square)
    basis, sizes, _ = np.linalg.svd(slopes, full_matrices=False)
    basis = basis[:, sizes > 1e-5 * sizes.max(initial=0.0)]
    expected = []
    for trial in _CORRELATIONS:
        whole = np.kron(trial**apart, layers)
        inside = basis.T @ whole
        left = whole - basis @ inside
        left -= (left @ basis) @ basis.T
        expected.append(np.trace(left, offset=width) / np.trace(left))
    seen = float(np.sum(residuals[1:] * residuals[:-1])) / square
    correlation = float(np.interp(seen, np.maximum.accumulate(expected), _CORRELATIONS))
    return np.asarray(correlation**apart)
