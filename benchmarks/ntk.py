"""Time and memory of the tangent kernel against the naive route, which writes out the whole Jacobian.

The naive route is the usual recipe: ``torch.func.vmap(jacrev)`` over samples, the Jacobians of all parameters put together to
one matrix J (samples, outputs, parameters), and the trace over outputs of J J^T by one matrix product. Networks are a 3-layer
MLP 20-256-256-c with c = 3 and c = 10, and a small CNN, in float32. Rounds are interleaved and timed by the CPU time of one
thread; times are medians. Memory is the growth of the peak resident size of a fresh process by one call, after a call on two
samples, which loads libraries; ``--quick`` leaves it out. ``error`` is the largest difference of the two kernels, relative to the largest entry.

Run: OMP_NUM_THREADS=1 python benchmarks/ntk.py [--quick]
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn

from learnmech.dynamics.kernel_matrix import kernel

NETS = ("mlp_3_outputs", "mlp_10_outputs", "cnn")
ROUTES = ("kernel", "naive")


def make(name: str, quick: bool) -> tuple[nn.Module, Tensor]:
    """Make a network and a batch."""
    torch.manual_seed(0)
    samples, width = (10, 16) if quick else (100, 256)
    if name == "cnn":
        net = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU()),
            *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10)),
        )
        return net, torch.randn(samples, 1, 16, 16)
    outputs = int(name.split("_")[1])
    net = nn.Sequential(nn.Linear(20, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs))
    return net, torch.randn(samples, 20)


def naive(net: nn.Module, inputs: Tensor) -> Tensor:
    """Write out the Jacobian and multiply it with itself."""
    parameters = {name: tensor.detach() for name, tensor in net.named_parameters()}

    def one(values: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(net, values, (x[None],))[0]

    parts = torch.func.vmap(torch.func.jacrev(one), in_dims=(None, 0))(parameters, inputs)
    jacobian = torch.cat([part.flatten(2) for part in parts.values()], dim=2).flatten(1)
    return jacobian @ jacobian.T


def call(route: str, net: nn.Module, inputs: Tensor) -> Tensor:
    """Compute the kernel by one route."""
    return kernel(net, inputs) if route == "kernel" else naive(net, inputs)


def peak_growth(name: str, route: str, quick: bool) -> float:
    """Measure the growth of a fresh process in MiB."""
    command = [sys.executable, __file__, "--child", name, route, *(["--quick"] if quick else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def child(name: str, route: str, quick: bool) -> None:
    """Print by how much one call raises the peak resident size, in MiB."""
    net, inputs = make(name, quick)
    call(route, net, inputs[:2])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call(route, net, inputs)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def peaks(quick: bool) -> dict[str, dict[str, float]]:
    """Measure memory. A process begins with the peak of its parent, so this comes before all else."""
    names = () if quick else NETS
    return {name: {route: round(peak_growth(name, route, quick), 2) for route in ROUTES} for name in names}


def measure(name: str, rounds: int, quick: bool) -> dict[str, object]:
    """Time both routes in turn."""
    net, inputs = make(name, quick)
    results = {route: call(route, net, inputs).double() for route in ROUTES}
    times: dict[str, list[float]] = {route: [] for route in ROUTES}
    for _ in range(rounds):
        for route in ROUTES:
            started = time.process_time()
            call(route, net, inputs)
            times[route].append(time.process_time() - started)
    seconds = {route: statistics.median(found) for route, found in times.items()}
    difference = (results["kernel"] - results["naive"]).abs().max() / results["naive"].abs().max()
    return {
        "cpu_ms": {route: round(1e3 * value, 3) for route, value in seconds.items()},
        "naive_over_kernel": round(seconds["naive"] / seconds["kernel"], 2),
        "error": float(difference),
    }


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description="Tangent kernel against the naive Jacobian route.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for tests; the numbers mean nothing")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.child:
        child(*options.child, options.quick)
        return
    rounds, memory = 2 if options.quick else options.rounds, peaks(options.quick)
    line = {
        "benchmark": "ntk",
        "settings": {
            "nets": "MLP 20-256-256-c in float32, 100 samples; CNN with 8 and 16 channels, 100 images of 16 x 16",
            "rounds": rounds,
            "quick": options.quick,
            "clock": "CPU time of the process",
            "memory": "growth of ru_maxrss by one call in a fresh process",
        },
        "results": {name: {**measure(name, rounds, options.quick), "peak_mib": memory.get(name)} for name in NETS},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
