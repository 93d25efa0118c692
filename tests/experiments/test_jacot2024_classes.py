"""Classifiers of images: their inputs against another PCA, a cell by hand, a run to files, claims that can fail, bad input."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.decomposition import PCA

import learnmech as lm
from learnmech.errors import InputError
from learnmech.experiments import reproduce
from learnmech.experiments.jacot2024 import class_nets, classes
from learnmech.experiments.jacot2024.class_nets import (
    MEANINGS,
    ClassSetup,
    load_classes,
    make_targets,
    read_setup,
    train_classifier,
)

TINY = {"samples": 80, "components": 6, "width": 12, "layers": 9, "adam_steps": 40, "polish_iterations": 5}


def test_inputs_are_principal_components_with_one_scale():
    setup = ClassSetup(samples=300, components=10)
    images = load_classes(setup)
    raw = lm.data.load("digits", train_samples=300).flatten()
    pca = PCA(10, svd_solver="full").fit(raw.train_inputs.double().numpy())
    train, test = (pca.transform(values.double().numpy()) for values in (raw.train_inputs, raw.test_inputs))
    scale = np.sqrt(np.mean(train**2))
    np.testing.assert_allclose(images.train_inputs.abs(), np.abs(train) / scale, atol=1e-10)
    np.testing.assert_allclose(images.test_inputs.abs(), np.abs(test) / scale, atol=1e-10)
    assert torch.equal(images.train_targets, raw.train_targets)
    assert len(images.test_inputs) == 450


def test_all_components_keep_the_proportions_of_distances():
    setup = ClassSetup(samples=100, components=64)
    inputs = load_classes(setup).train_inputs
    raw = lm.data.load("digits", train_samples=100).flatten().train_inputs.double()
    ratio = torch.pdist(inputs) / torch.pdist(raw)
    np.testing.assert_allclose(ratio, float(ratio[0]), rtol=1e-9)


def test_targets():
    labels = torch.tensor([2, 0, 1, 2])
    assert make_targets(labels, 10, "cross_entropy") is labels
    numbers = make_targets(torch.arange(10).repeat(3), 10, "squared_error")
    assert numbers.dtype == torch.float64
    np.testing.assert_allclose(numbers[0], [3.0] + [-1 / 3] * 9, rtol=1e-12)
    np.testing.assert_allclose(numbers.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(numbers.square().mean(0), 1, rtol=1e-12)


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_a_cell_is_what_the_trained_net_gives_by_hand(loss, monkeypatch):
    kept = []
    train = class_nets.train

    def train_and_keep(net, *rest):
        kept.append(net)
        return train(net, *rest)

    monkeypatch.setattr(class_nets, "train", train_and_keep)
    setup = {**TINY, "effective_depth": 3.0, "penalty": 0.02, "loss": loss, "seed": 4}
    cell = train_classifier(setup)
    (net,) = kept
    images = load_classes(read_setup(setup))
    embedding, readout = net.embedding.weight.detach().numpy(), net.readout.weight.detach().numpy()
    for part in ("train", "test"):
        features = embedding @ getattr(images, f"{part}_inputs").numpy().T
        path = [features]
        for weights in net.weights.numpy():
            active = np.vstack([np.maximum(features, 0), np.ones(features.shape[1])])
            features = (1 - 3.0 / 9) * features + weights @ active / 9
            path.append(features)
        right = (readout @ features).argmax(0) == getattr(images, f"{part}_targets").numpy()
        assert float(cell[f"{part}_accuracy"]) == pytest.approx(right.mean(), abs=1e-12)
        if part == "train":
            costs = np.array([relative_identity_cost(values, 1e-3) for values in path[:-1]])
    np.testing.assert_allclose(cell["identity_cost"].values[:-1, 0], costs, rtol=1e-6)
    narrowest = int(costs.argmin())
    assert float(cell["bottleneck_depth"]) == pytest.approx(narrowest / 9)
    assert float(cell["least_identity_cost"].isel(ridge=0)) == pytest.approx(costs.min(), rel=1e-6)
    spectrum = np.linalg.svd(net.weights.numpy()[narrowest], compute_uv=False)
    count = int((spectrum > spectrum[0] / 2).sum())
    assert int(cell["bottleneck_dimension"]) == count
    assert float(cell["next_direction"]) == pytest.approx(spectrum[count] / spectrum[count - 1])
    assert set(MEANINGS) <= set(cell.data_vars)


def relative_identity_cost(values, share):
    """Tr[A (K + g)^-1 A^T] by a linear solve, g a share of the largest eigenvalue of K."""
    active = np.vstack([np.maximum(values, 0), np.ones(values.shape[1])])
    kernel = active.T @ active
    ridge = share * np.linalg.eigvalsh(kernel)[-1]
    return np.trace(values @ np.linalg.solve(kernel + ridge * np.eye(len(kernel)), values.T))


def test_a_cell_repeats_itself_and_leaves_the_callers_generator():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again = (train_classifier({**TINY, "seed": 1}) for _ in range(2))
    assert float(first["cost"]) == float(again["cost"]) != float(train_classifier({**TINY, "seed": 2})["cost"])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_figures_run_from_declaration_to_files(name, tmp_path):
    outcome = reproduce(f"jacot2024/{name}", out=tmp_path, **TINY, effective_depth=[1.5, 4.0], seed=[0, 1])
    assert outcome.failed_cells == outcome.missing_cells == 0
    assert [claim.key for claim in outcome.claims] == [f"K{number}" for number in range(1, 9)]
    assert {claim.verdict for claim in outcome.claims} == {"not tested at this scale"}
    assert set(outcome.files) == {"history", "claims", "png", "html"}
    assert outcome.files["png"].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    page = outcome.files["html"].read_text()
    for words in ("effective depth", "identity cost"):
        assert words in page
    assert json.loads(outcome.files["claims"].read_text())["claims"] == [claim.to_dict() for claim in outcome.claims]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"epochs": 3}, "no settings epochs that could be replaced"),
        ({"effective_depth": 4.0}, r"effective_depth must be a list of values, got 4\.0"),
        ({"seed": 0}, "seed must be a list of values, got 0"),
    ],
)
def test_bad_overrides_are_refused(overrides, message, tmp_path):
    with pytest.raises(InputError, match=message):
        reproduce("jacot2024/digits", out=tmp_path, **overrides)


def test_bad_cells_are_refused(tmp_path):
    with pytest.raises(InputError, match="unknown settings scheme of a classifier; known are adam_steps"):
        train_classifier({"scheme": "adaptive"})
    for components in (0, 65, 81):
        with pytest.raises(InputError, match="components must lie between 1 and 64"):
            load_classes(ClassSetup(samples=80, components=components))
    with pytest.raises(InputError, match="components must lie between 1 and 5 "):
        load_classes(ClassSetup(samples=5, components=6))
    table = tmp_path / "table.csv"
    table.write_text("a,b,y\n" + "".join(f"{n},{n * n},{n % 7}\n" for n in range(40)))
    with pytest.raises(InputError, match="expected a data set with classes"):
        load_classes(ClassSetup(data=f"csv:{table}", samples=20, components=1))
    with pytest.raises(InputError, match="take at least 9"):
        train_classifier({**TINY, "layers": 8, "effective_depth": 8.0})


def make_history(**changes):
    """Make up two seeds at three effective depths for which every claim holds; ``changes`` replace variables."""
    dims = ("effective_depth", "seed")
    rising = np.array([[10.0, 11.0], [7.0, 7.5], [5.1, 5.9]])
    negativity = np.full((3, 2, 5), 0.5)
    negativity[:, :, 2] = 0.01
    variables = {
        "test_accuracy": (dims, np.full((3, 2), 0.95)),
        "linear_accuracy": (dims, np.full((3, 2), 0.955)),
        "bottleneck_depth": (dims, np.full((3, 2), 0.5)),
        "least_identity_cost": ((*dims, "ridge"), np.stack([rising, 3 * rising], axis=-1)),
        "bottleneck_dimension": (dims, np.array([[7.0, 7.0], [6.0, 6.0], [5.0, 6.0]])),
        "next_direction": (dims, np.array([[0.9, 0.9], [0.2, 0.2], [0.05, 0.01]])),
        "median_effective_dimension": (dims, np.array([[-20.0, -19.0], [1.0, 1.2], [4.0, 4.1]])),
        "bottleneck_negativity": (dims, np.full((3, 2), 0.01)),
        "negativity": ((*dims, "layer"), negativity),
        "stationary": (dims, np.ones((3, 2))),
        "residual": (dims, np.full((3, 2), 0.1)),
    }
    replaced = {name: (variables[name][0], np.asarray(values)) for name, values in changes.items()}
    return xr.Dataset({**variables, **replaced}, {"effective_depth": [1.5, 4.0, 8.0], "ridge": [1e-3, 1e-4]})


def verdicts(history, scale="reduced"):
    return {claim.key: claim.verdict for claim in classes.check(history, scale, name="digits")}


def test_claims_hold_for_a_bottleneck():
    assert set(verdicts(make_history()).values()) == {"pass"}
    assert len(verdicts(make_history())) == 8


NAN = np.full((3, 2), np.nan)


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({"test_accuracy": np.full((3, 2), 0.94)}, {"K1"}),
        ({"test_accuracy": np.array([[0.99, 0.99], [0.95, 0.95], [0.95, 0.95]])}, {"K1"}),
        ({"test_accuracy": NAN}, {"K1"}),
        ({"bottleneck_depth": np.array([[0.5, 0.5], [0.5, 0.5], [0.5, 0.95]])}, {"K2"}),
        ({"bottleneck_depth": np.array([[0.0, 0.5], [0.5, 0.5], [0.5, 0.5]])}, {"K2"}),
        ({"next_direction": np.full((3, 2), 0.11)}, {"K4"}),
        ({"next_direction": NAN}, {"K4"}),
        ({"bottleneck_dimension": np.full((3, 2), 9.0)}, {"K5", "K6"}),
        ({"least_identity_cost": np.full((3, 2, 2), 5.5)}, {"K3"}),
        ({"median_effective_dimension": np.array([[-20, -19], [4.0, 4.2], [4.0, 4.1]])}, {"K7"}),
        ({"median_effective_dimension": np.array([[-20, -19], [1.0, 1.2], [5.2, 5.2]])}, {"K7"}),
        ({"bottleneck_negativity": np.full((3, 2), 0.06)}, {"K8"}),
        ({"negativity": np.full((3, 2, 5), 0.1)}, {"K8"}),
    ],
)
def test_claims_fail_without_one(changes, failing):
    found = verdicts(make_history(**changes))
    assert {key for key, verdict in found.items() if verdict == "fail"} == failing


def test_what_a_run_does_not_show_is_not_tested():
    restless = np.ones((3, 2))
    restless[2, 1] = 0
    assert verdicts(make_history(stationary=restless))["K7"] == "not tested at this scale"
    assert set(verdicts(make_history(), "smoke").values()) == {"not tested at this scale"}
    for fewer in (make_history().isel(effective_depth=[0, 1]), make_history().isel(effective_depth=[2])):
        assert set(verdicts(fewer).values()) == {"not tested at this scale"}
