"""The motion of a dormant attention head, exact up to one integral."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq, minimize_scalar

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)
_PANEL = 0.5
_FAR = 300.0
_ROUNDS = 12


@dataclass(frozen=True)
class Head:
    """A dormant head and the residual that it sees.

    Attributes:
        value: v.
        query: q, in the eigenbasis.
        key: k, in the eigenbasis.
        growth: the diagonal of the residual's cross-covariance C, not negative.
    """

    value: float
    query: Float[np.ndarray, " dimension"]
    key: Float[np.ndarray, " dimension"]
    growth: Float[np.ndarray, " dimension"]

    @property
    def force(self) -> float:
        """q^T C k, the speed of v."""
        return float((self.query * self.growth) @ self.key)

    @property
    def norm(self) -> float:
        """The length of (v, q, k)."""
        return math.sqrt(self.value**2 + float(self.query @ self.query) + float(self.key @ self.key))


class HeadPath:
    r"""How a dormant head moves under a frozen residual, :math:`v' = q^TCk,\; q' = vCk,\; k' = vCq`.

    In the clock :math:`s = \int v\,dt` the sums and differences of q and k are exponentials,
    :math:`(q \pm k)_j \propto e^{\pm c_js}`, and :math:`v^2 = v_0^2 + 2\int q^TCk\,ds` is explicit, so that the time is one integral,
    :math:`t = \int ds/v`. Where v reaches 0 the head turns and goes the other way; the integrals are taken in :math:`\sqrt{s}` from
    there. Derived here.

    Args:
        head: at time 0.
    """

    def __init__(self, head: Head):
        self._head = head
        self._up, self._down = (head.query + head.key) / 2, (head.query - head.key) / 2
        self._sign = math.copysign(1.0, head.value or head.force)
        self._stiff = float(head.growth.max(initial=0.0))
        self._known: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self._turn = self._find_turn()
        self._waited = 0.0
        if self._turn is not None:
            edges = np.linspace(0.0, self._turn, max(2, math.ceil(self._turn * self._stiff / _PANEL) + 1))
            self._leg = edges, np.concatenate([[0.0], np.cumsum(self._panels_to(edges[:-1], edges[1:]))])
            self._waited = float(self._leg[1][-1])
            raised, lowered = self._exponentials(self._sign * self._turn)
            self._after = HeadPath(Head(0.0, raised + lowered, raised - lowered, head.growth))

    def time_to_norm(self, norm: float) -> float:
        """Give the time at which the head has grown to a norm.

        Args:
            norm: at least that of the head.

        Returns:
            The time; infinity if it never gets there.
        """
        if self._turn is not None:
            return self._waited + self._after.time_to_norm(norm)
        edges, sizes, times = self._table(norm)
        number = int(np.searchsorted(sizes, norm, side="left"))
        if number == len(edges):
            return math.inf
        if number == 0:
            return 0.0
        start, stop = float(edges[number - 1]), float(edges[number])
        clock = float(brentq(lambda s: math.log(self._size(s)) - math.log(norm), start, stop, xtol=1e-13 * stop))
        return float(times[number - 1]) + self._panel_from(start, clock)

    def at(self, time: float) -> Head:
        """Give the head at a time before it has grown without bound.

        Args:
            time: at least 0.

        Returns:
            The head.
        """
        if self._turn is not None:
            if time >= self._waited:
                return self._after.at(time - self._waited)
            return self._place(self._solve(time, *self._leg, self._panel_to))
        if not self._moves:
            return self._head
        edges, _, times = self._table(1.0)
        return self._place(self._solve(time, edges, times, self._panel_from))

    @property
    def _moves(self) -> bool:
        return self._stiff > 0 and bool(self._head.value or self._head.force)

    def _table(self, norm: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Clock times so far apart that integrals are exact, up to a norm, with the norms and the times there."""
        if self._known is None or (self._known[1][-1] < norm and self._moves):
            count, edges = 40, np.zeros(1)
            sizes: np.ndarray = np.array([self._head.norm])
            while self._moves and sizes[-1] < max(norm, 1.0) and count * _PANEL < _FAR:
                edges = np.arange(count + 1) * (_PANEL / self._stiff)
                raised, lowered = self._exponentials(self._sign * edges[:, None])
                sizes = np.sqrt(np.maximum(self._square(edges), 0.0) + 2 * (raised**2 + lowered**2).sum(axis=1))
                count *= 2
            last = int(np.searchsorted(sizes, max(norm, 1.0), side="left")) + 1
            edges, sizes = edges[:last], sizes[:last]
            times = np.concatenate([[0.0], np.cumsum(self._panels_from(edges[:-1], edges[1:]))])
            self._known = edges, sizes, times
        return self._known

    def _size(self, clock: float) -> float:
        raised, lowered = self._exponentials(self._sign * clock)
        square = float(self._square(np.array([clock]))[0]) + 2 * float(raised @ raised + lowered @ lowered)
        return math.sqrt(max(square, 1e-300))

    def _exponentials(self, clock: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rate = self._head.growth * clock
        return self._up * np.exp(rate), self._down * np.exp(-rate)

    def _place(self, clock: float) -> Head:
        raised, lowered = self._exponentials(self._sign * clock)
        value = self._sign * math.sqrt(max(float(self._square(np.array([clock]))[0]), 0.0))
        return Head(value, raised + lowered, raised - lowered, self._head.growth)

    def _square(self, clock: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
        """v^2 at clock times ahead: that of the start, and twice the work of the force."""
        rate = 2 * self._sign * clock[..., None] * self._head.growth
        work = np.expm1(rate) @ self._up**2 + np.expm1(-rate) @ self._down**2
        return np.asarray(self._head.value**2 + work)

    def _find_turn(self) -> float | None:
        """The clock time at which v is 0 for the first time; the square is convex, so a push ahead means never."""
        if self._head.value == 0 or self._sign * self._head.force >= 0:
            return None
        far = 1.0 / self._stiff
        while self._slope(far) < 0:
            far *= 2
        lowest = minimize_scalar(
            lambda s: float(self._square(np.array([s]))[0]),
            bounds=(0.0, far),
            method="bounded",
            options={"xatol": 1e-12 * far},
        )
        if lowest.fun >= 0:
            return None
        return float(brentq(lambda s: float(self._square(np.array([s]))[0]), 0.0, lowest.x, xtol=1e-15 * far))

    def _slope(self, clock: float) -> float:
        raised, lowered = self._exponentials(self._sign * clock)
        return self._sign * float(((raised + lowered) * self._head.growth) @ (raised - lowered))

    def _panels_from(
        self, starts: Float[np.ndarray, " panels"], stops: Float[np.ndarray, " panels"]
    ) -> Float[np.ndarray, " panels"]:
        """Times of panels, in the root of the clock, since v may be 0 at 0."""
        low, high = np.sqrt(starts)[:, None], np.sqrt(stops)[:, None]
        roots = (low + high) / 2 + (high - low) / 2 * _NODES
        slow = 2 * roots / np.sqrt(np.maximum(self._square(roots**2), 1e-300))
        return np.asarray(((high - low) / 2 * slow) @ _WEIGHTS)

    def _panel_from(self, start: float, stop: float) -> float:
        return float(self._panels_from(np.array([start]), np.array([stop]))[0])

    def _panels_to(
        self, starts: Float[np.ndarray, " panels"], stops: Float[np.ndarray, " panels"]
    ) -> Float[np.ndarray, " panels"]:
        """The same up to the turn, in the root of what is left of the clock."""
        assert self._turn is not None
        high = np.sqrt(np.maximum(self._turn - starts, 0.0))[:, None]
        low = np.sqrt(np.maximum(self._turn - stops, 0.0))[:, None]
        roots = (low + high) / 2 + (high - low) / 2 * _NODES
        slow = 2 * roots / np.sqrt(np.maximum(self._square(self._turn - roots**2), 1e-300))
        return np.asarray(((high - low) / 2 * slow) @ _WEIGHTS)

    def _panel_to(self, start: float, stop: float) -> float:
        return float(self._panels_to(np.array([start]), np.array([stop]))[0])

    def _solve(
        self, time: float, edges: np.ndarray, times: np.ndarray, panel: Callable[[float, float], float]
    ) -> float:
        """The clock at a time: Newton's method in the panel where it lies, whose derivative is 1 / v."""
        number = min(int(np.searchsorted(times, time, side="right")) - 1, len(edges) - 2)
        start, stop = float(edges[number]), float(edges[number + 1])
        left = time - float(times[number])
        if left <= 0:
            return start
        clock = start + (stop - start) * min(left / float(times[number + 1] - times[number]), 1.0)
        for _ in range(_ROUNDS):
            missing = left - panel(start, clock)
            if abs(missing) <= 1e-12 * time:
                return clock
            speed = math.sqrt(max(float(self._square(np.array([clock]))[0]), 0.0))
            clock = min(max(clock + missing * speed, (start + clock) / 2), (clock + stop) / 2)
        return float(brentq(lambda s: panel(start, s) - left, start, stop, xtol=1e-13 * stop))
