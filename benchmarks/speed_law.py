"""The angle of random networks over depth: measured against the large-width formulas, for one input and for a batch.

Each network has its hidden layers trained at rates that give every one the same loss decay. ``cosine`` is the mean over draws at
layers 1, 2, 4, ... (before the activation, or on the stream between blocks), ``predicted`` the formula for one input,
``power`` and ``constant`` the least-squares fit ``constant * layer**power`` over layers from 8 on, ``root_constant`` the constant where the
power is held at -1/2, and ``root_constant_predicted`` the same of the formula (sqrt(3/v) for infinite depth: 1.2247 for a ReLU net). ``residual_limits`` holds the
cosine at the last block for branches of c / sqrt(depth), c = 0.5, 1, 2, 4, with skips that keep the size of features.

Run: OMP_NUM_THREADS=1 python benchmarks/speed_law.py [--quick]
"""

import argparse
import json
import math
import os
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import learnmech as lm
from learnmech import speed

LAYERS = (1, 2, 4, 8, 16, 32, 64)


class Bare(nn.Sequential):
    """Hidden layers without a non-linearity, between a fixed embedding and a fixed read-out."""


def linear_net(width: int, depth: int, orthogonal: bool) -> nn.Module:
    """Make a deep linear network with weights that keep sizes."""
    layers = [nn.Linear(width, width, bias=False) for _ in range(depth)]
    for layer in layers:
        if orthogonal:
            nn.init.orthogonal_(layer.weight)
        else:
            nn.init.normal_(layer.weight, std=1 / math.sqrt(width))
    return Bare(nn.Linear(10, width, bias=False), *layers, nn.Linear(width, 1, bias=False))


def measure(net: nn.Module, samples: int) -> np.ndarray:
    """Measure the cosine at every hidden layer, hidden weights moving at balanced rates."""
    batch = torch.randn(samples, 10), torch.randn(samples, 1)
    frozen = [name for name, _ in net.named_parameters()]
    hidden = frozen[1:-1]
    functional.mse_loss(net(batch[0]), batch[1]).backward()
    gradients = {name: weight.grad.clone() for name, weight in net.named_parameters() if weight.grad is not None}
    update = {name: -1e-3 * gradients[name] / gradients[name].square().sum() for name in hidden}
    result = speed.measure(net, batch, functional.mse_loss, update, real_step=False)
    return result.cosine.values[result.role.values == "block"][-len(hidden) :]


def row(make: Any, samples: int, draws: int, predicted: np.ndarray | None) -> dict[str, Any]:
    """Average over draws, and fit a power law."""
    started = time.process_time()
    cosines = np.stack([measure(make(), samples) for _ in range(draws)])
    mean = cosines.mean(0)
    layer = np.arange(1, len(mean) + 1)
    shown = [number for number in LAYERS if number <= len(mean)]
    late = layer >= min(8, len(mean) // 2)

    def root_constant(values: np.ndarray) -> float:
        return round(float(np.exp(np.mean(np.log(values[late] * np.sqrt(layer[late]))))), 4)

    power, offset = np.polyfit(np.log(layer[late]), np.log(mean[late]), 1)
    return {
        "layers": shown,
        "cosine": [round(float(mean[k - 1]), 3) for k in shown],
        "deviation": [round(float(cosines[:, k - 1].std(ddof=1)), 3) for k in shown],
        "predicted": None if predicted is None else [round(float(predicted[k - 1]), 3) for k in shown],
        "power": round(float(power), 3),
        "constant": round(float(np.exp(offset)), 3),
        "root_constant": root_constant(mean),
        "root_constant_predicted": None if predicted is None else root_constant(predicted),
        "cpu_s": round(time.process_time() - started, 1),
    }


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description="Angles of random networks against the large-width formulas.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for tests; the numbers mean nothing")
    parser.add_argument("--draws", type=int, default=6)
    options = parser.parse_args()
    width, depth, draws = (24, 8, 2) if options.quick else (1024, 64, options.draws)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    even = np.ones(depth)

    def residual(skip: float, branch: float) -> Any:
        return lambda: lm.nets.ResidualMLP(10, 1, width=width, depth=depth, skip=skip, branch=branch)

    thin = 1 / math.sqrt(depth)
    stream = speed.predict_residual_cosine(1.0, thin, even)
    nets: dict[str, tuple[Any, int, np.ndarray | None]] = {
        "mlp": (residual(0.0, 1.0), 1, speed.predict_cosine(even, 2.0)),
        "linear": (lambda: linear_net(width, depth, False), 1, speed.predict_cosine(even, 1.0)),
        "orthogonal": (lambda: linear_net(width, depth, True), 1, even),
        "residual": (residual(1.0, thin), 1, stream),
        "mlp_batch_32": (residual(0.0, 1.0), 32, None),
        "residual_batch_32": (residual(1.0, thin), 32, None),
    }
    rows = {name: row(make, samples, draws, predicted) for name, (make, samples, predicted) in nets.items()}
    limits = {}
    for factor in (0.5, 1.0, 2.0, 4.0):
        branch = min(factor * thin, 0.999)
        skip = math.sqrt(1 - branch**2)
        last = [measure(residual(skip, branch)(), 1)[-1] for _ in range(draws)]
        limits[str(factor)] = {
            "cosine": round(float(np.mean(last)), 4),
            "standard_error": round(float(np.std(last, ddof=1) / math.sqrt(draws)), 4),
            "predicted": round(float(speed.predict_residual_cosine(skip, branch, even)[-1]), 4),
        }
    line = {
        "benchmark": "speed_law",
        "settings": {"width": width, "depth": depth, "rounds": draws, "quick": options.quick},
        "results": {**rows, "residual_limits": limits},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
