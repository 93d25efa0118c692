"""Time to predict a staircase against time to simulate it, and how far the predicted jumps and levels are from simulated ones.

For linear, diagonal and linear-attention networks from a vanishing start the exact route of :mod:`learnmech.dynamics.agf` and
its gradient flow run in turn on the same problem. The flow is what the library itself offers as ground truth, with the integrator that suits
each instance and its own tolerance (1e-10); it ends a tenth after the last predicted jump. Times are the CPU time of one
thread, medians over rounds; ``ratio`` is simulation over prediction. Errors are relative; that of a level is relative to the first level.

Run: OMP_NUM_THREADS=1 python benchmarks/agf_vs_flow.py [--quick]
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from learnmech.dynamics import agf

Case = tuple[Callable[[], Any], Callable[[Any], Any]]


def linear_case(quick: bool) -> Case:
    """A whitened linear network with a power-law spectrum."""
    size, hidden, scale = (4, 4, 1e-4) if quick else (10, 10, 1e-8)
    draws = np.random.default_rng(0)
    left, right = (np.linalg.qr(draws.standard_normal((size, size)))[0] for _ in range(2))
    correlation = left @ np.diag(2.0 / np.arange(1, size + 1)) @ right.T
    first = scale * draws.standard_normal((size, hidden)) / np.sqrt(size)
    second = scale * draws.standard_normal((hidden, size)) / np.sqrt(size)
    problem = agf.LinearProblem(correlation)

    def predict() -> Any:
        return agf.linear(first, second, correlation)

    return predict, lambda end: agf.gradient_flow(problem, problem.neurons(first, second), end=end)


def diagonal_case(quick: bool) -> Case:
    """A diagonal linear network of the paper's size: 5 coordinates of falling variance, 20 samples."""
    size, samples, scale = (3, 10, 1e-4) if quick else (5, 20, 1e-8)
    draws = np.random.default_rng(0)
    inputs = draws.standard_normal((samples, size)) / np.sqrt(np.arange(1, size + 1))
    targets = inputs @ (10 * draws.standard_normal(size))
    problem = agf.DiagonalProblem(inputs, targets)

    def predict() -> Any:
        return agf.diagonal(inputs, targets, scale)

    return predict, lambda end: agf.gradient_flow(problem, problem.neurons(scale), end=end)


def attention_case(quick: bool) -> Case:
    """Linear attention that learns to regress in context."""
    size, scale = (2, 1e-3) if quick else (4, 1e-4)
    eigenvalues = 1.0 / np.arange(1, size + 1)
    eigenvalues *= 2 / eigenvalues.sum()
    problem = agf.AttentionProblem(eigenvalues, 32)
    init = scale * np.random.default_rng(0).standard_normal((size + 1, problem.size)) / np.sqrt(problem.size)
    init[:, 0] = np.abs(init[:, 0])

    def predict() -> Any:
        return agf.linear_attention(eigenvalues, 32, init=init)

    return predict, lambda end: agf.gradient_flow(problem, init, end=end)


CASES: dict[str, Callable[[bool], Case]] = {
    "linear": linear_case,
    "diagonal": diagonal_case,
    "linear_attention": attention_case,
}


def timed(call: Callable[[], Any], repeat: int) -> tuple[float, Any]:
    """CPU seconds of one call, the mean over a few."""
    start = time.process_time()
    for _ in range(repeat):
        result = call()
    return (time.process_time() - start) / repeat, result


def measure(case: Case, rounds: int, repeat: int) -> dict[str, float]:
    """Predict and simulate in turn."""
    predict, simulate = case
    prediction = predict()
    end = float(prediction.times[-1]) * 1.1
    seconds: dict[str, list[float]] = {"predict": [], "simulate": []}
    for _ in range(rounds):
        taken, prediction = timed(predict, repeat)
        seconds["predict"].append(taken)
        taken, history = timed(lambda: simulate(end), 1)
        seconds["simulate"].append(taken)
    found = agf.compare(prediction, history)
    fast, slow = (statistics.median(seconds[name]) for name in ("predict", "simulate"))
    return {
        "predict_ms": 1e3 * fast,
        "simulate_ms": 1e3 * slow,
        "ratio": slow / fast,
        "jumps": len(prediction),
        "largest_time_error": float(np.nanmax(np.abs(found.time_errors))),
        "largest_level_error": float(np.nanmax(np.abs(found.level_errors))),
    }


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny problems, one round")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    rounds, repeat = (1, 1) if quick else (5, 20)
    results = {name: measure(make(quick), rounds, repeat) for name, make in CASES.items()}
    settings = {"quick": quick, "rounds": rounds}
    print(
        json.dumps(
            {
                "benchmark": "agf_vs_flow",
                "settings": settings,
                "results": results,
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    main()
