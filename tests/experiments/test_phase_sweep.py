"""Phase diagrams over any two settings: order of rows and columns, curves inside their boxes, stacks equal single nets."""

import json

import numpy as np
import pytest

from learnmech.errors import InputError
from learnmech.experiments import phase_diagram
from learnmech.experiments.drawing import draw_phase_diagram
from learnmech.experiments.networks import (
    STACKABLE,
    read_config,
    stacked_networks,
    train_network,
    train_stacked_networks,
)
from learnmech.experiments.reproduction import Context
from learnmech.experiments.sweeping import choose_stacking, train_grid

TINY = {"data": "digits", "samples": 150, "image_size": None, "width": 8, "depth": 4, "epochs": 3}


def test_any_two_settings(tmp_path):
    diagram = phase_diagram(("lr", [0.1, 0.001]), ("dropout", [0.0, 0.3]), out=tmp_path, seeds=[0, 1], **TINY)
    assert diagram.history["load"].dims == ("dropout", "lr", "seed", "layer")
    assert diagram.history["layer"].values.tolist() == ["input", "1", "2", "3", "readout"]
    for name in ("load", "load_held_out", "load_pinv", "curvature", "end_difference_pinv", "linearity_held_out"):
        assert np.isfinite(diagram.history[name]).all(), name
    assert {path.name for path in diagram.files.values()} == {"history.nc", "figure.png", "figure.html"}
    assert json.loads((tmp_path / "sweep" / "stacking.json").read_text())["reason"]


def test_one_cell_is_what_watching_gives(tmp_path):
    from learnmech.experiments import WatchSettings, train_and_watch

    cell = train_network({**TINY, "noise": 0.2, "seed": 3})
    run = train_and_watch(WatchSettings(**TINY, label_noise=0.2, data_noise=0.2, seed=3), tmp_path)
    assert float(cell["test_accuracy"]) == run.result.test_accuracy
    np.testing.assert_allclose(cell["load"], run.history["load"].isel(step=-1), rtol=1e-12)
    np.testing.assert_allclose(cell["curvature"], run.history["curvature"].isel(step=-1), rtol=1e-9)


def test_stacked_cells_equal_single_ones():
    # With Adam the biases before BatchNorm wander, see docs/stacked.md, and after three steps running means lag behind.
    common = {**TINY, "noise": 0.1, "optimizer": "sgd", "lr": 0.05}
    configs = [{**common, "slope": slope, "seed": seed} for slope in (0.0, 1.0) for seed in (0, 1)]
    for config, stacked in zip(configs, train_stacked_networks(configs), strict=True):
        np.testing.assert_allclose(stacked["load"], train_network(config)["load"], atol=1e-5)
    assert set(STACKABLE) <= set(stacked_networks.stackable)


def test_curves_during_training():
    history = train_network({**TINY, "probes": 3})
    assert history["load"].dims == ("step", "layer")
    assert history["step"].values.tolist() == [0, 1, 2, 3]
    with pytest.raises(InputError, match="leave probes at 0"):
        train_stacked_networks([{**TINY, "probes": 3}])


def test_regression_has_its_own_load():
    history = train_network({**TINY, "regression": True})
    assert np.isnan(history.get("load_pinv", np.nan)).all()  # a measure of classes
    assert (history["load"] >= 0).all()
    assert np.isnan(history["test_accuracy"])


def test_the_decision_to_stack_is_kept(tmp_path):
    context = Context("reduced", tmp_path)
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "stacking.json").write_text('{"stacked": true, "reason": "earlier"}')
    assert choose_stacking({"seed": [0, 1]}, TINY, tmp_path / "sweep")
    history = train_grid({"seed": [0, 1]}, TINY, context)
    assert history["load"].sizes["seed"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": ("slope", [0.0])}, "two different settings"),
        ({"columns": ("seed", [0])}, "two different settings"),
        ({"columns": ("depth", [3, 4])}, "depth and net cannot be an axis"),
        ({"curve": "nonsense"}, "curve must be one of load, load_held_out, load_pinv"),
        ({"settings": {"widht": 3}}, "unknown settings widht"),
        ({"settings": {"noise": 0.1, "label_noise": 0.1}}, "give either it or those two"),
    ],
)
def test_bad_input_is_refused(change, message, tmp_path):
    columns = change.get("columns", ("dropout", [0.0, 0.1]))
    settings = {**TINY, **change.get("settings", {})}
    with pytest.raises(InputError, match=message):
        phase_diagram(columns, ("slope", [0.0]), out=tmp_path, curve=change.get("curve", "load"), **settings)


def test_read_config():
    settings, probes = read_config({"noise": 0.3, "lr": 0.1, "probes": 4})
    assert (settings.label_noise, settings.data_noise, settings.lr, probes) == (0.3, 0.3, 0.1, 4)


def test_rows_and_columns_are_drawn_in_their_order_and_curves_inside_their_cells():
    background = np.arange(6.0).reshape(2, 3)
    background[1, 2] = np.nan
    curves = np.cumsum(np.ones((2, 3, 5)), axis=-1)[..., ::-1] ** 2
    curves[0, 0] = np.nan
    figure = draw_phase_diagram(
        background,
        curves,
        rows=["top", "bottom"],
        columns=[3, 2, 1],
        row_title="row",
        column_title="column",
        colour_title="colour",
    )
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["top", "bottom"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row is on top
    assert [label.get_text() for label in axes.get_xticklabels()] == ["3", "2", "1"]
    drawn = [line for line in axes.lines if len(line.get_xdata()) == 5]
    assert len(drawn) == 5  # the cell without a curve has none
    for line in drawn:
        x, y = line.get_xdata(), line.get_ydata()
        assert np.floor(x).min() == np.floor(x).max()
        assert np.floor(y).min() == np.floor(y).max()
        assert np.all(np.diff(y) > 0)  # a falling load goes down on the page
    assert figure.axes[1].get_ylabel() == "colour"
