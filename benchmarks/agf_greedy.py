"""Test error over neurons and over time: greedy training (utility maximisation, cost minimisation) against Adam.

Two-layer ReLU networks on California housing (in the folder that LEARNMECH_DATA names), else on scikit-learn's diabetes data;
``--quick`` always takes the latter. ``greedy`` is one run whose neurons are counted as they come, so its seconds at a width are
those since its start. ``adam`` is trained anew for each width: minibatches, cosine schedule, best of some learning rates on
held-out samples; ``seconds`` is the training at the best one, ``search_s`` that of the others. ``adam_short`` has a quarter of the
epochs. ``random_start`` is the minimiser of greedy training (Levenberg-Marquardt) from random neurons of the full width. Errors are in
standard deviations of the target. All ways run in float32, one after the other; CPU time of one thread, which is wall time on a free
core. A round is a seed, medians over rounds.

Run: OMP_NUM_THREADS=1 python benchmarks/agf_greedy.py [--quick] [--rounds 1]
"""

import argparse
import json
import os
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from learnmech.experiments.kunin2025.greedy_measuring import FULL, METHODS, QUICK, measure_greedy


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description="Greedy training against Adam.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for tests; the numbers mean nothing")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rounds = 1 if options.quick else options.rounds
    settings = {**(QUICK if options.quick else FULL), "seeds": tuple(range(rounds))}
    run = measure_greedy(settings, "diabetes" if options.quick else "any")

    def middle(name: str, method: str, width: int) -> float | None:
        values = run[name].sel(training=method, neurons=width).values
        return None if np.isnan(values).any() else round(float(np.median(values)), 4)

    names = {"test_rmse": "test_rmse", "loss": "train_loss", "seconds": "seconds", "search_seconds": "search_s"}
    results: dict[str, Any] = {
        method: {
            str(width): {label: middle(name, method, width) for name, label in names.items()}
            for width in settings["widths"]
            if middle("seconds", method, width) is not None
        }
        for method in METHODS
    }
    line = {
        "benchmark": "agf_greedy",
        "settings": {
            **{name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()},
            "data": run.attrs["data"],
            "samples": int(run.attrs["samples"]),
            "dtype": "float32",
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
