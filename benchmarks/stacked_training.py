"""Member-steps per second of a stack of networks, against the same networks trained one at a time.

The networks are the spring-block paper's MLP (width 100, depth 8, BatchNorm, Adam) on 100 random features in ten classes.
Both ways are timed through ``train_members``, so building the stack and the final evaluation are in the time. ``noisy`` has
dropout 0.1 and label and data noise 0.1. One at a time the cost does not depend on the number of members, so only some of
them are trained that way. Rounds are interleaved, CPU time of one thread, medians over rounds; ``ratio`` is the speed of the
stack over that of one at a time, a median over rounds, too.

Run: OMP_NUM_THREADS=1 python benchmarks/stacked_training.py [--quick] [--members 30] [--rounds 5] [--stack-size N]
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from learnmech.data.dataset import Dataset
from learnmech.nets import MLP
from learnmech.training import TrainConfig, build_seeded, train_members

STEPS = {10: 150, 160: 16, 2560: 4}
KINDS = {"clean": 0.0, "noisy": 0.1}


def make_data(samples: int) -> Dataset:
    """Make random features in ten classes."""
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(samples, 100, generator=generator), torch.arange(samples) % 10
    return Dataset("random", inputs, labels, inputs[:10], labels[:10], classes=10, source="made up")


def time_way(
    stack: bool, seeds: Sequence[int], batch: int, level: float, size: dict[str, int], stack_size: int | None
) -> float:
    """Give the member-steps per second of CPU time."""
    steps, full = STEPS[batch], batch == max(STEPS)
    data = make_data(batch if full else batch * steps)
    models = [build_seeded(lambda: MLP(100, 10, dropout=level, **size), seed) for seed in seeds]
    configs = [
        TrainConfig(
            epochs=steps if full else 1,
            batch_size=None if full else batch,
            label_noise=level,
            data_noise=level,
            seed=seed,
            stop_loss=0,
            stop_change=0,
        )
        for seed in seeds
    ]
    started = time.process_time()
    train_members(models, data, configs, stack=stack, stack_size=stack_size)
    return len(seeds) * steps / (time.process_time() - started)


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description="Stacks of networks against one network at a time.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for tests; the times mean nothing")
    parser.add_argument("--members", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stack-size", type=int, default=None)
    options = parser.parse_args()
    size = {"width": 8, "depth": 3} if options.quick else {"width": 100, "depth": 8}
    members, rounds = (3, 1) if options.quick else (options.members, options.rounds)
    separate = min(6, members)
    torch.set_num_threads(1)
    speeds: dict[str, dict[int, dict[str, list[float]]]] = {
        kind: {batch: {"stacked": [], "one_at_a_time": []} for batch in STEPS} for kind in KINDS
    }
    for stack in (True, False):
        time_way(stack, range(2), 10, 0.1, size, None)  # warms up
    for _ in range(rounds):
        for kind, level in KINDS.items():
            for batch in STEPS:
                for way, count in (("stacked", members), ("one_at_a_time", separate)):
                    speed = time_way(way == "stacked", range(count), batch, level, size, options.stack_size)
                    speeds[kind][batch][way].append(speed)

    def summary(ways: dict[str, list[float]]) -> dict[str, float]:
        pairs = zip(ways["stacked"], ways["one_at_a_time"], strict=True)
        return {
            **{way: round(statistics.median(values), 1) for way, values in ways.items()},
            "ratio": round(statistics.median(stacked / alone for stacked, alone in pairs), 2),
        }

    line = {
        "benchmark": "stacked_training",
        "settings": {
            "members": members,
            "members_one_at_a_time": separate,
            "stack_size": options.stack_size,
            "net": {**size, "inputs": 100, "outputs": 10, "batch_norm": True},
            "optimizer": "adam",
            "dtype": "float32",
            "rounds": rounds,
            "quick": options.quick,
            "clock": "CPU time of the process",
        },
        "results": {
            "member_steps_per_s": {
                kind: {str(batch): summary(ways) for batch, ways in batches.items()} for kind, batches in speeds.items()
            }
        },
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
