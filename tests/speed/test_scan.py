"""Scans of sizes: fitted powers and their intervals, verdicts, and whole scans of small nets."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from learnmech.errors import InputError
from learnmech.fingerprint import fingerprint_config
from learnmech.nets import MLP
from learnmech.speed import measure
from learnmech.speed.scaling_setup import apply_scaling
from learnmech.speed.scan_claims import claimed_powers, judge_powers
from learnmech.speed.scan_fit import Estimate, fit_powers
from learnmech.speed.scan_nets import make_batch, make_mlp, make_residual, pull
from learnmech.speed.scan_page import write_scan_page
from learnmech.speed.scanning import scan

SIZES = {"width": [64, 128, 256], "depth": [4, 8, 16]}
SMALL = {"widths": [8, 16], "depths": [3, 4], "seeds": 2, "steps": 1}


def powers_of(width, depth, noise=0.0, seed=0, repetitions=4, growing=False):
    m, L = np.meshgrid(SIZES["width"], SIZES["depth"], indexing="ij")
    draws = np.random.default_rng(seed).normal(size=(3, 3, repetitions))
    scale = noise * (np.sqrt(L / m)[..., None] * 4 if growing else 1.0)
    return 3.0 * (m**width * L**depth)[..., None] * np.exp(scale * draws)


def test_exact_powers_are_found():
    found = fit_powers(powers_of(-0.5, 1.5), SIZES)
    assert found["width"].value == pytest.approx(-0.5)
    assert found["depth"].value == pytest.approx(1.5)
    assert found["depth"].low == pytest.approx(1.5)
    assert found["width"].points == 36


def test_slopes_are_those_of_numpy_and_bad_numbers_are_left_out():
    values = powers_of(0.3, 0.0, noise=0.5)[:, 0]
    expected = np.polyfit(np.repeat(np.log(SIZES["width"]), 4), np.log(values).ravel(), 1)[0]
    assert fit_powers(values, {"width": SIZES["width"]})["width"].value == pytest.approx(expected)
    spoiled = np.concatenate([values, np.array([[math.nan], [0.0], [-1.0]])], axis=1)
    found = fit_powers(spoiled, {"width": SIZES["width"]})["width"]
    assert found.value == pytest.approx(expected)
    assert found.points == 12


@pytest.mark.parametrize("growing", [False, True])
def test_intervals_cover_the_power(growing):
    # 400 fits: the share covered has a standard error of 1.1 % at 95 %; 91 % to 99 % is 3.6 of them (p < 1e-3), seeds fixed.
    covered = {"width": 0, "depth": 0}
    for seed in range(400):
        found = fit_powers(powers_of(-0.5, 0.5, noise=0.3, seed=seed, growing=growing), SIZES)
        for axis, power in (("width", -0.5), ("depth", 0.5)):
            covered[axis] += found[axis].low <= power <= found[axis].high
    assert all(0.91 <= count / 400 <= 0.99 for count in covered.values()), covered


def test_weights_make_noisy_sizes_count_less():
    """Equal weights change nothing, and a weight of next to nothing takes a point out."""
    values = np.exp(np.array([[0.0, 0.1, 0.2], [1.0, 1.4, 0.9]]))
    equal, weighted = (
        fit_powers(values, {"width": [2, 4]}, weights=weights)["width"] for weights in (None, np.array([5.0, 5.0]))
    )
    assert [weighted.value, weighted.error] == pytest.approx([equal.value, equal.error], rel=1e-12)
    three = np.exp(np.array([[0.0], [1.0], [5.0]]))
    sizes = {"width": [1.0, math.e, math.e**2]}
    found = fit_powers(three, sizes, weights=np.array([1.0, 1.0, 1e-12]))["width"]
    assert found.value == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(InputError, match="weights must be positive"):
        fit_powers(three, sizes, weights=np.array([1.0, 0.0, 1.0]))


def test_weighted_intervals_cover():
    """Noise of variance L/m, weights m/L: 95 % intervals cover the true powers in 90 to 99 % of 400 fits (4 standard errors)."""
    rng = np.random.default_rng(5)
    width, depth = np.array(SIZES["width"], float)[:, None, None], np.array(SIZES["depth"], float)[None, :, None]
    inside = np.zeros(2)
    for _ in range(400):
        noise = rng.standard_normal((3, 3, 6)) * np.sqrt(depth / width)
        found = fit_powers(width**-0.5 * depth**0.5 * np.exp(noise), SIZES, weights=(width / depth)[..., 0])
        inside += [found["width"].low < -0.5 < found["width"].high, found["depth"].low < 0.5 < found["depth"].high]
    assert (inside / 400 > 0.90).all()
    assert (inside / 400 < 0.99).all()


def test_too_few_points_have_no_interval():
    found = fit_powers(np.array([[1.0], [2.0]]), {"width": [8, 16]})["width"]
    assert found.value == pytest.approx(1.0)
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert math.isnan(fit_powers(np.full((2, 1), np.nan), {"width": [8, 16]})["width"].value)
    # The two columns depend on each other: neither power is known.
    diagonal = np.array([[[1.0], [np.nan]], [[np.nan], [2.0]]])
    assert math.isnan(fit_powers(diagonal, {"width": [8, 16], "depth": [2, 4]})["width"].value)


def test_bad_fits_are_refused():
    with pytest.raises(InputError, match="must have the shape"):
        fit_powers(np.ones((2, 2)), {"width": [1, 2, 3]})
    with pytest.raises(InputError, match="level must be"):
        fit_powers(np.ones((2, 2)), {"width": [1, 2]}, level=95)


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(0.4, 0.6, "pass"), (0.55, 0.74, "pass"), (0.6, 0.9, "unclear"), (0.8, 1.0, "fail"), (-1.0, 0.2, "fail")],
)
def test_outcomes(low, high, outcome):
    estimate = Estimate((low + high) / 2, 0.1, low, high, 9)
    checks = judge_powers({"sensitivity": {"depth": (0.5, 0.5)}}, {"sensitivity": {"depth": estimate}}, 0.25)
    assert [check.outcome for check in checks] == [outcome]
    json.dumps(checks[0].to_dict())


def test_claims_are_read():
    assert claimed_powers("mup", {}, "sgd")["sensitivity"] == {"width": (0.0, 0.0), "depth": (0.5, 0.5)}
    slow = claimed_powers("mup", {"priority": "feature_learning"}, "sgd")
    assert slow["loss_decay"]["depth"] == (-0.5, -0.5)
    own = claimed_powers({"speed_rms": {"width": (None, 0.1), "depth": 1}}, {}, "sgd")
    assert own == {"speed_rms": {"width": (-math.inf, 0.1), "depth": (1.0, 1.0)}}
    assert claimed_powers(None, {}, "sgd") == {}


@pytest.mark.parametrize("kind", ["ntk", "fsc"])
def test_the_sensitivity_scales_as_derived(kind, tmp_path):
    # Powers of width and depth: ntk -1/2, 1/2; fsc 0, 0. Depth over width goes up to 1/4 here,
    # which shifts the powers by up to 0.15, hence the tolerance. Seeds are fixed.
    width, depth = {"ntk": (-0.5, 0.5), "fsc": (0.0, 0.0)}[kind]

    def verdict(width, depth):
        return scan(
            make_mlp, batch=make_batch(), loss=pull, kind=kind, claim={"sensitivity": {"width": width, "depth": depth}},
            widths=[64, 256], depths=[6, 16], seeds=8, steps=0, tolerance=0.35, out=tmp_path,
        ).verdict  # fmt: skip

    assert verdict(width, depth) == "pass"
    assert verdict(width + 0.7, depth) == "fail"  # the same nets do not bear out another scaling
    assert verdict(width, depth - 0.6) == "fail"


def test_a_cell_is_what_measure_gives():
    x, y = torch.randn(4, 16, generator=torch.Generator().manual_seed(1)), torch.ones(4, 4)
    options = {"base_learning_rate": 0.05}
    result = scan(
        make_residual, batch=(x, y), loss=functional.mse_loss, widths=[16], depths=[3], seeds=[5], steps=2,
        kind="complete_p", options=options,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(int(fingerprint_config([5, 16, 3]), 16) % 2**63)
        net = make_residual(16, 3)
        optimizer = torch.optim.SGD(apply_scaling(net, "complete_p", (x, y), **options))
    for step in range(3):
        expected = measure(net, (x, y), functional.mse_loss, optimizer)
        row = result.history.isel(width=0, depth=0, seed=0).sel(step=step)
        assert float(row.speed_rms) == pytest.approx(float(expected.speed_rms[-2]), rel=1e-5)
        assert float(row.sensitivity) == pytest.approx(float(expected.sensitivity[-2]), rel=1e-5)
        assert float(row.loss_decay) == pytest.approx(float(expected.total_decay), rel=1e-5)
        assert float(row.speed_rms_smallest) == pytest.approx(float(expected.speed_rms[1:-1].min()), rel=1e-5)
        optimizer.zero_grad()
        functional.mse_loss(net(x), y).backward()
        optimizer.step()
    assert result.verdict == "unclear"  # one size: nothing can be fitted


def test_other_ways_to_name_the_optimizer():
    batch = make_batch()
    common = {"batch": batch, "loss": pull, "widths": [8], "depths": [3], "seeds": 1, "steps": 1}
    decays = []
    for factory, more in (
        (make_mlp, {"optimizer_factory": lambda parameters: torch.optim.SGD(parameters, lr=0.1)}),
        (lambda width, depth: (net := make_mlp(width, depth), torch.optim.SGD(net.parameters(), lr=0.1)), {}),
        (lambda width, depth: (net := make_mlp(width, depth), [{"params": list(net.parameters()), "lr": 0.1}]), {}),
    ):
        result = scan(factory, **common, **more)
        assert result.verdict is None
        assert "nothing was claimed" in str(result)
        decays.append(float(result.history.loss_decay.isel(width=0, depth=0, seed=0, step=0)))
    assert decays[0] == pytest.approx(decays[1])
    assert decays[0] == pytest.approx(decays[2])


def test_fresh_batches_and_the_global_generator():
    seen = []

    def fresh(step, seed):
        seen.append((step, seed))
        generator = torch.Generator().manual_seed(100 * seed + step)
        return torch.randn(2, 16, generator=generator), torch.ones(2, 4)

    state = torch.get_rng_state()
    common = {"batch": fresh, "loss": functional.mse_loss, "kind": "fsc", "widths": [8], "depths": [3], "seeds": [3]}
    one, two = (scan(make_mlp, steps=2, **common) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert set(seen) == {(0, 3), (1, 3), (2, 3)}
    np.testing.assert_array_equal(one.history.speed_rms.values, two.history.speed_rms.values)


def test_a_net_that_diverges_is_a_result():
    def rate(width, depth):
        net = make_mlp(width, depth)
        return net, torch.optim.SGD(net.parameters(), lr=1e30 if width == 16 else 1e-3)

    batch = torch.ones(2, 16), torch.ones(2, 4)
    result = scan(rate, batch=batch, loss=functional.mse_loss, claim="fsc", **(SMALL | {"steps": 2}))
    assert result.verdict == "fail"
    assert {net["width"] for net in result.diverged} == {16}
    assert "4 nets diverged: width 16, depth 3, seed 0 (step" in str(result)
    assert np.isfinite(result.history.speed_rms.sel(width=8)).all()
    json.dumps(result.to_dict())


def test_nets_that_fail_are_named_and_if_all_do_the_reason_is_raised():
    def picky(width, depth):
        if width == 16:
            raise RuntimeError("too wide")
        return make_mlp(width, depth)

    result = scan(picky, batch=make_batch(), loss=pull, kind="fsc", **SMALL)
    assert result.verdict == "fail"
    assert len(result.failed) == 4
    assert "RuntimeError: too wide" in str(result)
    with pytest.raises(
        InputError, match="not one of 2 nets could be made and measured; the first: RuntimeError: too wide"
    ):
        scan(picky, batch=make_batch(), loss=pull, kind="fsc", **(SMALL | {"widths": [16], "depths": [3]}))


def test_a_stopped_scan_goes_on_in_its_folder(tmp_path):
    made, stop = [], [True]

    def build(width, depth):
        made.append((width, depth))
        if stop[0] and len(made) == 4:
            raise KeyboardInterrupt
        return MLP(16, 4, width=width, depth=depth, batch_norm=False)

    common = {"batch": make_batch(), "loss": pull, "kind": "fsc", "out": tmp_path / "scan"} | SMALL
    counts = []
    # One factory for both calls: a function defined anew with other captured values would count as another experiment.
    factory = _Counting(build)
    with pytest.raises(KeyboardInterrupt):
        scan(factory, **common)
    stop[0] = False
    result = scan(factory, on_cell=lambda done, total: counts.append((done, total)), **common)
    assert counts[0] == (3, 8)
    assert counts[-1] == (8, 8)
    assert len(made) == 4 + 5
    again = scan(factory, **common)
    assert len(made) == 4 + 5
    np.testing.assert_array_equal(again.history.speed_rms.values, result.history.speed_rms.values)


class _Counting:
    def __init__(self, build):
        self.build = build

    def __repr__(self):
        return "counting factory"

    def __call__(self, width, depth):
        return self.build(width, depth)


def test_what_a_result_gives(tmp_path):
    result = scan(make_mlp, batch=make_batch(), loss=pull, kind="ntk", **SMALL)
    assert result.history.speed_rms.dims == ("width", "depth", "seed", "step")
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["claim"] == "ntk"
    assert len(plain["checks"]) == 8
    assert plain["powers"]["speed_rms"]["depth"]["points"] == 8
    text = str(result)
    assert "set up by ntk for sgd: widths 8, 16; depths 3, 4; seeds 0, 1" in text
    assert "after 1 step" in text
    figure = result.figure()
    # Four quantities; over depth two widths and the claim, over width two depths and the claim.
    assert len(figure.data) == 4 * 2 * 3
    page = write_scan_page(result, tmp_path / "scan.html").read_text()
    assert "Scan of widths and depths: ntk" in page
    one = scan(make_mlp, batch=make_batch(), loss=pull, kind="ntk", **(SMALL | {"widths": [8]}))
    assert set(one.powers["speed_rms"]) == {"depth"}
    assert len(one.figure().data) == 4 * 2


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"model_factory": nn.Linear(2, 2)}, "model_factory must be a function"),
        ({"loss": "mse"}, "loss must be a function"),
        ({"widths": [0, 4]}, "widths must be positive integers"),
        ({"depths": [2.5]}, "depths must be positive integers"),
        ({"widths": [8, 8]}, "must all differ"),
        ({"seeds": 0}, "seeds must be a positive number"),
        ({"steps": -1}, "steps must be an integer"),
        ({"judged_step": 9}, "judged_step must be from 0 to"),
        ({"tolerance": float("nan")}, "tolerance must be"),
        ({"optimizer": "muon"}, "optimizer must be 'sgd' or 'adam'"),
        ({"kind": "magic"}, "unknown scaling"),
        ({"claim": "magic"}, "unknown scaling"),
        ({"claim": 3}, "claim must be None"),
        ({"claim": {"speed": {"depth": 0}}}, "no quantity 'speed'"),
        ({"claim": {"speed_rms": {"time": 0}}}, "no axis 'time'"),
        ({"claim": {"speed_rms": {"depth": (1, 0)}}}, "must be a power or a pair"),
        ({"claim": {"speed_rms": 0}}, "must map 'width' or 'depth'"),
        ({"kind": None, "options": {"gain": 1.0}}, "are for the scaling"),
        ({"options": {"seed": 1}}, "options cannot hold seed"),
        ({"batch": torch.ones(3)}, r"batch must be \(inputs, targets\)"),
        ({"kind": None}, "no learning rate is given"),
        ({"model_factory": lambda width, depth: 3}, "must return a torch.nn.Module"),
    ],
)
def test_bad_arguments_are_named(change, text):
    options = {"model_factory": make_mlp, "batch": make_batch(), "loss": pull, "kind": "fsc"} | SMALL | change
    with pytest.raises(InputError, match=text):
        scan(options.pop("model_factory"), **options)
