"""Small data and models for the tests of training; as a script, one run that is killed on the way."""

import os
import signal
import sys
from pathlib import Path

import torch

from learnmech.data.dataset import Dataset
from learnmech.nets import MLP
from learnmech.training import TrainConfig, Trainer, build_seeded


def make_data(samples=50, features=6, classes=3, dtype=torch.float32):
    generator = torch.Generator().manual_seed(7)
    labels = torch.randint(classes, (samples,), generator=generator)
    inputs = torch.randn(samples, features, generator=generator, dtype=dtype) + labels[:, None]
    return Dataset("blobs", inputs, labels, inputs[:20] * 1.1, labels[:20], classes=classes, source="made here")


def make_line():
    inputs = torch.linspace(-1, 1, 21)[:, None]
    return Dataset("line", inputs, 2 * inputs, inputs[:5], 2 * inputs[:5], classes=None, source="made here")


def make_net(seed=0, **settings):
    return build_seeded(lambda: MLP(6, 3, **{"width": 8, "depth": 3, **settings}), seed)


class Walk:
    """A stateful companion: it counts steps and adds up the losses it saw."""

    def __init__(self):
        self.state = {"steps": 0, "total": torch.zeros(())}

    def __call__(self, trainer):
        self.state["steps"] += 1
        self.state["total"] = self.state["total"] + trainer.last_loss

    def state_dict(self):
        return dict(self.state)

    def load_state_dict(self, state):
        self.state = dict(state)


HARD = TrainConfig(  # everything that is random at once; 7 batches an epoch, the last one smaller
    epochs=4, batch_size=8, label_noise=0.2, data_noise=0.2, lr=3e-3, seed=3, checkpoint_seconds=0.0, stop_loss=0.0
)


def hard_run(folder=None, config=HARD):
    walk = Walk()
    trainer = Trainer(make_net(dropout=0.2, slope=0.1), make_data(), config, folder=folder, stateful={"walk": walk})
    return trainer, walk


def fingerprint(trainer, walk):
    """Everything that must not depend on where a run was broken off."""
    return {
        "model": {name: value.clone() for name, value in trainer.model.state_dict().items()},
        "optimizer": trainer.optimizer.state_dict()["state"],
        "losses": trainer.epoch_losses,
        "step": trainer.step,
        "walk": walk.state_dict(),
    }


def require_equal(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        if isinstance(value, dict):
            require_equal(value, second[key])
        elif isinstance(value, torch.Tensor):
            assert torch.equal(value, second[key]), key
        else:
            assert value == second[key], key


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def main(folder, when, step):
    """Train and die: after a step, or half-way through writing the checkpoint of a step."""
    trainer, walk = hard_run(folder)
    trainer.resume()

    def on_step(trainer):
        walk(trainer)
        if trainer.step == step and when == "step":
            kill()
        if trainer.step == step and when == "write":
            Path.replace = lambda *_: kill()

    trainer.fit(on_step)
    print("was not killed")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
