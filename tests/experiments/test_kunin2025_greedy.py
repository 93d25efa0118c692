"""The figure of greedy training beside Adam: it runs on built-in data, claims hold and fail as the numbers say, bad input is refused."""

import numpy as np
import pytest
import torch

from learnmech import history as histories
from learnmech.errors import DataError, InputError
from learnmech.experiments.drawing import as_png
from learnmech.experiments.kunin2025.greedy import GREEDY, SETTINGS
from learnmech.experiments.kunin2025.greedy_measuring import METHODS
from learnmech.experiments.reproduction import Context


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    threads = torch.get_num_threads()
    found = GREEDY.run(Context("smoke", tmp_path_factory.mktemp("greedy"), overrides={"epochs": 4}))
    assert torch.get_num_threads() == threads
    return found


def test_it_runs_on_data_that_are_always_there_and_is_drawn(history):
    assert history.attrs["data"] == "diabetes"
    widths = list(SETTINGS["smoke"]["widths"])
    assert history["neurons"].values.tolist() == widths
    assert np.isfinite(history["test_rmse"]).all()
    greedy = history["test_rmse"].sel(training="greedy", seed=3)
    np.testing.assert_array_equal(greedy, history["curve_rmse"].sel(seed=3, width=widths))
    claims = GREEDY.check(history, "smoke")
    assert [claim.key for claim in claims] == ["G1", "G2", "G3", "G4", "G5"]
    assert {claim.verdict for claim in claims} == {"not tested at this scale"}
    assert as_png(GREEDY.draw(history))[:4] == b"\x89PNG"


def made_up(errors, seconds, search):
    """A history in which each way has the given error and time at 8, 16 and 32 neurons; greedy training is not run to 32."""
    shape = (len(METHODS), 2, 3)

    def variable(values):
        whole = np.empty(shape)
        for place, name in enumerate(METHODS):
            whole[place] = np.array(values[name])
        for name in ("greedy", "random_start"):
            whole[METHODS.index(name), :, 2] = np.nan
        return ("training", "seed", "neurons"), whole, {"long_name": "made up", "units": "1", "source": "a test"}

    curve = ("seed", "width"), np.ones((2, 16)), {"long_name": "made up", "units": "1", "source": "a test"}
    return histories.build(
        {
            "test_rmse": variable(errors),
            "seconds": variable(seconds),
            "search_seconds": variable(search),
            "curve_rmse": curve,
            "curve_seconds": curve,
        },
        {"training": list(METHODS), "seed": [0, 1], "neurons": [8, 16, 32], "width": np.arange(1, 17)},
        config={"epochs": 10},
        attributes={"data": "made up"},
    )


def test_claims_say_what_the_numbers_say():
    same = {name: [1.0, 1.0, 1.0] for name in METHODS}
    none = {name: [0.0, 0.0, 0.0] for name in METHODS}
    errors = {**same, "greedy": [0.9, 0.8, 0], "adam": [1.0, 0.9, 0.7]}
    good = made_up(errors, {**same, "greedy": [2.0, 4.0, 0]}, {**none, "adam": [3.0, 3.0, 3.0]})
    assert {claim.verdict for claim in GREEDY.check(good, "paper")} == {"pass"}
    assert as_png(GREEDY.draw(good))[:4] == b"\x89PNG"
    worse = {**same, "greedy": [0.9, 1.1, 0], "adam": [1.0, 1.0, 1.2]}
    bad = made_up(worse, {**same, "greedy": [5.0, 1.5, 0]}, {**none, "adam": [3.0, 3.0, 3.0]})
    claims = GREEDY.check(bad, "paper")
    assert {claim.verdict for claim in claims} == {"fail"}
    assert "0.900 and 1.000 at 8" in claims[0].measured
    assert "1.5 times at 16" in claims[3].measured
    narrow = {claim.key: claim.verdict for claim in GREEDY.check(good.isel(neurons=[0]), "reduced")}
    assert {key for key, verdict in narrow.items() if verdict == "not tested at this scale"} == {"G4", "G5"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"batch": 8}, "no settings batch"),
        ({"data": "cifar"}, "data must be one of california, diabetes, any"),
        ({"widths": 4}, "widths must be a list of different numbers"),
        ({"widths": [2, 2]}, "widths must be a list of different numbers"),
        ({"widths": [2, 0]}, r"widths\[1\] must be a positive integer"),
        ({"greedy_width": 3}, "greedy_width must be one of the widths"),
        ({"epochs": 0}, "epochs must be a positive integer"),
    ],
)
def test_bad_overrides_are_refused(overrides, message, tmp_path):
    with pytest.raises(InputError, match=message):
        GREEDY.run(Context("smoke", tmp_path, overrides=overrides))


def test_california_housing_needs_its_files(tmp_path, monkeypatch):
    monkeypatch.setenv("LEARNMECH_DATA", str(tmp_path))
    with pytest.raises(
        DataError, match=r"cal_housing\.data\.gz in the folder that LEARNMECH_DATA names; data=diabetes"
    ):
        GREEDY.run(Context("reduced", tmp_path))
