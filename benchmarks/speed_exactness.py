"""How exact feature speeds are: the formula's error, and forward mode against finite differences.

``formula`` is the largest relative error of the feature speed formula over layers, for the next step of Adam after a few
steps of training. ``differences`` compares the first-order change of the features of a step of gradient descent with finite
differences of several lengths, in steps: the distance |Df / length - df| / |df|, largest over layers, one-sided and central.
Networks with ReLUs have an error like the square root of the length, smooth ones like its first and second power, until
round-off (precision over length) takes over. ``fallback`` is what ``speed.measure`` does where an operation has no forward
mode (here an identity that hides it): its largest relative error of speeds, and error of cosines. ``own_pass`` compares the
speeds of ``speed.measure`` with a forward-mode pass that is written out here. Medians over seeds.

Run: OMP_NUM_THREADS=1 python benchmarks/speed_exactness.py [--quick]
"""

import argparse
import copy
import itertools
import json
import os
import statistics
import warnings
from collections.abc import Callable, Mapping

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from learnmech import speed

LENGTHS = (1.0, 0.1, 1e-2, 1e-3, 1e-4)
RATE = 0.1


class Opaque(torch.autograd.Function):
    """An identity that has no forward mode."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        """Give a copy."""
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        """Give the gradient."""
        return gradient


class Hidden(nn.Module):
    """A network whose output goes through an operation without forward mode."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Call the network."""
        return Opaque.apply(self.net(x))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Attend, then transform each token; x has shape (batch, tokens, width)."""
        q, k, v = (part.unflatten(-1, (4, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1))
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.project(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """A language model with a label at every token."""

    def __init__(self, tokens: int, width: int, depth: int) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(64, width), nn.Parameter(0.02 * torch.randn(tokens, width))
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 64)

    def forward(self, ids: Tensor) -> Tensor:
        """Give the logits of all tokens, one row a token."""
        return self.head(self.norm(self.blocks(self.embed(ids) + self.place))).flatten(0, 1)


def make_mlp(kind: type[nn.Module], quick: bool) -> tuple[nn.Module, Tensor, Tensor, list[str]]:
    """Make an MLP with He initialisation."""
    width, depth, batch = (16, 3, 8) if quick else (512, 12, 64)
    parts: list[nn.Module] = []
    for _ in range(depth - 1):
        parts += [nn.Linear(width, width), kind()]
        nn.init.kaiming_normal_(parts[-2].weight, nonlinearity="relu" if kind is nn.ReLU else "tanh")
    names = [str(2 * block + 1) for block in range(depth - 1)]
    return nn.Sequential(*parts, nn.Linear(width, 10)), torch.randn(batch, width), torch.arange(batch) % 10, names


def make_cnn(quick: bool) -> tuple[nn.Module, Tensor, Tensor, list[str]]:
    """Make a convolutional net with BatchNorm."""
    batch, widths = (8, (1, 4, 4)) if quick else (32, (1, 16, 32, 64))
    parts: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        parts += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.AvgPool2d(2)]
    net = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))
    names = [str(4 * block + 3) for block in range(len(widths) - 1)]
    return net, torch.randn(batch, 1, 16, 16), torch.arange(batch) % 10, names


def make_transformer(quick: bool) -> tuple[nn.Module, Tensor, Tensor, list[str]]:
    """Make a small transformer."""
    batch, tokens, width, depth = (8, 6, 16, 2) if quick else (4, 64, 128, 4)
    ids = torch.randint(64, (batch, tokens))
    return (
        Transformer(tokens, width, depth),
        ids,
        ids.roll(-1, 1).flatten(),
        [f"blocks.{block}" for block in range(depth)],
    )


MAKERS: dict[str, Callable[[bool], tuple[nn.Module, Tensor, Tensor, list[str]]]] = {
    "mlp_relu": lambda quick: make_mlp(nn.ReLU, quick),
    "mlp_tanh": lambda quick: make_mlp(nn.Tanh, quick),
    "cnn_batchnorm": make_cnn,
    "transformer": make_transformer,
}


def seen(net: nn.Module, inputs: Tensor, names: list[str], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Run a network with other parameters and give the outputs of modules, with tangents if the parameters have some."""
    found: dict[str, Tensor] = {}
    handles = [
        net.get_submodule(name).register_forward_hook(lambda _, __, output, name=name: found.update({name: output}))
        for name in names
    ]
    try:
        with torch.no_grad():
            torch.func.functional_call(net, dict(parameters), (inputs,))
    finally:
        for handle in handles:
            handle.remove()
    return found


def distance(net: nn.Module, inputs: Tensor, targets: Tensor, names: list[str]) -> dict[str, object]:
    """Compare forward mode with finite differences of a step of gradient descent."""
    parameters = {name: value.detach() for name, value in net.named_parameters()}
    net.zero_grad()
    functional.cross_entropy(net(inputs), targets).backward()
    step = {name: -RATE * value.grad for name, value in net.named_parameters() if value.grad is not None}
    with sdpa_kernel(SDPBackend.MATH):
        with forward_ad.dual_level():
            duals = {name: forward_ad.make_dual(parameters[name], change) for name, change in step.items()}
            found = seen(net, inputs, names, duals)
            first_order = {name: forward_ad.unpack_dual(value).tangent.double() for name, value in found.items()}

        def moved(length: float) -> dict[str, Tensor]:
            values = {name: parameters[name] + length * change for name, change in step.items()}
            return {name: value.double() for name, value in seen(net, inputs, names, values).items()}

        now = moved(0.0)
        errors: dict[str, dict[str, float]] = {"one_sided": {}, "central": {}}
        for length in LENGTHS:
            above, below = moved(length), moved(-length)
            for kind, (far, near, span) in {"one_sided": (above, now, 1), "central": (above, below, 2)}.items():
                errors[kind][f"{length:g}"] = max(
                    float(((far[name] - near[name]) / (span * length) - df).norm() / df.norm())
                    for name, df in first_order.items()
                )
    history = speed.measure(net, (inputs, targets), functional.cross_entropy, RATE, nodes=names)
    own = max(abs(float(history.speed.sel(layer=name)) / float(df.norm()) - 1) for name, df in first_order.items())
    return {"differences": errors, "own_pass": own}


def train(net: nn.Module, inputs: Tensor, targets: Tensor, steps: int = 5) -> torch.optim.Optimizer:
    """Train for a few steps of Adam."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(net(inputs), targets).backward()
        optimizer.step()
    return optimizer


def compare(make: Callable[[bool], tuple[nn.Module, Tensor, Tensor, list[str]]], quick: bool) -> dict[str, object]:
    """Measure all errors of one network, in single and double precision."""
    original, given, targets, names = make(quick)
    result: dict[str, object] = {}
    for dtype in (torch.float32, torch.float64):
        net = copy.deepcopy(original).to(dtype)
        inputs = given.to(dtype) if given.is_floating_point() else given
        optimizer = train(net, inputs, targets)
        net.eval()
        exact = speed.measure(net, (inputs, targets), functional.cross_entropy, optimizer, nodes=names)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            hidden_names = [f"net.{name}" for name in names]
            rough = speed.measure(
                Hidden(net).eval(), (inputs, targets), functional.cross_entropy, optimizer, nodes=hidden_names
            )
        result[str(dtype).removeprefix("torch.")] = {
            "formula": float(exact.identity_error.max()),
            "fallback": {
                "method": rough.attrs["method"],
                "speed": float(abs(rough.speed.values / exact.speed.values - 1).max()),
                "cosine": float(abs(rough.cosine.values - exact.cosine.values).max()),
            },
            **distance(net, inputs, targets, names),
        }
    return result


def median(values: list[object]) -> object:
    """Take medians of numbers inside nested mappings."""
    first = values[0]
    if isinstance(first, dict):
        return {key: median([value[key] for value in values]) for key in first}  # type: ignore[index]
    return float(f"{statistics.median(values):.3g}") if isinstance(first, float) else first  # type: ignore[type-var]


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description="Exactness of feature speeds.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for tests; the numbers mean nothing")
    parser.add_argument("--rounds", type=int, default=3, help="seeds")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    torch.set_num_threads(1)
    results = {}
    for name, make in MAKERS.items():
        outcomes: list[object] = []
        for seed in range(rounds):
            torch.manual_seed(seed)
            outcomes.append(compare(make, options.quick))
        results[name] = median(outcomes)
    line = {
        "benchmark": "speed_exactness",
        "settings": {
            "mlp_relu": "He ReLU MLP, 12 layers of width 512; batch 64",
            "mlp_tanh": "tanh MLP, 12 layers of width 512; batch 64",
            "cnn_batchnorm": "3 convolutions (16, 32, 64 channels), BatchNorm in evaluation mode, ReLU; batch 32 x 1 x 16 x 16",
            "transformer": "pre-norm transformer, 4 blocks, d = 128, 4 heads; batch 4 x 64 tokens",
            "learning_rate": RATE,
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
