"""From free unknowns to symmetries: which units belong together, where their numbers lie, what kind it is."""

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from learnmech.dynamics.charge_views import View
from learnmech.dynamics.structure_flow import Flow
from learnmech.dynamics.structure_records import Contribution
from learnmech.dynamics.symmetries import Symmetry

Exponents = dict[int, float]
Spots = tuple[tuple[int, tuple[float, ...]], ...]


class _Place:
    """Where free unknowns act in one contribution: along one axis, or along several that are all covered in order."""

    def __init__(self, flow: Flow, contribution: Contribution) -> None:
        ids = flow.forms.reduced(contribution.ids)
        for axis in range(ids.ndim):
            first = ids.narrow(axis, 0, 1)
            if bool((ids == first).all()):
                ids = first
        self.contribution = contribution
        self.axes = [axis for axis in range(ids.ndim) if ids.shape[axis] > 1]
        flat = ids.flatten().tolist()
        self.forms: list[Exponents] = [dict(flow.forms.table[one]) for one in flat]
        self.exponents: dict[int, set[float]] = {}
        for form in self.forms:
            for unknown, factor in form.items():
                self.exponents.setdefault(unknown, set()).add(round(factor * contribution.sign, 9))

    def views(self, order: Sequence[int], groups: int) -> list[View] | None:
        """Lay the numbers out on which these unknowns act; None if no view can."""
        exponents = self.exponents[order[0]]
        if any(self.exponents[unknown] != exponents for unknown in order):
            return None
        rank = {unknown: place for place, unknown in enumerate(order)}
        made: list[View] = []
        for exponent in sorted(exponents, reverse=True):
            places = []
            for form in self.forms:
                found = [
                    rank[unknown]
                    for unknown, factor in form.items()
                    if unknown in rank and round(factor * self.contribution.sign, 9) == exponent
                ]
                if len(found) > 1:
                    return None
                places.append(found[0] if found else -1)
            views = self._lay(places, len(order), groups, exponent)
            if views is None:
                return None
            made += views
        return made

    def _lay(self, places: list[int], count: int, groups: int, weight: float) -> list[View] | None:
        runs = list(_runs(places))
        whole = len(runs) == 1 and len(runs[0][1]) == len(places)
        if len(self.axes) > 1:
            return self._over_axes(places, groups, weight) if whole else None
        views = [self._view(offset, torch.tensor(run), count, groups, weight, whole=whole) for offset, run in runs]
        return None if any(view is None for view in views) else [view for view in views if view is not None]

    def _view(self, offset: int, run: Tensor, count: int, groups: int, weight: float, *, whole: bool) -> View | None:
        spot, split = self.contribution, self.contribution.split
        start, stop, dimension = spot.start, spot.stop, spot.dimension
        if not self.axes:  # the same for all numbers
            return View(spot.parameter, split, (), (), weight, start, stop, dimension) if count == 1 else None
        axis = self.axes[0]
        if not whole:
            if spot.dimension != axis and spot.stop is not None:
                return None
            start = (spot.start if spot.dimension == axis else 0) + offset
            stop, dimension = start + len(run), axis
        found = _pattern(run, count, groups)
        if found is None:
            return None
        kept = [(length, role) for length, role in zip(found, "fgfuf", strict=True) if length > 1]
        if not kept:
            kept = [(1, "f")]
        middle = [length for length, _ in kept]
        roles = "f" * axis + "".join(role for _, role in kept) + "f" * (len(split) - axis - 1)
        if groups == 1:
            units = tuple(place for place, role in enumerate(roles) if role in "gu")
            grouped: tuple[int, ...] = ()
        else:
            units = tuple(place for place, role in enumerate(roles) if role == "u")
            grouped = tuple(place for place, role in enumerate(roles) if role == "g")
        shape = (*split[:axis], *middle, *split[axis + 1 :])
        return View(spot.parameter, shape, units, grouped, weight, start, stop, dimension)

    def _over_axes(self, places: list[int], groups: int, weight: float) -> list[View] | None:
        if places != list(range(len(places))):
            return None
        spot, axes = self.contribution, tuple(self.axes)
        if groups > 1 and spot.split[axes[0]] != groups:
            return None
        units, grouped = (axes, ()) if groups == 1 else (axes[1:], axes[:1])
        return [View(spot.parameter, spot.split, units, grouped, weight, spot.start, spot.stop, spot.dimension)]


def symmetries_of(flow: Flow) -> list[Symmetry]:
    """Turn what is free after a pass into symmetries.

    Args:
        flow: the pass.

    Returns:
        Symmetries, in order of the layers where they begin.
    """
    members = flow.forms.members()
    places = [place for place in (_Place(flow, one) for one in flow.contributions) if place.exponents]
    alike: dict[tuple[Spots, frozenset[str]], list[int]] = {}
    for unknown in sorted(members):
        spots: Spots = tuple(
            (index, tuple(sorted(place.exponents[unknown])))
            for index, place in enumerate(places)
            if unknown in place.exponents
        )
        tags = frozenset(tag for one, _ in members[unknown] for tag in flow.forms.tags.get(one, ()))
        signs = {exponent > 0 for _, exponents in spots for exponent in exponents}
        if spots and (signs == {True, False} or "norm" in tags):
            alike.setdefault((spots, tags), []).append(unknown)
    found: list[Symmetry] = []
    for (spots, tags), unknowns in alike.items():
        used = [places[index] for index, _ in spots]
        found += _items(
            list(flow.parameters), used, tags, unknowns, {one: flow.forms.mixing_key(members[one]) for one in unknowns}
        )
    return found


def _items(
    names: list[str],
    places: list[_Place],
    tags: frozenset[str],
    unknowns: list[int],
    keys: dict[int, object],
) -> list[Symmetry]:
    blocks: dict[object, list[int]] = {}
    for unknown in unknowns:
        blocks.setdefault(keys[unknown], []).append(unknown)
    mixed = [block for key, block in blocks.items() if key is not None]
    alone = blocks.get(None, [])
    found: list[Symmetry] = []
    sizes = {len(block) for block in mixed}
    together = [unknown for block in mixed for unknown in block]
    if len(sizes) == 1 and (item := _item(names, places, tags, together, len(mixed), mixing=max(sizes) > 1)):
        return [*found, item, *_single(names, places, tags, alone)]
    for block in mixed:
        item = _item(names, places, tags, block, 1, mixing=len(block) > 1)
        found += [item] if item else _single(names, places, tags, block)
    return found + _single(names, places, tags, alone)


def _single(names: list[str], places: list[_Place], tags: frozenset[str], unknowns: list[int]) -> list[Symmetry]:
    if not unknowns:
        return []
    item = _item(names, places, tags, unknowns, 1, mixing=False)
    if item or len(unknowns) == 1:
        return [item] if item else []
    half = len(unknowns) // 2
    return _single(names, places, tags, unknowns[:half]) + _single(names, places, tags, unknowns[half:])


def _item(
    names: list[str], places: list[_Place], tags: frozenset[str], order: list[int], groups: int, *, mixing: bool
) -> Symmetry | None:
    laid = [place.views(order, groups if mixing else 1) for place in places]
    if any(views is None for views in laid):
        return None
    views = list(itertools.chain.from_iterable(views for views in laid if views is not None))
    if len({view.size for view in views}) != 1:
        return None
    views.sort(key=lambda view: names.index(view.parameter))
    weights = [view.weight for view in views]
    kind = _kind(tags, weights, mixing=mixing)
    turn = 1.0 if kind in ("scale", "attention_qk", "attention_vo") else -1.0
    smallest = min(abs(weight) for weight in weights)
    views = [
        View(v.parameter, v.split, v.units, v.groups, turn * v.weight / smallest, v.start, v.stop, v.dimension)
        for v in views
    ]
    degree = max(abs(weight) for weight in weights) / smallest if kind == "rescale" else 1.0
    layers = tuple(dict.fromkeys(view.parameter.rpartition(".")[0] for view in views))
    broken = ", ".join(sorted(tag for tag in tags if tag.startswith("eps=")))
    return Symmetry(kind, tuple(views), mixing, degree, layers, broken)


def _kind(tags: frozenset[str], weights: list[float], *, mixing: bool) -> str:
    if min(weights) > 0 or max(weights) < 0:
        return "scale"
    for tag, kind in (("qk", "attention_qk"), ("vo", "attention_vo"), ("gate", "swiglu")):
        if tag in tags:
            return kind
    return "gl" if mixing else "rescale"


def _runs(places: list[int]) -> Iterator[tuple[int, list[int]]]:
    start = 0
    for inside, run in itertools.groupby(places, key=lambda place: place >= 0):
        values = list(run)
        if inside:
            yield start, values
        start += len(values)


def _pattern(run: Tensor, count: int, groups: int) -> tuple[int, int, int, int, int] | None:
    """Write a run of units as (features, groups, features, units, features), the features repeating it."""
    length = len(run)
    if length % count:
        return None
    changes = (run != run[0]).nonzero()
    last = int(changes[0]) if len(changes) else length
    for outer in [groups] if groups > 1 else [size for size in range(1, count + 1) if count % size == 0]:
        inner, rest = count // outer, length // count
        if rest % last:
            last_repeat = 1
        else:
            last_repeat = last
        for final in {last_repeat, 1, rest}:
            if rest % final:
                continue
            for first in [size for size in range(1, rest // final + 1) if (rest // final) % size == 0]:
                middle = rest // final // first
                made = torch.arange(count).reshape(1, outer, 1, inner, 1).expand(first, outer, middle, inner, final)
                if torch.equal(made.reshape(-1), run):
                    return first, outer, middle, inner, final
    return None
