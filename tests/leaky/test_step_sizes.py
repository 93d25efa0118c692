"""Step sizes against the paper's formulas by hand, bisection for the cap, and the fixed point of the adaptive rule."""

import math
from fractions import Fraction

import pytest
import torch

from learnmech.errors import InputError
from learnmech.leaky.step_sizes import StepSizePolicy, relative_steps, step_norms, step_spread


def adaptive(**options):
    return StepSizePolicy("adaptive", **options)


# ------------------------------------------------------------------ where training starts


@pytest.mark.parametrize("layers", [1, 2, 5, 18, 49])
def test_uniform_and_adaptive_start_with_equal_steps(layers):
    for kind in ("uniform", "adaptive"):
        steps = StepSizePolicy(kind).initial(layers)
        assert steps.dtype == torch.float64
        assert steps.tolist() == pytest.approx([1 / layers] * layers, rel=1e-15)


@pytest.mark.parametrize("layers", [2, 3, 4, 7, 18, 25])
@pytest.mark.parametrize("a", [Fraction(0), Fraction(1, 2), Fraction(9, 10)])
def test_irregular_steps_are_the_formula_normalised(layers, a):
    """In exact fractions; the sum before normalisation is 1 for even L and 1 - a/(4 L^2) for odd L."""
    raw = [
        Fraction(1, layers) + a / layers * (Fraction(1, 4) - abs(Fraction(position, layers) - Fraction(1, 2)))
        for position in range(1, layers + 1)
    ]
    assert sum(raw) == (1 if layers % 2 == 0 else 1 - a / (4 * layers**2))
    steps = StepSizePolicy("irregular", irregularity=float(a)).initial(layers)
    assert steps.tolist() == pytest.approx([float(step / sum(raw)) for step in raw], rel=1e-14)
    assert float(steps.sum()) == pytest.approx(1, abs=1e-14)


def test_irregular_steps_match_the_specification():
    steps = StepSizePolicy("irregular", irregularity=0.5).initial(18)
    assert float(steps[0]) == pytest.approx(0.05015, abs=5e-6)
    assert float(steps[-1]) == pytest.approx(0.04861, abs=5e-6)
    assert float(steps.max()) == pytest.approx((1 + 0.5 / 4) / 18, rel=1e-14)


@pytest.mark.parametrize(
    ("kind", "layers", "depth", "enough"),
    [
        ("uniform", 3, 3.0, 4),
        ("uniform", 2, 7.5, 8),
        ("irregular", 8, 7.5, 9),
        ("adaptive", 4, 3.9, 5),
        ("adaptive", 1, 19, 20),
    ],
)
def test_too_few_layers_are_refused_with_a_number_that_would_do(kind, layers, depth, enough):
    policy = StepSizePolicy(kind)
    with pytest.raises(InputError, match=f"take at least {enough} layers"):
        policy.initial(layers, depth)
    assert float(policy.initial(enough, depth).max()) * depth < 1
    with pytest.raises(InputError, match="too few"):
        policy.initial(enough - 1, depth)
    assert len(StepSizePolicy(kind, cap=None).initial(layers, depth)) == layers


# ------------------------------------------------------------------ when steps change


def test_updates_are_due_between_begin_and_freeze_only():
    policy = adaptive(period=25, begin=60, freeze=0.8)
    assert [step for step in range(401) if policy.due(step, 400)] == list(range(75, 321, 25))
    assert adaptive(period=10, begin=0, freeze=1.0).due(10, 10)
    assert not adaptive(period=10, begin=0).due(0, 10)
    for kind in ("uniform", "irregular"):
        assert not any(StepSizePolicy(kind, period=1, begin=0).due(step, 100) for step in range(101))


# ------------------------------------------------------------------ the rule


def test_the_rule_is_the_papers_formula():
    rho, changes, norms = torch.tensor([[0.2, 0.3, 0.5], [1.0, 2.0, 3.0], [4.0, 3.0, 2.0]], dtype=torch.float64)
    c = [0.2 * 4 / 1, 0.3 * 3 / 2, 0.5 * 2 / 3]
    assert adaptive().proposed(rho, changes, norms).tolist() == pytest.approx([x / sum(c) for x in c], rel=1e-13)


def test_equal_relative_steps_are_a_fixed_point():
    rho = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    norms = torch.tensor([1.0, 5.0, 3.0])
    for mixing in (1.0, 0.3):
        assert torch.allclose(adaptive(mixing=mixing).proposed(rho, 0.1 * norms, norms), rho, rtol=1e-6)


@pytest.mark.parametrize("mixing", [1.0, 0.5, 0.25])
def test_mixing_shrinks_deviations_by_its_complement(mixing):
    """With speeds that do not depend on the steps, log relative steps come nearer to each other by 1 - mixing an update."""
    speeds = torch.tensor([1.0, 3.0, 0.5, 2.0], dtype=torch.float64)
    rho = torch.full((4,), 0.25, dtype=torch.float64)
    policy = adaptive(mixing=mixing)
    for _ in range(3):
        before = (rho * speeds).log()
        rho = policy.proposed(rho, rho * speeds, torch.ones(4))
        after = (rho * speeds).log()
        assert torch.allclose(after - after.mean(), (1 - mixing) * (before - before.mean()), atol=1e-12)


def test_the_floor_limits_how_unequal_steps_become():
    """Speeds 1e-9, 1, 1, 1e9 count as 0.1, 1, 1, 10: shares 10, 1, 1, 0.1."""
    rho, norms = torch.full((4,), 0.25), torch.ones(4)
    steps = adaptive(floor=0.1).proposed(rho, 0.25 * torch.tensor([1e-9, 1.0, 1.0, 1e9]), norms)
    assert steps.tolist() == pytest.approx([10 / 12.1, 1 / 12.1, 1 / 12.1, 0.1 / 12.1], rel=1e-6)
    assert adaptive(floor=1.0).proposed(rho, torch.rand(4), norms).tolist() == pytest.approx([0.25] * 4)


def test_layers_without_motion_take_no_more_than_the_floor_gives():
    rho, norms = torch.full((3,), 1 / 3), torch.ones(3)
    assert adaptive(floor=0.1).proposed(rho, torch.tensor([0.0, 1.0, 1.0]), norms).tolist() == pytest.approx(
        [10 / 12, 1 / 12, 1 / 12], rel=1e-6
    )
    uneven = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    assert torch.allclose(adaptive().proposed(uneven, torch.zeros(3), norms), uneven)  # nothing moves: nothing known
    assert torch.allclose(adaptive().proposed(uneven, torch.zeros(3), torch.zeros(3)), uneven)
    one_dead = adaptive().proposed(rho, torch.tensor([1.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 0.0]))
    assert one_dead.tolist() == pytest.approx([1 / 3] * 3)  # 0/0: as the median
    to_zero = adaptive(floor=0.1).proposed(rho, torch.ones(3), torch.tensor([1.0, 1.0, 0.0]))
    assert to_zero.tolist() == pytest.approx([1 / 2.1, 1 / 2.1, 0.1 / 2.1], rel=1e-6)


def test_a_common_factor_and_the_dtype_are_irrelevant():
    torch.manual_seed(0)
    rho, changes, norms = torch.rand(3, 6)
    expected = adaptive().proposed(rho, changes, norms)
    assert torch.allclose(adaptive().proposed(7 * rho, 1e20 * changes.double(), 1e20 * norms.double()), expected)
    assert expected.dtype == torch.float64


def by_bisection(shares, bound):
    low, high = 0.0, 1e9
    for _ in range(200):
        factor = (low + high) / 2
        low, high = (factor, high) if sum(min(factor * share, bound) for share in shares) < 1 else (low, factor)
    return [min(high * share, bound) for share in shares]


@pytest.mark.parametrize("seed", range(20))
def test_the_cap_is_kept_exactly_and_the_rest_keeps_its_proportions(seed):
    generator = torch.Generator().manual_seed(seed)
    layers = int(torch.randint(2, 12, (), generator=generator))
    cap = float(0.3 + 0.7 * torch.rand((), generator=generator))
    depth = cap * layers * float(0.2 + 0.8 * torch.rand((), generator=generator))
    changes = torch.rand(layers, generator=generator, dtype=torch.float64) + 0.05
    rho, norms = torch.full((layers,), 1 / layers, dtype=torch.float64), torch.ones(layers)
    steps = adaptive(cap=cap, floor=1e-3).proposed(rho, changes, norms, depth)
    assert bool((steps * depth <= cap).all())
    assert float(steps.sum()) == pytest.approx(1, abs=1e-13)
    assert steps.tolist() == pytest.approx(by_bisection((1 / changes).tolist(), cap / depth), abs=1e-12)


def test_the_tightest_cap_gives_equal_steps():
    steps = adaptive(cap=0.5).proposed(torch.full((4,), 0.25), torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.ones(4), 2.0)
    assert steps.tolist() == pytest.approx([0.25] * 4, abs=1e-15)
    assert bool((steps * 2.0 <= 0.5).all())


def test_without_a_cap_steps_may_be_long():
    steps = adaptive(cap=None).proposed(torch.full((2,), 0.5), torch.tensor([1.0, 9.0]), torch.ones(2), 100.0)
    assert steps.tolist() == pytest.approx([0.9, 0.1])


def test_members_are_treated_one_by_one():
    torch.manual_seed(1)
    rho, changes, norms = torch.rand(3, 2, 4, 5).double() + 0.1
    depths = torch.tensor([[0.0, 1.0, 2.0, 3.0], [4.0, 4.5, 0.5, 3.5]])
    together = adaptive().proposed(rho, changes, norms, depths)
    for first in range(2):
        for second in range(4):
            place = (first, second)
            alone = adaptive().proposed(rho[place], changes[place], norms[place], float(depths[place]))
            assert torch.allclose(together[place], alone, atol=1e-15)
    alike = adaptive().proposed(rho, changes, norms, 4.5)
    assert torch.allclose(alike[1, 1], together[1, 1])
    assert bool((alike * 4.5 <= 0.95).all())


def test_inputs_are_left_alone():
    rho, changes, norms = torch.rand(3, 4) + 0.1
    before = [tensor.clone() for tensor in (rho, changes, norms)]
    adaptive().proposed(rho, changes, norms, 2.0)
    assert all(torch.equal(now, then) for now, then in zip((rho, changes, norms), before, strict=True))


# ------------------------------------------------------------------ readings


def test_norms_and_relative_steps_by_hand():
    path = torch.tensor([[[3.0, 4.0]], [[0.0, 4.0]], [[0.0, 2.0]]])  # (3 nodes, width 1, 2 samples)
    changes, norms = step_norms(path)
    assert changes.tolist() == [3.0, 2.0]
    assert norms.tolist() == [4.0, 2.0]
    assert relative_steps(path).tolist() == [0.75, 1.0]
    assert float(step_spread(relative_steps(path))) == pytest.approx(4 / 3)
    members = torch.stack([path, 5 * path], dim=1)  # (nodes, members, width, samples)
    assert relative_steps(members).tolist() == [[0.75, 1.0]] * 2
    assert torch.equal(relative_steps(members.movedim(0, 1), dimension=1), relative_steps(members))
    assert torch.equal(relative_steps(members.movedim(0, 1), dimension=-3), relative_steps(members))


def test_spread_says_when_there_is_none():
    assert float(step_spread(torch.tensor([0.0, 1.0]))) == math.inf
    assert math.isnan(float(step_spread(torch.zeros(3))))
    assert math.isnan(float(step_spread(relative_steps(torch.zeros(3, 2, 2)))))
    assert step_spread(torch.tensor([[1.0, 2.0], [1.0, 4.0]])).tolist() == [2.0, 4.0]


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "trained"}, "uniform, irregular, adaptive"),
        ({"irregularity": 1.0}, r"irregularity must be a number in \[0, 1\)"),
        ({"irregularity": -0.1}, "irregularity"),
        ({"mixing": 0.0}, "mixing"),
        ({"mixing": float("nan")}, "mixing"),
        ({"cap": 0.0}, "cap"),
        ({"cap": 1.1}, "cap"),
        ({"cap": "high"}, "cap"),
        ({"floor": 0.0}, "floor"),
        ({"freeze": 0.0}, "freeze"),
        ({"freeze": 1.5}, "freeze"),
        ({"period": 0}, "period"),
        ({"period": 2.5}, "period"),
        ({"begin": -1}, "begin"),
    ],
)
def test_policies_are_checked_when_made(options, message):
    with pytest.raises(InputError, match=message):
        StepSizePolicy(**options)


def test_calls_are_checked():
    policy, rho, ones = adaptive(), torch.full((3,), 1 / 3), torch.ones(3)
    with pytest.raises(InputError, match="layers must be a whole number"):
        policy.initial(0)
    with pytest.raises(InputError, match="effective_depth must be a number at least 0"):
        policy.initial(3, -1.0)
    with pytest.raises(InputError, match="same shape"):
        policy.proposed(rho, ones[:2], ones)
    with pytest.raises(InputError, match="same shape"):
        policy.proposed(*torch.ones(3))
    for bad in (math.nan, math.inf, -1.0):
        with pytest.raises(InputError, match="changes must be finite norms"):
            policy.proposed(rho, torch.tensor([1.0, bad, 1.0]), ones)
        with pytest.raises(InputError, match="norms must be finite norms"):
            policy.proposed(rho, ones, torch.tensor([1.0, bad, 1.0]))
        with pytest.raises(InputError, match="steps must be finite and above 0"):
            policy.proposed(torch.tensor([1.0, bad, 1.0]), ones, ones)
        with pytest.raises(InputError, match="effective_depth"):
            policy.proposed(rho, ones, ones, bad)
    with pytest.raises(InputError, match="above 0"):
        policy.proposed(torch.tensor([1.0, 0.0, 1.0]), ones, ones)
    with pytest.raises(InputError, match="take at least 4 layers"):
        policy.proposed(rho, ones, ones, 3.0)
    with pytest.raises(InputError, match="one for each member"):
        policy.proposed(rho.expand(2, 3), ones.expand(2, 3), ones.expand(2, 3), torch.ones(3))
    with pytest.raises(InputError, match="step must be"):
        policy.due(-1, 10)
    with pytest.raises(InputError, match=r"\(layers \+ 1, ..., width, samples\)"):
        relative_steps(torch.ones(3, 2))
    with pytest.raises(InputError, match="along dimension 1"):
        relative_steps(torch.ones(3, 2, 2), dimension=1)
    with pytest.raises(InputError, match="at least two nodes"):
        relative_steps(torch.ones(1, 2, 2))
    with pytest.raises(InputError, match="NaN or infinite"):
        relative_steps(torch.full((2, 2, 2), math.nan))
    with pytest.raises(InputError, match="cannot be negative"):
        step_spread(torch.tensor([1.0, -1.0]))
    with pytest.raises(InputError, match="shape"):
        step_spread(torch.tensor(1.0))
