"""Charges against formulas written out by hand; invariance against finite transformations."""

import pytest
import torch
from torch import nn

from learnmech import dynamics
from learnmech.dynamics import Symmetry, View
from learnmech.errors import InputError


def relu_pair():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    symmetry = Symmetry(
        "rescale",
        (
            View("2.weight", (2, 3), units=(1,)),
            View("0.weight", (3, 4), weight=-1.0),
            View("0.bias", (3,), weight=-1.0),
        ),
    )
    return model, symmetry


def gradients_of(model, loss):
    names, values = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, values), strict=True))


def test_charge_of_a_relu_neuron_is_the_difference_of_squares():
    model, symmetry = relu_pair()
    values = {name: value.detach() for name, value in model.named_parameters()}
    expected = [
        float((values["2.weight"][:, k] ** 2).sum() - (values["0.weight"][k] ** 2).sum() - values["0.bias"][k] ** 2)
        for k in range(3)
    ]
    assert symmetry.count == 3
    assert symmetry.parameters == ("2.weight", "0.weight", "0.bias")
    assert symmetry.charge(values).tolist() == pytest.approx(expected, rel=1e-14)


def test_the_gradient_obeys_a_symmetry_and_not_its_opposite():
    model, symmetry = relu_pair()
    x, y = torch.randn(20, 4, dtype=torch.float64), torch.randn(20, 2, dtype=torch.float64)
    values = dict(model.named_parameters())
    gradients = gradients_of(model, ((model(x) - y) ** 2).mean())
    assert symmetry.violation(values, gradients) < 1e-14
    wrong = Symmetry("rescale", (symmetry.views[0], View("0.weight", (3, 4)), View("0.bias", (3,))))
    assert wrong.violation(values, gradients) > 0.1


def test_matrix_charge_of_two_linear_maps():
    torch.manual_seed(1)
    a, w = torch.randn(2, 3, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    symmetry = Symmetry("gl", (View("a", (2, 3), units=(1,)), View("w", (3, 5), weight=-1.0)), mixing=True)
    matrix = a.T @ a - w @ w.T
    rows, columns = torch.triu_indices(3, 3)
    assert symmetry.count == 6
    torch.testing.assert_close(symmetry.charge({"a": a, "w": w}), matrix[rows, columns], rtol=1e-14, atol=1e-14)


def test_groups_are_heads():
    """Two heads of three: W_Q W_Q^T - W_K W_K^T of each, keys lying below the queries in one packed tensor."""
    torch.manual_seed(2)
    packed = torch.randn(12, 5, dtype=torch.float64)
    shape = {"split": (2, 3, 5), "units": (1,), "groups": (0,)}
    symmetry = Symmetry(
        "attention_qk", (View("p", stop=6, **shape), View("p", start=6, weight=-1.0, **shape)), mixing=True
    )
    rows, columns = torch.triu_indices(3, 3)
    expected = []
    for head in range(2):
        q, k = packed[3 * head : 3 * head + 3], packed[6 + 3 * head : 9 + 3 * head]
        expected += (q @ q.T - k @ k.T)[rows, columns].tolist()
    assert symmetry.count == 12
    assert symmetry.charge({"p": packed}).tolist() == pytest.approx(expected, rel=1e-13)


def test_translation_is_linear():
    symmetry = Symmetry("translation", (View("w", (3, 4), units=(1,)),))
    weight = torch.arange(12.0).reshape(3, 4)
    assert symmetry.charge({"w": weight}).tolist() == weight.sum(0).tolist()
    assert symmetry.violation({"w": weight}, {"w": weight - weight.mean(0)}) < 1e-15
    with pytest.raises(InputError, match="linear"):
        symmetry.form({"w": weight}, {"w": weight})


def test_whole_layer_is_one_unit():
    symmetry = Symmetry("scale", (View("w", (3, 4), units=()), View("b", (3,), units=())))
    weight, bias = torch.randn(3, 4), torch.randn(3)
    assert symmetry.count == 1
    assert float(symmetry.charge({"w": weight, "b": bias})[0]) == pytest.approx(
        float(weight.square().sum() + bias.square().sum()), rel=1e-6
    )


def test_bad_input():
    with pytest.raises(InputError, match="unknown kind"):
        Symmetry("rotation", (View("w", (3, 4)),))
    with pytest.raises(InputError, match="same groups and units"):
        Symmetry("rescale", (View("w", (3, 4)), View("a", (2, 4))))
    _, symmetry = relu_pair()
    with pytest.raises(InputError, match="not among"):
        symmetry.charge({})
    with pytest.raises(InputError, match="same model"):
        symmetry.charge({name: torch.zeros(7) for name in symmetry.parameters})


def test_names_are_public():
    assert set(dynamics.__all__) <= set(dir(dynamics))
