"""What a fit of a spring chain says: parameters with intervals, what is identified, how well the chain explains the curves."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import xarray as xr

from learnmech.monitor.instrument import Figure
from learnmech.springs.chain import SpringChain
from learnmech.springs.regime import Reading
from learnmech.springs.twin_figure import draw_twin

_LABELS = {
    "effective_friction": "effective friction",
    "bias": "bias (mu+ - mu-)/2",
    "mobility": "mobility",
    "friction_forward": "friction forward mu+",
    "friction_backward": "friction backward mu-",
    "noise": "noise",
    "time_scale": "time scale",
}


@dataclass(frozen=True)
class Estimate:
    """A fitted number.

    Attributes:
        value: the best fit.
        error: standard error, NaN where the interval has an open end and a symmetric error would mislead.
        low: lower end of the 95 % interval; 0 where everything down to 0 fits.
        high: upper end; infinite where everything up to the largest value tried fits.
        identified: whether the interval is narrow. For friction, noise, time scale and mobility: closed, with ends within a
            factor of 5, or (friction and noise) at most 0.1 even forces wide. For the effective friction and the bias, which
            have a sign: at most twice as wide as the value, or 0.2 even forces.
    """

    value: float
    error: float
    low: float
    high: float
    identified: bool

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True)
class Goodness:
    """How well the chain explains the contributions, next to models without dynamics.

    Attributes:
        r_squared: share of the variance of the contributions (about their overall mean) that the chain explains; it is
            below 0 where the chain is worse than that mean.
        even: the same for equal contributions of all layers (a straight load curve), which has no free parameter.
        constant_shares: the same for shares of the total that differ between layers but not in time, the best ones; as
            many free parameters as there are blocks. Where this explains more, the chain's motion explains nothing.
        rms_contribution: root mean square residual of the contributions, in units of load (nats).
        rms_load: the same of the loads of the blocks.
        observations: number of contributions fitted.
        effective: number of independent observations that they amount to (chains, if there are at least 8).
    """

    r_squared: float
    even: float
    constant_shares: float
    rms_contribution: float
    rms_load: float
    observations: int
    effective: float


@dataclass(frozen=True)
class ChainFit:
    r"""A spring chain fitted to load curves. Print it to read it.

    Attributes:
        parameters: friction forward and backward and noise, in ``force_unit`` (of k); and the time scale
            :math:`\tau`, chain times a step.
        combinations: what the curves may determine where they do not determine the parameters: the effective friction
            at the end (k times the slope of the fitted contributions over layers: positive for concave curves), the bias
            :math:`m = (\mu_+ - \mu_-)/2` that it tends to under noise, and the mobility
            :math:`\tau\,2\Phi(-M/\bar\epsilon)`, how fast the chain yields once near rest under noise.
        measured_friction: k times the slope of the measured contributions at the end.
        force_unit: ``share of the total drop`` or ``load``.
        even_force: tension of a spring if all layers contribute the same at the end: what forces compare with.
        reading: regime of the fitted curve at the end.
        measured_reading: regime of the measured one.
        goodness: how well it fits.
        curves: fitted and measured loads and contributions, a history.
        chain: the fitted chain; it moves in chain time, ``time_scale`` times the step.
        warnings: what a reader must know, one sentence each.
    """

    parameters: Mapping[str, Estimate]
    combinations: Mapping[str, Estimate]
    measured_friction: float
    force_unit: str
    even_force: float
    reading: Reading
    measured_reading: Reading
    goodness: Goodness
    curves: xr.Dataset = field(repr=False)
    chain: SpringChain
    warnings: tuple[str, ...]

    @property
    def identified(self) -> dict[str, bool]:
        """Which parameters and combinations the curves determine."""
        return {name: estimate.identified for name, estimate in {**self.combinations, **self.parameters}.items()}

    def __str__(self) -> str:
        good = self.goodness
        lines = [
            f"Twin: a chain of {self.chain.blocks} blocks, fitted from {_range(self.curves)}",
            f"  fitted curve {self.reading.regime}, measured {self.measured_reading.regime}",
            f"  explains {_percent(good.r_squared)} of the contributions (constant shares {_percent(good.constant_shares)}, "
            f"even shares {_percent(good.even)}); rms residual {good.rms_load:.3g} in the load",
            f"  forces in units of the {self.force_unit}; an even share is {self.even_force:.3g}",
            "",
            f"  {'':24}{'value':>9}  {'95 % interval':<22}identified",
        ]
        for name, estimate in {**self.combinations, **self.parameters}.items():
            interval = f"[{estimate.low:.3g}, {estimate.high:.3g}]"
            lines.append(
                f"  {_LABELS[name]:24}{estimate.value:>9.3g}  {interval:<22}{'yes' if estimate.identified else 'no'}"
            )
        return "\n".join([*lines, *(["", *(f"- {text}" for text in self.warnings)] if self.warnings else [])])

    def figure(self) -> Figure:
        """Draw measured and fitted load curves at several moments, and the contributions of all layers over time.

        Returns:
            The figure; its ``plot`` is a plotly figure.
        """
        return draw_twin(self.curves)


def _range(curves: xr.Dataset) -> str:
    axis = "time" if "time" in curves.dims else "step"
    moments = curves[axis].values
    return f"{axis} {moments[0]:g} to {moments[-1]:g} ({len(moments)} curves)"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share < 0.995 or share == 1 else f"{100 * share:.2f} %"
