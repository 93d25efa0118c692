"""The cost of identity for several ridges: one decomposition for all of them against one solve per ridge.

``decomposition`` is ``leaky.identity_cost`` with all ridges at once: a QR and a singular value decomposition of the
activations. ``solves`` forms K once and takes a Cholesky decomposition of K + ridge for each ridge; ``eigenvalues`` takes one
eigendecomposition of K. All in float64, rounds interleaved, CPU time of one thread, medians over rounds; ``ratio`` is the time
of the other route over ours. ``error`` is the largest relative error over ridges against 60 digits (mpmath), on a matrix of the
same aspect ratio, a tenth as large, whose rows shrink geometrically by 1e-5 in all; null where a route gives no number.

Run: OMP_NUM_THREADS=1 python benchmarks/identity_cost.py [--quick]
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence

os.environ.setdefault("OMP_NUM_THREADS", "1")

import mpmath
import torch
from torch import Tensor

from learnmech import leaky

RIDGES = (1e-2, 1e-3, 1e-4)
MANY = tuple(10.0**-power for power in range(1, 11))


def activations(representation: Tensor) -> Tensor:
    """Compute the ReLUs and a row of ones."""
    return torch.cat([representation.clamp(min=0), torch.ones_like(representation[:1])])


def decomposition(representation: Tensor, ridges: Sequence[float]) -> list[float]:
    """Compute all costs by our route."""
    return leaky.identity_cost(representation, ridge=ridges).tolist()


def solves(representation: Tensor, ridges: Sequence[float]) -> list[float]:
    """Compute each cost by a Cholesky decomposition of K + ridge; NaN where that fails."""
    active = activations(representation)
    kernel = active.T @ active
    costs = []
    for ridge in ridges:
        shifted = kernel.clone()
        shifted.diagonal().add_(ridge)
        factor, failed = torch.linalg.cholesky_ex(shifted)
        if failed:
            costs.append(float("nan"))
            continue
        half = torch.linalg.solve_triangular(factor, representation.T, upper=False)
        costs.append(float(half.square().sum()))
    return costs


def eigenvalues(representation: Tensor, ridges: Sequence[float]) -> list[float]:
    """Compute all costs from one eigendecomposition of K."""
    active = activations(representation)
    values, vectors = torch.linalg.eigh(active.T @ active)
    shares = (representation @ vectors).square().sum(0)
    return [float((shares / (values + ridge)).sum()) for ridge in ridges]


ROUTES: dict[str, Callable[[Tensor, Sequence[float]], list[float]]] = {
    "decomposition": decomposition,
    "solves": solves,
    "eigenvalues": eigenvalues,
}


def reference(representation: Tensor, ridges: Sequence[float]) -> list[mpmath.mpf]:
    """Compute the costs with 60 digits."""
    with mpmath.workdps(60):
        active = mpmath.matrix(activations(representation).tolist())
        values = mpmath.matrix(representation.tolist())
        kernel = active.T * active
        costs = []
        for ridge in ridges:
            factor = mpmath.cholesky(kernel + mpmath.mpf(ridge) * mpmath.eye(kernel.rows))
            total = mpmath.mpf(0)
            for row in range(values.rows):
                half = []
                for index in range(kernel.rows):
                    known = mpmath.fdot((factor[index, k], half[k]) for k in range(index))
                    half.append((values[row, index] - known) / factor[index, index])
                total += mpmath.fdot((x, x) for x in half)
            costs.append(total)
        return costs


def errors(width: int, samples: int, ridges: Sequence[float]) -> dict[str, float | None]:
    """Compare all routes with the reference."""
    shrinking = torch.logspace(0, -5, width, dtype=torch.float64)[:, None]
    representation = shrinking * torch.randn(width, samples, dtype=torch.float64)
    exact = reference(representation, ridges)
    found: dict[str, float | None] = {}
    for name, route in ROUTES.items():
        pairs = zip(route(representation, ridges), exact, strict=True)
        worst = [abs(float((mpmath.mpf(value) - true) / true)) for value, true in pairs]
        found[name] = None if any(error != error for error in worst) else float(f"{max(worst):.2g}")
    return found


def timings(width: int, samples: int, ridges: Sequence[float], rounds: int) -> dict[str, dict[str, float]]:
    """Measure the CPU time of all routes."""
    representation = torch.randn(width, samples, dtype=torch.float64)
    times: dict[str, list[float]] = {name: [] for name in ROUTES}
    for name in ROUTES:
        ROUTES[name](representation, ridges)  # warms up
    for _ in range(rounds):
        for name, route in ROUTES.items():
            started = time.process_time()
            route(representation, ridges)
            times[name].append(time.process_time() - started)

    def ratio(name: str) -> float:
        pairs = zip(times[name], times["decomposition"], strict=True)
        return round(statistics.median(a / b for a, b in pairs if b > 0), 2)

    return {
        "cpu_ms": {name: round(1e3 * statistics.median(spent), 3) for name, spent in times.items()},
        "ratio": {name: ratio(name) for name in ROUTES if name != "decomposition"},
    }


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description="Cost of identity for several ridges.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for tests; the times mean nothing")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    sizes = ((20, 40), (40, 20)) if options.quick else ((200, 1000), (1000, 200), (200, 200), (40, 300))
    rounds = 2 if options.quick else options.rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    results = {}
    for width, samples in sizes:
        results[f"{width}x{samples}"] = {
            f"{len(ridges)}_ridges": {
                **timings(width, samples, ridges, rounds),
                "error": errors(max(width // 10, 2), max(samples // 10, 2), ridges),
            }
            for ridges in (RIDGES, MANY)
        }
    line = {
        "benchmark": "identity_cost",
        "settings": {
            "sizes": "width x samples; normal entries, bias",
            "ridges": {"3_ridges": list(RIDGES), "10_ridges": list(MANY)},
            "dtype": "float64",
            "clock": "CPU time of the process",
            "rounds": rounds,
            "quick": options.quick,
        },
        "results": results,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
