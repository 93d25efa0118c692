"""What training a leaky ResNet gives."""

import dataclasses
from typing import Literal

import torch
from torch import Tensor

StopReason = Literal["done", "interrupted", "diverged"]
RESIDUAL_LIMIT = 0.25


@dataclasses.dataclass(frozen=True, eq=False)
class LeakyTraining:
    """The end of a training run; the net itself holds the weights.

    Attributes:
        cost: J at the end, in float64.
        data_cost: C at the end.
        residuals: stationarity residual of each layer (layers,), see :func:`learnmech.leaky.stationarity`.
        costs: J over the Adam steps of ``cost_steps``.
        cost_steps: at which Adam steps J was recorded.
        adam_steps: Adam steps taken.
        polish_iterations: iterations of L-BFGS taken.
        stopped_because: ``done``, ``interrupted`` (Ctrl-C) or ``diverged`` (the net holds the last weights of finite cost).
        collapsed: whether the net trained to zero: its weights carry no direction through the depth, and its outputs are no
            better than those of a net without weights. The effective depth times the penalty is too large, or the start too
            small (``init="torch"`` at a large effective depth).
        seconds: wall time; in a stack, of the whole stack for Adam and of this net for L-BFGS.
    """

    cost: float
    data_cost: float
    residuals: Tensor
    costs: tuple[float, ...]
    cost_steps: tuple[int, ...]
    adam_steps: int
    polish_iterations: int
    stopped_because: StopReason
    collapsed: bool
    seconds: float

    @property
    def residual(self) -> float:
        """The median of the layers' stationarity residuals."""
        return float(torch.quantile(self.residuals, 0.5))

    @property
    def stationary(self) -> bool:
        """Whether the median residual is below 0.25; above it Hamiltonians and effective dimensions are not to be trusted."""
        return self.residual < RESIDUAL_LIMIT

    def __str__(self) -> str:
        """Say how it ended, in a line."""
        state = "collapsed to zero" if self.collapsed else "stationary" if self.stationary else "NOT stationary"
        return (
            f"{self.stopped_because}: cost {self.cost:.6g} (data {self.data_cost:.6g}) after {self.adam_steps} Adam steps and "
            f"{self.polish_iterations} of L-BFGS, median residual {self.residual:.2g}: {state}"
        )
