"""The twin: known parameters come back from simulated chains, and it says when curves cannot tell them."""

import os

import numpy as np
import pytest
from scipy.stats import norm

from learnmech import history as histories
from learnmech import springs
from learnmech.errors import InputError
from learnmech.experiments import WatchSettings, train_and_watch
from learnmech.springs.chain import SpringChain
from learnmech.springs.twin import fit_chain
from learnmech.springs.twin_curves import read_curves

NAMES = ("friction_forward", "friction_backward", "noise")


def simulate(forward: float, backward: float, noise: float, *, chains: int = 32, seed: int = 1):
    chain = SpringChain(friction_forward=forward, friction_backward=backward)
    return chain.simulate(60, dt=0.02, noise=noise, chains=chains, record_every=75, seed=seed)


@pytest.mark.parametrize(("forward", "backward", "noise"), [(0.02, 0.05, 0.03), (0.05, 0.02, 0.05), (0.03, 0.03, 0.03)])
def test_recovers_all_three_parameters_at_intermediate_noise(forward, backward, noise):
    twin = fit_chain(simulate(forward, backward, noise))
    for name, truth in zip(NAMES, (forward, backward, noise), strict=True):
        estimate = twin.parameters[name]
        assert estimate.identified
        assert estimate.value == pytest.approx(truth, rel=0.08)
        assert abs(estimate.value - truth) <= 3 * estimate.error + 0.01 * truth  # the drift model is off by the step
    bias = twin.combinations["bias"]
    assert abs(bias.value - (forward - backward) / 2) <= 3 * bias.error + 2e-4
    assert twin.identified["effective_friction"]
    assert twin.combinations["effective_friction"].value == pytest.approx(twin.measured_friction, abs=1e-3)
    assert twin.goodness.r_squared > 0.999
    assert twin.goodness.r_squared > twin.goodness.constant_shares > twin.goodness.even
    assert twin.parameters["time_scale"].value == 1


def test_without_noise_backward_friction_is_not_identified():
    chain = SpringChain(friction_forward=0.03, friction_backward=0.04)
    twin = fit_chain(chain.simulate(80, dt=0.02, record_every=100))
    assert twin.parameters["friction_forward"].value == pytest.approx(0.03, rel=0.02)
    assert twin.identified["friction_forward"]
    assert not twin.identified["friction_backward"]
    assert not twin.identified["bias"]
    assert twin.parameters["friction_backward"].high == np.inf
    assert twin.parameters["noise"].high < 0.003
    assert any("no backward motion is seen" in text for text in twin.warnings)
    effective = twin.combinations["effective_friction"]
    assert effective.identified
    assert effective.value == pytest.approx(0.03, rel=0.02)
    assert twin.reading.regime == "lazy/concave"


@pytest.mark.parametrize(("forward", "backward"), [(0.02, 0.05), (0.04, 0.02)])
def test_with_much_noise_only_bias_and_mobility_are_identified(forward, backward):
    twin = fit_chain(simulate(forward, backward, 0.3, chains=100))
    assert twin.identified["bias"]
    assert twin.identified["mobility"]
    assert not twin.identified["friction_forward"]
    assert not twin.identified["friction_backward"]
    bias, mobility = twin.combinations["bias"], twin.combinations["mobility"]
    assert bias.low <= (forward - backward) / 2 <= bias.high
    assert bias.value == pytest.approx((forward - backward) / 2, abs=0.003)
    truth = 2 * norm.cdf(-(forward + backward) / 2 / 0.3)
    assert mobility.low <= truth <= mobility.high
    for name, truth in zip(NAMES, (forward, backward, 0.3), strict=True):
        assert twin.parameters[name].low <= truth <= twin.parameters[name].high
    assert any("cannot be told apart" in text for text in twin.warnings)


def test_intervals_cover_the_truth():
    """Four sets of 8 chains, 16 intervals of 95 %. At a true coverage of 90 %, fewer than 10 has a probability below 0.1 %."""
    truth = {"friction_forward": 0.02, "friction_backward": 0.05, "noise": 0.04, "bias": -0.015}
    covered = []
    for seed in range(4):
        twin = fit_chain(simulate(0.02, 0.05, 0.04, chains=8, seed=seed))
        estimates = {**twin.parameters, **twin.combinations}
        covered += [estimates[name].low <= value <= estimates[name].high for name, value in truth.items()]
    assert np.sum(covered) >= 10, np.sum(covered)


def test_drift_is_fitted_exactly_and_at_any_stiffness_and_time_scale():
    chain = SpringChain(blocks=5, stiffness=2.0, target=3.0, friction_forward=0.1, friction_backward=0.3)
    history = chain.drift(np.linspace(0, 30, 41), noise=0.2)
    twin = fit_chain(history)
    assert [twin.parameters[name].value for name in NAMES] == pytest.approx([0.1, 0.3, 0.2], rel=0.01)
    assert twin.goodness.r_squared > 0.999999
    assert twin.chain.stiffness == 2.0
    slow = fit_chain(history.assign_coords(time=history.time * 10), time_scale="fit")
    assert slow.parameters["time_scale"].value == pytest.approx(0.1, rel=0.02)
    assert [slow.parameters[name].value for name in NAMES] == pytest.approx([0.1, 0.3, 0.2], rel=0.03)
    again = twin.chain.drift(history.time.values, noise=twin.parameters["noise"].value)
    np.testing.assert_allclose(again["load"], twin.curves["load"], atol=2e-3)


def network_like(forward: float, backward: float, noise: float, *, growth: bool = True, readout: bool = True):
    """A chain's shares times a total that grows, under the names of a network's history; two chain times a step."""
    steps = np.arange(0, 82, 2)
    start = np.cumsum(np.full(6, 1 / 7)) + 0.02 * np.array([1, -1, 1, 1, -1, 1])
    chain = SpringChain(blocks=6, friction_forward=forward, friction_backward=backward)
    shares = chain.drift(2.0 * steps, noise=noise, initial=start)["elongation"].values
    total = 4 * steps / 80 if growth else np.full(len(steps), 4.0)
    first = 1 + 0.002 * steps
    load = first[:, None] - np.cumsum(
        np.concatenate([np.zeros((len(steps), 1)), shares], axis=1) * total[:, None], axis=1
    )
    names, roles = ["input", *(f"hidden.{k}" for k in range(7))], ["input", *["block"] * 7]
    if readout:
        load = np.concatenate([load, load[:, -1:] - 0.5], axis=1)
        names, roles = [*names, "readout"], [*roles, "readout"]
    meaning = {"long_name": "load", "scale": "natural logarithm", "source": "test"}
    return histories.build(
        {"load": (("step", "layer"), load, meaning)},
        {
            "step": steps,
            "layer": names,
            "depth": ("layer", np.linspace(0, 1, len(names))),
            "role": ("layer", roles),
        },
        attributes={"classes": 10},
    )


def test_a_network_that_is_a_chain():
    history = network_like(0.05, 0.02, 0.04)
    twin = fit_chain(history)
    start = int(twin.curves["step"][0])
    assert start == 8  # a tenth of the final drop
    assert twin.goodness.r_squared > 0.999
    assert twin.force_unit == "share of the total drop"
    assert twin.chain.blocks == 6
    assert twin.combinations["bias"].value == pytest.approx(0.015, abs=0.003)
    assert twin.curves.layer.values.tolist() == ["input", *(f"hidden.{k}" for k in range(7))]
    measured = history["load"].sel(step=twin.curves.step, layer=twin.curves.layer)
    np.testing.assert_allclose(twin.curves["load_measured"], measured, atol=1e-12)
    np.testing.assert_allclose(twin.curves["load"], measured, atol=0.1)
    histories.validate(twin.curves)
    assert read_curves(history, "readout").layers[-2:] == ("hidden.6", "readout")
    figure = twin.figure()
    assert len(figure.plot.data) == 2 * 5 + 2 * 7
    figure.plot.to_json()


def test_forces_in_units_of_the_load():
    history = network_like(0.05, 0.02, 0.04, growth=False)
    share, load = fit_chain(history), fit_chain(history, forces="load")
    assert load.force_unit == "load"
    ratio = load.combinations["effective_friction"].value / share.combinations["effective_friction"].value
    assert ratio == pytest.approx(4, rel=0.01)
    assert load.goodness.r_squared == pytest.approx(share.goodness.r_squared, abs=1e-3)


def test_text_says_what_is_identified():
    chain = SpringChain(friction_forward=0.03, friction_backward=0.04)
    twin = fit_chain(chain.drift(np.linspace(0, 80, 30)))
    text = str(twin)
    for part in ("7 blocks", "lazy/concave", "friction backward", "inf]", "no backward motion", "explains"):
        assert part in text
    assert len(text.splitlines()) < 22
    assert max(len(line) for line in text.splitlines()) < 200


def test_a_collapsed_or_diverged_run_is_refused():
    history = network_like(0.05, 0.02, 0.04)
    history["load"].values[30:, 3] = np.nan
    with pytest.raises(InputError, match=r"hidden\.2.*diverged"):
        fit_chain(history)
    assert read_curves(history.isel(step=slice(0, 30))).times[-1] == 58


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda run: run.drop_vars("load"), "variable 'load'"),
        (lambda run: run.isel(step=-1), "One moment"),
        (lambda run: run.isel(step=[-1]), "One moment|at least 3 moments"),
        (lambda run: run.isel(step=[-2, -1]), "at least 3 moments"),
        (lambda run: run.isel(layer=[0, 1]), "deeper network"),
        (lambda run: run.isel(layer=slice(1, None)), "must be the network's input"),
        (lambda run: run.assign(load=run["load"] * 0.01), "under-trained"),
        (lambda run: histories.concat([run, run], "seed", [0, 1]), "one run"),
    ],
)
def test_bad_histories_are_explained(change, words):
    with pytest.raises(InputError, match=words):
        fit_chain(change(network_like(0.05, 0.02, 0.04)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"wall": "first"}, "last_hidden"),
        ({"forces": "pounds"}, "'share' or 'load'"),
        ({"stiffness": 0.0}, "stiffness"),
        ({"time_scale": -1.0}, "time_scale"),
    ],
)
def test_bad_arguments_are_explained(options, words):
    with pytest.raises(InputError, match=words):
        fit_chain(network_like(0.05, 0.02, 0.04), **options)


def test_not_a_history():
    with pytest.raises(InputError, match="got a list"):
        fit_chain([1, 2, 3])


def test_a_regression_load_is_noted():
    history = network_like(0.05, 0.02, 0.04)
    history.attrs["classes"] = 0
    assert any("regression" in text for text in read_curves(history).notes)


def test_public_name():
    assert springs.fit_chain is fit_chain


@pytest.mark.data
@pytest.mark.skipif("LEARNMECH_DATA" not in os.environ, reason="LEARNMECH_DATA is not set")
def test_mnist_runs_are_ordered_as_the_theory_says(tmp_path):
    """Effective friction falls with label and data noise, from concave through straight to convex."""
    twins = {
        noise: fit_chain(
            train_and_watch(
                WatchSettings(label_noise=noise, data_noise=noise, every=4, measures="light"), tmp_path / str(noise)
            ).history
        )
        for noise in (0.0, 0.2, 0.7)
    }
    friction = [twin.combinations["effective_friction"].value for twin in twins.values()]
    assert friction[0] > 0.02
    assert abs(friction[1]) < 0.02
    assert friction[2] < -0.015
    assert twins[0.0].goodness.r_squared > twins[0.0].goodness.constant_shares
    assert not twins[0.0].identified["noise"]
