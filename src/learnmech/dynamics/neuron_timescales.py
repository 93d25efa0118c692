"""How fast a linear neuron changes its size and its direction, exactly and in the limits of the balance."""

import math
from dataclasses import dataclass
from typing import Literal

from learnmech.dynamics.neuron_solution import radical

Regime = Literal["upstream", "balanced", "downstream"]


@dataclass(frozen=True)
class Timescales:
    r"""Speeds of the product :math:`\beta = aw` along itself and across, at one size of it.

    :math:`|\beta|' = -k\,\hat\beta\cdot X^T\rho` and
    :math:`\hat\beta' = -\frac{k + \delta}{2|\beta|}(I - \hat\beta\hat\beta^T) X^T\rho`: a speed is what stands before the
    gradient. Source: Kunin et al. 2024 (arXiv 2406.06158), the single linear neuron.

    Attributes:
        regime: the row of the table that was taken for the limits.
        radial_speed: k.
        directional_speed: ``(k + delta) / (2 |beta|)``; infinite at beta = 0 unless delta < 0.
        radial_limit: of the table: ``|delta|`` for a large ``|delta|``, ``2 sqrt(eta_a eta_w) |beta|`` for delta = 0.
        directional_limit: of the table: ``delta / |beta|`` upstream, sqrt(eta_a eta_w) balanced, and
            ``eta_a eta_w |beta| / |delta|`` downstream.
        radial_time: 1 / (c k): near the target the size relaxes as exp(-t / radial_time).
        directional_time: ``1 / (c directional_speed |target|)``: near the target the angle relaxes as exp(-t / directional_time).
    """

    regime: Regime
    radial_speed: float
    directional_speed: float
    radial_limit: float
    directional_limit: float
    radial_time: float
    directional_time: float


def name_regime(delta: float, product: float) -> Regime:
    r"""Name the balance of the layers.

    The names are the paper's; where one begins is ours: balanced means :math:`|\delta| < 2\sqrt{\eta_a\eta_w}|\beta_*|`, so that
    the data, and not the start, decide most of :math:`k`.

    Args:
        delta: the balance.
        product: :math:`\sqrt{\eta_a\eta_w}|\beta_*|`.

    Returns:
        ``upstream`` (delta above), ``balanced`` or ``downstream``.
    """
    if delta != 0 and abs(delta) >= 2 * product:
        return "upstream" if delta > 0 else "downstream"
    return "balanced"


def find_timescales(delta: float, rate: float, size: float, target: float, scale: float) -> Timescales:
    r"""Compute the speeds at a size of the product.

    Args:
        delta: the balance.
        rate: :math:`\sqrt{\eta_a\eta_w}`.
        size: :math:`|\beta|`.
        target: :math:`|\beta_*|`.
        scale: c.

    Returns:
        The speeds.
    """
    regime = name_regime(delta, rate * size)
    k, _, plus = radical(delta, rate * size)
    directional = plus / 2 / size if size > 0 else math.inf if delta > 0 else rate if delta == 0 else 0.0
    limits = {
        "upstream": (abs(delta), _ratio(delta, size)),
        "balanced": (2 * rate * size, rate),
        "downstream": (abs(delta), _ratio(rate * rate * size, abs(delta))),
    }
    return Timescales(
        regime,
        k,
        directional,
        *limits[regime],
        radial_time=_ratio(1.0, scale * k),
        directional_time=_ratio(1.0, scale * directional * target),
    )


def _ratio(above: float, below: float) -> float:
    if below == 0:
        return math.inf
    return above / below
