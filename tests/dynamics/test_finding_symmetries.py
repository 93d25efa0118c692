"""Symmetries found from the forward pass: the parameters are really transformed, and the loss must not change."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from learnmech.dynamics.finding import describe_symmetries, find_symmetries
from learnmech.errors import InputError, LearnmechWarning
from learnmech.nets import CNN, MLP, ResidualMLP


class Computed(nn.Module):
    """Three layers and any Python between them."""

    def __init__(self, function):
        super().__init__()
        self.one, self.two, self.three = nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, 2)
        self.function = function

    def forward(self, x):
        return self.function(self, x)


class Attention(nn.Module):
    """Causal attention in plain Python: fused or not, grouped queries, rotary positions."""

    def __init__(self, heads=2, groups=None, *, rotary=False, fused=False, flash=False):
        super().__init__()
        self.width, groups = 8 // heads, groups or heads
        self.sizes = [8, groups * self.width, groups * self.width]
        self.repeats, self.rotary, self.flash = heads // groups, rotary, flash
        self.project = nn.Linear(8, sum(self.sizes)) if fused else None
        self.parts = nn.ModuleList([] if fused else [nn.Linear(8, size) for size in self.sizes])
        self.out = nn.Linear(8, 8)

    def turn(self, x):
        angles = torch.arange(x.shape[-2])[:, None] * torch.logspace(0, -1, self.width // 2)
        cos, sin = (torch.cat([f(angles)] * 2, -1).to(x) for f in (torch.cos, torch.sin))
        first, second = x.chunk(2, -1)
        return x * cos + torch.cat([-second, first], -1) * sin

    def forward(self, x):
        made = [part(x) for part in self.parts] or self.project(x).split(self.sizes, -1)
        q, k, v = (item.view(*x.shape[:2], -1, self.width).transpose(1, 2) for item in made)
        if self.rotary:
            q, k = self.turn(q), self.turn(k)
        if self.flash:
            a = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        else:
            k, v = (item.repeat_interleave(self.repeats, 1) for item in (k, v))
            scores = (q @ k.transpose(-2, -1)) / math.sqrt(self.width)
            hidden = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
            a = scores.masked_fill(hidden, -math.inf).softmax(-1) @ v
        return self.out(a.transpose(1, 2).reshape(x.shape))


class Conv1D(nn.Module):
    """A linear map with its weight stored the other way round, as in GPT-2."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(inputs, outputs)), nn.Parameter(torch.randn(outputs))

    def forward(self, x):
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.shape[:-1], -1)


class TinyGPT(nn.Module):
    """Embeddings, pre-norm attention and perceptron, head (tied or not)."""

    def __init__(self, *, tied):
        super().__init__()
        self.tokens, self.places = nn.Embedding(11, 8), nn.Parameter(torch.randn(5, 8))
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(3))
        self.attention, self.up, self.down = Attention(fused=True, flash=True), Conv1D(8, 6), Conv1D(6, 8)
        self.head = nn.Linear(8, 11, bias=False)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, indices):
        x = self.tokens(indices) + self.places
        x = x + self.attention(self.norms[0](x))
        x = x + self.down(functional.gelu(self.up(self.norms[1](x))))
        return self.head(self.norms[2](x))


class SwiGLU(nn.Module):
    def __init__(self, gate=functional.silu):
        super().__init__()
        self.gate, self.up, self.down = (nn.Linear(*sizes, bias=False) for sizes in ((4, 3), (4, 3), (3, 2)))
        self.function = gate

    def forward(self, x):
        return self.down(self.function(self.gate(x)) * self.up(x))


class Einsum(nn.Module):
    """Attention in einsum, behind an RMSNorm written by hand."""

    def __init__(self):
        super().__init__()
        self.inner, self.gain = nn.Linear(8, 8, bias=False), nn.Parameter(torch.rand(8) + 0.5)
        self.q, self.k, self.v, self.o = (nn.Parameter(torch.randn(8, 8)) for _ in range(4))

    def forward(self, x):
        x = self.inner(x)
        x = self.gain * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-13))
        q, k, v = (torch.einsum("bnd,ed->bne", x, w).unflatten(-1, (2, 4)) for w in (self.q, self.k, self.v))
        a = torch.einsum("bnhe,bmhe->bhnm", q, k).softmax(-1)
        return torch.einsum("bne,ed->bnd", torch.einsum("bhnm,bmhe->bnhe", a, v).flatten(2), self.o)


def chain(*modules):
    return nn.Sequential(*modules)


def act(symmetry, values, seed=0):
    """Apply a random finite element of the symmetry's group to the parameters, in place."""
    generator = torch.Generator().manual_seed(seed)
    groups, units = symmetry.views[0].size
    noise = 0.4 * torch.randn(groups, units, units, generator=generator, dtype=torch.float64)
    matrix = noise + noise.mT if symmetry.mixing else noise.diagonal(dim1=1, dim2=2).diag_embed()
    for view in symmetry.views:
        rows = values[view.parameter]
        stop = rows.shape[view.dimension] if view.stop is None else view.stop
        laid = rows.narrow(view.dimension, view.start, stop - view.start).view(view.split)
        features = [axis for axis in range(laid.ndim) if axis not in (*view.groups, *view.units)]
        laid = laid.permute(*view.groups, *view.units, *features)
        flat = laid.reshape(groups, units, -1)
        if symmetry.is_linear:
            moved = flat + view.weight * matrix.diagonal(dim1=1, dim2=2)[..., None]
        else:
            moved = torch.linalg.matrix_exp(view.weight * matrix) @ flat
        laid.copy_(moved.reshape(laid.shape))


def loss_of(model, inputs, classes):
    torch.manual_seed(5)
    with torch.no_grad():
        outputs = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
        outputs = outputs[0] if isinstance(outputs, tuple) else outputs
        target = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        if classes:
            return float(-(outputs.log_softmax(-1) * target.softmax(-1)).sum())
        return float(((outputs - target) ** 2).sum() + (outputs * target).sin().sum())


def check(model, inputs, loss=None):
    """Find symmetries; give kinds and counts after each was acted with."""
    model = model.double()
    for module in model.modules():
        if getattr(module, "eps", None) is not None:
            module.eps = 1e-15
    found = find_symmetries(model, inputs, loss=loss)
    before = loss_of(model, inputs, loss == "cross_entropy")
    for symmetry in found:
        kept = {name: value.detach().clone() for name, value in model.named_parameters()}
        with torch.no_grad():
            act(symmetry, dict(model.named_parameters()))
        changed = sum(float((value.detach() - kept[name]).norm()) for name, value in model.named_parameters())
        after = loss_of(model, inputs, loss == "cross_entropy")
        with torch.no_grad():
            for name, value in model.named_parameters():
                value.copy_(kept[name])
        assert changed > 0.01, symmetry
        assert abs(after - before) <= 1e-10 * (1 + abs(before)), symmetry
    return sorted((item.kind, item.count) for item in found)


ROWS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
IMAGES = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TOKENS = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
INDICES = torch.randint(11, (2, 5), generator=torch.Generator().manual_seed(3))

CASES = {
    "relu": (lambda: chain(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), ROWS, [("rescale", 3)]),
    "linear": (lambda: chain(nn.Linear(4, 3), nn.Linear(3, 2)), ROWS, [("gl", 6)]),
    "three linear": (lambda: chain(nn.Linear(4, 3), nn.Linear(3, 2), nn.Linear(2, 2)), ROWS, [("gl", 3), ("gl", 6)]),
    "prelu": (lambda: chain(nn.Linear(4, 3), nn.PReLU(3), nn.Linear(3, 2)), ROWS, [("rescale", 3)]),
    "dropout": (
        lambda: chain(nn.Linear(4, 3), nn.LeakyReLU(), nn.Dropout(0.5), nn.Linear(3, 2)),
        ROWS,
        [("rescale", 3)],
    ),
    "linear and dropout": (lambda: chain(nn.Linear(4, 3), nn.Dropout(0.5), nn.Linear(3, 2)), ROWS, [("rescale", 3)]),
    "batch norm": (
        lambda: chain(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2)),
        ROWS,
        [("rescale", 3), ("scale", 3), ("translation", 3)],
    ),
    "batch norm in evaluation": (
        lambda: chain(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2)).eval(),
        ROWS,
        [("rescale", 3)],
    ),
    "layer norm": (
        lambda: chain(nn.Linear(4, 3), nn.LayerNorm(3), nn.Tanh(), nn.Linear(3, 2)),
        ROWS,
        [("scale", 1), ("translation", 1), ("translation", 4)],
    ),
    "rms norm": (lambda: chain(nn.Linear(4, 3), nn.RMSNorm(3, eps=0.0), nn.Tanh()), ROWS, [("scale", 1)]),
    "group norm": (
        lambda: chain(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Conv2d(4, 2, 3)),
        IMAGES,
        [("rescale", 4), ("scale", 2)],
    ),
    "instance norm": (
        lambda: chain(nn.Conv2d(2, 4, 3), nn.InstanceNorm2d(4), nn.Tanh()),
        IMAGES,
        [("scale", 4), ("translation", 4)],
    ),
    "convolution": (
        lambda: chain(
            nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(36, 2)
        ),
        IMAGES,
        [("rescale", 4)],
    ),
    "grouped convolution": (
        lambda: chain(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.ReLU(), nn.Conv2d(4, 3, 3)),
        IMAGES,
        [("gl", 6), ("rescale", 4)],
    ),
    "depthwise convolution": (
        lambda: chain(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4), nn.AvgPool2d(2), nn.Conv2d(4, 3, 1)),
        IMAGES,
        [("rescale", 4), ("rescale", 4)],
    ),
    "transposed convolution": (
        lambda: chain(nn.ConvTranspose2d(2, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 3, 3)),
        IMAGES,
        [("rescale", 4)],
    ),
    "attention": (Attention, TOKENS, [("attention_qk", 20), ("attention_vo", 20)]),
    "fused attention": (lambda: Attention(fused=True), TOKENS, [("attention_qk", 20), ("attention_vo", 20)]),
    "flash attention": (lambda: Attention(flash=True), TOKENS, [("attention_qk", 20), ("attention_vo", 20)]),
    "einsum": (Einsum, TOKENS, [("attention_qk", 20), ("attention_vo", 20), ("rescale", 8), ("scale", 1)]),
    "grouped queries": (lambda: Attention(4, 2), TOKENS, [("attention_qk", 6), ("attention_vo", 6)]),
    "grouped queries, flash": (lambda: Attention(4, 2, flash=True), TOKENS, [("attention_qk", 6), ("attention_vo", 6)]),
    "rotary positions": (lambda: Attention(rotary=True), TOKENS, [("attention_qk", 4), ("attention_vo", 20)]),
    "nn.MultiheadAttention": (
        lambda: nn.MultiheadAttention(8, 2, batch_first=True),
        (TOKENS, TOKENS, TOKENS),
        [("attention_qk", 20), ("attention_vo", 20)],
    ),
    "encoder layer": (
        lambda: nn.TransformerEncoderLayer(8, 2, 6, dropout=0.1, batch_first=True, norm_first=True),
        TOKENS,
        [("attention_qk", 20), ("attention_vo", 20), ("rescale", 6), ("rescale", 8), ("rescale", 8)],
    ),
    "encoder layer, norms last": (
        lambda: nn.TransformerEncoderLayer(8, 2, 6, dropout=0.0, batch_first=True),
        TOKENS,
        [
            *[("attention_qk", 20), ("attention_vo", 20), ("rescale", 1), ("rescale", 6)],
            *[("translation", 1), ("translation", 1), ("translation", 6), ("translation", 8)],
        ],
    ),
    "swiglu": (SwiGLU, ROWS, [("swiglu", 3)]),
    "reglu": (lambda: SwiGLU(functional.relu), ROWS, [("swiglu", 3), ("swiglu", 3)]),
    "square": (lambda: Computed(lambda m, x: m.three(m.one(x) ** 2)), ROWS, [("rescale", 3)]),
    "absolute value": (lambda: Computed(lambda m, x: m.three(m.one(x).abs())), ROWS, [("rescale", 3)]),
    "activation checkpoint": (
        lambda: Computed(lambda m, x: m.three(checkpoint(lambda z: m.one(z).relu(), x, use_reentrant=False))),
        ROWS,
        [("rescale", 3)],
    ),
    "by hand": (
        lambda: Computed(lambda m, x: (x @ m.one.weight.T + m.one.bias).relu() @ m.three.weight.t()),
        ROWS,
        [("rescale", 3)],
    ),
    "control flow": (
        lambda: Computed(lambda m, x: m.three(m.one(x).relu()) if x.shape[0] > 1 else x[:, :2]),
        ROWS,
        [("rescale", 3)],
    ),
    "two readers": (
        lambda: Computed(lambda m, x: m.three(h := m.one(x).relu()) + m.two(h)[:, :2]),
        ROWS,
        [("rescale", 3)],
    ),
    "residual to a hidden layer": (
        lambda: Computed(lambda m, x: m.three((h := m.one(x)) + m.two(h.relu()))),
        ROWS,
        [("rescale", 3)],
    ),
    "linear residual stream": (lambda: Computed(lambda m, x: m.three((h := m.one(x)) + m.two(h))), ROWS, [("gl", 6)]),
    "half of the units": (
        lambda: Computed(lambda m, x: m.three(torch.cat([m.one(x)[:, :2].relu(), x[:, :1]], 1))),
        ROWS,
        [("rescale", 2)],
    ),
    "a layer used twice": (
        lambda: Computed(lambda m, x: m.three(m.two(m.two(m.one(x).relu()).relu()).relu())),
        ROWS,
        [("rescale", 3)],
    ),
    "log-softmax inside": (
        lambda: Computed(lambda m, x: m.three(m.one(x).tanh()).log_softmax(-1)),
        ROWS,
        [("translation", 1), ("translation", 3)],
    ),
    "untied transformer": (
        lambda: TinyGPT(tied=False),
        INDICES,
        [
            ("attention_qk", 20),
            ("attention_vo", 20),
            ("rescale", 8),
            ("rescale", 8),
            ("rescale", 8),
            ("scale", 1),
            ("translation", 1),
            ("translation", 1),
            ("translation", 6),
            ("translation", 8),
            ("translation", 11),
        ],
    ),
    "tied transformer": (
        lambda: TinyGPT(tied=True),
        INDICES,
        [
            ("attention_qk", 20),
            ("attention_vo", 20),
            ("rescale", 8),
            ("rescale", 8),
            ("translation", 1),
            ("translation", 1),
            ("translation", 6),
            ("translation", 8),
        ],
    ),
    "MLP": (lambda: MLP(4, 2, width=3, depth=3, batch_norm=False, dropout=0.2), ROWS, [("rescale", 3), ("rescale", 3)]),
    "CNN": (
        lambda: CNN((2, 8, 8), 3, channels=3, depth=3, dropout=0.2),
        IMAGES,
        [("rescale", 3), ("rescale", 3), ("scale", 3), ("scale", 3), ("translation", 3), ("translation", 3)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_loss_is_unchanged_by_every_symmetry_found(name):
    make, inputs, expected = CASES[name]
    torch.manual_seed(0)
    assert check(make(), inputs) == sorted(expected)


def test_classes_can_be_shifted():
    torch.manual_seed(0)
    model = chain(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    assert check(model, ROWS, "cross_entropy") == [("rescale", 3), ("translation", 1), ("translation", 3)]
    labels = torch.tensor([0, 1, 1, 0, 1, 0])
    for loss in (
        nn.CrossEntropyLoss(),
        functional.cross_entropy,
        lambda f: functional.cross_entropy(f, labels[: len(f)]),
    ):
        assert [item.count for item in find_symmetries(model, ROWS, loss=loss) if item.kind == "translation"] == [3, 1]
    for loss in (None, "mse", nn.MSELoss(), lambda f: (f**2).sum()):
        assert not [item for item in find_symmetries(model, ROWS, loss=loss) if item.kind == "translation"]


class Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.tanh()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient + 1


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: m.three(m.two(m.one(x).tanh()).sigmoid()),
        lambda m, x: m.three(functional.relu6(m.one(x))),
        lambda m, x: m.three(m.one(x) + x[:, :3]),
        lambda m, x: m.three(m.one(x).relu() + 1),
        lambda m, x: m.three(m.one(x).relu().detach()),
        lambda m, x: m.three(Tanh.apply(m.one(x))),
        lambda m, x: m.three((h := m.one(x)).relu()) + Tanh.apply(h)[:, :2],
        lambda m, x: m.three((h := m.one(x)).relu()) * float(h.detach().sum()),
        lambda m, x: torch.cat([m.three(h := m.one(x).relu()), h], 1),
        lambda m, x: m.three(m.one(x).relu()) + m.three.weight.sum(),
        lambda m, x: (m.one(x) @ m.two.weight).relu() @ m.two.weight.T,
        lambda m, x: m.three(m.one(x).cumsum(1)) + m.one(x)[:, :2],
        lambda m, x: m.three(torch.where((h := m.one(x)) > 0.1, h, 0 * h)),
    ],
)
def test_nothing_is_claimed_where_there_is_nothing(function):
    torch.manual_seed(0)
    model = Computed(function)
    assert find_symmetries(model, ROWS.float()) == []
    assert describe_symmetries([]).startswith("no continuous symmetry")


def test_what_gradients_disobey_is_left_out_with_a_warning():
    """The forward pass is homogeneous, but a hook changes the gradient."""
    torch.manual_seed(0)
    model = chain(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))

    def disturb(module, given, output):
        output.register_hook(lambda gradient: gradient + 1)

    model[0].register_forward_hook(disturb)
    with pytest.warns(LearnmechWarning, match=r"rescale of 0\.weight, 0\.bias, 2\.weight"):
        assert find_symmetries(model, ROWS.float()) == []
    assert find_symmetries(Computed(lambda m, x: m.three(WrongGradient.apply(m.one(x).relu()))), ROWS.float()) == []


def test_frozen_parameters_have_no_law():
    model = chain(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    model[4].weight.requires_grad_(False)
    assert [item.parameters for item in find_symmetries(model)] == [("0.weight", "0.bias", "2.weight")]
    model[0].bias.requires_grad_(False)
    assert find_symmetries(model) == []


def test_residual_mlp_stream():
    torch.manual_seed(0)
    kinds = check(ResidualMLP(4, 2, width=3, depth=2), ROWS)
    assert kinds
    assert all(kind == "rescale" for kind, _ in kinds)


def test_degree_and_epsilon_are_told():
    [square] = find_symmetries(Computed(lambda m, x: m.three(m.one(x).relu() ** 2)), ROWS.float())
    assert square.degree == 2
    assert [view.weight for view in square.views] == [-1.0, -1.0, 2.0]
    scale = find_symmetries(chain(nn.Linear(4, 3), nn.BatchNorm1d(3)))[0]
    assert scale.broken_by == "eps=1e-05 of BatchNorm"
    assert scale.found_by == "structure"
    assert "broken by eps=1e-05 of BatchNorm" in describe_symmetries([square, scale])


def test_model_is_left_as_it_was():
    torch.manual_seed(0)
    model = chain(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(), nn.ReLU(), nn.Linear(3, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    find_symmetries(model, ROWS.float(), method="both")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training
    assert torch.get_default_dtype() == torch.float32


def test_inputs_are_guessed_or_asked_for():
    assert [item.count for item in find_symmetries(CNN((1, 7, 10), 2, channels=2, depth=2))] == [2, 2, 2]
    embedded = chain(nn.Embedding(5, 4), nn.Linear(4, 3))
    assert [(item.kind, item.count) for item in find_symmetries(embedded)] == [("gl", 10)]
    with pytest.raises(InputError, match="none could be guessed"):
        find_symmetries(Computed(lambda m, x: m.one(x[0, 0, 0, 0])))
    with pytest.raises(InputError, match="cannot run on the inputs"):
        find_symmetries(nn.Linear(4, 3), torch.randn(2, 5))
    with pytest.raises(InputError, match="NaN"):
        find_symmetries(nn.Linear(4, 3), torch.full((2, 4), math.nan))
    with pytest.raises(InputError, match="empty"):
        find_symmetries(nn.Linear(4, 3), torch.zeros(0, 4))
    with pytest.raises(InputError, match="method should be"):
        find_symmetries(nn.Linear(4, 3), method="guess")
    with pytest.raises(InputError, match="loss should be"):
        find_symmetries(nn.Linear(4, 3), loss="hinge")
    with pytest.raises(InputError, match="outputs alone"):
        find_symmetries(nn.Linear(4, 3), loss=lambda outputs, targets: outputs.sum())
    with pytest.raises(InputError, match="returned no tensor"):
        find_symmetries(Computed(lambda m, x: None), ROWS.float())
