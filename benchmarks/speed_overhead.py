"""What measuring feature speed costs, in training steps and in memory, on three kinds of network.

A step is ``zero_grad``, forward, backward and one Adam step. ``measure`` is the whole of ``speed.measure`` with the next step
of Adam, layers and paths found anew; ``again`` is ``SpeedMeasurement.measure``, which knows the layers; then the same without
the real step, and for plain gradient descent, where no optimizer is previewed; ``layers`` is the search for layers alone.
Rounds are interleaved and timed by the CPU time of one thread; prices are medians over rounds of the time over that of a step.

``memory`` compares the peak of two processes that train for three steps, one of which measures in between, both above what
the process takes before its network is made. It needs no network of its own: gradients and optimizer state are there, too.

Run: OMP_NUM_THREADS=1 python benchmarks/speed_overhead.py [--quick]
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn
from torch.nn import functional

from learnmech import speed

Setting = tuple[nn.Module, Tensor, Tensor, str]


class ConvolutionBlock(nn.Module):
    """The block of a ResNet."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Transform images, shape (batch, channels, height, width)."""
        inner = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(inner)) + self.skip(x))


class ResNet(nn.Module):
    """A small ResNet for images of 32 x 32."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        sizes = [(width * 2 ** max(stage - 1, 0), width * 2**stage, 1 + (stage > 0)) for stage in range(3)]
        blocks = [
            ConvolutionBlock(after if block else before, after, 1 if block else stride)
            for before, after, stride in sizes
            for block in range(depth)
        ]
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(4 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Give the logits of images."""
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class AttentionBlock(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Attend, then transform each token; x has shape (batch, tokens, width)."""
        batch, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.project(attended.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """A language model."""

    def __init__(self, vocabulary: int, tokens: int, width: int, depth: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.place = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.blocks = nn.ModuleList(AttentionBlock(width, heads=4) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, ids: Tensor) -> Tensor:
        """Give the logits of all tokens, one row a token."""
        x = self.embed(ids) + self.place
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)).flatten(0, 1)


def make_mlp(quick: bool, batch: int = 64) -> Setting:
    """Make an MLP of many parameters; with a small batch what is done once a parameter weighs most."""
    width, depth, batch = (16, 3, 8) if quick else (1024, 12, batch)
    parts: list[nn.Module] = []
    for _ in range(depth - 1):
        parts += [nn.Linear(width, width), nn.ReLU()]
    net = nn.Sequential(*parts, nn.Linear(width, 10))
    text = f"ReLU MLP, {depth} layers of width {width}; batch {batch}"
    return net, torch.randn(batch, width), torch.arange(batch) % 10, text


def make_cnn(quick: bool) -> Setting:
    """Make a small ResNet."""
    width, depth, batch, size = (4, 1, 6, 8) if quick else (32, 2, 32, 32)
    text = f"ResNet, {3 * depth} blocks, {width} to {4 * width} channels; batch {batch} x 3 x {size} x {size}"
    return ResNet(width, depth), torch.randn(batch, 3, size, size), torch.arange(batch) % 10, text


def make_transformer(quick: bool) -> Setting:
    """Make a small language model."""
    batch, tokens, width, depth = (8, 6, 16, 2) if quick else (4, 128, 256, 6)
    text = f"pre-norm transformer, {depth} blocks, d = {width}, 4 heads, torch's attention; batch {batch} x {tokens} tokens"
    ids = torch.randint(256, (batch, tokens))
    return Transformer(256, tokens, width, depth), ids, ids.roll(-1, 1).flatten(), text


def make_mlp_batch_512(quick: bool) -> Setting:
    """Make the same MLP with a larger batch."""
    return make_mlp(quick, 512)


MAKERS: dict[str, Callable[[bool], Setting]] = {
    "mlp": make_mlp,
    "mlp_batch_512": make_mlp_batch_512,
    "cnn": make_cnn,
    "transformer": make_transformer,
}


def training_step(net: nn.Module, inputs: Tensor, targets: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Train for one step."""
    optimizer.zero_grad()
    functional.cross_entropy(net(inputs), targets).backward()
    optimizer.step()


def prices(net: nn.Module, inputs: Tensor, targets: Tensor, rounds: int) -> dict[str, object]:
    """Time steps and measurements in turn."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
    batch = inputs, targets
    measurement = speed.SpeedMeasurement(net, batch, functional.cross_entropy)
    calls: dict[str, Callable[[], object]] = {
        "step": lambda: training_step(net, inputs, targets, optimizer),
        "measure": lambda: speed.measure(net, batch, functional.cross_entropy, optimizer),
        "again": lambda: measurement.measure(optimizer),
        "again_without_real_step": lambda: measurement.measure(optimizer, real_step=False),
        "again_gradient_descent": lambda: measurement.measure(1e-4),
        "layers": lambda: speed.SpeedMeasurement(net, batch, functional.cross_entropy),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for count in range(rounds + 1):
        for name, run in calls.items():
            started = time.process_time()
            run()
            if count:  # the first round warms up
                times[name].append(time.process_time() - started)
    price = {
        name: statistics.median(a / b for a, b in zip(times[name], times["step"], strict=True))
        for name in calls
        if name != "step"
    }
    method = measurement.measure(optimizer).attrs["method"]
    return {
        "step_cpu_ms": round(1e3 * statistics.median(times["step"]), 3),
        "price": {name: round(value, 3) for name, value in price.items()},
        "method": method,
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
    }


def print_peak(name: str, measures: bool, quick: bool) -> None:
    """Train for three steps, perhaps with a measurement in between, and print by how much the peak rose, in MiB."""
    tiny, inputs, targets, _ = MAKERS[name](True)
    speed.measure(
        tiny, (inputs, targets), functional.cross_entropy, torch.optim.Adam(tiny.parameters())
    )  # loads its code
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    net, inputs, targets, _ = MAKERS[name](quick)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
    for count in range(3):
        training_step(net, inputs, targets, optimizer)
        if measures and count == 1:
            speed.measure(net, (inputs, targets), functional.cross_entropy, optimizer)
    print(
        (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / (2**20 if sys.platform == "darwin" else 2**10)
    )


def memory(name: str, quick: bool) -> dict[str, float | None]:
    """Compare the peaks of two processes. A process begins with the peak of its parent, so this comes before all else."""
    peaks = {}
    for kind in ("training", "measuring"):
        command = [sys.executable, str(Path(__file__).resolve()), "--peak", name, kind, *(["--quick"] if quick else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[kind] = float(done.stdout)
    ratio = round(peaks["measuring"] / peaks["training"], 3) if peaks["training"] > 0 else None
    return {**{f"{kind}_mib": round(peak, 1) for kind, peak in peaks.items()}, "ratio": ratio}


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description="Price of one measurement of feature speed.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for tests; the numbers mean nothing")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if options.peak:
        print_peak(options.peak[0], options.peak[1] == "measuring", options.quick)
        return
    rounds = 2 if options.quick else options.rounds
    watched = ("mlp",) if options.quick else tuple(MAKERS)  # two processes a network
    memories = {name: memory(name, options.quick) for name in watched}
    settings, results = {}, {}
    for name, make in MAKERS.items():
        *parts, settings[name] = make(options.quick)
        results[name] = {**prices(*parts, rounds), "memory": memories.get(name)}
    line = {
        "benchmark": "speed_overhead",
        "settings": {**settings, "rounds": rounds, "quick": options.quick, "clock": "CPU time of the process"},
        "results": results,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
