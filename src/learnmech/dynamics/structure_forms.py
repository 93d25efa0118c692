"""Unknown scalings of a network's numbers: linear forms in unknowns, equations between them, and which unknowns may mix."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

Form = tuple[tuple[int, float], ...]
"""A sum of unknowns with coefficients, in order of the unknowns."""

_TINY = 1e-9


class Forms:
    r"""A table of linear forms in the logarithms of unknown factors, with the equations that hold between them.

    Every number in a forward pass gets the identity of a form, the logarithm of the factor by which it grows if the parameters
    are rescaled; form 0 is the number 0 ("does not change"). Operations add equations; what is free in the end is a symmetry.
    Derived here.

    Attributes:
        tags: for an unknown, what happened to it, such as ``qk`` (queries met keys).
    """

    def __init__(self) -> None:
        self.table: list[Form] = [()]
        self.tags: dict[int, set[str]] = {}
        self._index: dict[Form, int] = {(): 0}
        self._solved: dict[int, dict[int, float]] = {}
        self._blocks: list[int] = []
        self._unmixable: set[int] = set()
        self._next_block = 0

    def fresh(self, count: int, *, blocks: int = 1) -> Tensor:
        """Make unknowns.

        Args:
            count: how many.
            blocks: into how many equal runs they fall; unknowns of different runs never mix.

        Returns:
            Identities of their forms, int64 (count,).
        """
        first, length = len(self._blocks), max(count // blocks, 1)
        ids = []
        for unknown in range(first, first + count):
            self._blocks.append(self._next_block + (unknown - first) // length)
            ids.append(self._intern(((unknown, 1.0),)))
        self._next_block += blocks
        return torch.tensor(ids, dtype=torch.int64)

    def combine(self, one: Tensor, other: Tensor) -> Tensor:
        """Add forms, elementwise with broadcasting.

        Args:
            one: identities of forms.
            other: identities of forms.

        Returns:
            Identities of the sums.
        """
        one, other = _broadcast(one, other)
        if not bool(one.any()):
            return other.clone()
        if not bool(other.any()):
            return one.clone()
        pairs, inverse = self._pairs(one, other)
        sums = [self._intern(_add(self.table[a], self.table[b], 1.0)) for a, b in pairs]
        return torch.tensor(sums, dtype=torch.int64)[inverse].reshape(one.shape)

    def scale(self, ids: Tensor, factor: float) -> Tensor:
        """Multiply forms by a number, as an activation of that degree does.

        Args:
            ids: identities of forms.
            factor: the number.

        Returns:
            Identities of the products.
        """
        if factor == 1 or not bool(ids.any()):
            return ids
        unique, inverse = _unique(ids)
        products = [self._intern(_add((), self.table[one], factor)) for one in unique.tolist()]
        return torch.tensor(products, dtype=torch.int64)[inverse].reshape(ids.shape)

    def equate(self, one: Tensor, other: Tensor) -> None:
        """Demand that forms are equal, elementwise with broadcasting.

        Args:
            one: identities of forms.
            other: identities of forms.
        """
        one, other = _broadcast(one, other)
        differ = one != other
        if not bool(differ.any()):
            return
        pairs, _ = self._pairs(one[differ], other[differ])
        for a, b in pairs:
            self._solve(_add(self.table[a], self.table[b], -1.0))

    def zero(self, ids: Tensor) -> None:
        """Demand that forms are 0: nothing here may grow.

        Args:
            ids: identities of forms.
        """
        if bool(ids.any()):
            self.equate(ids, torch.zeros((), dtype=torch.int64))

    def reduced(self, ids: Tensor) -> Tensor:
        """Insert the equations.

        Args:
            ids: identities of forms.

        Returns:
            Identities of the same forms in free unknowns: equal where the forms are equal.
        """
        unique, inverse = _unique(ids)
        found = [self._intern(self._reduce(self.table[one])) for one in unique.tolist()]
        return torch.tensor(found, dtype=torch.int64)[inverse].reshape(ids.shape)

    def tag(self, ids: Tensor, word: str) -> None:
        """Remember something of the unknowns in forms.

        Args:
            ids: identities of forms.
            word: what.
        """
        for unknown in self._unknowns(ids):
            self.tags.setdefault(unknown, set()).add(word)

    def separate(self, ids: Tensor) -> None:
        """Say that an operation treats these units one by one, so that a matrix must not mix them.

        Args:
            ids: identities of forms.
        """
        self._unmixable.update(self._unknowns(ids))

    def refine(self, rows: Tensor) -> None:
        """Say that each row is handed on as a whole, so that mixing stays within a row.

        Args:
            rows: identities of forms, (rows, units).
        """
        for row in torch.unique(rows, dim=0).tolist():
            inside: set[int] = set()
            for one in row:
                form = self.table[one]
                inside.update(unknown for unknown, _ in form)
                if len(form) > 1:
                    self._unmixable.update(unknown for unknown, _ in form)
            renamed: dict[int, int] = {}
            for unknown in inside:
                block = self._blocks[unknown]
                if block not in renamed:
                    renamed[block] = self._next_block
                    self._next_block += 1
                self._blocks[unknown] = renamed[block]

    def members(self) -> dict[int, list[tuple[int, float]]]:
        """List what each free unknown stands for.

        Returns:
            Free unknown to all unknowns that grow with it, with coefficients.
        """
        found: dict[int, list[tuple[int, float]]] = {}
        for unknown in range(len(self._blocks)):
            for free, factor in self._reduce(((unknown, 1.0),)):
                found.setdefault(free, []).append((unknown, factor))
        return found

    def mixing_key(self, members: Sequence[tuple[int, float]]) -> tuple[tuple[int, float], ...] | None:
        """Tell with which others a free unknown may be mixed by a matrix.

        Args:
            members: what it stands for.

        Returns:
            The same key for unknowns that may mix; None if it mixes with none.
        """
        if any(unknown in self._unmixable or abs(abs(factor) - 1) > _TINY for unknown, factor in members):
            return None
        return tuple(sorted((self._blocks[unknown], round(factor, 6)) for unknown, factor in members))

    def _unknowns(self, ids: Tensor) -> set[int]:
        found = {unknown for one in _unique(ids)[0].tolist() for unknown, _ in self.table[one]}
        return found | {free for unknown in list(found) for free, _ in self._reduce(((unknown, 1.0),))}

    def _intern(self, form: Form) -> int:
        if form not in self._index:
            self._index[form] = len(self.table)
            self.table.append(form)
        return self._index[form]

    def _pairs(self, one: Tensor, other: Tensor) -> tuple[list[tuple[int, int]], Tensor]:
        size = len(self.table)
        keys, inverse = _unique(one.flatten() * size + other.flatten())
        return [divmod(key, size) for key in keys.tolist()], inverse

    def _reduce(self, form: Iterable[tuple[int, float]]) -> Form:
        rest = dict(form)
        while True:
            known = [unknown for unknown in rest if unknown in self._solved]
            if not known:
                return tuple(sorted((unknown, factor) for unknown, factor in rest.items() if abs(factor) > _TINY))
            for unknown in known:
                factor = rest.pop(unknown)
                for free, part in self._solved[unknown].items():
                    rest[free] = rest.get(free, 0.0) + factor * part

    def _solve(self, form: Form) -> None:
        rest = dict(self._reduce(form))
        if not rest:
            return
        latest = max(rest)
        factor = rest.pop(latest)
        self._solved[latest] = {unknown: -part / factor for unknown, part in rest.items()}


def _broadcast(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    shape = torch.broadcast_shapes(one.shape, other.shape)  # type: ignore[no-untyped-call]
    return one.expand(shape), other.expand(shape)


def _unique(ids: Tensor) -> tuple[Tensor, Tensor]:
    found: tuple[Tensor, Tensor] = torch.unique(ids, return_inverse=True)
    return found


def _add(one: Form, other: Form, factor: float) -> Form:
    total = dict(one)
    for unknown, part in other:
        total[unknown] = total.get(unknown, 0.0) + factor * part
    return tuple(sorted((unknown, part) for unknown, part in total.items() if abs(part) > _TINY))
