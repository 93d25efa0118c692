"""The motion of dormant attention heads, exact up to one integral."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)
# what the same integral is with the weights of every other node, for an estimate of the error
_ROUGH = np.zeros(12)
_ROUGH[::2] = np.linalg.solve(np.polynomial.legendre.legvander(_NODES[::2], 5).T, [2.0, 0.0, 0.0, 0.0, 0.0, 0.0])
_PANEL = 0.5
_FAR = 192.0
_FINEST = 2.0**-5
_ROUGHLY = 1e-4
_ROUNDS = 60


@dataclass(frozen=True)
class Heads:
    """Attention heads, in the eigenbasis.

    Attributes:
        value: v of each.
        query: q of each.
        key: k of each.
    """

    value: Float[np.ndarray, " heads"]
    query: Float[np.ndarray, "heads dimension"]
    key: Float[np.ndarray, "heads dimension"]

    @property
    def norms(self) -> Float[np.ndarray, " heads"]:
        """The length of (v, q, k) of each."""
        return np.asarray(np.sqrt(self.value**2 + (self.query**2 + self.key**2).sum(axis=1)))

    def without(self, number: int) -> "Heads":
        """Give all heads but one.

        Args:
            number: of the one.

        Returns:
            The others.
        """
        return Heads(*(np.delete(part, number, axis=0) for part in (self.value, self.query, self.key)))


class HeadPaths:
    r"""How dormant heads move under a frozen residual, :math:`v' = q^TCk,\; q' = vCk,\; k' = vCq`, each on its own.

    In the clock :math:`s = \int|v|\,dt` sums and differences of q and k are exponentials,
    :math:`(q \pm k)_j \propto e^{\pm c_js}` for positive v, and :math:`v^2 = v_0^2 + 2\int q^TCk\,ds` is explicit, so that the
    time is one integral, :math:`t = \int ds/|v|`. The flow is reversible, so that a head whose v reaches 0 turns, and goes back
    its own way with the other sign; its path is counted from the turn. Derived here.

    Args:
        heads: at time 0.
        growth: the diagonal of C, the residual's cross-covariance, not negative.
    """

    def __init__(self, heads: Heads, growth: Float[np.ndarray, " dimension"]):
        force = (heads.query * growth * heads.key).sum(axis=1)
        self._sign = np.where(heads.value == 0, np.where(force < 0, -1.0, 1.0), np.sign(heads.value))
        self._up, self._down = (heads.query + heads.key) / 2, (heads.query - heads.key) / 2
        # a component that is not there must not grow, lest 0 be multiplied with infinity
        self._growth = np.where((self._up != 0) | (self._down != 0), growth, 0.0)
        self._first = heads.value**2
        turn = self._turns()
        turned = turn > 0
        self._up, self._down = self._exponentials(turn)
        self._first = np.where(turned, 0.0, self._first)
        self._sign = np.where(turned, -self._sign, self._sign)
        push = self._slope(np.zeros(len(turn))) / 2
        fastest = self._growth.max(axis=1, initial=0.0)
        self._moves = (fastest > 0) & ((self._first > 0) | (push > 0))
        self._unit = 1 / np.where(fastest > 0, fastest, 1.0)
        # the clock is counted in roots from where a constant force would have turned the head, which smooths 1 / v
        with np.errstate(divide="ignore", invalid="ignore"):
            before = np.where(push > 0, self._first / (2 * push), math.inf)
        self._before = np.minimum(before, self._unit)
        self._panel, self._norm = _PANEL, 0.0
        self._tabulate(1.0)
        self._waited = np.where(turned, self._time_at(turn), 0.0)

    def times_to_norm(self, norm: float) -> Float[np.ndarray, " heads"]:
        """Give the times at which heads have grown to a norm.

        Args:
            norm: at least that of each head.

        Returns:
            The times; infinity for those that never get there.
        """
        if norm > self._norm:
            self._tabulate(norm)
        reached = self._moves & (self._sizes[:, -1] >= norm)
        after = np.argmax(self._sizes >= norm, axis=1)
        low, high = self._edge(np.maximum(after - 1, 0)), self._edge(after)
        clock = high
        for _ in range(_ROUNDS):
            square = self._square_size(clock)
            step = (np.log(square) - 2 * math.log(norm)) * square / (3 * np.maximum(self._slope(clock), 1e-300))
            moved = np.clip(clock - step, low, high)
            done = np.abs(moved - clock) <= 1e-12 * high
            clock = moved
            if done[reached].all():
                break
        return np.where(reached, self._waited + self._time_at(np.where(reached, clock, 0.0)), math.inf)

    def at(self, time: float) -> Heads:
        """Give the heads at a time, of those that are there before they grow without bound.

        Args:
            time: at least 0, at most that to the norm 1 of any head.

        Returns:
            The heads.
        """
        left = np.abs(time - self._waited)
        number = np.clip((self._times <= left[:, None]).sum(axis=1) - 1, 0, self._times.shape[1] - 2)
        rows = np.arange(len(left))
        start = self._root(self._edge(number))
        stop = self._root(self._edge(number + 1))
        since, span = left - self._times[rows, number], self._times[rows, number + 1] - self._times[rows, number]
        root = start + (stop - start) * np.clip(since / np.where(span > 0, span, 1.0), 1e-6, 1.0)
        for _ in range(_ROUNDS):
            missing = since - self._panels(start, root) @ _WEIGHTS
            if (np.abs(missing) <= 1e-12 * np.maximum(left, 1e-300))[self._moves].all():
                break
            moved = np.clip(root + missing / np.maximum(self._slowness(root), 1e-300), start, stop)
            if (moved == root)[self._moves].all():
                break
            root = moved
        clock = np.where(self._moves, np.maximum(root**2 - self._before, 0.0), 0.0)
        raised, lowered = self._exponentials(clock)
        way = np.where(time >= self._waited, self._sign, -self._sign)
        return Heads(way * np.sqrt(np.maximum(self._value_square(clock), 0.0)), raised + lowered, raised - lowered)

    def _turns(self) -> Float[np.ndarray, " heads"]:
        """The clock at which v is 0, 0 if it never is: Newton's method from the left on a convex square never passes a root."""
        clock = np.zeros(len(self._first))
        searched = (self._first > 0) & (self._slope(clock) < 0)
        found = np.zeros(len(clock), dtype=bool)
        fastest = self._growth.max(axis=1, initial=0.0)
        for _ in range(_ROUNDS):
            square, slope = self._value_square(clock), self._slope(clock)
            searched &= slope < 0
            found |= searched & (square <= 1e-15 * self._first)
            searched &= ~found
            if not searched.any():
                break
            step = np.where(searched, -square / np.where(searched, slope, -1.0), 0.0)
            searched &= (clock + step) * fastest < _FAR
            clock = np.where(searched | found, clock + step * searched, 0.0)
        return np.where(found, clock, 0.0)

    def _tabulate(self, norm: float) -> None:
        """Norms and times at clock times so close that integrals between are exact, up to a norm."""
        count = 24
        while True:
            edges = self._edge(np.arange(count + 1)[None, :])
            sizes = np.sqrt(self._square_size(edges))
            over = (sizes >= norm).any(axis=1) | ~self._moves
            if over.all() or count * self._panel >= _FAR:
                roots = self._root(edges)
                parts = self._panels(roots[:, :-1], roots[:, 1:])
                spans, rough = parts @ _WEIGHTS, parts @ _ROUGH
                wrong = np.abs(spans - rough).sum(axis=1) > _ROUGHLY * spans.sum(axis=1)
                if not wrong[self._moves].any() or self._panel <= _FINEST:
                    break
                self._panel /= 2
            count *= 2
        self._norm, self._sizes = norm, sizes
        self._times = np.concatenate([np.zeros((len(spans), 1)), np.cumsum(spans, axis=1)], axis=1)

    def _edge(self, number: np.ndarray) -> np.ndarray:
        """The clock at an edge of the table."""
        unit = self._unit if number.ndim == 1 else self._unit[:, None]
        return np.asarray(number * (self._panel * unit))

    def _root(self, clock: np.ndarray) -> np.ndarray:
        before = self._before if clock.ndim == 1 else self._before[:, None]
        return np.asarray(np.sqrt(clock + before))

    def _time_at(self, clock: Float[np.ndarray, " heads"]) -> Float[np.ndarray, " heads"]:
        last = self._times.shape[1] - 2
        number = np.clip((clock / (self._panel * self._unit)).astype(int), 0, last)
        part = self._panels(self._root(self._edge(number)), self._root(clock)) @ _WEIGHTS
        return np.asarray(self._times[np.arange(len(clock)), number] + part)

    def _panels(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Times between roots of the clock, as values at nodes that the weights sum."""
        middle, half = (low + high)[..., None] / 2, (high - low)[..., None] / 2
        roots = middle + half * _NODES
        return np.asarray(half * self._slowness(roots.reshape(len(low), -1)).reshape(roots.shape))

    def _slowness(self, roots: np.ndarray) -> np.ndarray:
        """Time by root of the clock."""
        before = self._before if roots.ndim == 1 else self._before[:, None]
        square = self._value_square(np.maximum(roots**2 - before, 0.0))
        return np.asarray(2 * roots / np.sqrt(np.maximum(square, 1e-300)))

    def _exponentials(self, clock: Float[np.ndarray, " heads"]) -> tuple[np.ndarray, np.ndarray]:
        rate = (self._sign * clock)[:, None] * self._growth
        return self._up * np.exp(rate), self._down * np.exp(-rate)

    def _square_size(self, clock: np.ndarray) -> np.ndarray:
        """Squared norm: that of the start, and six times the work of the force, since each part gains as much."""
        start = 2 * (self._up**2 + self._down**2).sum(axis=1)
        gained = self._value_square(clock) - (self._first if clock.ndim == 1 else self._first[:, None])
        base = start + self._first
        return np.asarray(np.maximum((base if clock.ndim == 1 else base[:, None]) + 3 * gained, 1e-300))

    def _value_square(self, clock: np.ndarray) -> np.ndarray:
        """v^2: that of the start, and twice the work of the force."""
        flat = clock if clock.ndim == 2 else clock[:, None]
        rate = (2 * self._sign[:, None] * flat)[..., None] * self._growth[:, None, :]
        work = (np.expm1(rate) @ (self._up**2)[..., None])[..., 0] + (np.expm1(-rate) @ (self._down**2)[..., None])[
            ..., 0
        ]
        whole = self._first[:, None] + work
        return np.asarray(whole if clock.ndim == 2 else whole[:, 0])

    def _slope(self, clock: Float[np.ndarray, " heads"]) -> Float[np.ndarray, " heads"]:
        """Derivative of v^2 by the clock."""
        raised, lowered = self._exponentials(clock)
        return np.asarray(2 * self._sign * ((raised**2 - lowered**2) * self._growth).sum(axis=1))
