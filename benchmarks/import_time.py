"""What importing learnmech adds to importing torch, and how soon the command line answers.

Fresh interpreters, in turn: ``import torch``; ``import torch, learnmech``; the same and the first look at
``learnmech.watch`` (which imports xarray and the monitor); ``learnmech --help``. Wall time, medians over rounds; what is
added is the median over rounds of the difference to ``import torch`` in the same round.

Run: OMP_NUM_THREADS=1 python benchmarks/import_time.py [--quick]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "torch": ("-c", "import torch"),
    "torch_learnmech": ("-c", "import torch, learnmech"),
    "torch_learnmech_watch": ("-c", "import torch, learnmech; learnmech.watch"),
    "help": ("-m", "learnmech.cli", "--help"),
}


def wall_seconds(arguments: tuple[str, ...]) -> float:
    """Time one fresh interpreter."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    return time.perf_counter() - started


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description="Import time of learnmech beside torch's.")
    parser.add_argument("--quick", action="store_true", help="one round, for tests; the numbers mean nothing")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    for arguments in () if options.quick else COMMANDS.values():
        wall_seconds(arguments)  # warm the disk cache
    times = [{name: wall_seconds(arguments) for name, arguments in COMMANDS.items()} for _ in range(rounds)]
    median = {name: statistics.median(one[name] for one in times) for name in COMMANDS}
    added = {
        name: statistics.median(one[name] - one["torch"] for one in times)
        for name in ("torch_learnmech", "torch_learnmech_watch")
    }
    from importlib.metadata import version

    line = {
        "benchmark": "import_time",
        "settings": {"rounds": rounds, "quick": options.quick, "clock": "wall time", "commands": list(COMMANDS)},
        "results": {
            "wall_s": {name: round(value, 4) for name, value in median.items()},
            "added_to_torch_s": {name: round(value, 4) for name, value in added.items()},
            "ratio_to_torch": {name: round(median[name] / median["torch"], 4) for name in COMMANDS if name != "torch"},
        },
        "torch": version("torch"),
        "threads": 1,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
