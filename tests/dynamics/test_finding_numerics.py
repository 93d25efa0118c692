"""Counts of section 2d, and structure against numerics, which know nothing of each other."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from learnmech.dynamics.finding import find_symmetries
from learnmech.dynamics.numeric_features import sides_of
from learnmech.dynamics.numeric_gradients import ENOUGH, random_gradients
from learnmech.dynamics.numeric_nullspace import MOST_FEATURES, numerical_symmetries
from learnmech.errors import InputError


def plain(inputs, outputs):
    return nn.Linear(inputs, outputs, bias=False)


class Square(nn.Module):
    def forward(self, x):
        return x**2


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = plain(3, 2), plain(3, 2), plain(3, 2), plain(2, 3)

    def forward(self, x):
        return self.o((self.q(x) @ self.k(x).mT).softmax(-1) @ self.v(x))


class Gated(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.gate, self.up, self.down, self.function = plain(4, 3), plain(4, 3), plain(3, 2), function

    def forward(self, x):
        return self.down(self.function(self.gate(x)) * self.up(x))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.three, self.four = plain(4, 3), nn.Linear(3, 2), plain(2, 3), plain(3, 2)

    def forward(self, x):
        h = self.one(x)
        return self.four(h + self.three(self.two(h).relu()))


def middle(*modules):
    return nn.Sequential(plain(4, 3), *modules, plain(3, 2))


TOKENS = torch.zeros(2, 4, 3)
# name: model, inputs, loss, counts for diagonal, symmetric, general generators and translations; None: not tried
COUNTS = {
    "linear": (middle, None, None, (3, 6, 9, 0)),
    "relu": (lambda: middle(nn.ReLU()), None, None, (3, 3, 3, 0)),
    "square": (lambda: middle(Square()), None, None, (3, 3, 3, 0)),
    "tanh": (lambda: middle(nn.Tanh()), None, None, (0, 0, 0, 0)),
    "cross-entropy": (lambda: middle(nn.Tanh()), None, "cross_entropy", (0, 1, 2, 3)),
    "batch norm": (lambda: middle(nn.BatchNorm1d(3, 1e-14, affine=False), nn.Tanh()), None, None, (3, 3, 3, 0)),
    "layer norm": (
        lambda: middle(nn.LayerNorm(3, 1e-14, elementwise_affine=False), nn.Tanh()),
        None,
        None,
        (1, 2, 4, 4),
    ),
    "attention": (Attention, TOKENS, None, (4, 6, 8, None)),
    "swiglu": (lambda: Gated(functional.silu), None, None, (3, 3, 3, None)),
}
GENERATORS = ("diagonal", "symmetric", "general", "translation")


@pytest.mark.parametrize("name", COUNTS)
def test_counts_of_section_2d(name):
    """For layer norm the second symmetric one is W -> W + 1 1^T W; so is the one of cross-entropy."""
    make, inputs, loss, counts = COUNTS[name]
    for generators, count in zip(GENERATORS, counts, strict=True):
        if count is None:
            continue
        found = numerical_symmetries(make(), inputs, loss=loss, generators=generators)
        assert found.count == count, generators
        assert found.gap > 1e7
        assert float(found.singular_values[len(found.singular_values) - found.null_dimension - 1]) > 0.02


NAMED = {
    "linear": (
        lambda: nn.Sequential(nn.Linear(4, 3), plain(3, 2)),
        None,
        [("gl", 6, ("0.weight", "0.bias", "1.weight"))],
    ),
    "relu": (
        lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)),
        "cross_entropy",
        [
            ("rescale", 3, ("0.weight", "0.bias", "2.weight")),
            ("translation", 3, ("2.weight",)),
            ("translation", 1, ("2.bias",)),
        ],
    ),
    "tanh": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), None, []),
    "batch norm": (
        lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2)),
        None,
        [
            ("scale", 3, ("0.weight",)),
            ("translation", 3, ("0.bias",)),
            ("rescale", 3, ("1.weight", "1.bias", "3.weight")),
        ],
    ),
    "layer norm": (
        lambda: nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Tanh(), nn.Linear(3, 2)),
        None,
        [("scale", 1, ("0.weight", "0.bias")), ("translation", 4, ("0.weight",)), ("translation", 1, ("0.bias",))],
    ),
    "convolution": (
        lambda: nn.Sequential(nn.Conv2d(1, 3, 2), nn.LeakyReLU(), nn.Conv2d(3, 1, 2, bias=False)),
        None,
        [("rescale", 3, ("0.weight", "0.bias", "2.weight"))],
    ),
    "attention": (
        Attention,
        None,
        [("attention_qk", 3, ("q.weight", "k.weight")), ("gl", 3, ("v.weight", "o.weight"))],
    ),
}


@pytest.mark.parametrize("name", NAMED)
def test_numerics_names_what_it_finds(name):
    make, loss, expected = NAMED[name]
    torch.manual_seed(0)
    inputs = TOKENS if name == "attention" else torch.zeros(2, 1, 4, 4) if name == "convolution" else torch.zeros(4, 4)
    found = find_symmetries(make(), inputs, loss=loss, method="numerics")
    assert [(item.kind, item.count, item.parameters) for item in found] == expected
    assert all(item.found_by == "numerics" for item in found)
    assert [item.broken_by != "" for item in found] == [item.kind == "scale" for item in found]


def test_degree_from_null_vectors():
    [item] = find_symmetries(middle(Square()), method="numerics")
    assert (item.kind, item.count, item.degree) == ("rescale", 3, 2.0)
    weights = {view.parameter: view.weight for view in item.views}
    assert weights["0.weight"] == -1
    assert weights["2.weight"] == pytest.approx(2, abs=1e-3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: middle(nn.ReLU(), plain(3, 3), nn.LeakyReLU()),
        lambda: middle(plain(3, 3), nn.ReLU(), nn.Linear(3, 3)),
        lambda: Gated(functional.silu),
        lambda: Gated(functional.relu),
        lambda: Gated(lambda x: x),
        Residual,
        Attention,
        lambda: nn.MultiheadAttention(4, 2, bias=False, batch_first=True),
        lambda: nn.Sequential(nn.Conv2d(1, 2, 2), nn.Conv2d(2, 2, 2, groups=2), nn.ReLU(), nn.Conv2d(2, 1, 1)),
    ],
)
def test_structure_counts_what_numerics_counts(make):
    """For symmetric generators: all that structure finds, and nothing else."""
    torch.manual_seed(0)
    model = make()
    inputs = {
        Attention: TOKENS,
        nn.MultiheadAttention: (torch.zeros(2, 4, 4),) * 3,
    }.get(
        type(model),
        torch.zeros(2, 1, 4, 4)
        if isinstance(model[0] if hasattr(model, "__getitem__") else 0, nn.Conv2d)
        else torch.zeros(3, 4),
    )
    structure = [item for item in find_symmetries(model, inputs) if item.kind != "translation"]
    found = numerical_symmetries(model, inputs, generators="symmetric")
    assert found.count == sum(item.count for item in structure) > 0
    assert found.gap > 1e7


def test_both_adds_what_structure_misses():
    """Structure does not look into an einsum of three."""

    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = plain(4, 3), plain(3, 2)

        def forward(self, x):
            return torch.einsum("ni,hi,oh->no", x, self.one.weight, self.two.weight)

    assert find_symmetries(Hidden(), torch.zeros(3, 4)) == []
    both = find_symmetries(Hidden(), torch.zeros(3, 4), method="both")
    assert [(item.kind, item.count, item.found_by) for item in both] == [("gl", 6, "numerics")]
    relu = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    assert [item.found_by for item in find_symmetries(relu, method="both")] == ["structure"]


def test_gradients_in_one_go_and_one_by_one_agree():
    torch.manual_seed(0)
    model = nn.Sequential(plain(2, 2), nn.BatchNorm1d(2), nn.Tanh(), plain(2, 1))
    arguments = ((torch.zeros(3, 2),), {})
    few = next(iter(random_gradients(model, arguments, "cross_entropy", ENOUGH - 1)))
    many = next(iter(random_gradients(model, arguments, "cross_entropy", ENOUGH)))
    for one, other in zip(few, many, strict=True):
        for name, tensor in one.items():
            torch.testing.assert_close(tensor, other[name], rtol=1e-12, atol=1e-12)
    assert few[0]["0.weight"].shape == (64, 2, 2)
    assert [side.units for side in sides_of({"w": (2, 3), "b": (2,)}, "symmetric")] == [2, 3, 2]


def test_bad_input():
    model = middle(nn.ReLU())
    with pytest.raises(InputError, match="generators should be"):
        numerical_symmetries(model, generators="any")
    with pytest.raises(InputError, match="draws should be at least 22"):
        numerical_symmetries(model, draws=12)
    with pytest.raises(InputError, match="tolerance"):
        numerical_symmetries(model, tolerance=0)
    with pytest.raises(InputError, match=f"at most {MOST_FEATURES}"):
        find_symmetries(nn.Linear(2000, 3), method="numerics")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(InputError, match="nothing to find"):
        numerical_symmetries(model)
