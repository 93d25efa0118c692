"""Layer-steps per second of training leaky ResNets: stacked, one at a time, and with torch's autograd.

A layer-step is one Adam step of one layer of one net on all samples. ``stacked`` trains M nets as one computation with
``leaky.train_members``; its entry for 1 is the same engine on one net at a time, whose speed does not depend on how many nets
wait. ``autograd`` is one net, ``net.cost(x, y).backward()`` and ``torch.optim.Adam(fused=True)``, as one would write it by hand.
All in float32. ``polish_iterations_per_s`` are iterations of L-BFGS of one net in float64, its line search included. ``ratio``
holds speeds over that of one net at a time, and over autograd. Nets of the stack differ in effective depth. What is built
before the first step and evaluated after the last one is not in the time. Rounds are interleaved, CPU time of one thread,
medians over rounds; a ratio is the median of the rounds' ratios.

Run: OMP_NUM_THREADS=1 python benchmarks/leaky_training.py [--quick] [--rounds 5]
"""

import argparse
import json
import os
import statistics
import time
from dataclasses import dataclass, field

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from learnmech import leaky

MEMBERS = (1, 4, 12)
OUTPUTS = 10


@dataclass(frozen=True)
class Size:
    """A net, its data, and how many steps and iterations are timed."""

    width: int
    samples: int
    layers: int
    steps: int
    iterations: int


@dataclass
class Clock:
    """CPU time of the process after each report of progress."""

    times: list[float] = field(default_factory=list)

    def __call__(self, done: int, total: int) -> None:
        """Note the time; called once a step."""
        del done, total
        self.times.append(time.process_time())

    def rate(self) -> float:
        """Give the reports per second from the first to the last."""
        return (len(self.times) - 1) / (self.times[-1] - self.times[0])


def make_task(size: Size) -> tuple[torch.Tensor, torch.Tensor]:
    """Make inputs and smooth targets that depend on three directions of them."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(size.samples, OUTPUTS, generator=generator)
    down, up = torch.randn(OUTPUTS, 3, generator=generator), torch.randn(3, OUTPUTS, generator=generator)
    return inputs, torch.tanh(inputs @ down / 3) @ up


def make_nets(size: Size, count: int) -> list[leaky.LeakyResNet]:
    """Make nets of effective depths from 2 up."""
    torch.manual_seed(0)
    depths = [2.0 + 0.5 * number for number in range(count)]
    return [leaky.LeakyResNet(OUTPUTS, OUTPUTS, size.width, depth, size.layers, penalty=0.02) for depth in depths]


def time_stack(size: Size, members: int) -> float:
    """Give the layer-steps per second of a stack."""
    clock = Clock()
    settings = leaky.LeakySettings(adam_steps=size.steps + 1, polish_iterations=0)
    leaky.train_members(make_nets(size, members), *make_task(size), settings, on_progress=clock)
    return clock.rate() * members * size.layers


def time_polish(size: Size) -> float:
    """Give the iterations of L-BFGS per second of one net."""
    clock = Clock()
    settings = leaky.LeakySettings(adam_steps=0, polish_iterations=size.iterations + 1)
    net = make_nets(size, 1)[0].double()
    leaky.train(net, *(values.double() for values in make_task(size)), settings, on_progress=clock)
    return clock.rate()


def time_autograd(size: Size) -> float:
    """Give the layer-steps per second of the loop that one would write by hand."""
    net, (inputs, targets) = make_nets(size, 1)[0], make_task(size)
    trained = [weight for weight in net.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=3e-3, fused=True)
    clock = Clock()
    for step in range(size.steps + 1):
        optimizer.zero_grad()
        net.cost(inputs, targets).backward()
        optimizer.step()
        clock(step, size.steps)
    return clock.rate() * size.layers


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description="Stacked leaky ResNets against one at a time and against autograd.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for tests; the times mean nothing")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    sizes = {"small": Size(40, 300, 24, steps=40, iterations=40), "large": Size(200, 1000, 24, steps=4, iterations=4)}
    if options.quick:
        sizes = {"small": Size(10, 20, 9, steps=4, iterations=4), "large": Size(12, 30, 10, steps=3, iterations=3)}
    rounds = 2 if options.quick else options.rounds
    torch.set_num_threads(1)
    results = {}
    for name, size in sizes.items():
        stacked: dict[int, list[float]] = {members: [] for members in MEMBERS}
        autograd, polish = [], []
        for warm_up in (lambda size: time_stack(size, 1), time_autograd, time_polish):
            warm_up(size)
        for _ in range(rounds):
            for members, speeds in stacked.items():
                speeds.append(time_stack(size, members))
            autograd.append(time_autograd(size))
            polish.append(time_polish(size))

        def ratio(fast: list[float], slow: list[float]) -> float:
            return round(statistics.median(a / b for a, b in zip(fast, slow, strict=True)), 2)

        results[name] = {
            "layer_steps_per_s": {
                "stacked": {str(members): round(statistics.median(speeds)) for members, speeds in stacked.items()},
                "autograd": round(statistics.median(autograd)),
            },
            "ratio": {
                "over_one_at_a_time": {str(members): ratio(speeds, stacked[1]) for members, speeds in stacked.items()},
                "over_autograd": {str(members): ratio(speeds, autograd) for members, speeds in stacked.items()},
            },
            "polish_iterations_per_s": round(statistics.median(polish), 2),
        }
    line = {
        "benchmark": "leaky_training",
        "settings": {
            "sizes": {name: {**vars(size), "outputs": OUTPUTS, "bias": True} for name, size in sizes.items()},
            "dtype": "float32; L-BFGS float64",
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
