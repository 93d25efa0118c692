"""What a diagonal linear network learns, and when: the successive saddles of its regression path."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from learnmech.dynamics.agf.diagonal_active_set import Path, follow_saddles
from learnmech.dynamics.agf.diagonal_data import diagonal_data
from learnmech.dynamics.agf.diagonal_utilities import follow_utilities
from learnmech.dynamics.agf.predictions import FLOW_TIME, Prediction
from learnmech.dynamics.agf.problems import as_array
from learnmech.errors import InputError

LIMIT_TIME = "time of the gradient flow over minus the log of the scale"
_TINY = math.log(1e-30)


@dataclass(frozen=True, kw_only=True)
class DiagonalPrediction(Prediction):
    r"""Saddles of a diagonal linear network.

    Attributes:
        saddles: coefficients :math:`\beta = u \circ v` on each plateau (stages, dim).
        accumulated: S on each plateau (stages, dim), minus the gradient integrated up to the jump, over what a coordinate needs to become
            active: from -1 to 1, at -1 or 1 for active ones and those that have left.
        entering: (coordinate, sign) of all that become nonzero at each jump.
        leaving: coordinates that become 0 at each jump.
        scale: of the start; None in the limit, or for a start of its own for each coordinate.
    """

    saddles: Float[np.ndarray, "stages dim"]
    accumulated: Float[np.ndarray, "stages dim"]
    entering: tuple[tuple[tuple[int, int], ...], ...]
    leaving: tuple[tuple[int, ...], ...]
    scale: float | None = None

    @property
    def l1_norm(self) -> Float[np.ndarray, " stages"]:
        """Sum of sizes of the coefficients on each plateau."""
        return np.asarray(np.abs(self.saddles).sum(axis=1))


def diagonal(
    X: Any,
    y: Any,
    scale: float | None = None,
    *,
    init: tuple[Any, Any] | None = None,
    route: Literal["active_set", "utilities"] = "active_set",
) -> DiagonalPrediction:
    r"""Predict the staircase of a diagonal linear network :math:`f(x) = (u \circ v)\cdot x`.

    .. math::
        L = \frac{1}{2n}|X(u\circ v) - y|^2, \qquad u(0) = \sqrt2\,\alpha, \quad v(0) = 0 .

    On a saddle :math:`\beta` with gradient g each coordinate accumulates :math:`S_i' = -g_i` (time over :math:`-\log\alpha`). The
    first to reach 1 or -1 starts a jump, to the minimiser of L with :math:`\beta_i \ge 0` where :math:`S_i = 1`,
    :math:`\beta_i \le 0` where :math:`S_i = -1`, and 0 elsewhere. The last saddle is the least-squares solution of least l1
    norm.

    Source: Pesme and Flammarion 2023 (arXiv 2304.00488) for the path, Kunin et al. 2025 (arXiv 2506.06489) for the same by
    utilities. The start for each coordinate, the choice among several minimisers and the treatment of ties are derived here.

    How to read it: ``order`` says what enters: ``"+3"`` is coordinate 3 with a positive sign, ``"+1 -4"`` two at once.
    Coordinates can leave (``leaving``, and a sentence in ``notes``), and enter again with either sign. At a finite scale the
    flow is late or early by a time of order 1, which is a share of order :math:`1/|\log\alpha|` of the whole.

    Other starts: :math:`u = a, v = 0` is the scale :math:`a/\sqrt2`. For :math:`\beta = w_+^2 - w_-^2` from
    :math:`w_\pm = a` take the scale :math:`\sqrt2\,a`, and halve the times. Anything else: ``init``.

    Degenerate cases: nothing to learn (:math:`X^Ty = 0`) gives no jumps and one level. Coordinates whose S get within 1e-10 of 1
    together enter in one jump. Of several minimisers (dependent columns) it takes the one of largest entropy, to which the flow goes too:
    equal shares for equal columns. Derivatives of L below 1e-11 of their largest possible size count as 0. A column of zeros never enters.
    For inputs of condition number c, rounding moves late times by up to about :math:`10^{-15}c^2`.

    Args:
        X: inputs (n, dim).
        y: targets (n,).
        scale: :math:`\alpha`, above 0 and below 1, for times of the flow; without, times over :math:`-\log\alpha` in the limit.
        init: u and v at the start (dim,) each, in place of ``scale``. Coordinate i needs
            :math:`-\tfrac12\log((u_i+v_i)^2/2)` to become positive, :math:`-\tfrac12\log((u_i-v_i)^2/2)` to become negative, which
            is :math:`-\log\alpha` for the start above; never, if that is infinite.
        route: ``"active_set"``, or ``"utilities"``: the same by the bookkeeping of alternating gradient flow at a finite scale (1e-30 if
            none is given), where :math:`-\log\alpha` is :math:`\tfrac12\mathrm{arccosh}\frac{1}{2\alpha^2}`, equal up to
            :math:`\alpha^4`.

    Returns:
        The prediction, with the saddles.

    Raises:
        InputError: for wrong shapes, numbers that are not finite, a scale or start that is 0 or not small.

    Example:
        With :math:`X^TX/n` the identity, coordinates enter at :math:`1/|b_i|`, :math:`b = X^Ty/n`.

        >>> import numpy as np
        >>> path = diagonal(np.sqrt(2) * np.eye(2), np.sqrt(2) * np.array([2.0, -0.5]))
        >>> path.times.round(6).tolist(), path.levels.round(6).tolist(), path.order
        ([0.5, 2.0], [2.125, 0.125, 0.0], ('+0', '-1'))
        >>> path.saddles.round(6).tolist()
        [[0.0, 0.0], [2.0, 0.0], [2.0, -0.5]]
    """
    data = diagonal_data(X, y)
    if route not in ("active_set", "utilities"):
        raise InputError(f'route must be "active_set" or "utilities", got {route!r}.')
    if init is not None and (scale is not None or route == "utilities"):
        raise InputError('give either scale or init, and init only with route="active_set".')
    factor = 1.0
    if scale is not None:
        scale = require_scale(scale)
        factor = -math.log(scale)
    if init is not None:
        path = follow_saddles(data, *_bounds(data.dim, init))
    elif route == "active_set":
        path = follow_saddles(data, np.ones(data.dim), np.ones(data.dim))
    else:
        log_scale = _TINY if scale is None else math.log(scale)
        if 2 * log_scale + math.log(2) >= 0:
            raise InputError(
                f'route="utilities" needs a scale below 1/sqrt(2), where neurons have norm 1, got {scale!r}.'
            )
        path = follow_utilities(data, log_scale)
        factor = 1.0 if scale is not None else -1 / log_scale
    return DiagonalPrediction(
        times=path.times * factor,
        levels=np.array([data.loss(beta) for beta in path.saddles]),
        order=tuple(" ".join(label(*entry) for entry in entries) for entries in path.entering),
        time_unit=LIMIT_TIME if scale is None and init is None else FLOW_TIME,
        model="diagonal linear network",
        notes=_notes(path, scale),
        saddles=path.saddles,
        accumulated=path.accumulated,
        entering=path.entering,
        leaving=path.leaving,
        scale=scale,
    )


def require_scale(scale: Any) -> float:
    """Check the scale of a start.

    Args:
        scale: what came.

    Returns:
        A number above 0 and below 1.

    Raises:
        InputError: for anything else.
    """
    number = float(as_array("scale", scale, 0))
    if not 0 < number < 1:
        raise InputError(
            f"scale must lie above 0 and below 1 (from 0 nothing is ever learned; from 1 nothing is small), got {scale!r}."
        )
    return number


def label(coordinate: int, sign: float) -> str:
    """Name a coordinate that is learned.

    Args:
        coordinate: its index.
        sign: of its coefficient.

    Returns:
        Such as ``"+3"``.
    """
    return f"{'-' if sign < 0 else '+'}{coordinate}"


def _bounds(dim: int, init: tuple[Any, Any]) -> tuple[np.ndarray, np.ndarray]:
    try:
        first, second = init
    except (TypeError, ValueError) as error:
        raise InputError(f"init must be two arrays, u and v at the start, got {type(init).__name__}.") from error
    u, v = as_array("u of init", first, 1), as_array("v of init", second, 1)
    if u.shape != (dim,) or v.shape != (dim,):
        raise InputError(f"u and v of init must have shape ({dim},), got {u.shape} and {v.shape}.")
    with np.errstate(divide="ignore"):
        bounds = [math.log(2) / 2 - np.log(np.abs(part)) for part in (u + v, u - v)]
    if not (u.any() or v.any()):
        raise InputError("init is 0 everywhere: that is a saddle, which no flow ever leaves.")
    if min(part.min() for part in bounds) <= 0:
        raise InputError(
            "init is not small: u + v and u - v must stay below sqrt(2) in size, where neurons have norm 1 already."
        )
    return bounds[0], bounds[1]


def _notes(path: Path, scale: float | None) -> tuple[str, ...]:
    notes = [
        f"Jump {index + 1}: {', '.join(map(str, gone))} leave{'s' if len(gone) == 1 else ''} again."
        for index, gone in enumerate(path.leaving)
        if gone
    ]
    if scale is not None and scale > 0.1:
        notes.append(
            f"The scale {scale:g} is not small: expect errors of order 1/|log scale| in times, and blurred levels."
        )
    return tuple(notes)
