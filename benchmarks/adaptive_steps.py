"""Adaptive against uniform and irregular step sizes of leaky ResNets: test error, spread of steps, and what they cost.

Every seed draws a task through three dimensions (10-3-10, random teachers) and starting weights, and trains nets with the three
kinds of steps from the same weights as one stack, once for each number of layers. ``uniform_equal_cost`` is a uniform net that is
given as many more Adam steps as the adaptive one costs more time. ``cost`` holds the CPU time of an Adam step with adaptive steps
that change every ten Adam steps, from first to last, and with uniform ones, nets trained one at a time, and the median of the
rounds' ratios. ``test`` and ``train`` are costs (squared error summed over outputs; the latter with the penalty), ``relative_step`` the
largest over the smallest relative step of a layer, ``dimension_spread`` the standard deviation over layers of the effective dimension
(from the pre-Hamiltonian), ``residual`` the stationarity residual, ``stationary`` the share of nets for which it is small enough to
trust that spread: means over seeds. ``paired`` holds means over seeds of differences on the same seed, adaptive less the other, with
standard errors and how often adaptive is lower; ``says`` is "lower" or "higher" where the mean is more than two standard errors from
zero, else "no difference seen".

Run: OMP_NUM_THREADS=1 python benchmarks/adaptive_steps.py [--quick] [--seeds 8]
"""

import argparse
import json
import math
import os
import statistics
import time
from typing import Any, Literal

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from learnmech import leaky
from learnmech.data import Dataset, bottleneck_task
from learnmech.training import build_seeded

KINDS = ("adaptive", "irregular", "uniform")
WIDTHS = (10, 3, 10)
EFFECTIVE_DEPTH, PENALTY = 4.0, 0.02
QUANTITIES = ("test", "train", "relative_step", "dimension_spread", "residual", "stationary")


def make_net(kind: Any, seed: int, width: int, layers: int) -> leaky.LeakyResNet:
    """Make a net with a kind of steps, or a policy; nets of one seed start from the same weights."""
    return build_seeded(
        lambda: leaky.LeakyResNet(WIDTHS[0], WIDTHS[-1], width, EFFECTIVE_DEPTH, layers, kind, penalty=PENALTY), seed
    ).double()


def describe(net: leaky.LeakyResNet, task: Dataset, training: leaky.LeakyTraining) -> list[float]:
    """Give the quantities of a trained net."""
    profile = leaky.profile(net, task.train_inputs, task.train_targets, ridges=1e-2)
    steps = profile["relative_step"].values[:-1]
    with torch.no_grad():
        test = net.data_cost(task.test_inputs.double(), task.test_targets.double())
    spread = np.nanstd(profile["pre_effective_dimension"].values)
    return [
        float(test),
        training.cost,
        steps.max() / steps.min(),
        float(spread),
        training.residual,
        training.stationary,
    ]


def time_adam(
    kinds: tuple[Literal["adaptive", "uniform"], ...], width: int, layers: int, steps: int, rounds: int
) -> dict[str, float]:
    """Time Adam steps with each kind of steps, interleaved; adaptive ones change every ten steps from first to last."""
    task = bottleneck_task(WIDTHS, 300, test_samples=1, seed=0)
    spent: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            times: list[float] = []
            policy = leaky.StepSizePolicy(kind, begin=0, freeze=1.0)
            settings = leaky.LeakySettings(adam_steps=steps, polish_iterations=0)
            leaky.train(
                make_net(policy, 0, width, layers),
                task.train_inputs,
                task.train_targets,
                settings,
                on_progress=lambda done, total, times=times: times.append(time.process_time()),
            )
            spent[kind].append((times[-1] - times[0]) / (len(times) - 1))
    medians = {kind: statistics.median(values) for kind, values in spent.items()}
    slower = statistics.median(a / b for a, b in zip(spent["adaptive"], spent["uniform"], strict=True))
    return {**{f"{kind}_ms": round(1e3 * value, 3) for kind, value in medians.items()}, "ratio": round(slower, 3)}


def compare(values: np.ndarray, others: np.ndarray) -> dict[str, Any]:
    """Compare one quantity of adaptive nets with that of others on the same seeds."""
    differences = values - others
    mean, error = float(differences.mean()), float(differences.std(ddof=1) / math.sqrt(len(differences)))
    says = "no difference seen" if abs(mean) <= 2 * error else "lower" if mean < 0 else "higher"
    lower = int((differences < 0).sum())
    return {"mean": round(mean, 4), "standard_error": round(error, 4), "lower": f"{lower}/{len(values)}", "says": says}


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description="Adaptive steps against uniform and irregular ones.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for tests; the numbers mean nothing")
    parser.add_argument("--seeds", type=int, default=8)
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error("--seeds must be at least 2, for standard errors")
    width, samples, adam, polish = (12, 40, 300, 10) if options.quick else (40, 300, 3000, 800)
    depths, seeds, rounds = ((5, 6), 2, 1) if options.quick else ((6, 16), options.seeds, 5)
    torch.set_num_threads(1)
    cost = time_adam(("adaptive", "uniform"), width, depths[-1], 30 if options.quick else 300, rounds)
    longer = {"uniform_equal_cost": max(1.0, cost["ratio"])}
    results: dict[str, Any] = {}
    for layers in depths:
        table: dict[str, list[list[float]]] = {name: [] for name in (*KINDS, *longer)}
        for seed in range(seeds):
            task = bottleneck_task(WIDTHS, samples, test_samples=1000, seed=seed)
            data = (task.train_inputs, task.train_targets)
            stack = [make_net(kind, seed, width, layers) for kind in KINDS]
            done = leaky.train_members(stack, *data, leaky.LeakySettings(adam_steps=adam, polish_iterations=polish))
            alone = make_net("uniform", seed, width, layers)
            more = round(adam * longer["uniform_equal_cost"])
            last = leaky.train(alone, *data, leaky.LeakySettings(adam_steps=more, polish_iterations=polish))
            for name, net, training in zip(table, (*stack, alone), (*done, last), strict=True):
                table[name].append(describe(net, task, training))
        arrays = {name: np.array(rows) for name, rows in table.items()}
        results[str(layers)] = {
            "means": {
                name: dict(zip(QUANTITIES, np.round(rows.mean(0), 4).tolist(), strict=True))
                for name, rows in arrays.items()
            },
            "paired": {
                quantity: {
                    f"adaptive - {name}": compare(arrays["adaptive"][:, column], rows[:, column])
                    for name, rows in arrays.items()
                    if name != "adaptive"
                }
                for column, quantity in enumerate(QUANTITIES[:4])
            },
        }
    line = {
        "benchmark": "adaptive_steps",
        "settings": {
            "task": list(WIDTHS),
            "samples": samples,
            "width": width,
            "effective_depth": EFFECTIVE_DEPTH,
            "penalty": PENALTY,
            "adam_steps": adam,
            "polish_iterations": polish,
            "seeds": seeds,
            "rounds": rounds,
            "quick": options.quick,
            "clock": "CPU time of the process",
        },
        "results": {"cost": cost, "layers": results},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
