"""What one probe costs, in training steps of the same batch, for every preset on three kinds of network.

A step is ``zero_grad``, forward, backward and one Adam step. Each preset has its own copy of the network, watched with
``every=1``, so that the price holds everything that watching adds to a step. Rounds are interleaved (a plain step, then a
watched one for each preset) and timed by the CPU time of one thread; prices are medians over rounds of
(watched - plain) / plain. No held-out batch is measured.

Run: OMP_NUM_THREADS=1 python benchmarks/probe_overhead.py [--quick]
"""

import argparse
import copy
import json
import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn
from torch.nn import functional

import learnmech as lm

PRESETS = ("light", "standard", "full")
EVERY = 50


class Block(nn.Module):
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
        attended = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.project(attended.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """A token classifier."""

    def __init__(self, vocabulary: int, tokens: int, width: int, depth: int, classes: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.place = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.blocks = nn.ModuleList(Block(width, heads=4) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, ids: Tensor) -> Tensor:
        """Give the logits of all tokens, one row a token."""
        x = self.embed(ids) + self.place
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)).flatten(0, 1)


def make_mlp(quick: bool) -> tuple[nn.Module, Tensor, Tensor, str]:
    """Make the paper's MLP with its full batch."""
    batch = 128 if quick else 2560
    text = f"MLP, 8 layers of width 100, BatchNorm, ReLU; batch {batch} x 100"
    return lm.nets.MLP(100, 10), torch.randn(batch, 1, 10, 10), torch.arange(batch) % 10, text


def make_cnn(quick: bool) -> tuple[nn.Module, Tensor, Tensor, str]:
    """Make a small convolutional net."""
    batch = 40 if quick else 128
    parts: list[nn.Module] = []
    for before, after in ((1, 16), (16, 32), (32, 64)):
        parts += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    net = nn.Sequential(*parts, nn.Flatten(), nn.Linear(64 * 9, 10))
    text = f"CNN, 3 convolutions (16, 32, 64 channels), BatchNorm, ReLU, pooling; batch {batch} x 1 x 28 x 28"
    return net, torch.randn(batch, 1, 28, 28), torch.arange(batch) % 10, text


def make_transformer(quick: bool) -> tuple[nn.Module, Tensor, Tensor, str]:
    """Make a small transformer with a label at every token."""
    batch, tokens, width, depth, classes = (8, 8, 32, 2, 4) if quick else (64, 32, 128, 4, 16)
    text = f"pre-norm transformer, {depth} blocks, d = {width}, 4 heads; batch {batch} x {tokens} tokens"
    ids = torch.randint(64, (batch, tokens))
    labels = (ids.roll(1, 1) % classes).flatten()
    return Transformer(64, tokens, width, depth, classes), ids, labels, text


def prices(model: nn.Module, inputs: Tensor, targets: Tensor, rounds: int) -> dict[str, object]:
    """Time plain and watched steps in turn."""
    steps = {}
    for name in ("plain", *PRESETS):
        net = copy.deepcopy(model)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
        if name != "plain":
            lm.watch(net, (inputs, targets), functional.cross_entropy, optimizer=optimizer, every=1, measures=name)

        def step(net: nn.Module = net, optimizer: torch.optim.Optimizer = optimizer) -> float:
            started = time.process_time()
            optimizer.zero_grad()
            functional.cross_entropy(net(inputs), targets).backward()
            optimizer.step()
            return time.process_time() - started

        steps[name] = step
    for step in steps.values():  # warm up
        step()
    times = [{name: step() for name, step in steps.items()} for _ in range(rounds)]
    price = {name: statistics.median((one[name] - one["plain"]) / one["plain"] for one in times) for name in PRESETS}
    return {
        "step_cpu_ms": round(1e3 * statistics.median(one["plain"] for one in times), 3),
        "price": {name: round(value, 3) for name, value in price.items()},
        f"every_{EVERY}_slowdown": {name: round(value / EVERY, 4) for name, value in price.items()},
    }


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description="Price of one probe in training steps.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for tests; the numbers mean nothing")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    rounds = 2 if options.quick else options.rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    settings, results = {}, {}
    for name, make in (("mlp", make_mlp), ("cnn", make_cnn), ("transformer", make_transformer)):
        *parts, settings[name] = make(options.quick)
        results[name] = prices(*parts, rounds)
    line = {
        "benchmark": "probe_overhead",
        "settings": {**settings, "rounds": rounds, "quick": options.quick, "clock": "CPU time of the process"},
        "results": results,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
