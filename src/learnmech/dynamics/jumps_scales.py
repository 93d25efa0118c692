"""The speed at which a noisy curve falls, at a chosen scale of smoothing, with its standard error."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.ndimage import median_filter

_REACH = 3.0
_NORMAL = 1.4826  # standard deviation over the median of absolute deviations, for normal noise
_SILENT = 1e-9


@dataclass(frozen=True)
class Smoothed:
    """A curve at one scale of smoothing.

    Attributes:
        bandwidth: standard deviation of the smoothing weights, in points; 0 if the curve is taken as it is.
        times: where the next four stand: the points, or the middles between them at bandwidth 0.
        values: the smoothed curve.
        value_errors: its standard error.
        speeds: how fast it falls, minus its derivative.
        speed_errors: its standard error.
    """

    bandwidth: float
    times: Float[np.ndarray, " points"]
    values: Float[np.ndarray, " points"]
    value_errors: Float[np.ndarray, " points"]
    speeds: Float[np.ndarray, " points"]
    speed_errors: Float[np.ndarray, " points"]


def noise_level(
    times: Float[np.ndarray, " points"], values: Float[np.ndarray, " points"]
) -> Float[np.ndarray, " points"]:
    """Estimate the standard deviation of independent noise along a curve.

    Each point is compared with the straight line between its neighbours (Gasser, Sroka and Jennen-Steinmetz 1986); the
    median of absolute residuals over a window of an eighth of the points (31 at least) makes it local and robust to jumps.

    Args:
        times: increasing.
        values: the curve.

    Returns:
        The noise level at each point; what is below 1e-9 of the range of the curve counts as none.
    """
    share = (times[1:-1] - times[:-2]) / (times[2:] - times[:-2])
    residuals = values[1:-1] - (1 - share) * values[:-2] - share * values[2:]
    sizes = np.abs(residuals) / np.sqrt(1 + share**2 + (1 - share) ** 2)
    window = max(31, len(values) // 8) | 1
    if len(sizes) <= window:
        level = np.full(len(values), _NORMAL * float(np.median(sizes)))
    else:
        level = _NORMAL * np.pad(median_filter(sizes, window, mode="mirror"), 1, mode="edge")
    return np.where(level > _SILENT * np.ptp(values), level, 0.0)


def scales(
    times: Float[np.ndarray, " points"], values: Float[np.ndarray, " points"], smoothing: float | None
) -> Iterator[Smoothed]:
    """Give the curve at every scale of smoothing that is worth a look, from fine to coarse.

    Args:
        times: increasing.
        values: the curve.
        smoothing: the only bandwidth, or None for 0, 1, 2, 4 and so on up to a sixteenth of the points (only 0 for a curve
            without noise).

    Yields:
        The smoothed curve.
    """
    noise = noise_level(times, values)
    if smoothing is not None:
        chosen = [float(smoothing)]
    elif not noise.any():
        chosen = [0.0]
    else:
        doublings = int(math.log2(max(len(values) / 16, 1)))
        chosen = [0.0, *(2.0**power for power in range(doublings + 1))]
    for bandwidth in chosen:
        yield _plain(times, values, noise) if bandwidth == 0 else _local_lines(times, values, noise, bandwidth)


def _plain(times: np.ndarray, values: np.ndarray, noise: np.ndarray) -> Smoothed:
    gaps = np.diff(times)
    pair = np.hypot(noise[1:], noise[:-1])
    return Smoothed(
        0.0,
        (times[1:] + times[:-1]) / 2,
        (values[1:] + values[:-1]) / 2,
        pair / 2,
        -np.diff(values) / gaps,
        pair / gaps,
    )


def _local_lines(times: np.ndarray, values: np.ndarray, noise: np.ndarray, bandwidth: float) -> Smoothed:
    """Fit a straight line around each point, with normal weights over the number of points in between."""
    count, reach = len(times), min(math.ceil(_REACH * bandwidth), len(times) - 1)
    offsets = np.arange(-reach, reach + 1)
    neighbours = np.arange(count)[:, None] + offsets
    inside = (neighbours >= 0) & (neighbours < count)
    neighbours = neighbours.clip(0, count - 1)
    weights = np.where(inside, np.exp(-0.5 * (offsets / bandwidth) ** 2), 0.0)
    weights /= weights.sum(1, keepdims=True)
    away = times[neighbours] - times[:, None]
    centre = (weights * away).sum(1, keepdims=True)
    lever = weights * (away - centre)
    lever /= (lever * (away - centre)).sum(1, keepdims=True)
    local, deviations = values[neighbours], noise[neighbours]
    level = weights - centre * lever
    return Smoothed(
        bandwidth,
        times,
        (level * local).sum(1),
        np.sqrt(((level * deviations) ** 2).sum(1)),
        -(lever * local).sum(1),
        np.sqrt(((lever * deviations) ** 2).sum(1)),
    )
