"""Small experiments for the tests, importable by worker processes; each leaves a trace of its runs beside the results."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from learnmech import history as histories

LOSS = {"long_name": "loss", "units": "1", "source": "test"}


def leave_trace(config, kind="run"):
    """One empty file for each run: their number says how often."""
    if "traces" in config:
        folder = Path(config["traces"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{kind}-{config['seed']}-{time.time_ns()}-{os.getpid()}").touch()


def traces(folder, kind="run"):
    return [path.name for path in Path(folder).glob(f"{kind}-*")]


def curve(config, steps=4):
    """A history over steps and layers that depends on the numbers of the global generator as well."""
    values = torch.randn(steps, generator=torch.Generator().manual_seed(int(config["seed"]))).double() * config["rate"]
    values = values + torch.rand(steps, dtype=torch.float64)
    matrix = torch.linspace(0, 1, 300 * 300, dtype=torch.float32).reshape(300, 300)
    total = (matrix @ matrix).sum().item()  # rounds differently on another number of threads
    return histories.build(
        {
            "loss": (("step",), values.numpy(), LOSS),
            "load": (("step", "layer"), np.outer(values.numpy(), [1.0, 2.0]), LOSS),
            "total": ((), total, LOSS),
            "count": ((), int(config["seed"]), LOSS),
        },
        {"step": np.arange(steps) * 10, "layer": ["first", "last"], "depth": ("layer", [0.0, 1.0])},
        config=config,
    )


def simple(config):
    leave_trace(config)
    time.sleep(config.get("pause", 0.0))
    return curve(config)


def fragile(config):
    leave_trace(config)
    if config["seed"] == 1 and not (Path(config["traces"]) / "mended").exists():
        raise ValueError("seed 1 is not\nto be had")
    return curve(config)


def numbers(config):
    return {"sum": config["rate"] + config["seed"], "product": np.float32(config["rate"] * config["seed"])}


def lethal(config):
    """Kills its worker: the first time (seed 1), or each time (seed 2)."""
    leave_trace(config)
    once = config["seed"] == 1 and len([name for name in traces(config["traces"]) if name.startswith("run-1-")]) == 1
    if once or config["seed"] == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return curve(config)


def dies_once(config):
    leave_trace(config)
    if config["seed"] == 3 and len([name for name in traces(config["traces"]) if name.startswith("run-3-")]) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return curve(config)


def varied(config):
    """Steps, layers and depths differ between cells."""
    layers = config["layers"]
    steps = np.arange(2 + config["seed"]) * (1 + config["seed"])
    values = np.add.outer(steps * 1.0, np.arange(layers))
    return histories.build(
        {"load": (("step", "layer"), values, LOSS), "last": ((), layers, LOSS)},
        {
            "step": steps,
            "layer": [f"hidden.{place}" for place in range(layers)],
            "depth": ("layer", np.linspace(0, 1, layers)),
            "role": ("layer", ["block"] * layers),
        },
        config=config,
    )


@dataclass(frozen=True)
class Stacked:
    """Many seeds at once; a member fails, or the whole stack."""

    scale: float = 1.0
    group_size: int = 3
    stackable = ("seed",)

    def __call__(self, config):
        leave_trace(config)
        return self._history(config)

    def run_stacked(self, configs):
        if any(config.get("broken") for config in configs):
            raise MemoryError("too many")
        results = []
        for config in configs:
            leave_trace(config, "stack")
            failed = config["seed"] == 4 and config.get("bad")
            results.append(RuntimeError("member 4") if failed else self._history(config))
        return results

    def _history(self, config):
        return histories.build(
            {"loss": (("step",), [self.scale * config["seed"], config["rate"]], LOSS)}, {"step": [0, 1]}, config=config
        )


STACKED = Stacked()
