"""Figures of linear networks, linear attention and the scheme itself: they run, their claims hold, and can fail."""

import numpy as np
import pytest

from learnmech import history as histories
from learnmech.errors import InputError
from learnmech.experiments.drawing import as_png
from learnmech.experiments.kunin2025 import attention, attention_cells, framework, linear, linear_cells
from learnmech.experiments.kunin2025.linear_reading import power_of_ten
from learnmech.experiments.reproduction import Context

FIGURES = {
    "framework": (framework.FRAMEWORK, "F1 F2 F3 F4", {"followed": 0.5, "crossing": 2.0, "flow_level": 1.5}),
    "linear": (
        linear.LINEAR,
        "L1 L2 L3 L4 L5 L6 L7 L8 L9",
        {
            "half": 9.0,
            "level": 1.2,
            "order_half": -1.0,
            "turn_half": 1.1,
            "power_half": 1.1,
            "general_level": 1.1,
            "general_crossing": 1.3,
        },
    ),
    "attention": (
        attention.ATTENTION,
        "H1 H2 H3 H4 H5 H6",
        {"expected_level": 1.01, "crossing": 0.2, "strength": 1.1, "head_found": -1.0},
    ),
}


@pytest.fixture(scope="module", params=list(FIGURES))
def figure(request, tmp_path_factory):
    reproduction, keys, spoil = FIGURES[request.param]
    history = reproduction.run(Context("smoke", tmp_path_factory.mktemp(request.param)))
    return reproduction, history, keys.split(), spoil


def test_claims_hold_and_the_figure_is_drawn(figure, tmp_path):
    reproduction, history, keys, _ = figure
    claims = {claim.key: claim for claim in reproduction.check(history, "smoke")}
    assert set(keys) <= set(claims)
    assert {claims[key].verdict for key in keys} == {"pass"}, "\n".join(map(str, claims.values()))
    drawing = reproduction.draw(history)
    assert all(axes.get_title(loc="left") and axes.has_data() for axes in drawing.axes)
    if reproduction is framework.FRAMEWORK:
        assert as_png(drawing)[:4] == b"\x89PNG"
    assert set(histories.load(histories.save(history, tmp_path / "history.nc"))) == set(history)


def test_claims_can_fail(figure):
    reproduction, history, keys, spoil = figure
    spoiled = history.copy(deep=True)
    for name, factor in spoil.items():
        spoiled[name] = spoiled[name] * factor - (1 if name == "head_found" else 0)
    claims = {claim.key: claim for claim in reproduction.check(spoiled, "smoke")}
    assert {claims[key].verdict for key in keys} == {"fail"}, "\n".join(map(str, claims.values()))


@pytest.mark.parametrize(
    ("reproduction", "overrides", "message"),
    [
        (framework.FRAMEWORK, {"seed": 3}, "no settings seed"),
        (linear.LINEAR, {"scales": [1e-3]}, "no settings scales"),
        (linear.LINEAR, {"draws": 0}, "draws must be an integer of at least 1"),
        (attention.ATTENTION, {"epochs": 3}, "no settings epochs"),
        (attention.ATTENTION, {"scale": 1e-3}, "scale must be a list"),
        (attention.ATTENTION, {"heads": 3}, "heads must be an integer of at least 4"),
    ],
)
def test_bad_overrides_are_refused(reproduction, overrides, message, tmp_path):
    with pytest.raises(InputError, match=message):
        reproduction.run(Context("smoke", tmp_path, overrides=overrides))


def test_strengths_of_one_neuron_follow_the_logistic_curve():
    """A balanced neuron on one mode: s(t) = σ / (1 + (σ/s₀ - 1) exp(-2σt)), half of σ at log(σ/s₀ - 1) / (2σ)."""
    rate, start = 1.7, 1e-3
    config = {"hidden": 1, "scale": start, "draw": 0, "values": [rate], "records": 50, "tolerance": 1e-10}
    found = linear_cells.follow_whitened(config)
    first, second = linear_cells.draw_weights(1, 1, 1, start, linear_cells.derive_seed(0, "whitened 1"))
    plus = (first[0, 0] + second[0, 0]) / np.sqrt(2)
    np.testing.assert_allclose(found["half"], np.log(rate / (plus**2 / 2) - 1) / (2 * rate), rtol=1e-6)
    np.testing.assert_allclose(found["expected_level"], [rate**2 / 2, 0], atol=1e-12)


def test_draws_and_scales_have_defined_values():
    np.testing.assert_allclose(
        attention_cells.eigenvalues_of({"dimension": 4, "trace": 2.0}), [0.96, 0.48, 0.32, 0.24], rtol=1e-14
    )
    assert (attention_cells.draw_heads(3, 6, 1e-3, 1)[:, 0] > 0).all()
    assert [power_of_ten(value) for value in (1e-4, 1e-15, 0.3)] == ["1e-4", "1e-15", "0.3"]
