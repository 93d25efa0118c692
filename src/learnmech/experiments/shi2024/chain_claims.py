"""The claims about spring chains, S1 to S9, as checks of a phase diagram over friction and noise."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from learnmech.experiments.reproduction import Claim, judge
from learnmech.springs import SpringChain

_ERRORS = 4.0
"""Standard errors by which a sampled mean may miss a bound; of 54 cells one misses by chance in 300 runs."""


def check_phases(history: xr.Dataset, *, keys: str = "") -> list[Claim]:
    """Check S1 to S7 on a phase diagram.

    Args:
        history: over ``friction_forward`` and ``noise``, with ``bend`` (c, the first contribution minus the last hidden
            one), its standard error ``bend_error``, ``elongation``, and the scalar ``friction_backward``.
        keys: what to write behind the numbers of the claims.

    Returns:
        The claims.
    """
    frictions, noises = history["friction_forward"].values, history["noise"].values
    backward = float(history["friction_backward"])
    bend = history["bend"].transpose("friction_forward", "noise").values
    error = history["bend_error"].transpose("friction_forward", "noise").values
    slack = _ERRORS * error + 1e-9
    below, equal, above = frictions < backward, np.isclose(frictions, backward), frictions > backward
    positive = np.flatnonzero(below & (frictions > 0))
    lazy = bend[frictions > 0][:, noises == 0]
    active = bend[0, noises >= 2 * backward]
    quiet = noises == 0
    claims = [
        judge(
            f"S1{keys}",
            "high friction and low noise: concave, the springs near the wall do the work",
            "c < 0 for every friction above 0 without noise",
            f"c = {_list(lazy.ravel())}",
            bool((lazy < 0).all()),
        ),
        judge(
            f"S2{keys}",
            "low friction and high noise: convex",
            f"c > 0 without forward friction at noise of {2 * backward:g} and more",
            f"c = {_list(active)}",
            bool((active > 0).all()),
        ),
        judge(
            f"S3{keys}",
            "without forward friction and noise the chain is linear, whatever the backward friction; noise makes it convex",
            "|c| < 1e-6 at no noise; c above zero by 4 standard errors at every noise",
            f"|c| = {abs(float(bend[0, quiet][0])):.1e}; least c with noise {bend[0, ~quiet].min():+.4f}",
            bool(
                frictions[0] == 0 and np.abs(bend[0, quiet]).max() < 1e-6 and (bend[0, ~quiet] > slack[0, ~quiet]).all()
            ),
        ),
        judge(
            f"S4{keys}",
            "at every noise, more forward friction bends towards concave",
            "c falls with friction, up to 4 standard errors",
            f"largest rise {np.diff(bend, axis=0).max():+.4f}",
            bool((np.diff(bend, axis=0) <= np.hypot(slack[1:], slack[:-1])).all()),
        ),
        _check_saturation(history, bend, slack, positive, keys),
        judge(
            f"S6{keys}",
            "equal frictions never give a convex chain, and forward friction above backward always a concave one",
            "c <= 0 up to 4 standard errors at equal frictions, c < 0 above",
            f"largest c {bend[equal].max():+.4f} at equal frictions, {bend[above].max():+.4f} above",
            bool(equal.any() and above.any() and (bend[equal] <= slack[equal]).all() and (bend[above] < 0).all()),
        ),
        _check_energy(history, keys),
    ]
    return claims


def _check_saturation(
    history: xr.Dataset, bend: np.ndarray, slack: np.ndarray, rows: Sequence[int] | np.ndarray, keys: str
) -> Claim:
    """S5: c rises with noise and saturates; the more friction, the more noise a straight curve needs."""
    frictions, noises = history["friction_forward"].values, history["noise"].values
    backward = float(history["friction_backward"])
    blocks = history.sizes["layer"] - 1
    rising, crossings, ends = True, [], []
    for row in rows:
        steps = np.diff(bend[row])
        rising = rising and bool((steps >= -np.hypot(slack[row, 1:], slack[row, :-1])).all())
        limit = -(blocks - 1) * (frictions[row] - backward) / 2 / float(history["stiffness"])
        ends.append((abs(bend[row, -1] - limit), slack[row, -1]))
        crossings.append(_zero(noises, bend[row]))
    diagonal = bool(np.all(np.diff(crossings) >= 0)) and bool(np.isfinite(crossings).all())
    return judge(
        f"S5{keys}",
        "below the backward friction, noise bends from concave to convex and saturates; more friction needs more noise",
        "c rises with noise up to 4 standard errors, ends within 0.01 (and 4 standard errors) of -(L-1)m/k, and its zero moves "
        "to larger noise with friction",
        f"zero of c at noise {_list(crossings)} for friction {_list(frictions[rows])}; "
        f"ends miss the limit by {', '.join(f'{gap:.4f}' for gap, _ in ends)}",
        rising and diagonal and all(gap <= 0.01 + allowed for gap, allowed in ends),
    )


def _zero(noises: np.ndarray, bend: np.ndarray) -> float:
    above = np.flatnonzero(bend > 0)
    if len(above) == 0:
        return float("nan")
    first = int(above[0])
    if first == 0:
        return float(noises[0])
    share = -bend[first - 1] / (bend[first] - bend[first - 1])
    return float(noises[first - 1] + share * (noises[first] - noises[first - 1]))


def _check_energy(history: xr.Dataset, keys: str) -> Claim:
    """S7: the straight curve is the one of least elastic energy."""
    chain = SpringChain(blocks=history.sizes["layer"] - 1, stiffness=float(history["stiffness"]))
    elongation = history["elongation"].transpose("friction_forward", "noise", "layer").values
    energy = np.asarray(chain.energy(elongation, above_uniform=True))
    order = np.argsort(energy, axis=None)
    bend = np.abs(history["bend"].transpose("friction_forward", "noise").values)
    straight, bent = bend.ravel()[order[: len(order) // 4]], bend.ravel()[order[-len(order) // 4 :]]
    return judge(
        f"S7{keys}",
        "the chain of equal elongations has the least energy",
        "no cell lies below it, and the quarter of cells with the least energy is straighter than the quarter with the most",
        f"least energy above it {energy.min():.1e}; |c| at most {straight.max():.3f} against at least {bent.min():.3f}",
        bool(energy.min() >= 0 and straight.max() < bent.min()),
    )


def check_same_signs(history: xr.Dataset, reference: np.ndarray, key: str, what: str) -> Claim:
    """Check S9: another dynamics bends the same way as the first-order chain, cell by cell.

    Args:
        history: a phase diagram with ``bend`` and ``bend_error``.
        reference: c of the first-order chain in the clear corners, NaN elsewhere, shape (friction, noise).
        key: number of the claim.
        what: name of the dynamics.

    Returns:
        The claim.
    """
    bend = history["bend"].transpose("friction_forward", "noise").values
    kept = np.isfinite(reference)
    same = np.sign(bend[kept]) == np.sign(reference[kept])
    return judge(
        key,
        f"{what} gives the phases of the first-order chain",
        "the same sign of c in every cell whose first-order limit is clear (|c| above 0.02, at no noise and at the most)",
        f"{int(same.sum())} of {int(kept.sum())} cells",
        bool(same.all()),
    )


def _list(values: Sequence[float] | np.ndarray) -> str:
    return ", ".join(f"{float(value):+.3g}" for value in values)
