"""SGD, Adam and AdamW of several members at once, each with rates of its own, which torch's own classes refuse."""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.training.config import TrainConfig

_BETAS, _EPSILON = (0.9, 0.999), 1e-8
_FUSED_TYPES = {torch.float32, torch.float64}


class StackedOptimizer:
    r"""Updates rows of weights as :func:`~learnmech.training.optimizers.build_optimizer` would update single models.

    On a CPU, torch's fused kernels run over the rows, one call for each run of members with equal rates: one pass over
    the memory, and bit for bit the update of the plain trainer for equal gradients. Elsewhere the rules are written out
    with the rates as columns (members, 1), so that the number of kernels does not grow with that of members:

    .. math::
        \text{SGD: } & b \leftarrow \mu b + g, \quad w \leftarrow w - \eta b; \\
        \text{Adam: } & m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \quad
        w \leftarrow w - \eta\,\frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon},

    with :math:`g + \lambda w` in place of g for weight decay :math:`\lambda`, but for AdamW, which multiplies w by
    :math:`1 - \eta\lambda` first. Source: Kingma and Ba, arXiv 1412.6980; Loshchilov and Hutter, arXiv 1711.05101.

    Args:
        configs: the settings, one a member; they agree in the optimizer.
        values: the weights, a row a member; updated in place.
        gradients: where their gradients will be.
        fused: whether to use torch's fused kernels; None for on a CPU.

    Example:
        >>> weights, configs = torch.zeros(2, 3), [TrainConfig(optimizer="sgd", lr=lr) for lr in (0.1, 1.0)]
        >>> StackedOptimizer(configs, weights, torch.ones(2, 3)).step()
        >>> weights[:, 0].tolist()
        [-0.10000000149011612, -1.0]
    """

    def __init__(
        self,
        configs: Sequence[TrainConfig],
        values: Float[Tensor, "members length"],
        gradients: Float[Tensor, "members length"],
        *,
        fused: bool | None = None,
    ) -> None:
        self._kind = configs[0].optimizer
        available = hasattr(torch, "_fused_adam_") and hasattr(torch, "_fused_adamw_") and hasattr(torch, "_fused_sgd_")
        suitable = available and values.device.type == "cpu" and values.dtype in _FUSED_TYPES
        self._fused = suitable if fused is None else fused
        self._steps = torch.zeros(())
        uses_momentum = self._kind == "sgd" and any(config.momentum for config in configs)
        count = {"sgd": int(uses_momentum)}.get(self._kind, 2)
        self._memory = [torch.zeros_like(values) for _ in range(count)]
        self._bind(configs, values, gradients)

    def step(self) -> None:
        """Update the weights; what the gradients hold afterwards is undefined."""
        self._steps += 1
        if self._fused:
            for run in self._runs:
                self._update_run(*run)
        elif self._kind == "sgd":
            self._update_sgd(self._values, self._gradients)
        else:
            self._update_adam(self._values, self._gradients)

    def keep(self, positions: Tensor, configs: Sequence[TrainConfig], values: Tensor, gradients: Tensor) -> None:
        """Drop all members but some.

        Args:
            positions: which to keep.
            configs: the settings of those kept.
            values: the weights of those kept.
            gradients: where the gradients of those kept will be.
        """
        self._memory = [rows[positions] for rows in self._memory]
        self._bind(configs, values, gradients)

    def _bind(self, configs: Sequence[TrainConfig], values: Tensor, gradients: Tensor) -> None:
        self._values, self._gradients = values, gradients
        self._runs: list[tuple[TrainConfig, list[list[Tensor]]]] = []
        start = 0
        for _, run in itertools.groupby(configs, lambda config: (config.lr, config.momentum, config.weight_decay)):
            members = list(run)
            stop = start + len(members)
            rows = [[block[start:stop].view(-1)] for block in (values, gradients, *self._memory)]
            self._runs.append((members[0], rows))
            start = stop

        def column(name: str) -> Tensor:
            rates = [getattr(config, name) for config in configs]
            return torch.tensor(rates, dtype=values.dtype, device=values.device)[:, None]

        self._lr, self._momentum, self._decay = column("lr"), column("momentum"), column("weight_decay")
        self._decays = any(config.weight_decay for config in configs)
        self._shrink = 1 - self._lr * self._decay

    def _update_run(self, config: TrainConfig, rows: list[list[Tensor]]) -> None:
        if self._kind == "sgd":
            torch._fused_sgd_(
                rows[0],
                rows[1],
                rows[2] if config.momentum else [],
                weight_decay=config.weight_decay,
                momentum=config.momentum,
                lr=config.lr,
                dampening=0.0,
                nesterov=False,
                maximize=False,
                is_first_step=bool(self._steps == 1),
            )
            return
        kernel = torch._fused_adamw_ if self._kind == "adamw" else torch._fused_adam_
        kernel(
            rows[0],
            rows[1],
            rows[2],
            rows[3],
            [],
            [self._steps],
            lr=config.lr,
            beta1=_BETAS[0],
            beta2=_BETAS[1],
            weight_decay=config.weight_decay,
            eps=_EPSILON,
            amsgrad=False,
            maximize=False,
        )

    def _update_sgd(self, values: Tensor, gradients: Tensor) -> None:
        if self._decays:
            gradients.addcmul_(values, self._decay)
        if self._memory:
            gradients = self._memory[0].mul_(self._momentum).add_(gradients)
        values.addcmul_(gradients, self._lr, value=-1)

    def _update_adam(self, values: Tensor, gradients: Tensor) -> None:
        first, second = self._memory
        steps = self._steps.item()
        if self._decays:
            if self._kind == "adamw":
                values.mul_(self._shrink)
            else:
                gradients.addcmul_(values, self._decay)
        first.lerp_(gradients, 1 - _BETAS[0])
        second.mul_(_BETAS[1]).addcmul_(gradients, gradients, value=1 - _BETAS[1])
        root = torch.sqrt(second, out=gradients).div_((1 - _BETAS[1] ** steps) ** 0.5).add_(_EPSILON)
        values.addcdiv_(first * (self._lr / (1 - _BETAS[0] ** steps)), root, value=-1)
