"""The neuron of most utility: which direction of input weights pulls hardest on a frozen residual."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.dynamics.agf.greedy_activation import Homogeneous, choose

_MOST_NUMBERS = 1 << 22
_SMALLEST_STEP = 2.0**-10
_MOST_CIRCLES = 30


@dataclass(frozen=True)
class Candidates:
    """Directions of large utility, the best first.

    Attributes:
        directions: unit input weights (candidates, inputs).
        utilities: of unit neurons, with the best output weights (candidates,).
    """

    directions: Float[Tensor, "candidates inputs"]
    utilities: Float[Tensor, " candidates"]


def utility_share(degree: float) -> float:
    r"""Give the utility of a unit neuron over the pull of unit input weights: :math:`\sqrt{q^q/(q+1)^{q+1}}`.

    A neuron :math:`a\,\sigma(w\cdot x)` with :math:`|w|^2 + |a|^2 = 1` has most utility at :math:`|w|^2 = q |a|^2`.

    Args:
        degree: q of the activation.

    Returns:
        A number, 1/2 for q = 1.

    Example:
        >>> utility_share(1.0)
        0.5
    """
    return math.sqrt(degree**degree / (degree + 1) ** (degree + 1))


def pull(
    inputs: Float[Tensor, "samples inputs"],
    residual: Float[Tensor, "samples outputs"],
    directions: Float[Tensor, "directions inputs"],
    activation: Homogeneous,
) -> tuple[Float[Tensor, " directions"], Float[Tensor, "directions outputs"]]:
    r"""Give :math:`|g(w)|` and :math:`g(w)/|g(w)|` with :math:`g(w) = \frac1n\sum_i \sigma(w\cdot x_i)\, r_i`.

    The utility :math:`a\cdot g(w)` of output weights of norm 1 is largest for the second, and then equals the first.

    Args:
        inputs: x, a column of ones for the bias included.
        residual: r.
        directions: w.
        activation: of the neuron.

    Returns:
        Sizes, and unit output weights (0 where the size is 0).
    """
    return _aims(inputs @ directions.T, residual, activation)


def maximise_utility(
    inputs: Float[Tensor, "samples inputs"],
    residual: Float[Tensor, "samples outputs"],
    activation: Homogeneous,
    *,
    starts: int = 64,
    steps: int = 60,
    tolerance: float = 1e-6,
    polished: int = 4,
    generator: torch.Generator | None = None,
) -> Candidates:
    r"""Find directions w on the unit sphere in which :math:`|g(w)|`, :math:`g(w) = \frac1n\sum_i\sigma(w\cdot x_i)\,r_i`, is largest.

    A linear neuron has it at the top singular direction of :math:`X^T R/n`, and a square one of one output at the top eigenvector (by
    size) of :math:`\frac1n\sum_i r_i x_i x_i^T`: both exact. Else all starts climb at once. With
    :math:`a = g/|g|` and :math:`D = \frac1n\sum_i a\cdot r_i\,\sigma'(w\cdot x_i)\,x_i`, whose part across w is the gradient on the
    sphere, the step is

    .. math:: w \leftarrow D / |D| ,

    the power method. If every :math:`a\cdot r_i\ge 0` and :math:`\sigma` is convex, :math:`U(w) = a\cdot g(w)` is convex, hence
    :math:`U(D/|D|) \ge U(w) + D\cdot(D/|D| - w) = U(w) + |D| - qU(w) \ge U(w)`, for :math:`|D|\ge D\cdot w = qU(w)`: it never falls, and
    choosing a anew cannot lower it. A residual of both signs gives no such promise, and the plain iteration does lose there at times; so a
    step that loses is not taken, and the next goes half as far.
    Finally, for piecewise linear neurons, the best few are improved by exact searches over great circles
    (:func:`search_circle`), which also find maxima in a kink.

    Source: derived here; the utility is that of Kunin et al. 2025 (arXiv 2506.06489). The power method for convex functions on a
    sphere is Journée et al. 2010.

    How to read it: with two inputs (the bias included) and one output, a ReLU's best direction is exact. In more, finding the
    best one is NP-hard in general: it is the best of ``starts`` climbs.

    Args:
        inputs: x, a column of ones for the bias included.
        residual: r.
        activation: of the neuron.
        starts: half are random directions, half the directions of random samples, weighted by their residual's size.
        steps: of each climb, at most.
        tolerance: a climb ends when a step gains less than this share.
        polished: how many are improved over great circles.
        generator: of the starts.

    Returns:
        Candidates, the best first, with their utilities as unit neurons (weights of both layers together).
    """
    factor = utility_share(activation.degree)
    exact = _exact_directions(inputs, residual, activation)
    if exact is not None:
        sizes, _ = pull(inputs, residual, exact, activation)
        best = sizes.argsort(descending=True)
        return Candidates(exact[best], factor * sizes[best])
    block = max(1, _MOST_NUMBERS // max(len(inputs), 1))
    begun = _starts(inputs, residual, starts, generator)
    climbed = torch.cat(
        [_climb(inputs, residual, part, activation, steps, tolerance) for part in torch.split(begun, block)]
    )
    sizes, _ = pull(inputs, residual, climbed, activation)
    best = sizes.argsort(descending=True)
    climbed, sizes = climbed[best], sizes[best]
    if activation.degree == 1:
        for place in range(min(polished, len(climbed))):
            climbed[place], sizes[place] = _polish(inputs, residual, climbed[place], activation, tolerance)
        best = sizes.argsort(descending=True)
        climbed, sizes = climbed[best], sizes[best]
    return Candidates(climbed, factor * sizes)


def _exact_directions(inputs: Tensor, residual: Tensor, activation: Homogeneous) -> Tensor | None:
    if activation.linear:
        directions: Tensor = torch.linalg.svd(inputs.T @ residual / len(inputs), full_matrices=False)[0].T
        return directions.contiguous()
    if activation.even_square and residual.shape[1] == 1:
        vectors: Tensor = torch.linalg.eigh(inputs.T @ (residual * inputs) / len(inputs))[1].T
        return vectors.contiguous()
    return None


def _starts(inputs: Tensor, residual: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    half = count // 2
    random = torch.randn(count - half, inputs.shape[1], generator=generator, dtype=torch.float64).to(inputs)
    shares = (residual.norm(dim=1) * inputs.norm(dim=1)).double().cpu().cumsum(0)
    places = torch.rand(half, generator=generator, dtype=torch.float64) * shares[-1]
    chosen = torch.searchsorted(shares, places).clamp(max=len(inputs) - 1).to(inputs.device)
    signs = (torch.randint(0, 2, (half, 1), generator=generator) * 2 - 1).to(inputs)
    return torch.nn.functional.normalize(torch.cat([random, signs * inputs[chosen]]), dim=1)


def _climb(
    inputs: Tensor, residual: Tensor, directions: Tensor, activation: Homogeneous, steps: int, tolerance: float
) -> Tensor:
    count = len(inputs)
    lengths = torch.ones(len(directions), 1).to(directions)
    projections = inputs @ directions.T
    sizes, aims = _aims(projections, residual, activation)
    active = torch.arange(len(directions), device=directions.device)
    found = directions.clone()
    for _ in range(steps):
        slopes = inputs.T @ ((residual @ aims.T) * activation.slope(projections)) / count
        towards = torch.nn.functional.normalize(slopes.T, dim=1)
        tried = torch.nn.functional.normalize((1 - lengths) * directions + lengths * towards, dim=1)
        seen = inputs @ tried.T
        reached, turned = _aims(seen, residual, activation)
        better = reached > sizes
        goes_on = (better & (reached > (1 + tolerance) * sizes)) | (~better & (lengths[:, 0] > _SMALLEST_STEP))
        directions = torch.where(better[:, None], tried, directions)
        found[active] = directions
        lengths = torch.where(better[:, None], (2 * lengths).clamp(max=1), lengths / 2)
        projections = torch.where(better, seen, projections)
        sizes, aims = torch.where(better, reached, sizes), torch.where(better[:, None], turned, aims)
        if not bool(goes_on.any()):
            break
        if int(goes_on.sum()) < len(active):
            active, directions, lengths, sizes, aims, projections = (
                active[goes_on],
                directions[goes_on],
                lengths[goes_on],
                sizes[goes_on],
                aims[goes_on],
                projections[:, goes_on],
            )
    return found


def _aims(projections: Tensor, residual: Tensor, activation: Homogeneous) -> tuple[Tensor, Tensor]:
    means = activation.value(projections).T @ residual / len(projections)
    sizes = means.norm(dim=1)
    return sizes, means / sizes.clamp(min=torch.finfo(sizes.dtype).tiny)[:, None]


def _polish(
    inputs: Tensor, residual: Tensor, direction: Tensor, activation: Homogeneous, tolerance: float
) -> tuple[Tensor, Tensor]:
    sizes, aims = pull(inputs, residual, direction[None], activation)
    size, aim = sizes[0], aims[0]
    for _ in range(_MOST_CIRCLES):
        coefficients = residual @ aim
        slope = inputs.T @ (coefficients * activation.slope(inputs @ direction)) / len(inputs)
        across = slope - (slope @ direction) * direction
        if not bool(across.norm() > 1e-12 * slope.norm()):
            across = torch.roll(direction, 1) - (torch.roll(direction, 1) @ direction) * direction
            if not bool(across.norm() > 1e-6):
                break
        across = across / across.norm()
        angle = search_circle(inputs, coefficients, direction, across, activation)
        tried = torch.nn.functional.normalize(math.cos(angle) * direction + math.sin(angle) * across, dim=0)
        reached, turned = pull(inputs, residual, tried[None], activation)
        if not bool(reached[0] > size):
            break
        gained = bool(reached[0] > (1 + tolerance) * size)
        direction, size, aim = tried, reached[0], turned[0]
        if not gained:
            break
    return direction, size


def search_circle(
    inputs: Float[Tensor, "samples inputs"],
    coefficients: Float[Tensor, " samples"],
    direction: Float[Tensor, " inputs"],
    across: Float[Tensor, " inputs"],
    activation: Homogeneous,
) -> float:
    r"""Find the best neuron of degree 1 on a great circle, exactly.

    On :math:`w(\varphi) = w\cos\varphi + e\sin\varphi` each sample changes sides at two angles, and between these
    :math:`U(\varphi) = \frac1n\sum_i c_i\,\sigma(w(\varphi)\cdot x_i)` is :math:`A\cos\varphi + B\sin\varphi`. Running sums over the sorted angles
    give A and B on every arc, and the maximum of :math:`|U|` on each is at its peak or an end: n log n operations.

    Source: derived here.

    Args:
        inputs: x.
        coefficients: c.
        direction: w, a unit vector.
        across: e, a unit vector orthogonal to it.
        activation: of degree 1.

    Returns:
        The angle, from :math:`-\pi` to :math:`\pi`.

    Example:
        The average of :math:`|w\cdot x|` over x = (1, 0) and (0, 1) is largest half way between.

        >>> from learnmech.dynamics.agf.greedy_activation import read_activation
        >>> eye = torch.eye(2, dtype=torch.float64)
        >>> angle = search_circle(eye, torch.ones(2).double(), eye[0], eye[1], read_activation("abs")[0])
        >>> round(abs(math.sin(2 * angle)), 9)
        1.0
    """
    wide = torch.float64 if inputs.device.type in ("cpu", "cuda") else inputs.dtype
    along, aside = (inputs @ direction).to(wide), (inputs @ across).to(wide)
    weights = coefficients.to(wide)
    leaves = torch.atan2(along, -aside)
    leaves = torch.where(leaves <= -math.pi, math.pi, leaves)
    enters = torch.where(leaves <= 0, leaves + math.pi, leaves - math.pi)
    jumps = (activation.positive + activation.negative) * weights
    slopes = choose(leaves <= 0, activation.positive, -activation.negative, weights) * weights
    events, order = torch.cat([leaves, enters]).sort()
    signed = torch.cat([-jumps, jumps])[order]
    twice = order % len(along)
    first = torch.stack([(slopes * along).sum(), (slopes * aside).sum()])
    changes = torch.stack([signed * along[twice], signed * aside[twice]])
    cosine, sine = torch.cat([first[:, None], first[:, None] + changes.cumsum(1)], 1)
    begins, ends = torch.cat([events.new_tensor([-math.pi]), events]), torch.cat([events, events.new_tensor([math.pi])])
    peak = torch.atan2(sine, cosine)
    opposite = torch.where(peak > 0, peak - math.pi, peak + math.pi)
    angles = torch.stack([begins, ends, peak.clamp(begins, ends), opposite.clamp(begins, ends)])
    values = (cosine * angles.cos() + sine * angles.sin()).abs()
    return float(angles.flatten()[values.argmax()])
