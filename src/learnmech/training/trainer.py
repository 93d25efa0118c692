"""The plain trainer: data in memory, batches by index, and a state that can be put down and picked up at any step."""

import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from learnmech.data.dataset import Dataset
from learnmech.data.noise import noisy_batch
from learnmech.errors import InputError, LearnmechWarning, StorageError
from learnmech.files import require_writable_folder
from learnmech.training.batches import batch_bounds
from learnmech.training.checkpoint import (
    describe_run,
    load_checkpoint,
    require_plain,
    require_same_run,
    save_checkpoint,
)
from learnmech.training.config import TrainConfig
from learnmech.training.evaluation import evaluate, module_mode
from learnmech.training.interrupt import InterruptFlag
from learnmech.training.losses import make_loss
from learnmech.training.optimizers import build_optimizer
from learnmech.training.progress import Progress
from learnmech.training.result import StopReason, TrainResult
from learnmech.training.seeds import (
    derive_seed,
    get_global_rng,
    make_generator,
    private_rng,
    seed_global_rng,
    set_global_rng,
)


class Stateful(Protocol):
    """Anything whose state shall travel with a checkpoint, such as a monitor."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return the state, made of tensors, numbers, strings, and lists, tuples and dicts of these."""
        ...

    def load_state_dict(self, state_dict: Any, /) -> Any:
        """Take over a state.

        Args:
            state_dict: what :meth:`state_dict` returned.
        """
        ...


Callback = Callable[["Trainer"], object]


class Trainer:
    r"""Train a model on a data set in memory, reproducibly and with checkpoints.

    Each step minimises the mean loss of one batch, with the batch's noise drawn afresh; an epoch's loss is

    .. math::
        \frac{1}{N}\sum_b n_b\,\ell_b,

    the mean over its N samples of the losses :math:`\ell_b` that the steps saw. The full batch is neither shuffled nor
    copied; smaller batches follow a new permutation each epoch, and the last, smaller one is kept.

    Source: the training loop in the code of Shi, Pan and Dokmanić, arXiv 2407.19353 (main.py). Different from it: order
    and noise have random streams of their own, so switching one on does not change the other.

    The result depends on the model's initial weights, the data, the settings, and (in the last digits) torch's number of
    threads, and on nothing else: the caller's random state is neither used nor changed. A run that was stopped by
    Ctrl-C, or killed at any moment, and resumed gives bit for bit the weights of one that was not. Callbacks and
    optimizer hooks that draw random numbers, or change weights, take part in the run.

    Args:
        model: the model, with the weights to start from (see :func:`learnmech.training.build_seeded`).
        dataset: the data; noise goes to training batches only.
        config: the settings; None for the defaults.
        folder: where ``checkpoint.pt`` goes; None for no checkpoints.
        stateful: objects whose state travels with the checkpoint, by name.
        device: where to train; None for where the model is.

    Attributes:
        model: the model.
        dataset: the data set.
        config: the settings.
        optimizer: the torch optimizer, on which a monitor can hook.
        device: where the training runs.
        epoch: epochs completed so far.
        step: steps completed so far.
        epoch_losses: the mean loss of each completed epoch.
        last_loss: the loss of the last step, a scalar tensor on the device; None before the first.

    Raises:
        InputError: if model, data and settings do not fit together.

    Example:
        >>> inputs = torch.linspace(-1, 1, 20)[:, None]
        >>> data = Dataset("line", inputs, 2 * inputs, inputs[:0], inputs[:0], classes=None, source="made up")
        >>> settings = TrainConfig(optimizer="sgd", lr=0.5, loss="mse", epochs=200, stop_loss=1e-9)
        >>> trainer = Trainer(nn.Linear(1, 1), data, settings)
        >>> trainer.fit().stopped_because
        'loss'
        >>> round(trainer.model.weight.item(), 3)
        2.0
    """

    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset,
        config: TrainConfig | None = None,
        *,
        folder: str | Path | None = None,
        stateful: Mapping[str, Stateful] | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        self.config = config or TrainConfig()
        first = next(model.parameters(), None)
        if first is None:
            raise InputError("the model has no parameters, so there is nothing to train.")
        self.model = model if device is None else model.to(device)
        self.device = first.device if device is None else next(self.model.parameters()).device
        self.dataset = dataset
        self.optimizer = build_optimizer(self.config, self.model.parameters())
        self.folder = None if folder is None else Path(folder)
        self.stateful = dict(stateful or {})
        self.last_loss: Tensor | None = None

        self._loss = make_loss(self.config.loss, dataset.classes)
        self._float_type = first.dtype
        self._inputs, self._targets = self._place(dataset.train_inputs), self._place(dataset.train_targets)
        normalised = any(isinstance(module, _BatchNorm) for module in self.model.modules())
        self._bounds = batch_bounds(len(self._inputs), self.config.batch_size, allow_single=not normalised)
        self._noisy = self.config.label_noise > 0 or self.config.data_noise > 0

        self._order = make_generator(self.config.seed, "order")
        self._noise = make_generator(self.config.seed, "noise", self.device)
        self._rng: dict[str, Tensor] | None = None  # of torch's global generators, as the run left them
        self._progress = Progress(
            order_state=self._order.get_state(),
            loss_sum=torch.zeros((), dtype=torch.float64, device=self.device),
        )
        self._identity: dict[str, Any] = {}  # as the run starts: a callback may change the model later
        if self.folder is not None:
            self._identity = describe_run(self.config, dataset.name, dataset.fingerprint, self.model, self.device)
        self._half_done = False
        self._warned_of_storage = False
        self._last_checkpoint = 0.0

    @property
    def epoch(self) -> int:
        """Epochs completed so far."""
        return len(self._progress.epoch_losses)

    @property
    def step(self) -> int:
        """Steps completed so far."""
        return self._progress.step

    @property
    def epoch_losses(self) -> tuple[float, ...]:
        """The mean loss of each completed epoch."""
        return tuple(self._progress.epoch_losses)

    def fit(self, on_step: Callback | None = None, on_epoch: Callback | None = None) -> TrainResult:
        """Train until the epochs are done, the stop rule holds, the loss diverges, or Ctrl-C is pressed.

        Training goes on from where this trainer stands, so a second call after Ctrl-C continues, and one after the end
        only evaluates. A first Ctrl-C lets the current step finish; a second one raises at once. Without
        :meth:`resume`, an earlier checkpoint in the folder is overwritten. A checkpoint that cannot be written, as on a
        full disk, is warned of once and does not stop the training; a folder that cannot be written from the start does
        (:class:`~learnmech.errors.StorageError`).

        Args:
            on_step: called with this trainer after every step.
            on_epoch: called with this trainer after every epoch. After a kill and a resume, steps and epochs since the
                last checkpoint are done, and reported, again.

        Returns:
            What came out.

        Raises:
            InputError: if an earlier call broke off in the middle of a step, or the state of the model or of a
                ``stateful`` object cannot be stored.
        """
        if self._half_done:
            raise InputError(
                "an error or a second Ctrl-C broke off this trainer in the middle of a step, so its state is not that of "
                "any step; call resume() to go back to the last checkpoint, or build a new trainer."
            )
        if self.folder is not None:
            require_writable_folder(self.folder)
            require_plain(self.model.state_dict(), "the state of the model")
            for name, part in self.stateful.items():
                require_plain(part.state_dict(), f"the state of {name!r}")
        with (
            private_rng(self.device),
            module_mode(self.model, training=True),
            self._progress.clock(),
            InterruptFlag() as interrupt,
        ):
            self._enter_rng()
            try:
                reason = self._train(on_step, on_epoch, interrupt)
            finally:
                self._rng = get_global_rng(self.device)
            self._checkpoint()
        if interrupt.requested and reason != "interrupted":
            interrupt.deliver()  # it came after the last step, so it was meant for the caller
        if reason == "diverged":
            warnings.warn(
                f"training diverged: the loss of epoch {self.epoch} is {self.epoch_losses[-1]}. Try a smaller lr than "
                f"{self.config.lr:g}.",
                LearnmechWarning,
                stacklevel=2,
            )
        return self._result(reason)

    def evaluate(self, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
        """Compute mean loss and accuracy in evaluation mode, in chunks; the model is left as it was.

        Args:
            inputs: samples (n, ...), anywhere.
            targets: targets (n, ...).

        Returns:
            The loss, and the part of the samples classified rightly (nan without classes).
        """
        return evaluate(self.model, self._loss, self._place(inputs), self._place(targets), classes=self.dataset.classes)

    def resume(self) -> bool:
        """Go back to the checkpoint of the folder, if there is one.

        Returns:
            Whether there was one. A file that is damaged raises :class:`~learnmech.errors.DataError`.

        Raises:
            InputError: if there is no folder, or the checkpoint belongs to another run; the message says what differs.
        """
        if self.folder is None:
            raise InputError("this trainer has no folder to resume from; pass folder=... when you build it.")
        parts = load_checkpoint(self.folder)
        if parts is None:
            return False
        require_same_run(parts["identity"], self._identity, self.config, self.folder)
        if parts["stateful"].keys() != self.stateful.keys():
            raise InputError(
                f"the checkpoint in {self.folder} holds the state of {sorted(parts['stateful'])}, this trainer has "
                f"stateful={sorted(self.stateful)}; pass the same objects, or name another folder."
            )
        self._half_done = True
        self.model.load_state_dict(parts["model"])
        self.optimizer.load_state_dict(parts["optimizer"])
        for name, state in parts["stateful"].items():
            self.stateful[name].load_state_dict(state)
        self._rng = parts["rng"]
        self._noise.set_state(parts["generators"]["noise"])
        self._progress.load_state_dict(parts["progress"])
        self._half_done = False
        return True

    def _train(self, on_step: Callback | None, on_epoch: Callback | None, interrupt: InterruptFlag) -> StopReason:
        progress = self._progress
        self._last_checkpoint = time.monotonic()
        while progress.stopped is None and self.epoch < self.config.epochs:
            order = self._draw_order()
            while progress.position < len(self._bounds):
                self._take_step(order)
                if on_step is not None:
                    on_step(self)
                if progress.position < len(self._bounds):  # else once the epoch is complete
                    if interrupt.requested:
                        return "interrupted"
                    self._checkpoint_if_due()
            progress.finish_epoch(self._order.get_state(), len(self._inputs), self.config)
            if on_epoch is not None:
                on_epoch(self)
            if interrupt.requested and progress.stopped is None and self.epoch < self.config.epochs:
                return "interrupted"
            self._checkpoint_if_due()
        return progress.stopped or "epochs"

    def _draw_order(self) -> Tensor | None:
        # The permutation of the current epoch, the same one however often the epoch is entered.
        self._order.set_state(self._progress.order_state)
        if len(self._bounds) == 1:
            return None
        return torch.randperm(len(self._inputs), generator=self._order).to(self.device)

    def _take_step(self, order: Tensor | None) -> None:
        self._half_done = True
        inputs, targets = self._inputs, self._targets
        start, stop = self._bounds[self._progress.position]
        if order is not None:
            chosen = order[start:stop]
            inputs, targets = inputs[chosen], targets[chosen]
        if self._noisy:
            inputs, targets = noisy_batch(
                inputs,
                targets,
                label_noise=self.config.label_noise,
                data_noise=self.config.data_noise,
                classes=self.dataset.classes,
                generator=self._noise,
            )
        loss = self._loss(self.model(inputs), targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.last_loss = loss.detach()
        self._progress.add(self.last_loss, stop - start)
        self._half_done = False

    def _place(self, values: Tensor) -> Tensor:
        # To the device and float type of the model; no copy of what is there already.
        return values.to(self.device, self._float_type if values.is_floating_point() else None)

    def _enter_rng(self) -> None:
        if self._rng is None:
            seed_global_rng(derive_seed(self.config.seed, "training"), self.device)
        else:
            set_global_rng(self._rng, self.device)

    def _checkpoint_if_due(self) -> None:
        if time.monotonic() - self._last_checkpoint >= self.config.checkpoint_seconds:
            self._checkpoint()

    def _checkpoint(self) -> None:
        if self.folder is None:
            return
        states = {name: part.state_dict() for name, part in self.stateful.items()}
        for name, state in states.items():
            require_plain(state, f"the state of {name!r}")
        parts = {
            "identity": self._identity,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "stateful": states,
            "rng": get_global_rng(self.device),
            "generators": {"noise": self._noise.get_state()},
            "progress": self._progress.state_dict(),
        }
        try:
            save_checkpoint(self.folder, parts)
        except StorageError as error:
            if not self._warned_of_storage:
                self._warned_of_storage = True
                warnings.warn(f"training goes on without a new checkpoint: {error}", LearnmechWarning, stacklevel=3)
        self._last_checkpoint = time.monotonic()

    def _result(self, reason: StopReason) -> TrainResult:
        _, train_accuracy = self.evaluate(self._inputs, self._targets)
        test_loss, test_accuracy = self.evaluate(self.dataset.test_inputs, self.dataset.test_targets)
        return TrainResult(
            epochs=self.epoch,
            steps=self.step,
            stopped_because=reason,
            epoch_losses=self.epoch_losses,
            train_accuracy=train_accuracy,
            test_accuracy=test_accuracy,
            test_loss=test_loss,
            seconds=self._progress.seconds,
        )
