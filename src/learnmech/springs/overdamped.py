"""First-order dynamics of a chain with dry friction."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.springs.stepping import ChainStepper, add_scaled


class Overdamped(ChainStepper):
    r"""Blocks without inertia; the noise acts inside the friction threshold.

    .. math:: x_i \leftarrow x_i + \eta\, S(f_i + \bar\epsilon\,\xi_i), \qquad S(z) = z - \mathrm{clip}(z, -\mu_-, \mu_+)

    All blocks move together from their old positions. Source: Shi, Pan, Dokmanić 2024 (arXiv 2407.19353), Eq. 5, as their
    ``first_order_iteration`` codes it, where :math:`\bar\epsilon = \epsilon/\sqrt\eta`. Without noise it moves blocks
    monotonically for :math:`\eta k \le 1/2`.

    Example:
        >>> chain = Overdamped(
        ...     torch.zeros(1, 1), stiffness=1.0, target=1.0, friction_forward=0.2, friction_backward=0.0, dt=0.5
        ... )
        >>> chain.step()
        >>> float(chain.positions)  # half of the force 1 less the friction 0.2
        0.4000000059604645
    """

    def __init__(self, positions: Float[Tensor, "blocks chains"], **parameters: Any):
        super().__init__(positions, **parameters)
        self._gain = self._dt * self._stiffness
        self._most /= self._stiffness
        self._least /= self._stiffness

    def step(
        self, draws: Float[Tensor, "rows chains"] | None = None, level: float | Float[Tensor, " chains"] = 0.0
    ) -> None:
        """Move all chains by one time step.

        Args:
            draws: noise of unit size.
            level: random force for a draw of 1, divided by the stiffness.
        """
        drive = self._pull(draws, level)
        drive.sub_(torch.clamp(drive, self._least, self._most, out=self._held))
        add_scaled(self.positions, drive, self._gain)
