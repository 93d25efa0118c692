"""The model behind the twin: a chain in the drift model, its parameters as logarithms, and what can be read off them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr

from learnmech.springs.drift import mean_positions
from learnmech.springs.twin_curves import MeasuredCurves

Forces = Literal["share", "load"]
Box: TypeAlias = tuple[Float[np.ndarray, " parameters"], Float[np.ndarray, " parameters"]]
"""Lower and upper bounds of the logarithms of the parameters."""

FRICTION_RANGE = (1e-3, 20.0)
"""Smallest and largest friction that is tried, in units of the even force; below the smallest it acts like none."""
NOISE_RANGE = (1e-3, 50.0)
"""The same for the noise."""
_TIME_SCALE_RANGE = (1e-2, 1e3)  # in units of one relaxation time of the slowest mode over the whole history
Range: TypeAlias = tuple[float, float]
_TOLERANCE = 1e-5
_MAX_CELLS = 600  # rows solved together


@dataclass(frozen=True)
class TwinModel:
    r"""Contributions that a chain predicts, as a function of the logarithms of its parameters.

    With :math:`\tau` chain times a step, :math:`dx_l/dt = \tau\,g(k(x_{l+1} - 2x_l + x_{l-1}))`, from the measured
    positions at the first moment. Forces are in units of the total drop of the load at each moment (``share``: the wall stands
    at 1, and the predicted contributions are multiplied by the measured total) or in units of the load (``load``: the wall
    is driven along the measured total).

    Attributes:
        curves: what was measured.
        forces: unit of forces.
        stiffness: spring constant k.
        fixed_time_scale: chain time a unit of the history's axis, or None if it is fitted.
    """

    curves: MeasuredCurves
    forces: Forces
    stiffness: float
    fixed_time_scale: float | None

    @property
    def names(self) -> tuple[str, ...]:
        """The fitted parameters in order."""
        known = ("friction_forward", "friction_backward", "noise")
        return known if self.fixed_time_scale is not None else (*known, "time_scale")

    @property
    def blocks(self) -> int:
        """Number of blocks: layers between the input and the wall."""
        return len(self.curves.layers) - 1

    @property
    def amount(self) -> Float[np.ndarray, " moments"]:
        """What predicted elongations are multiplied by."""
        total = self.curves.total
        return total if self.forces == "share" else np.ones_like(total)

    @property
    def even_force(self) -> float:
        """Tension of a spring if all layers contribute the same at the end: the natural unit of force."""
        last = 1.0 if self.forces == "share" else float(self.curves.total[-1])
        return self.stiffness * last / len(self.curves.layers)

    @property
    def resolution(self) -> float:
        """What predicted contributions are good to: two thousandths of an even contribution.

        The simulation's step, the solver, and the smallest noise that is tried each make errors of this order.
        """
        return 2e-3 * float(np.mean(self.curves.total)) / len(self.curves.layers)

    @property
    def slowest_rate(self) -> float:
        """Relaxation rate of the slowest mode without friction, a chain time."""
        return float(self.stiffness * 2 * (1 - np.cos(np.pi / (self.blocks + 1))))

    def bounds(self) -> Box:
        """Give the box that is searched.

        Returns:
            Lower and upper bounds of the logarithms.
        """
        return self._box(FRICTION_RANGE, NOISE_RANGE, _TIME_SCALE_RANGE)

    def start_box(self) -> Box:
        """Give the smaller box in which the search starts, where each parameter makes a difference.

        Returns:
            Lower and upper bounds of the logarithms.
        """
        return self._box((0.02, 2.0), (0.03, 5.0), (0.3, 30.0))

    def _box(self, friction: Range, noise: Range, time_scale: Range) -> Box:
        span = float(self.curves.times[-1] - self.curves.times[0])
        natural = 1 / (self.slowest_rate * span)
        # Beyond two relaxation times between two moments the chain is at rest at each, and little tells how fast it is.
        fastest = max(2 / (self.slowest_rate * float(np.median(np.diff(self.curves.times)))), 10 * natural)
        force = self.even_force
        ranges = [
            *[(force * friction[0], force * friction[1])] * 2,
            (force * noise[0], force * noise[1]),
            (natural * time_scale[0], min(natural * time_scale[1], fastest)),
        ][: len(self.names)]
        low, high = np.log(np.array(ranges)).T
        return low, high

    def values(self, logarithms: Float[np.ndarray, "rows parameters"]) -> dict[str, Float[np.ndarray, " rows"]]:
        """Turn logarithms into parameters.

        Args:
            logarithms: rows of parameters.

        Returns:
            Friction forward and backward, noise and time scale, each one a row.
        """
        numbers = np.exp(logarithms)
        values = {name: numbers[:, place] for place, name in enumerate(self.names)}
        if self.fixed_time_scale is not None:
            values["time_scale"] = np.full(len(numbers), self.fixed_time_scale)
        return values

    def predict(self, logarithms: Float[np.ndarray, "rows parameters"]) -> Float[np.ndarray, "rows moments layers"]:
        """Predict the contributions at all moments.

        Args:
            logarithms: rows of parameters.

        Returns:
            Contributions in units of load; at the first moment the measured ones.
        """
        if len(logarithms) > _MAX_CELLS:
            parts = [logarithms[k : k + _MAX_CELLS] for k in range(0, len(logarithms), _MAX_CELLS)]
            return np.concatenate([self.predict(part) for part in parts])
        values = self.values(logarithms)
        tau, times, total = values["time_scale"], self.curves.times, self.curves.total
        positions = np.cumsum(self.curves.contributions, axis=-1) / self.amount[:, None]
        moving = mean_positions(
            times,
            blocks=self.blocks,
            stiffness=tau * self.stiffness,
            target=1.0 if self.forces == "share" else (times, total),
            friction_forward=tau * values["friction_forward"],
            friction_backward=tau * values["friction_backward"],
            noise=tau * values["noise"],
            initial=positions[0, :-1],
            start=float(times[0]),
            tolerance=_TOLERANCE,
        )
        whole = np.zeros((*moving.shape[:-1], self.blocks + 2))
        whole[..., 1:-1] = moving
        whole[..., -1] = positions[:, -1]
        return np.asarray(np.diff(whole, axis=-1) * self.amount[:, None])

    def end_friction(self, contributions: Float[np.ndarray, "*rows layers"]) -> Float[np.ndarray, "*rows"]:
        r"""Compute the effective friction of contributions: k times the slope of :math:`d_l` over l, by least squares.

        Args:
            contributions: at the last moment, in units of load.

        Returns:
            The force that the springs leave on a block on average, in the unit of forces.
        """
        place = np.arange(contributions.shape[-1]) - (contributions.shape[-1] - 1) / 2
        return np.asarray(self.stiffness * (contributions / self.amount[-1]) @ place / np.sum(place**2))

    def quantities(self) -> dict[str, Callable[[Float[np.ndarray, "rows parameters"]], Float[np.ndarray, " rows"]]]:
        r"""Give what an interval is wanted for, each as a function of the logarithms.

        Returns:
            The logarithm of each parameter; the bias :math:`m = (\mu_+ - \mu_-)/2` in units of the even force; and the
            logarithm of the mobility :math:`\tau\,2\Phi(-M/\bar\epsilon)`, :math:`M = (\mu_+ + \mu_-)/2`.
        """

        def bias(logarithms: np.ndarray) -> np.ndarray:
            values = self.values(logarithms)
            return np.asarray((values["friction_forward"] - values["friction_backward"]) / 2 / self.even_force)

        def mobility(logarithms: np.ndarray) -> np.ndarray:
            values = self.values(logarithms)
            half = (values["friction_forward"] + values["friction_backward"]) / 2
            return np.asarray(np.log(values["time_scale"] * np.maximum(2 * ndtr(-half / values["noise"]), 1e-12)))

        single = {name: (lambda rows, place=place: rows[:, place]) for place, name in enumerate(self.names)}
        return {**single, "bias": bias, "mobility": mobility}
