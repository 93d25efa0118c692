"""First-order spring chains side by side against loops that one would write by hand, and against the random draws alone.

``python_loop`` is the textbook update of one chain in plain Python, ``numpy_loop`` the same chain as a NumPy vector of
blocks, ``numpy_chains`` all chains as one NumPy array; ``normals`` only draws the normal numbers that ``simulate`` uses, in
the same blocks. All in double precision but for our draws, rounds interleaved, CPU time of one thread, medians over rounds.
``ns`` is the time of one block in one step of one chain; ``ratio`` is the time of the other route over ours, and for
``over_normals`` ours over the draws alone. ``phase_diagram_s`` is a diagram of 54 cells of 100 chains for 10,000 steps.

Run: OMP_NUM_THREADS=1 python benchmarks/spring_simulation.py [--quick]
"""

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from learnmech.springs import SpringChain
from learnmech.springs.spring_noise import SpringNoise

BLOCKS, FRICTION, NOISE, DT = 7, 0.1, 0.1, 0.01


def python_loop(steps: int) -> list[float]:
    """Move one chain, block by block."""
    position = [0.0] * BLOCKS + [1.0]
    for _ in range(steps):
        old = [0.0, *position]
        for block in range(BLOCKS):
            force = old[block + 2] - 2 * old[block + 1] + old[block] + NOISE * random.gauss(0.0, 1.0)
            if force > FRICTION:
                position[block] += DT * (force - FRICTION)
            elif force < -FRICTION:
                position[block] += DT * (force + FRICTION)
    return position


def numpy_loop(steps: int, chains: int) -> np.ndarray:
    """Move chains as one array of blocks."""
    rng = np.random.default_rng(0)
    position = np.zeros((BLOCKS + 2, chains))
    position[-1] = 1.0
    for _ in range(steps):
        force = position[2:] - 2 * position[1:-1] + position[:-2] + NOISE * rng.standard_normal((BLOCKS, chains))
        position[1:-1] += DT * (force - np.clip(force, -FRICTION, FRICTION))
    return position


def normals(steps: int, chains: int) -> None:
    """Draw what the simulation draws."""
    noise = SpringNoise("gaussian", BLOCKS, chains, (0,))
    drawn = 0
    while drawn < steps:
        drawn += len(noise.draw())


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description="First-order spring chains against loops written by hand.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for tests; the times mean nothing")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--chains", type=int, default=1024)
    options = parser.parse_args()
    steps, chains, rounds = (20, 32, 2) if options.quick else (10_000, options.chains, options.rounds)
    torch.set_num_threads(1)
    chain = SpringChain(blocks=BLOCKS, friction_forward=FRICTION, friction_backward=FRICTION)
    few, single = max(1, steps // 10), max(1, steps // 2)
    routes: dict[str, tuple[Callable[[], object], int]] = {  # what to run, and how many chain steps it makes
        "simulate": (lambda: chain.simulate(steps=steps, dt=DT, noise=NOISE, chains=chains), steps * chains),
        "normals": (lambda: normals(steps, chains), steps * chains),
        "python_loop": (lambda: python_loop(single), single),
        "numpy_loop": (lambda: numpy_loop(single, 1), single),
        "numpy_chains": (lambda: numpy_loop(few, chains), few * chains),
    }
    for run, _ in routes.values():
        run()
    spent: dict[str, list[float]] = {name: [] for name in routes}
    for _ in range(rounds):
        for name, (run, chain_steps) in routes.items():
            started = time.process_time()
            run()
            spent[name].append(1e9 * (time.process_time() - started) / (chain_steps * BLOCKS))

    def ratio(slow: str, fast: str) -> float:
        return round(statistics.median(a / b for a, b in zip(spent[slow], spent[fast], strict=True) if b > 0), 2)

    cells = (2, 2) if options.quick else (9, 6)
    diagram = SpringChain(
        blocks=BLOCKS, friction_forward=np.linspace(0, 0.1, cells[0])[:, None], friction_backward=0.04
    )
    started = time.process_time()
    diagram.simulate(steps=steps, dt=DT, noise=np.linspace(0, 0.32, cells[1]), chains=100)
    line = {
        "benchmark": "spring_simulation",
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
                "python_loop": ratio("python_loop", "simulate"),
                "numpy_loop": ratio("numpy_loop", "simulate"),
                "numpy_chains": ratio("numpy_chains", "simulate"),
                "over_normals": ratio("simulate", "normals"),
            },
            "phase_diagram_s": round(time.process_time() - started, 2),
        },
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
