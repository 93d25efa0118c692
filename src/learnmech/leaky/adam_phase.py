"""The first phase of training: Adam on the vectors of all members at once, while step sizes adapt."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from learnmech.leaky.network import LeakyResNet
from learnmech.leaky.objective import StackedObjective
from learnmech.leaky.training_settings import LeakySettings
from learnmech.training.interrupt import InterruptFlag
from learnmech.training.seeds import make_generator

_CHECK = 100  # steps between two looks at the costs


class AdamPhase:
    """Adam in float32, on all data or on batches that all members share.

    A member whose cost is no longer finite goes back to its last vector of finite cost, and rests.

    Args:
        nets: the members.
        inputs: inputs (samples, d_in).
        targets: their targets.
        settings: how to train.
    """

    def __init__(self, nets: Sequence[LeakyResNet], inputs: Tensor, targets: Tensor, settings: LeakySettings) -> None:
        self._nets, self._settings = tuple(nets), settings
        self._inputs, self._targets = inputs, targets
        self._batch = min(settings.batch_size or len(inputs), len(inputs))
        full = self._batch == len(inputs)
        self.objective = StackedObjective(nets, inputs[: self._batch], targets[: self._batch])
        self.values = self.objective.values()
        self.values.grad = torch.zeros_like(self.values)
        self._optimizer = torch.optim.Adam([self.values], lr=settings.learning_rate, fused=True)
        self._generator = None if full else make_generator(settings.seed, "order")
        self.step = 0
        self.costs: list[list[float]] = []
        self.cost_steps: list[int] = []
        self.resting = torch.zeros(len(nets), dtype=torch.bool)
        self._finite = self.values.clone()

    def run(self, interrupt: InterruptFlag, on_step: Callable[[int], object]) -> None:
        """Take the steps that are left, or until Ctrl-C.

        Args:
            interrupt: says when to end.
            on_step: called with the number of steps done after each.
        """
        while self.step < self._settings.adam_steps and not interrupt.requested:
            self._take_step()
            on_step(self.step)
        self._look()

    def state(self) -> dict[str, Any]:
        """Give all that the phase needs to go on.

        Returns:
            Tensors, numbers and lists.
        """
        moments = self._optimizer.state[self.values]
        return {
            "values": self.values,
            "moments": {name: moments[name] for name in ("step", "exp_avg", "exp_avg_sq")} if moments else {},
            "steps": self.objective.steps,
            "step": self.step,
            "costs": self.costs,
            "cost_steps": self.cost_steps,
            "resting": self.resting,
            "finite": self._finite,
            "order": None if self._generator is None else self._generator.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a state.

        Args:
            state: what :meth:`state` gave.
        """
        self.values.copy_(state["values"])
        if state["moments"]:
            self._optimizer.state[self.values] = {
                name: value.to(self.values.device) for name, value in state["moments"].items()
            }
        self.objective.set_steps(state["steps"])
        self.step, self.costs, self.cost_steps = state["step"], list(state["costs"]), list(state["cost_steps"])
        self.resting = state["resting"]
        self._finite = state["finite"].to(self.values.device)
        if self._generator is not None:
            self._generator.set_state(state["order"])

    def _take_step(self) -> None:
        assert self.values.grad is not None
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.rate(self.step)
        if self._generator is not None:
            chosen = torch.randperm(len(self._inputs), generator=self._generator)[: self._batch]
            self.objective.set_data(self._inputs[chosen], self._targets[chosen])
        costs, _ = self.objective.cost_and_gradient(self.values, into=self.values.grad)
        if self.step % _CHECK == 0:
            self._keep(costs)
        if bool(self.resting.any()):
            self.values.grad[self.resting] = 0
        self._optimizer.step()
        self.step += 1
        self._adapt()

    def _keep(self, costs: Tensor) -> None:
        """Record costs, keep vectors whose cost is finite, and lay members to rest whose cost is not."""
        fine = torch.isfinite(costs).cpu()
        if self.cost_steps[-1:] != [self.step]:
            self.costs.append(costs.tolist())
            self.cost_steps.append(self.step)
        for member in (fine & ~self.resting).nonzero().flatten().tolist():
            self._finite[member] = self.values[member]
        failed = (~fine & ~self.resting).nonzero().flatten().tolist()
        for member in failed:
            self.values[member] = self._finite[member]
            self.resting[member] = True
            moments = self._optimizer.state[self.values]
            if moments:
                moments["exp_avg"][member] = 0
                moments["exp_avg_sq"][member] = 1

    def _look(self) -> None:
        self._keep(self.objective.cost_and_gradient(self.values)[0])

    def _adapt(self) -> None:
        total = self._settings.adam_steps
        due = [number for number, net in enumerate(self._nets) if net.policy.due(self.step, total)]
        if not due:
            return
        changes, norms = self.objective.step_norms()
        fine = (torch.isfinite(changes) & torch.isfinite(norms)).all(1).tolist()
        steps = self.objective.steps.clone()
        for number in due:
            if fine[number]:
                net = self._nets[number]
                steps[number] = net.policy.proposed(steps[number], changes[number], norms[number], net.effective_depth)
        self.objective.set_steps(steps)
