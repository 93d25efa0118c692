"""The saddles of a diagonal network as alternating gradient flow finds them: utilities, norms and arccosh bookkeeping."""

import numpy as np
from jaxtyping import Float
from scipy.optimize import nnls

from learnmech.dynamics.agf.diagonal_active_set import MOST, TIE, Path, Recorder, spread
from learnmech.dynamics.agf.diagonal_data import Regression
from learnmech.errors import LearnmechError


def log_cosh(values: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    r"""Give :math:`\log\cosh x` without overflow, accurate at small x too.

    Args:
        values: any numbers.

    Returns:
        One number each.
    """
    size = np.abs(values)
    small = np.log1p(2 * np.square(np.sinh(np.minimum(size, 1.0) / 2)))
    return np.asarray(np.where(size < 1, small, size + np.log1p(np.exp(-2 * size)) - np.log(2)))


def arccosh_exp(values: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    r"""Give :math:`\mathrm{arccosh}(e^z)` for z of at least 0, without overflow.

    Args:
        values: z.

    Returns:
        One number each.
    """
    return np.asarray(values + np.log1p(np.sqrt(-np.expm1(-2 * values))))


def follow_utilities(data: Regression, log_scale: float) -> Path:
    r"""Follow the stages of alternating gradient flow at a finite scale.

    A dormant neuron (u, v) that starts at :math:`(\sqrt2\alpha, 0)` has the best utility :math:`U^* = |g|/2` and the squared norm
    :math:`2\alpha^2\cosh(2\int|g|)`. Its accumulated utility S, the log of its norm over that at the start, grows by

    .. math::
        \tfrac12\log\frac{\cosh(4U^*\tau + c)}{\cosh c}, \qquad c = \pm\mathrm{arccosh}\,e^{2S},

    with plus if it is driven to the side where it is; it becomes active at norm 1, after
    :math:`\tau = (\mathrm{arccosh}\frac{1}{2\alpha^2} - c)/(4U^*)`. All in logarithms, so that scales of 1e-100 lose nothing.
    The cost is minimised by SciPy's nonnegative least squares.

    Source: Kunin et al. 2025 (arXiv 2506.06489), diagonal linear networks; sign of c and the log form are derived here.

    Args:
        data: the regression.
        log_scale: log of :math:`\alpha`, below :math:`-\tfrac12\log 2`.

    Returns:
        The path; ``accumulated`` is the signed :math:`c/\mathrm{arccosh}\frac{1}{2\alpha^2}`.

    Raises:
        LearnmechError: if there are more than 100 000 jumps.
    """
    full = float(arccosh_exp(np.array(-2 * log_scale - np.log(2))))
    beta, utility, heading = np.zeros(data.dim), np.zeros(data.dim), np.ones(data.dim)
    sides = np.zeros(data.dim)
    clock = 0.0
    recorder = Recorder(data.dim)
    for _ in range(MOST):
        drive = data.drive(beta)
        drive[(np.abs(drive) <= data.noise) | (beta != 0)] = 0
        best = np.abs(drive) / 2
        offset = np.sign(drive) * heading * arccosh_exp(2 * utility)
        moving = (best > 0) & (sides != np.sign(drive))
        if not moving.any():
            return recorder.path()
        duration = float(((full - offset[moving]) / (4 * best[moving])).min())
        clock += duration
        end = offset[moving] + 4 * best[moving] * duration
        utility[moving] += (log_cosh(end) - log_cosh(offset[moving])) / 2
        utility = np.maximum(utility, 0.0)
        heading[moving] = np.where(end >= 0, 1.0, -1.0) * np.sign(drive[moving])
        place = heading * arccosh_exp(2 * utility)
        sides = np.where(np.abs(place) >= full * (1 - TIE), heading, 0.0)
        active = np.flatnonzero(sides)
        utility[active] = float(log_cosh(np.array(full))) / 2
        beta = _cheapest(data, sides)
        place = heading * np.where(sides != 0, full, arccosh_exp(2 * utility))
        recorder.jump(clock, beta, place / full)
    raise LearnmechError(f"the path has more than {MOST} jumps; check that the inputs are on comparable scales.")


def _cheapest(data: Regression, sides: Float[np.ndarray, " dim"]) -> Float[np.ndarray, " dim"]:
    active = np.flatnonzero(sides)
    columns = data.matrix[:, active] * sides[active]
    values, _ = nnls(columns, data.target)
    support = values > 1e-11 * values.max(initial=0.0)
    values[~support] = 0
    values[support] = np.linalg.lstsq(columns[:, support], data.target, rcond=None)[0]
    beta = np.zeros(data.dim)
    beta[active] = sides[active] * values
    return spread(data, sides, beta)
