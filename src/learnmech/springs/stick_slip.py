"""Second-order dynamics of a chain with dry friction and a static branch, noise inside the friction."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.springs.langevin import Langevin
from learnmech.springs.stepping import add_scaled


class StickSlip(Langevin):
    r"""Blocks of unit mass that stick until the whole force, noise included, exceeds the friction.

    With :math:`F = f - \gamma v + \bar\epsilon\,\xi`: :math:`\dot v = F - \mu_+` for v > 0, :math:`F + \mu_-` for v < 0 and
    :math:`S(F)` for v = 0; static and sliding friction are equal. Source: Shi, Pan, Dokmanić 2024 (arXiv 2407.19353),
    Eqs. 10-11. A block whose velocity would change its sign within a step stops there and faces the static test in the
    next step:

    .. math:: v' = v + \Delta t\,\dot v, \qquad v' \leftarrow 0 \text{ if } v' v < 0, \qquad x \leftarrow x + \Delta t\,v'

    That is the step of :class:`~learnmech.springs.langevin.Langevin` plus the stop. Rest is that of the first-order chain
    if the damping is large enough to prevent oscillation; under-damped chains overshoot and rest elsewhere.

    Example:
        >>> chain = StickSlip(
        ...     torch.zeros(1, 1), stiffness=1.0, target=0.1, friction_forward=0.2, friction_backward=0.2, dt=0.1
        ... )
        >>> chain.step()
        >>> float(chain.positions)
        0.0
    """

    def __init__(self, positions: Float[Tensor, "blocks chains"], **parameters: Any):
        super().__init__(positions, **parameters)
        self._next = torch.empty_like(positions)

    def step(
        self, draws: Float[Tensor, "rows chains"] | None = None, level: float | Float[Tensor, " chains"] = 0.0
    ) -> None:
        """Move all chains by one time step.

        Args:
            draws: noise of unit size.
            level: random force for a draw of 1, divided by the stiffness.
        """
        pull = self._pull(draws, level)
        advance = add_scaled(torch.mul(self._advance, self._kept, out=self._next), pull, self._gain)
        advance.sub_(torch.clamp(advance, self._least, self._most, out=self._held))
        reverses = torch.mul(advance, self._advance, out=self._held) < 0
        advance.masked_fill_(reverses, 0.0)
        self._advance, self._next = advance, self._advance
        self.positions.add_(advance)
