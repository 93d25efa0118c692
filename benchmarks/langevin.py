"""Second-order spring chains side by side: time of one block in one step, against a NumPy array of the same chains.

``langevin`` and ``stick_slip`` are ours, ``numpy_chains`` is the proximal Langevin step over all chains as one NumPy array,
``normals`` only draws the normal numbers. Double precision but for our draws, rounds interleaved, CPU time of one thread,
medians over rounds; ``ns`` is the time of one block in one step of one chain, ``ratio`` that of the other route over ours.

Run: OMP_NUM_THREADS=1 python benchmarks/langevin.py [--quick]
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Literal

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from learnmech.springs import SpringChain
from learnmech.springs.spring_noise import SpringNoise

BLOCKS, FRICTION, NOISE, DT, DAMPING = 7, 0.1, 0.1, 0.05, 4.0


def numpy_chains(steps: int, chains: int) -> np.ndarray:
    """Move chains as one array of blocks."""
    rng = np.random.default_rng(0)
    position, velocity = np.zeros((BLOCKS + 2, chains)), np.zeros((BLOCKS, chains))
    position[-1] = 1.0
    for _ in range(steps):
        force = position[2:] - 2 * position[1:-1] + position[:-2] + NOISE * rng.standard_normal((BLOCKS, chains))
        velocity += DT * (force - DAMPING * velocity)
        velocity -= np.clip(velocity, -DT * FRICTION, DT * FRICTION)
        position[1:-1] += DT * velocity
    return position


def normals(steps: int, chains: int) -> None:
    """Draw what the simulation draws."""
    noise = SpringNoise("gaussian", BLOCKS, chains, (0,))
    drawn = 0
    while drawn < steps:
        drawn += len(noise.draw())


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description="Second-order spring chains against a NumPy array.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for tests; the times mean nothing")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--chains", type=int, default=1024)
    options = parser.parse_args()
    steps, chains, rounds = (20, 32, 2) if options.quick else (1000, options.chains, options.rounds)
    torch.set_num_threads(1)
    chain = SpringChain(blocks=BLOCKS, friction_forward=FRICTION, friction_backward=FRICTION)

    def ours(dynamics: Literal["langevin", "stick_slip"]) -> object:
        return chain.simulate(steps=steps, dt=DT, noise=NOISE, damping=DAMPING, dynamics=dynamics, chains=chains)

    routes: dict[str, Callable[[], object]] = {
        "langevin": lambda: ours("langevin"),
        "stick_slip": lambda: ours("stick_slip"),
        "normals": lambda: normals(steps, chains),
        "numpy_chains": lambda: numpy_chains(steps, chains),
    }
    for run in routes.values():
        run()
    spent: dict[str, list[float]] = {name: [] for name in routes}
    for _ in range(rounds):
        for name, run in routes.items():
            started = time.process_time()
            run()
            spent[name].append(1e9 * (time.process_time() - started) / (steps * chains * BLOCKS))

    def ratio(slow: str, fast: str) -> float:
        return round(statistics.median(a / b for a, b in zip(spent[slow], spent[fast], strict=True) if b > 0), 2)

    line = {
        "benchmark": "langevin",
        "settings": {
            "blocks": BLOCKS,
            "chains": chains,
            "steps": steps,
            "dtype": "float64",
            "rounds": rounds,
            "quick": options.quick,
            "clock": "CPU time of the process",
        },
        "results": {
            "ns": {name: round(statistics.median(times), 2) for name, times in spent.items()},
            "ratio": {
                "numpy_chains_over_langevin": ratio("numpy_chains", "langevin"),
                "numpy_chains_over_stick_slip": ratio("numpy_chains", "stick_slip"),
                "langevin_over_normals": ratio("langevin", "normals"),
            },
        },
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
