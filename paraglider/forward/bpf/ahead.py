"""Entries of new backends of which their worker does not know yet.

Each worker applies a new configuration by itself. The worker that writes the tables of decisions
may be ahead of the others: then the program opens flows of other workers to a backend that is new
to them. Such an entry stays, and its worker reads it again until it knows the backend. An entry
whose backend stays unknown is one of a removed service.

Lives here: ``EntriesAhead``.
Rules: time is an argument. Memory is bounded, and so is the number of entries read at once.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Final

from paraglider.bpf.maps import CarrierMaps
from paraglider.forward.bpf.entry import FlowEntry

#: seconds for which an entry waits: a worker that hangs is replaced sooner
PATIENCE: Final = 10.0
#: seconds between two looks at the entries that wait
INTERVAL: Final = 0.25
#: entries in one look
LOOKS: Final = 200
#: most entries that wait
MOST: Final = 4096


class EntriesAhead:
    """The entries in ``maps`` that wait, by protocol and key."""

    def __init__(self, maps: CarrierMaps) -> None:
        self._maps = maps
        self._until: dict[tuple[int, bytes], float] = {}
        self._look_at = 0.0

    def __len__(self) -> int:
        return len(self._until)

    def keep(self, protocol: int, key: bytes, now: float) -> bool:
        """Whether the entry with ``key`` stays, and waits: false when it has waited long enough, or
        if too many wait.
        """
        which = (protocol, key)
        until = self._until.get(which)
        if until is None and len(self._until) < MOST:
            until = self._until[which] = now + PATIENCE
        return until is not None and now < until

    def look(self, now: float, reconcile: Callable[[int, bytes, FlowEntry], bool]) -> None:
        """Call ``reconcile`` for some entries, if it is time: it returns whether the entry goes on
        waiting. Raises ``OSError``.
        """
        if not self._until or now < self._look_at:
            return
        self._look_at = now + INTERVAL
        for which in list(islice(self._until, LOOKS)):
            protocol, key = which
            value = self._maps.flows_like(protocol, key).get(key)
            waits = value is not None and reconcile(protocol, key, FlowEntry.unpack(value))
            until = self._until.pop(which)
            if waits:  # behind the others
                self._until[which] = until
