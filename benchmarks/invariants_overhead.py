"""What following every conservation law costs, in training steps of the same batch, on a small and a larger MLP and a BatchNorm CNN.

A step is ``zero_grad``, forward, backward and one step of SGD with momentum and weight decay. Each variant has its own copy of the
network: one alone, one with a ``ConservationMonitor`` that follows all symmetries found and records at every step (``every_1``), and one
that records every 50 steps (``every_50``). Rounds of 50 steps are interleaved and timed by the CPU time of one thread; prices are
medians over rounds of (followed - plain) / plain.

Run: OMP_NUM_THREADS=1 python benchmarks/invariants_overhead.py [--quick]
"""

import argparse
import copy
import json
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn
from torch.nn import functional

from learnmech.dynamics.conservation_monitor import ConservationMonitor

EVERY = 50


def make_mlp(width: int, batch: int) -> tuple[nn.Module, Tensor, Tensor, str]:
    """Make an MLP without normalisation: rescale of its units, translation of its classes."""
    net = nn.Sequential(
        nn.Linear(100, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, 10),
    )
    return (
        net,
        torch.randn(batch, 100),
        torch.arange(batch) % 10,
        f"MLP 100-{width}-{width}-{width}-10, ReLU; batch {batch}",
    )


def make_cnn(quick: bool) -> tuple[nn.Module, Tensor, Tensor, str]:
    """Make a convolutional net with BatchNorm: scale of its channels, too."""
    batch = 16 if quick else 128
    parts: list[nn.Module] = []
    for before, after in ((1, 16), (16, 32), (32, 64)):
        parts += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    net = nn.Sequential(*parts, nn.Flatten(), nn.Linear(64 * 9, 10))
    text = f"CNN, 3 convolutions (16, 32, 64 channels), BatchNorm, ReLU, pooling; batch {batch} x 1 x 28 x 28"
    return net, torch.randn(batch, 1, 28, 28), torch.arange(batch) % 10, text


def prices(model: nn.Module, inputs: Tensor, targets: Tensor, rounds: int, steps: int) -> dict[str, object]:
    """Time plain and followed steps in turn."""
    runs: dict[str, Callable[[], float]] = {}
    monitor = None
    for name in ("plain", "every_1", f"every_{EVERY}"):
        net = copy.deepcopy(model)
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
        if name != "plain":
            every = int(name.rpartition("_")[2])
            monitor = ConservationMonitor(net, optimizer, inputs=inputs[:4], loss="cross_entropy", every=every)

        def run(net: nn.Module = net, optimizer: torch.optim.Optimizer = optimizer) -> float:
            started = time.process_time()
            for _ in range(steps):
                optimizer.zero_grad()
                functional.cross_entropy(net(inputs), targets).backward()
                optimizer.step()
            return (time.process_time() - started) / steps

        runs[name] = run
    for run in runs.values():  # warm up
        run()
    times = [{name: run() for name, run in runs.items()} for _ in range(rounds)]
    assert monitor is not None
    return {
        "step_cpu_ms": round(1e3 * statistics.median(one["plain"] for one in times), 3),
        "price": {
            name: round(statistics.median((one[name] - one["plain"]) / one["plain"] for one in times), 3)
            for name in runs
            if name != "plain"
        },
        "symmetries": len(monitor.symmetries),
        "charges": sum(symmetry.count for symmetry in monitor.symmetries),
    }


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description="Price of following conservation laws in training steps.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for tests; the numbers mean nothing")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rounds, steps = (1, 3) if options.quick else (options.rounds, EVERY)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    settings, results = {}, {}
    small, large = ((16, 8), (24, 8)) if options.quick else ((64, 128), (512, 128))
    for name, parts in (
        ("mlp_small", make_mlp(*small)),
        ("mlp_large", make_mlp(*large)),
        ("cnn_batchnorm", make_cnn(options.quick)),
    ):
        *made, settings[name] = parts
        results[name] = prices(*made, rounds, steps)
    line = {
        "benchmark": "invariants_overhead",
        "settings": {
            **settings,
            "steps_a_round": steps,
            "rounds": rounds,
            "quick": options.quick,
            "clock": "CPU time of the process",
        },
        "results": results,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
