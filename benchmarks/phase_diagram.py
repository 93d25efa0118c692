"""A phase diagram of networks: cells per minute, and how much of the time is not spent in training steps.

A grid of noise against slope is trained with the paper's 8-layer MLP, in this process and by worker processes, one thread each.
``share_outside_training`` is 1 minus the time inside training loops over wall time times workers: loading, measuring load curves,
files, collecting, and for processes their start, which imports torch once in each.

Run: OMP_NUM_THREADS=1 python benchmarks/phase_diagram.py [--quick] [--data mnist] [--workers 2]
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from learnmech.experiments.reproduction import Context
from learnmech.experiments.sweeping import train_grid


def time_grid(
    grid: dict[str, list[Any]], fixed: dict[str, Any], executor: str | None, workers: int
) -> dict[str, float]:
    """Train a grid in an empty folder and time it."""
    with tempfile.TemporaryDirectory() as folder:
        context = Context("reduced", Path(folder), executor, workers if executor else None)
        started = time.perf_counter()
        history = train_grid(grid, fixed, context)
        wall = time.perf_counter() - started
    inside = float(history["train_seconds"].sum())
    return {
        "wall_s": round(wall, 2),
        "cells_per_minute": round(60 * history["train_seconds"].size / wall, 1),
        "share_outside_training": round(1 - inside / (wall * (workers if executor else 1)), 3),
    }


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description="Cells of a phase diagram per minute.")
    parser.add_argument("--quick", action="store_true", help="tiny grid and nets, for tests; the times mean nothing")
    parser.add_argument("--data", default="digits", help="digits (embedded) or mnist (LEARNMECH_DATA)")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    grid: dict[str, list[Any]] = {"slope": [0.0, 0.4, 1.0], "noise": [0.7, 0.4, 0.2, 0.0], "seed": [0, 1]}
    fixed: dict[str, Any] = {"data": options.data, "epochs": 100}
    fixed |= {"samples": None, "image_size": None} if options.data == "digits" else {"samples": 2560, "image_size": 10}
    if options.quick:
        grid, fixed = (
            {"slope": [0.0, 1.0], "seed": [0, 1]},
            {**fixed, "samples": 100, "width": 8, "depth": 3, "epochs": 3},
        )
    line = {
        "benchmark": "phase_diagram",
        "settings": {
            "grid": grid,
            **fixed,
            "workers": options.workers,
            "rounds": 1,
            "quick": options.quick,
            "clock": "wall time",
        },
        "results": {
            "in_process": time_grid(grid, fixed, None, 1),
            "processes": time_grid(grid, fixed, "processes", options.workers),
        },
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
