"""From the time of a gradient flow to steps of an optimizer, and from half the mean squared error to the user's loss."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.errors import InputError

_SAME = 1e-6


@dataclass(frozen=True)
class Clock:
    r"""How training counts time and loss.

    Attributes:
        loss_factor: the user's loss over half the mean squared error: 2 / c for ``MSELoss`` with c outputs.
        optimizer: in words.
        exact: whether steps are those of a gradient flow up to their size: no weight decay, one rate, no preconditioner; None if not known.
        learning_rate: of SGD; NaN if none is known, or for an optimizer for which there is no such number.
        momentum: b.
        dampening: d, of the momentum.
        nesterov: whether the momentum is Nesterov's.
    """

    loss_factor: float
    optimizer: str
    exact: bool | None
    learning_rate: float = math.nan
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False

    @property
    def counts_steps(self) -> bool:
        """Whether time can be converted to steps."""
        return math.isfinite(self.learning_rate)

    @property
    def rate(self) -> float:
        r"""Time of the flow of half the mean squared error in one small step, :math:`\eta\,c\,(1-d)/(1-b)`, c the loss factor."""
        return self.learning_rate * self.loss_factor * (1 - self.dampening) / (1 - self.momentum)

    def steps(
        self, times: Float[np.ndarray, " jumps"], growths: Float[np.ndarray, " jumps"]
    ) -> Float[np.ndarray, " jumps"]:
        r"""Convert times to steps, with the size of the steps.

        What grows as :math:`e^{\sigma t}` in the flow grows by :math:`1 + \eta c\sigma` in a step of gradient descent, and with
        momentum by the largest eigenvalue :math:`\rho` of

        .. math::
            \begin{pmatrix} v \\ \theta\end{pmatrix} \leftarrow
            \begin{pmatrix} b & (1-d)x \\ b & 1 + (1-d)x\end{pmatrix}
            \begin{pmatrix} v \\ \theta\end{pmatrix}, \qquad x = \eta c\sigma,

        (Nesterov's adds what it should), after a beginning without velocity that leaves the share a of it:
        :math:`k = (\sigma t - \log a)/\log\rho`. Derived here. With small x it is t over :attr:`rate`; with b = 0.9 and a growth of 4 % a step
        it is 30 % more.

        Args:
            times: of the flow.
            growths: rate at which what is learned at each grows on the way there; 0 where it is not known, or not exponential.

        Returns:
            Steps; not whole numbers.
        """
        steps = times / self.rate
        for jump, (time, growth) in enumerate(zip(times.tolist(), growths.tolist(), strict=True)):
            if growth > 0 and math.isfinite(time):
                factor, share = self._growth(growth)
                steps[jump] = (growth * time - math.log(share)) / math.log(factor)
        return steps

    def _growth(self, growth: float) -> tuple[float, float]:
        """Growth in a step when it has settled, and the share of the start that settles into it."""
        pull, keep = self.learning_rate * self.loss_factor * growth, self.momentum
        if keep == 0:
            return 1 + pull, 1.0
        velocity = np.array([keep, (1 - self.dampening) * pull])
        update = pull * np.array([0.0, 1.0]) + keep * velocity if self.nesterov else velocity
        step = np.stack([velocity, np.array([0.0, 1.0]) + update])
        values, vectors = np.linalg.eig(step)
        largest = int(np.argmax(values.real))
        # torch begins with velocity = gradient, without dampening
        first = np.array([pull, 1.0 + (pull * (1 + keep) if self.nesterov else pull)])
        parts = np.linalg.solve(vectors, first)
        share = float((parts[largest] * vectors[1, largest]).real)
        return float(values[largest].real), share / float(values[largest].real)


def read_loss(loss: Callable[[Tensor, Tensor], Tensor] | None, shape: tuple[int, ...]) -> float:
    """Measure how a loss compares with half the mean squared error.

    Args:
        loss: of outputs and targets; ``torch.nn.MSELoss()`` if None.
        shape: of the targets, samples first.

    Returns:
        The factor.

    Raises:
        InputError: if the loss is not a multiple of it.
    """
    loss = torch.nn.MSELoss() if loss is None else loss
    draws = torch.Generator().manual_seed(0)
    factors = []
    for size in (1.0, 3.0, 0.2):
        outputs, targets = (size * torch.randn(shape, generator=draws, dtype=torch.float64) for _ in range(2))
        half = (outputs - targets).square().sum() / (2 * shape[0])
        try:
            value = loss(outputs, targets)
        except Exception as error:
            raise InputError(
                f"the loss does not take outputs and targets of shape {shape}: {type(error).__name__}: {error}."
            ) from error
        factors.append(float(value) / float(half))
    middle = factors[0]
    if not (math.isfinite(middle) and middle > 0 and all(abs(one / middle - 1) < _SAME for one in factors)):
        raise InputError(
            "the theory is for squared losses: the loss must be a multiple of the squared error, such as torch.nn.MSELoss(); "
            "this one is not."
        )
    return middle


def read_clock(optimizer: Any, learning_rate: float | None, momentum: float, loss_factor: float) -> Clock:
    """Read how far one step goes along the flow.

    Args:
        optimizer: of torch, or None.
        learning_rate: if there is no optimizer; None if it is not known.
        momentum: likewise.
        loss_factor: of the loss.

    Returns:
        The clock.

    Raises:
        InputError: for numbers out of range, both ways of giving them, or an optimizer that climbs.
    """
    if optimizer is None:
        if learning_rate is None:
            return Clock(loss_factor, "not given: times are those of the flow", None)
        if not (math.isfinite(learning_rate) and learning_rate > 0 and 0 <= momentum < 1):
            raise InputError(
                f"learning_rate must be positive and momentum in [0, 1), got {learning_rate!r} and {momentum!r}."
            )
        words = f"SGD, lr {learning_rate:g}, momentum {momentum:g}"
        return Clock(loss_factor, words, True, float(learning_rate), float(momentum))
    if learning_rate is not None:
        raise InputError("give the optimizer or a learning rate, not both.")
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InputError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}.")
    kind = type(optimizer).__name__
    groups = optimizer.param_groups
    if any(group.get("maximize", False) for group in groups):
        raise InputError("the optimizer maximises the loss: nothing is learned that the theory knows of.")
    if not isinstance(optimizer, torch.optim.SGD):
        words = f"{kind}: its steps follow no gradient flow, so only order and levels are predicted"
        return Clock(loss_factor, words, False)
    settings = {
        (float(group["lr"]), float(group["momentum"]), float(group["dampening"]), bool(group["nesterov"]))
        for group in groups
    }
    if len(settings) > 1:
        return Clock(loss_factor, "SGD with groups of different rates: no common clock", False)
    lr, keep, dampening, nesterov = settings.pop()
    if not (math.isfinite(lr) and lr > 0 and 0 <= keep < 1):
        raise InputError(
            f"the optimizer's learning rate must be positive and its momentum in [0, 1), got {lr!r}, {keep!r}."
        )
    decay = max(float(group["weight_decay"]) for group in groups)
    words = f"SGD, lr {lr:g}, {'Nesterov ' if nesterov else ''}momentum {keep:g}"
    words += f", weight decay {decay:g}, which is not in the theory" if decay else ""
    return Clock(loss_factor, words, decay == 0, lr, keep, dampening if keep else 0.0, nesterov)
