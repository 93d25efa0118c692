"""Separation through the class means against the textbook route through d x d matrices: same numbers, less work.

The textbook route forms the scatter matrices S_w and S_b and takes ``torch.linalg.pinv(S_b)``. Ours works in the span of the
class means. All in float64, rounds interleaved, CPU time of one thread, medians over rounds. ``ratio`` is the time of the
other route over ours: ``pinv_route_over_pinv`` and ``pinv_route_over_trace`` take the whole textbook route,
``matrices_over_trace`` leaves the pseudo-inverse out of it, which ln(tr S_w / tr S_b) does not need.

Run: OMP_NUM_THREADS=1 python benchmarks/separation.py [--quick]
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from learnmech import springs


def scatter_matrices(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Form S_w and S_b as d x d matrices."""
    count, width = features.shape
    within, between = features.new_zeros(width, width), features.new_zeros(width, width)
    mean = features.mean(dim=0)
    for label in labels.unique():
        members = features[labels == label]
        centre = members.mean(dim=0)
        deviations = members - centre
        within += deviations.T @ deviations / count
        between += len(members) / count * torch.outer(centre - mean, centre - mean)
    return within, between


def matrix_trace(features: Tensor, labels: Tensor) -> Tensor:
    """Compute ln(tr S_w / tr S_b) from the matrices."""
    within, between = scatter_matrices(features, labels)
    return (within.trace() / between.trace()).log()


def matrix_pinv(features: Tensor, labels: Tensor) -> Tensor:
    """Compute ln tr(S_w pinv(S_b)) from the matrices."""
    within, between = scatter_matrices(features, labels)
    return (within @ torch.linalg.pinv(between)).trace().log()


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description="Separation measures against the route through d x d matrices.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for tests; the times mean nothing")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    samples, width, classes, rounds = (200, 40, 5, 2) if options.quick else (2560, 1000, 10, options.rounds)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    labels = torch.arange(samples) % classes
    features = torch.randn(samples, width, dtype=torch.float64)
    features += torch.randn(classes, width, dtype=torch.float64)[labels]
    routes: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "trace": lambda f, y: springs.separation(f, y, "trace"),
        "pinv": lambda f, y: springs.separation(f, y, "pinv"),
        "matrices": matrix_trace,
        "pinv_route": matrix_pinv,
    }
    values = {name: float(route(features, labels)) for name, route in routes.items()}  # warms up, too
    times: dict[str, list[float]] = {name: [] for name in routes}
    for _ in range(rounds):
        for name, route in routes.items():
            started = time.process_time()
            route(features, labels)
            times[name].append(time.process_time() - started)

    def ratio(slow: str, fast: str) -> float:
        pairs = zip(times[slow], times[fast], strict=True)
        return round(statistics.median(a / b for a, b in pairs if b > 0), 2)

    line = {
        "benchmark": "separation",
        "settings": {
            "samples": samples,
            "features": width,
            "classes": classes,
            "dtype": "float64",
            "rounds": rounds,
            "quick": options.quick,
            "clock": "CPU time of the process",
        },
        "results": {
            "cpu_ms": {name: round(1e3 * statistics.median(spent), 3) for name, spent in times.items()},
            "ratio": {
                "pinv_route_over_pinv": ratio("pinv_route", "pinv"),
                "pinv_route_over_trace": ratio("pinv_route", "trace"),
                "matrices_over_trace": ratio("matrices", "trace"),
            },
            "difference": {
                "pinv": abs(values["pinv"] - values["pinv_route"]),
                "trace": abs(values["trace"] - values["matrices"]),
            },
        },
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
