"""Small models of every kind that people train, each with a probe, a loss and an optimizer."""

import functools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

SAMPLES = 24


@dataclass
class Case:
    """One thing to watch.

    ``divisible``: samples do not influence one another and nothing is random, so that chunks give the same numbers.
    ``layers``: what ``auto`` must choose, as (name, role).
    """

    model: nn.Module
    probe: tuple[Any, Any]
    loss: Callable[[Any, Any], Tensor]
    layers: list[tuple[str, str]] | None = None
    divisible: bool = True
    deterministic: bool = True
    expect: dict[str, Any] = field(default_factory=dict)

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([p for p in self.model.parameters() if p.requires_grad], lr=0.05, momentum=0.9)

    def double(self) -> "Case":
        def convert(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.double() if value.is_floating_point() else value
            if isinstance(value, dict):
                return {key: convert(item) for key, item in value.items()}
            if isinstance(value, tuple):
                return tuple(convert(item) for item in value)
            return value

        self.model.double()
        if isinstance(self.loss, nn.Module):
            self.loss.double()
        self.probe = convert(self.probe)
        return self

    def forward(self) -> Any:
        x = self.probe[0]
        if isinstance(x, dict):
            return self.model(**x)
        return self.model(*x) if isinstance(x, tuple) else self.model(x)


def _vectors(width: int = 6, classes: int = 3, samples: int = SAMPLES) -> tuple[Tensor, Tensor]:
    labels = torch.arange(samples) % classes
    return torch.randn(samples, width) + labels[:, None], labels


def _images(size: int = 8, classes: int = 3, samples: int = SAMPLES) -> tuple[Tensor, Tensor]:
    labels = torch.arange(samples) % classes
    return torch.randn(samples, 1, size, size) + labels[:, None, None, None], labels


def _tokens(length: int = 5, vocabulary: int = 7, samples: int = SAMPLES) -> Tensor:
    return torch.randint(0, vocabulary, (samples, length))


def mlp() -> Case:
    net = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(0.3), nn.Linear(8, 7), nn.ReLU(inplace=True), nn.Linear(7, 3)
    )  # fmt: skip
    expected = [("input", "input"), ("0", "block"), ("4", "block"), ("6", "readout")]
    return Case(net, _vectors(), F.cross_entropy, expected)


def cnn() -> Case:
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
    )  # fmt: skip
    expected = [("input", "input"), ("0", "block"), ("4", "block"), ("8", "readout")]
    return Case(net, _images(), F.cross_entropy, expected)


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(1, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(BasicBlock(4, 4, 1), BasicBlock(4, 4, 1))
        self.layer2 = nn.Sequential(BasicBlock(4, 6, 2), BasicBlock(6, 6, 1))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.relu(self.bn1(self.conv1(x)))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def resnet() -> Case:
    blocks = [(f"layer{stage}.{block}", "block") for stage in (1, 2) for block in (0, 1)]
    expected = [("input", "input"), ("conv1", "block"), *blocks, ("fc", "readout")]
    return Case(ResNet(), _images(), F.cross_entropy, expected)


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        return self.proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class PreNorm(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.ln1, self.attention, self.ln2 = nn.LayerNorm(width), Attention(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class GPT(nn.Module):
    def __init__(self, reentrant: bool | None = None) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(7, 8), nn.Embedding(5, 8)
        self.blocks = nn.ModuleList(PreNorm() for _ in range(2))
        self.ln_f, self.lm_head = nn.LayerNorm(8), nn.Linear(8, 7, bias=False)
        self.lm_head.weight = self.wte.weight
        self.reentrant = reentrant

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x) if self.reentrant is None else checkpoint(block, x, use_reentrant=self.reentrant)
        return self.lm_head(self.ln_f(x))


def token_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), ignore_index=-100)


GPT_LAYERS = [("embedding", "input"), ("blocks.0", "block"), ("blocks.1", "block"), ("lm_head", "readout")]


def gpt(reentrant: bool | None = None) -> Case:
    tokens = _tokens()
    targets = (tokens + tokens.roll(1, 1)) % 4
    targets[:, 0] = -100
    targets[3] = -100  # one sample without any label
    return Case(GPT(reentrant), (tokens, targets), token_loss, GPT_LAYERS)


class TransformerBlockNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.block, self.head = nn.Linear(4, 8), PreNorm(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.embed(x)).mean(1))


def transformer_block() -> Case:
    x, y = torch.randn(SAMPLES, 5, 4), torch.arange(SAMPLES) % 3
    expected = [("input", "input"), ("embed", "block"), ("block", "block"), ("head", "readout")]
    return Case(TransformerBlockNet(), (x, y), F.cross_entropy, expected)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.classify = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.classify(self.encoder(self.embedding(tokens)).mean(1))


def encoder() -> Case:
    expected = [
        ("embedding", "input"), ("encoder.layers.0", "block"), ("encoder.layers.1", "block"), ("classify", "readout"),
    ]  # fmt: skip
    return Case(Encoder(), (_tokens(), torch.arange(SAMPLES) % 3), nn.CrossEntropyLoss(), expected)


class Head(nn.Module):
    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.key, self.query, self.value = (nn.Linear(width, size, bias=False) for _ in range(3))
        self.register_buffer("tril", torch.tril(torch.ones(5, 5)))

    def forward(self, x: Tensor) -> Tensor:
        weights = self.query(x) @ self.key(x).transpose(-2, -1) / math.sqrt(x.shape[-1])
        weights = weights.masked_fill(self.tril[: x.shape[1], : x.shape[1]] == 0, float("-inf"))
        return weights.softmax(-1) @ self.value(x)


class MultiHead(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(Head(width, width // 2) for _ in range(2))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(torch.cat([head(x) for head in self.heads], -1))


class TutorialBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.sa, self.ln1, self.ln2 = MultiHead(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.ffwd = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(0.2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.sa(self.ln1(x))
        return x + self.ffwd(self.ln2(x))


class TutorialGPT(nn.Module):
    """Gives logits and loss, as the from-scratch tutorials do."""

    def __init__(self) -> None:
        super().__init__()
        self.token_embedding_table, self.position_embedding_table = nn.Embedding(7, 8), nn.Embedding(5, 8)
        self.blocks = nn.Sequential(TutorialBlock(8), TutorialBlock(8))
        self.ln_f, self.lm_head = nn.LayerNorm(8), nn.Linear(8, 7)

    def forward(self, tokens: Tensor) -> tuple[Tensor, None]:
        x = self.token_embedding_table(tokens) + self.position_embedding_table(torch.arange(tokens.shape[1]))
        return self.lm_head(self.ln_f(self.blocks(x))), None


def multi_head() -> Case:
    tokens = _tokens()
    return Case(TutorialGPT(), (tokens, tokens % 3), lambda out, y: token_loss(out[0], y), GPT_LAYERS)


class Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last, self.act = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        for _ in range(2):
            x = self.act(self.middle(x))
        return self.last(x)


def reused() -> Case:
    expected = [("input", "input"), ("first", "block"), ("middle", "block"), ("middle#2", "block"), ("last", "readout")]
    return Case(Reused(), _vectors(), F.cross_entropy, expected)


class TupleBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, state: Any) -> tuple[Tensor, dict[str, Tensor]]:
        x = state[0] if isinstance(state, tuple) else state
        x = torch.tanh(self.linear(x))
        return x, {"norm": x.norm()}


class TupleNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.head = nn.Sequential(TupleBlock(6, 8), TupleBlock(8, 8)), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = self.blocks(x)[0]
        return {"hidden": hidden, "logits": self.head(hidden)}


def tuple_outputs() -> Case:
    expected = [("input", "input"), ("blocks.0", "block"), ("blocks.1", "block"), ("head", "readout")]
    return Case(TupleNet(), _vectors(), lambda out, y: F.cross_entropy(out["logits"], y), expected)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(6, 6), nn.Linear(6, 6)
        self.decode.weight = self.encode.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(torch.relu(self.encode(x)))


def tied() -> Case:
    expected = [("input", "input"), ("encode", "block"), ("decode", "readout")]
    return Case(Tied(), _vectors(), F.cross_entropy, expected)


def frozen() -> Case:
    case = mlp()
    case.model[0].requires_grad_(False)
    case.model[1].requires_grad_(False)
    return case


class Checkpointed(nn.Module):
    """The first part stays outside, so that a re-entrant checkpoint gets an input that requires a gradient."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.ReLU(inplace=True)) for _ in range(2))
        self.head, self.reentrant = nn.Linear(8, 3), reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return self.head(x)


def checkpointed(reentrant: bool) -> Case:
    expected = [
        ("input", "input"),
        ("stem", "block"),
        ("blocks.0", "block"),
        ("blocks.1", "block"),
        ("head", "readout"),
    ]
    return Case(Checkpointed(reentrant), _vectors(), F.cross_entropy, expected)


class LSTMClassifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.fc = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.lstm(x)[0][:, -1])


def lstm() -> Case:
    expected = [("input", "input"), ("lstm", "block"), ("fc", "readout")]
    return Case(LSTMClassifier(), (torch.randn(SAMPLES, 5, 4), torch.arange(SAMPLES) % 3), F.cross_entropy, expected)


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 4, 3)
        self.fc1, self.fc2 = nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x), inplace=True)
        x = torch.flatten(F.max_pool2d(F.relu(self.conv2(x)), 2), 1)
        return F.log_softmax(self.fc2(F.relu(self.fc1(x))), 1)


def functional_net() -> Case:
    names = ["conv1", "conv2", "fc1"]
    return Case(
        Functional(), _images(), F.nll_loss, [("input", "input"), *((n, "block") for n in names), ("fc2", "readout")]
    )


class Counting(nn.Module):
    """Buffers change in every forward pass, also in evaluation: in place, by replacement, and by a new one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("late", None)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x)) + self.mean * 0.1
        self.count += 1
        self.mean = self.mean + x.detach().mean(0)
        self.late = self.count.clone()
        self.calls += 1
        return self.last(x)


def counting() -> Case:
    expected = [("input", "input"), ("first", "block"), ("last", "readout")]
    return Case(Counting(), _vectors(), F.cross_entropy, expected)


class Random(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        noise = random.random() + np.random.rand() + torch.rand(len(x), 1)
        return self.last(F.dropout(torch.tanh(self.first(x)) * noise, 0.2, training=True))


def randomness() -> Case:
    expected = [("input", "input"), ("first", "block"), ("last", "readout")]
    return Case(Random(), _vectors(), F.cross_entropy, expected, divisible=False, deterministic=False)


class ScaledLoss(nn.Module):
    """A loss with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(1.5))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs / self.temperature, targets)


def loss_with_parameters(reentrant: bool = False) -> Case:
    case = checkpointed(True) if reentrant else mlp()
    case.loss = ScaledLoss()
    return case


def regression() -> Case:
    x = torch.randn(SAMPLES, 6)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    return Case(net, (x, x[:, :2] * 2), F.mse_loss, [("input", "input"), ("0", "block"), ("2", "readout")])


class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.last = nn.Linear(6, 5), nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, a: Tensor, b: Tensor, scale: float = 1.0) -> Tensor:
        return self.last(torch.tanh(self.left(a) + scale * self.right(b)))


KEYWORD_LAYERS = [("input", "input"), ("left", "block"), ("right", "block"), ("last", "readout")]


def keyword_inputs() -> Case:
    x, y = _vectors()
    return Case(Keywords(), ({"a": x, "b": torch.randn(SAMPLES, 4), "scale": 0.5}, y), F.cross_entropy, KEYWORD_LAYERS)


def tuple_inputs() -> Case:
    x, y = _vectors()
    return Case(Keywords(), ((x, torch.randn(SAMPLES, 4)), y), F.cross_entropy, KEYWORD_LAYERS)


def double_precision() -> Case:
    return cnn().double()


def writes_input() -> Case:
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    return Case(net, _vectors(), F.cross_entropy, [("input", "input"), ("1", "block"), ("3", "readout")])


def weighted_loss() -> Case:
    case = mlp()
    case.loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0, 0.5]), ignore_index=2)
    return case


def summed_loss() -> Case:
    case = mlp()
    case.loss = functools.partial(F.cross_entropy, reduction="sum", label_smoothing=0.1)
    case.model[0].weight.data.mul_(0.1)
    return case


def sparse_embedding() -> Case:
    net = nn.Sequential(nn.Embedding(7, 4, sparse=True), nn.Flatten(), nn.Linear(20, 6), nn.ReLU(), nn.Linear(6, 3))
    return Case(net, (_tokens(), torch.arange(SAMPLES) % 3), F.cross_entropy, None)


CASES: dict[str, Callable[[], Case]] = {
    "mlp": mlp,
    "cnn": cnn,
    "resnet": resnet,
    "transformer_block": transformer_block,
    "gpt": gpt,
    "encoder": encoder,
    "multi_head": multi_head,
    "reused": reused,
    "tuple_outputs": tuple_outputs,
    "tied": tied,
    "frozen": frozen,
    "checkpointed": functools.partial(checkpointed, False),
    "checkpointed_reentrant": functools.partial(checkpointed, True),
    "gpt_checkpointed": functools.partial(gpt, False),
    "gpt_checkpointed_reentrant": functools.partial(gpt, True),
    "lstm": lstm,
    "functional": functional_net,
    "counting": counting,
    "randomness": randomness,
    "loss_with_parameters": loss_with_parameters,
    "loss_with_parameters_reentrant": functools.partial(loss_with_parameters, True),
    "regression": regression,
    "keyword_inputs": keyword_inputs,
    "tuple_inputs": tuple_inputs,
    "double_precision": double_precision,
    "writes_input": writes_input,
    "weighted_loss": weighted_loss,
    "summed_loss": summed_loss,
    "sparse_embedding": sparse_embedding,
}


def make(name: str, seed: int = 0) -> Case:
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    return CASES[name]()
