"""From null vectors of random gradients to symmetries: which sides of which parameters, and what kind."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from learnmech.dynamics.charge_views import View
from learnmech.dynamics.finding_verification import Arguments, verify
from learnmech.dynamics.numeric_features import Side
from learnmech.dynamics.numeric_nullspace import NumericalSymmetries, search
from learnmech.dynamics.symmetries import Symmetry

LARGEST_SET = 4
"""How many sides a symmetry may join, such as the weights and biases of queries and keys."""
_CLOSE = 1e-3


class _NullSpace:
    """Asks which null vectors live on which sides."""

    def __init__(self, found: NumericalSymmetries) -> None:
        self.found = found
        self.basis = found.basis

    def supported(self, sides: Sequence[Side]) -> Float[Tensor, "null features"]:
        """Give the null vectors that are zero outside these sides, the trivial ones included."""
        outside = torch.ones(self.basis.shape[1], dtype=torch.bool)
        for side in sides:
            outside[side.start : side.stop] = False
        if not len(self.basis) or not bool(outside.any()):
            return self.basis
        left, values, _ = torch.linalg.svd(self.basis[:, outside])
        rank = int((values > _CLOSE).sum())
        inside: Tensor = left[:, rank:].mT @ self.basis
        return inside

    def size(self, sides: Sequence[Side]) -> int:
        """Count them without the trivial ones."""
        names = [side.parameter for side in sides]
        return len(self.supported(sides)) - sum(names.count(name) == 2 for name in set(names))


def numerical_items(
    model: nn.Module, arguments: Arguments, loss: str | Callable[[Tensor], Tensor] | None
) -> list[Symmetry]:
    """Find symmetries of a small model from gradients at random parameters alone, and name them.

    Diagonal generators give ``rescale`` (with the degree from the ratio of the weights), ``scale`` and the parts of an
    attention; if all symmetric generators on the same sides are null vectors too, the units mix: ``gl`` or ``attention_qk``.
    Values and output of an attention look like any other two linear maps: ``gl``. Derived here.

    Args:
        model: the eager model.
        arguments: positional and keyword arguments.
        loss: as :func:`learnmech.dynamics.finding_loss.settle` gives it.

    Returns:
        Symmetries with ``found_by="numerics"``. Null vectors of another form, such as those of groups of channels, only count
        in :func:`learnmech.dynamics.numeric_nullspace.numerical_symmetries`.

    Raises:
        InputError: for a model that is too large for diagonal generators.
    """
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    diagonal = search(model, arguments, loss, generators="diagonal", tolerance=1e-3)
    exact = _NullSpace(_tightened(diagonal))
    items = [
        (symmetry, sides)
        for symmetry, sides in _diagonal(_NullSpace(diagonal), shapes)
        if symmetry.kind != "translation"
    ]
    found: list[Symmetry] = []
    mixed: NumericalSymmetries | None = None
    for symmetry, sides in items:
        broken = "" if exact.size(sides) >= symmetry.count else "something small, such as an epsilon"
        if not broken and symmetry.kind in ("rescale", "attention_qk") and symmetry.degree == 1 and symmetry.count > 1:
            if mixed is None and _affordable(model):
                mixed = search(model, arguments, loss, generators="symmetric")
            if mixed is not None:
                symmetry = _mixed(symmetry, sides, _NullSpace(mixed))
        found.append(
            Symmetry(
                symmetry.kind, symmetry.views, symmetry.mixing, symmetry.degree, symmetry.layers, broken, "numerics"
            )
        )
    if sum(p.numel() for p in model.parameters() if p.requires_grad) <= _MOST_NUMBERS:
        shifts = _translations(search(model, arguments, loss, generators="translation"), shapes)
        unread = {shift.parameters[0] for shift in shifts if shift.count == _size(shift, shapes)}
        found = [item for item in found if not unread.issuperset(item.parameters)] + shifts
    return verify(found, model, arguments, loss)


_MOST_NUMBERS = 1500


def _size(shift: Symmetry, shapes: dict[str, tuple[int, ...]]) -> int:
    """Count the numbers of the parameter that a translation acts on."""
    return torch.Size(shapes[shift.parameters[0]]).numel()


def _affordable(model: nn.Module) -> bool:
    sizes = [size for p in model.parameters() if p.requires_grad for size in (p.shape[:2] if p.ndim else (1,))]
    return sum(size * (size + 1) // 2 for size in sizes) <= _MOST_NUMBERS


def _tightened(found: NumericalSymmetries) -> NumericalSymmetries:
    """Keep only the null vectors below 1e-9: rows of the basis go with ascending position to descending singular values."""
    null = int((found.singular_values < 1e-9).sum())
    rows = found.basis[len(found.basis) - null :]
    return NumericalSymmetries(
        found.generators, found.sides, found.singular_values, null, found.trivial, found.gap, rows, 1e-9
    )


def _diagonal(space: _NullSpace, shapes: dict[str, tuple[int, ...]]) -> Iterator[tuple[Symmetry, tuple[Side, ...]]]:
    """Name sets of sides on which null vectors live: first those with one for each unit, then those of whole layers."""
    known = [_trivial(space, name) for name in {side.parameter for side in space.found.sides if side.axis == 1}]
    for whole in (False, True):
        for sides in _sets(space.found.sides, alike=not whole):
            vectors = space.supported(sides)
            if _rank([*known, vectors]) == _rank(known):
                continue
            weights = _whole_weights(vectors, sides) if whole else _unit_weights(vectors, sides)
            if weights is None:
                continue
            known.append(vectors)
            yield _named(sides, weights, shapes, whole=whole), sides


def _sets(sides: Sequence[Side], *, alike: bool) -> Iterator[tuple[Side, ...]]:
    for size in range(1, LARGEST_SET + 1):
        for chosen in itertools.combinations(sides, size):
            names = [side.parameter for side in chosen]
            if len(set(names)) == size and (not alike or len({side.units for side in chosen}) == 1):
                yield chosen


def _trivial(space: _NullSpace, name: str) -> Tensor:
    vector = torch.zeros(1, space.basis.shape[1], dtype=torch.float64)
    for side in space.found.sides:
        if side.parameter == name:
            vector[0, side.start : side.stop] = 1.0 if side.axis == 0 else -1.0
    return vector


def _rank(vectors: Sequence[Tensor]) -> int:
    if not vectors:
        return 0
    rows = torch.cat(list(vectors))
    return int((torch.linalg.svdvals(rows / rows.norm(dim=1, keepdim=True)) > _CLOSE).sum()) if len(rows) else 0


def _unit_weights(vectors: Tensor, sides: Sequence[Side]) -> list[float] | None:
    """Give the weight of each side if there is one null vector for each unit, on the same unit of all sides."""
    units = sides[0].units
    if len(vectors) != units:
        return None
    parts = [vectors[:, side.start : side.stop] for side in sides]
    if float(torch.linalg.svdvals(parts[0])[-1]) < _CLOSE:
        return None
    weights = []
    for part in parts:
        ratio = torch.linalg.solve(parts[0], part)
        mean = float(ratio.diagonal().mean())
        if abs(mean) < _CLOSE or float((ratio - mean * torch.eye(units)).abs().max()) > 10 * _CLOSE:
            return None
        weights.append(round(mean, 4))
    return weights


def _whole_weights(vectors: Tensor, sides: Sequence[Side]) -> list[float] | None:
    """Give the weight of each side if there is one null vector, the same for all units of a side."""
    if len(vectors) != 1:
        return None
    parts = [vectors[0, side.start : side.stop] for side in sides]
    means = [float(part.mean()) for part in parts]
    if any(float((part - mean).abs().max()) > 10 * _CLOSE for part, mean in zip(parts, means, strict=True)):
        return None
    return [round(mean / means[0], 4) for mean in means] if min(map(abs, means)) > _CLOSE else None


def _named(
    sides: Sequence[Side], weights: Sequence[float], shapes: dict[str, tuple[int, ...]], *, whole: bool
) -> Symmetry:
    smallest = min(abs(weight) for weight in weights)
    relative = [weight / smallest for weight in weights]
    axes = {
        weight > 0: [side.axis for side, w in zip(sides, weights, strict=True) if (w > 0) == (weight > 0)]
        for weight in weights
    }
    turn = 1.0
    if len(axes) == 1:
        kind, turn = "scale", 1.0 if weights[0] > 0 else -1.0
    elif {tuple(set(found)) for found in axes.values()} == {(0,)} and all(
        any(len(shapes[side.parameter]) > 1 for side, w in zip(sides, weights, strict=True) if (w > 0) == sign)
        for sign in axes
    ):
        kind = "attention_qk"
    else:
        kind = "rescale"
        rows = [weight for side, weight in zip(sides, weights, strict=True) if side.axis == 0]
        turn = -1.0 if rows and rows[0] > 0 else 1.0
    views = tuple(
        View(side.parameter, shapes[side.parameter] or (1,), () if whole else (side.axis,), (), turn * weight)
        for side, weight in zip(sides, relative, strict=True)
    )
    layers = tuple(dict.fromkeys(side.parameter.rpartition(".")[0] for side in sides))
    degree = round(max(map(abs, relative)), 3) if kind == "rescale" else 1.0
    return Symmetry(kind, views, degree=degree, layers=layers, found_by="numerics")


def _mixed(symmetry: Symmetry, sides: Sequence[Side], space: _NullSpace) -> Symmetry:
    """Let units mix, all or in equal blocks such as the heads of an attention, if symmetric null vectors say so."""
    wide = [
        next(s for s in space.found.sides if (s.parameter, s.axis) == (side.parameter, side.axis)) for side in sides
    ]
    count, units = space.size(wide), sides[0].units
    for blocks in range(1, units):
        width = units // blocks
        if units % blocks or count != blocks * width * (width + 1) // 2:
            continue
        views = []
        for view in symmetry.views:
            axis = view.units[0]
            split = (*view.split[:axis], blocks, width, *view.split[axis + 1 :])
            views.append(View(view.parameter, split, (axis + 1,), (axis,), view.weight))
        kind = "gl" if symmetry.kind == "rescale" else symmetry.kind
        return Symmetry(kind, tuple(views), True, 1.0, symmetry.layers, found_by="numerics")
    return symmetry


def _translations(found: NumericalSymmetries, shapes: dict[str, tuple[int, ...]]) -> list[Symmetry]:
    def free(vector: Tensor) -> bool:
        vector = vector / vector.norm()
        return float((vector - found.basis.mT @ (found.basis @ vector)).norm()) < _CLOSE

    items = []
    for side in found.sides:
        shape = shapes[side.parameter] or (1,)

        def spread(kept: tuple[int, ...], side: Side = side, shape: tuple[int, ...] = shape) -> Iterator[Tensor]:
            positions = torch.arange(side.units).reshape(shape)
            rows = positions.permute(*kept, *[axis for axis in range(len(shape)) if axis not in kept])
            for row in rows.reshape(torch.Size([shape[axis] for axis in kept]).numel(), -1):
                vector = torch.zeros(found.basis.shape[1], dtype=torch.float64)
                vector[side.start + row] = 1.0
                yield vector

        everything = tuple(range(len(shape)))
        for kept in (everything, everything[1:], everything[:1]):
            if len(found.basis) and all(free(vector) for vector in spread(kept)):
                layers = (side.parameter.rpartition(".")[0],)
                view = View(side.parameter, shape, kept)
                items.append(Symmetry("translation", (view,), layers=layers, found_by="numerics"))
                break
    return items
