"""Stacks against the plain trainer: models and settings of the tests, and the comparison."""

import copy
import warnings

import torch

from learnmech.data.dataset import Dataset
from learnmech.errors import LearnmechWarning
from learnmech.nets import CNN, MLP
from learnmech.training import TrainConfig, Trainer, build_seeded, train_members
from learnmech.training.threads import thread_count

MEMBERS = [  # dropout, slope, label noise, data noise, lr factor, weight decay, momentum (of sgd), seed
    (0.3, 0.3, 0.0, 0.2, 1.0, 0.0, 0.0, 3),
    (0.0, 0.0, 0.0, 0.0, 2.0, 0.01, 0.0, 0),
    (0.1, 1.0, 0.2, 0.0, 0.5, 0.0, 0.9, 1),
    (0.0, 0.3, 0.4, 0.4, 1.0, 0.02, 0.5, 2),
    (0.1, 0.0, 0.0, 0.0, 1.0, 0.0, 0.9, 4),
    (0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 5),
]


def make_blobs(samples=50, shape=(6,), classes=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(7)
    labels = torch.randint(classes, (samples,), generator=generator)
    inputs = torch.randn(samples, *shape, generator=generator, dtype=dtype) + labels.view(-1, *[1] * len(shape))
    return Dataset("blobs", inputs, labels, inputs[:20] * 1.1, labels[:20], classes=classes, source="made here")


def make_regression(samples=50, outputs=3, dtype=torch.float64):
    inputs = make_blobs(samples, dtype=dtype).train_inputs
    targets = torch.stack([inputs[:, k].sin() for k in range(outputs)], dim=1)
    return Dataset("sine", inputs, targets, inputs[:20], targets[:20], classes=None, source="made here")


def make_models(kind=MLP, dtype=torch.float64, members=MEMBERS, **more):
    def build(dropout, slope):
        if kind is CNN:
            return CNN((2, 5, 4), 3, **{"channels": 3, "depth": 3, "dropout": dropout, "slope": slope, **more})
        return MLP(6, 3, **{"width": 8, "depth": 3, "dropout": dropout, "slope": slope, **more})

    return [build_seeded(lambda m=m: build(m[0], m[1]), m[7]).to(dtype) for m in members]


def make_configs(members=MEMBERS, noise=True, lr=3e-3, **shared):
    shared = {"epochs": 5, "stop_loss": 0.0, "stop_change": 0.0, **shared}
    sgd = shared.get("optimizer") == "sgd"
    return [
        TrainConfig(
            seed=seed,
            lr=lr * factor * (10 if sgd else 1),
            weight_decay=decay,
            momentum=momentum if sgd else 0.0,
            label_noise=labels if noise else 0.0,
            data_noise=data if noise else 0.0,
            **shared,
        )
        for _, _, labels, data, factor, decay, momentum, seed in members
    ]


def train_both(models, data, configs, **options):
    """Train copies with the plain trainer and the models as a stack; give the results of both, and the copies."""
    copies = [copy.deepcopy(model) for model in models]
    with thread_count(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", LearnmechWarning)
        plain = [Trainer(model, data, config).fit() for model, config in zip(copies, configs, strict=True)]
        stacked = train_members(models, data, configs, stack=True, **options)
    return stacked, plain, copies


def without_gradient(model):
    """Names of parameters that shift a mean which BatchNorm takes away: a plain net's gradient of them is rounding."""
    if not any("norm" in name for name, _ in model.named_modules()):
        return set()
    names = {name for name, _ in model.named_parameters()}
    return {"input_norm.bias"} & names | {n for n in names if n.endswith(("linear.bias", "conv.bias"))}


def require_equal_training(models, data, configs, tolerance=1e-10, **options):
    stacked, plain, copies = train_both(models, data, configs, **options)
    adaptive = configs[0].optimizer != "sgd"
    for model, other, config, mine, its in zip(models, copies, configs, stacked, plain, strict=True):
        assert (mine.epochs, mine.steps, mine.stopped_because) == (its.epochs, its.steps, its.stopped_because)
        close(torch.tensor(mine.epoch_losses), torch.tensor(its.epoch_losses), tolerance, "epoch_losses")
        # Adam with an L2 penalty blows up the rounding errors that are the gradients of these parameters in a plain net.
        noisy = without_gradient(other) if adaptive else set()
        amplified = bool(noisy) and config.optimizer == "adam" and config.weight_decay > 0
        values = model.state_dict()
        for name, value in other.state_dict().items():
            follows = amplified and name.endswith("running_mean") and not name.startswith("input_norm")
            if amplified and (name in noisy or follows):
                continue
            looser = 1e3 if name in noisy or ("running_mean" in name and noisy) else 1
            close(values[name], value, tolerance * looser, name)
        if not amplified:
            assert mine.train_accuracy == its.train_accuracy or data.classes is None
            assert mine.test_accuracy == its.test_accuracy or data.classes is None
            finite = torch.tensor([mine.test_loss, its.test_loss])
            close(finite[0], finite[1], tolerance * (1e3 if noisy else 1), "test_loss")
    return stacked, plain


def close(mine, its, tolerance, name):
    torch.testing.assert_close(
        mine, its, rtol=tolerance, atol=tolerance, equal_nan=True, msg=lambda text: f"{name}: {text}"
    )
