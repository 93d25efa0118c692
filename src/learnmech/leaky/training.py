"""Training leaky ResNets to a critical point: Adam on all at once, then L-BFGS in float64 on each."""

import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from learnmech.bars import terminal_bar
from learnmech.errors import InputError
from learnmech.leaky import training_checkpoint
from learnmech.leaky.adam_phase import AdamPhase
from learnmech.leaky.criticality import find_collapsed, stacked_stationarity
from learnmech.leaky.network import LeakyResNet
from learnmech.leaky.newton import sharpen
from learnmech.leaky.objective import StackedObjective, require_alike, require_inputs
from learnmech.leaky.polish_phase import polish
from learnmech.leaky.training_result import LeakyTraining, StopReason
from learnmech.leaky.training_settings import LeakySettings
from learnmech.training.interrupt import InterruptFlag

OnProgress = Callable[[int, int], object]


def train(
    net: LeakyResNet,
    inputs: Tensor,
    targets: Tensor,
    settings: LeakySettings | None = None,
    *,
    checkpoint: str | Path | None = None,
    on_progress: OnProgress | None = None,
) -> LeakyTraining:
    """Train a leaky ResNet towards a critical point of its cost. See :func:`train_members`, which this calls with one net.

    Args:
        net: the net; its weights, and adaptive step sizes, are trained in place.
        inputs: inputs (samples, d_in).
        targets: numbers (samples, d_out), or class indices (samples,).
        settings: how to train.
        checkpoint: a file from which a stopped training goes on.
        on_progress: called with the steps and iterations done, and their total.

    Returns:
        How it ended, with the stationarity residual of each layer. Raises what :func:`train_members` raises.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> net = LeakyResNet(2, 2, width=4, effective_depth=2.0, layers=4, penalty=0.1)
        >>> x = torch.randn(20, 2)
        >>> train(net, x, x.abs(), LeakySettings(adam_steps=200, polish_iterations=50)).stopped_because
        'done'
    """
    return train_members([net], inputs, targets, settings, checkpoint=checkpoint, on_progress=on_progress)[0]


def train_members(
    nets: Sequence[LeakyResNet],
    inputs: Tensor,
    targets: Tensor,
    settings: LeakySettings | None = None,
    *,
    checkpoint: str | Path | None = None,
    on_progress: OnProgress | None = None,
) -> list[LeakyTraining]:
    """Train several leaky ResNets of one shape on the same data, as one computation.

    Adam in float32 trains all members at once, with a warm-up and half a cosine; on a CPU as many go together as fit into the
    cache: many narrow nets, wide ones one by one. Nets whose policy is adaptive change their step sizes meanwhile, as the policy's
    ``begin``, ``period`` and ``freeze`` say (by default not in the first 200 steps). Then L-BFGS in float64 brings each member
    nearer to its critical point, where momenta and Hamiltonian mean something; where that point is smooth, Newton steps find the
    last digits. Nets in float32 round them off: call ``net.double()`` first. Members may differ in weights, effective depth, step
    sizes and penalty.

    Ctrl-C ends the training after the current step: the nets hold what is reached, and the results say so. With ``checkpoint`` a
    later call with the same untrained nets, data and settings goes on: Adam bit for bit, L-BFGS from its latest vector without its
    memory. A member that diverges keeps its last weights of finite cost, and the others go on.

    Source: learnmech; that critical points matter, and Adam followed by smaller steps, are of Jacot and Kaiser, arXiv 2405.17573.

    Args:
        nets: the nets; their weights, and adaptive step sizes, are trained in place.
        inputs: inputs (samples, d_in).
        targets: numbers (samples, d_out), or class indices (samples,).
        settings: how to train.
        checkpoint: a file from which a stopped training goes on; it is deleted at the end.
        on_progress: called with the steps and iterations done, and their total.

    Returns:
        One result a net.

    Raises:
        InputError: if nets, data and checkpoint do not fit together, or the cost is not finite at the start.
        DataError: if the checkpoint is damaged.
    """
    settings = settings or LeakySettings()
    inputs = require_inputs(require_alike(nets), inputs).detach()
    path = None if checkpoint is None else Path(checkpoint)
    with torch.no_grad(), InterruptFlag() as interrupt:
        run = _Run(nets, inputs, targets.detach(), settings, path)
        run.train(interrupt, on_progress)
        return run.results(interrupted=interrupt.requested)


class _Run:
    def __init__(
        self,
        nets: Sequence[LeakyResNet],
        inputs: Tensor,
        targets: Tensor,
        settings: LeakySettings,
        path: Path | None,
    ) -> None:
        self._nets, self._settings, self._path = tuple(nets), settings, path
        self._started = time.monotonic()
        device = nets[0].steps.device
        self._identity = training_checkpoint.identify(nets, inputs, targets, settings) if path else {}
        self._adam = AdamPhase(nets, inputs.to(device), targets.to(device), settings)
        self._data = (inputs, targets)
        costs = [float(objective.cost_and_gradient(values)[0]) for objective, values in self._each()]
        if not all(map(math.isfinite, costs)):
            raise InputError(f"the cost is not finite at the start ({costs}); the weights or the data are too large.")
        self._polished: list[Tensor] = []
        self._taken: list[int] = []
        self._seconds: list[float] = []
        self._finished = 0
        self._saved = time.monotonic()
        state = None if path is None else training_checkpoint.load(path, self._identity)
        if state is not None:
            self._adam.restore(state["adam"])
            self._polished = [row.to(device, torch.float64) for row in state["polished"]]
            self._taken, self._finished = list(state["taken"]), state["finished"]

    def train(self, interrupt: InterruptFlag, on_progress: OnProgress | None) -> None:
        settings = self._settings
        total = settings.adam_steps + settings.polish_iterations * len(self._nets)
        with terminal_bar("training leaky ResNets", total, least=500) as advance:
            shown = 0

            def report(done: int) -> None:
                nonlocal shown
                advance(done - shown)
                shown = done
                if on_progress is not None:
                    on_progress(done, total)
                if self._path is not None and time.monotonic() - self._saved > settings.checkpoint_seconds:
                    self._save()

            try:
                self._adam.run(interrupt, report)
                self._seconds = [time.monotonic() - self._started] * len(self._nets)
                if not interrupt.requested:
                    self._polish(interrupt, report)
            finally:  # also if on_progress, or a second Ctrl-C, raises
                self._store()
        if self._path is not None:
            if interrupt.requested:
                self._save()
            else:
                self._path.unlink(missing_ok=True)

    def _polish(self, interrupt: InterruptFlag, report: Callable[[int], None]) -> None:
        settings = self._settings
        for member in range(self._finished, len(self._nets)):
            if interrupt.requested:
                return
            if member == len(self._polished):
                self._polished.append(self._adam.values[member].double())
                self._taken.append(0)
            if not bool(self._adam.resting[member]):
                before = self._taken[member]
                done = settings.adam_steps + settings.polish_iterations * member + before
                objective = StackedObjective([self._nets[member]], *self._data, dtype=torch.float64)
                objective.set_steps(self._adam.objective.steps[member : member + 1])
                began = time.monotonic()
                vector, taken = polish(
                    objective,
                    self._polished[member][None],
                    iterations=settings.polish_iterations - before,
                    memory=settings.polish_memory,
                    interrupt=interrupt,
                    on_iteration=functools.partial(_report_from, report, done),
                )
                if not interrupt.requested and settings.polish_iterations:
                    vector = sharpen(objective, vector)
                self._polished[member], self._taken[member] = vector[0], before + taken
                self._seconds[member] += time.monotonic() - began
            if not interrupt.requested:
                self._finished += 1

    def _vectors(self) -> Tensor:
        rows = list(self._adam.values.double())
        rows[: len(self._polished)] = self._polished
        return torch.stack(rows)

    def _store(self) -> None:
        self._adam.objective.store(self._vectors())

    def _save(self) -> None:
        assert self._path is not None
        state = {
            "adam": self._adam.state(),
            "polished": self._polished,
            "taken": self._taken,
            "finished": self._finished,
        }
        training_checkpoint.save(self._path, self._identity, state)
        self._saved = time.monotonic()

    def results(self, *, interrupted: bool) -> list[LeakyTraining]:
        results = []
        for member, (objective, values) in enumerate(self._each()):
            reason: StopReason = "interrupted" if interrupted else "done"
            if bool(self._adam.resting[member]):
                reason = "diverged"
            results.append(
                LeakyTraining(
                    cost=float(objective.cost_and_gradient(values)[0]),
                    data_cost=float(objective.data_costs(values)),
                    residuals=stacked_stationarity(objective, values)[0].cpu(),
                    costs=tuple(row[member] for row in self._adam.costs),
                    cost_steps=tuple(self._adam.cost_steps),
                    adam_steps=self._adam.step,
                    polish_iterations=self._taken[member] if member < len(self._taken) else 0,
                    stopped_because=reason,
                    collapsed=find_collapsed(objective, values)[0],
                    seconds=self._seconds[member] if self._seconds else time.monotonic() - self._started,
                )
            )
        return results

    def _each(self) -> Iterator[tuple[StackedObjective, Tensor]]:
        """Give each net alone, in float64, with its vector as the net holds it."""
        for net in self._nets:
            objective = StackedObjective([net], *self._data, dtype=torch.float64)
            yield objective, objective.values()


def _report_from(report: Callable[[int], None], done: int, taken: int) -> None:
    report(done + taken)
