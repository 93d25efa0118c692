"""Random forces on the blocks of a chain: four kinds, drawn in blocks of steps."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.springs.friction import TRUNCATION, NoiseKind, check_noise_kind

DRAWN_AT_ONCE = 2**16
"""About how many numbers are drawn at once: few enough for the cache, many enough to hide the cost of a call."""


class SpringNoise:
    r"""A stream of independent draws :math:`\xi` for every step, block and chain.

    ``gaussian`` N(0, 1); ``truncated`` N(0, 1) under the condition :math:`|\xi| \le 2`, by inversion; ``uniform`` on
    [-1, 1]; ``two_point`` +1 or -1. Drawn in single precision, which costs a third of double and whose grain of 6e-8 lies
    far below any statistical error; Gaussian draws end at 5.8 for that reason.

    Args:
        kind: distribution.
        rows: draws a chain and step: one for each block, or one for all blocks.
        chains: number of chains side by side.
        seed: numbers that name the stream; the same ones give the same draws.

    Raises:
        InputError: for an unknown kind.

    Example:
        >>> SpringNoise("two_point", rows=1, chains=3, seed=(0,)).draw()[0].abs()
        tensor([[1., 1., 1.]])
    """

    def __init__(self, kind: NoiseKind, rows: int, chains: int, seed: tuple[int, ...]):
        check_noise_kind(kind)
        self.kind = kind
        state = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
        self._generator = torch.Generator().manual_seed(int(state >> np.uint64(1)))
        self._draws = torch.empty(max(1, min(1024, DRAWN_AT_ONCE // (rows * chains))), rows, chains)

    def draw(self) -> Float[Tensor, "steps rows chains"]:
        """Draw for the next steps.

        Returns:
            Draws for as many steps as are made at once, always the same number; they hold until the next call.
        """
        draws = self._draws
        if self.kind == "gaussian":
            return draws.normal_(generator=self._generator)
        draws.uniform_(-1.0, 1.0, generator=self._generator)
        if self.kind == "two_point":
            torch.ge(draws, 0.0, out=draws).mul_(2.0).sub_(1.0)
        elif self.kind == "truncated":
            # uniform between the quantiles of +-TRUNCATION, through the inverse of the normal distribution function
            draws.mul_(math.erf(TRUNCATION / math.sqrt(2))).erfinv_().mul_(math.sqrt(2)).clamp_(-TRUNCATION, TRUNCATION)
        return draws
