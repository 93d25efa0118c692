"""Second-order dynamics of a chain with dry friction, noise outside the friction."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.springs.stepping import ChainStepper, add_scaled


class Langevin(ChainStepper):
    r"""Blocks of unit mass with damping; friction opposes the velocity, noise acts on the velocity.

    .. math::
        dv = (f - \gamma v - \mu(v))\,dt + \epsilon e^{-\lambda t}\,dW, \qquad dx = v\,dt, \qquad
        \mu(v) = \mu_+ \;(v > 0),\; -\mu_- \;(v < 0)

    Source: Shi, Pan, Dokmanić 2024 (arXiv 2407.19353), Eqs. 12-13. Their notebook integrates it with an explicit sign
    function, which chatters and creeps for large steps, and gives the "same noise" of all blocks :math:`\sqrt L` times its
    nominal strength. Here friction is implicit (a proximal step), so that blocks come to rest exactly:

    .. math::
        v^* = v + \Delta t\,(f - \gamma v + \bar\epsilon\,\xi), \qquad
        v \leftarrow v^* - \mathrm{clip}(v^*, -\Delta t\,\mu_-, \Delta t\,\mu_+), \qquad x \leftarrow x + \Delta t\,v

    The random force :math:`\bar\epsilon\,\xi` is held for one step, so :math:`\epsilon = \bar\epsilon\sqrt{\Delta t}`.

    Example:
        A block at rest stays at rest under a force below its friction:

        >>> chain = Langevin(
        ...     torch.zeros(1, 1), stiffness=1.0, target=0.1, friction_forward=0.2, friction_backward=0.2, dt=0.1
        ... )
        >>> chain.step()
        >>> float(chain.positions)
        0.0
    """

    def __init__(self, positions: Float[Tensor, "blocks chains"], **parameters: Any):
        super().__init__(positions, **parameters)
        self._advance = torch.zeros_like(positions)  # velocity times dt
        self._kept = 1 - self._dt * self._damping
        self._gain = self._dt**2 * self._stiffness
        self._most *= self._dt**2
        self._least *= self._dt**2

    def step(
        self, draws: Float[Tensor, "rows chains"] | None = None, level: float | Float[Tensor, " chains"] = 0.0
    ) -> None:
        """Move all chains by one time step.

        Args:
            draws: noise of unit size.
            level: random force for a draw of 1, divided by the stiffness.
        """
        advance = add_scaled(self._advance.mul_(self._kept), self._pull(draws, level), self._gain)
        advance.sub_(torch.clamp(advance, self._least, self._most, out=self._held))
        self.positions.add_(advance)
