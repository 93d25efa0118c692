"""What the three equations of motion share: the state of many chains side by side, and the elastic force on it."""

import abc

import torch
from jaxtyping import Float
from torch import Tensor


class ChainStepper(abc.ABC):
    """Many chains side by side that move together, step by step, in place.

    The chains lie along the last, contiguous axis, so that each step is a handful of long vector operations. Parameters
    are numbers, or tensors with one entry a chain.

    Args:
        positions: start of the blocks; copied.
        stiffness: spring constant.
        target: position of the wall.
        friction_forward: friction against motion to the right.
        friction_backward: friction against motion to the left.
        dt: time step.
        damping: viscous damping a unit mass, for dynamics with inertia.

    Attributes:
        positions: where the blocks are now.
    """

    def __init__(
        self,
        positions: Float[Tensor, "blocks chains"],
        *,
        stiffness: float | Float[Tensor, " chains"],
        target: float | Float[Tensor, " chains"],
        friction_forward: float | Float[Tensor, " chains"],
        friction_backward: float | Float[Tensor, " chains"],
        dt: float,
        damping: float | Float[Tensor, " chains"] = 0.0,
    ):
        blocks, chains = positions.shape
        whole = positions.new_zeros(blocks + 2, chains)
        whole[1:-1] = positions
        whole[-1] = target
        self.positions = whole[1:-1]
        self._before, self._after = whole[:-2], whole[2:]
        self._drive, self._held = torch.empty_like(positions), torch.empty_like(positions)
        self._stiffness, self._dt, self._damping = stiffness, dt, damping
        self._most, self._least = (  # one entry a chain: a tensor without axes would keep clamp from vectorising
            torch.as_tensor(value, dtype=positions.dtype).expand(chains).clone()
            for value in (friction_forward, -friction_backward)
        )

    def _pull(
        self, draws: Float[Tensor, "rows chains"] | None, level: float | Float[Tensor, " chains"]
    ) -> Float[Tensor, "blocks chains"]:
        """Compute the elastic and random force on each block, divided by the stiffness, before any block moves."""
        drive = torch.add(self._before, self._after, out=self._drive).add_(self.positions, alpha=-2)
        return drive if draws is None else add_scaled(drive, draws, level)

    @abc.abstractmethod
    def step(
        self, draws: Float[Tensor, "rows chains"] | None = None, level: float | Float[Tensor, " chains"] = 0.0
    ) -> None:
        """Move all chains by one time step.

        Args:
            draws: noise of unit size, one row for each block or one for all; None without noise.
            level: random force for a draw of 1, divided by the stiffness.
        """


def add_scaled(
    total: Float[Tensor, "blocks chains"], part: Float[Tensor, "rows chains"], factor: float | Float[Tensor, " chains"]
) -> Float[Tensor, "blocks chains"]:
    """Add a part times a factor to a total, in place and in one pass."""
    if isinstance(factor, Tensor):
        return total.addcmul_(part, factor)
    return total.add_(part, alpha=factor)
