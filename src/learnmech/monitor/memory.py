"""What an instrument remembers of a probe, from one measurement to the next and over a checkpoint."""

from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

from learnmech.monitor.probe import Probe


class Known(Protocol):
    """What is known of one probe."""

    def state_dict(self) -> dict[str, Any]:
        """Give what later probes are compared with, in a form that ``torch.load(weights_only=True)`` reads; empty if nothing."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Compare with that from now on; what does not fit has no effect."""


Kept = TypeVar("Kept", bound=Known)


class ProbeMemory(Generic[Kept]):
    """One thing known for each probe, made when the probe is first seen.

    Args:
        make: of a probe, gives what is known at first.
    """

    def __init__(self, make: Callable[[Probe], Kept]) -> None:
        self._make = make
        self._known: WeakKeyDictionary[Probe, Kept] = WeakKeyDictionary()
        self._earlier: Mapping[str, Any] = {}

    def of(self, probe: Probe) -> Kept:
        """Give what is known of a probe.

        Args:
            probe: the batch.

        Returns:
            The same thing each time.
        """
        if probe not in self._known:
            self._known[probe] = self._make(probe)
            self._known[probe].load_state_dict(self._earlier)
        return self._known[probe]

    def every(self) -> list[Kept]:
        """List what is known of all probes.

        Returns:
            The things, the first probe's first.
        """
        return list(self._known.values())

    def state_dict(self) -> dict[str, Any]:
        """Give what is known of the first probe.

        Returns:
            Its state; empty before there is one.
        """
        return next((known.state_dict() for known in self.every()), {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where an earlier watch began.

        Args:
            state: what :meth:`state_dict` gave.
        """
        self._earlier = state
        for known in self.every():
            known.load_state_dict(state)
