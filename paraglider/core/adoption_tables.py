"""The tables by which a service finds the backend of a flow that is not known here.

Where a service's strategy is a function of configuration and packet (``Strategy.repeatable``),
every balancer with the same configuration finds a flow's backend by any of its packets. Backends
change during the life of a flow, so several tables may have it:

    present   the backends that take new flows, and those that only keep their flows (while they
              drain, for example) and have active ones here (half-open ones may be strays, which
              would keep a drain from its end)
    new       the backends that take new flows; it is the one that the kernel may decide by
    whole     all backends that take new flows or keep theirs: they may have flows elsewhere only
    before    the new one before its last change, for ``drain_timeout`` or ``KEPT`` seconds

Lives here: ``AdoptionTables``.
Rules: the tables are made when backends change and in ``tick``, never for a packet.
"""

from __future__ import annotations

from typing import Final

from paraglider.core.pool import Backend, Pool
from paraglider.core.strategies.base import NewFlow, Strategy

#: seconds for which the table before is kept, of a service without ``drain_timeout``
KEPT: Final = 600.0


class AdoptionTables:
    """The tables of a service with ``pool`` and ``strategy``; they are used only while that is
    ``repeatable``. ``previous`` are those of the service that this one replaces.
    """

    def __init__(
        self, pool: Pool, strategy: Strategy, previous: AdoptionTables | None = None
    ) -> None:
        self._pool = pool
        self._strategy = strategy
        self._new: Strategy | None = None
        self._before: Strategy | None = None
        self._since: float | None = None  # of ``_before``; None until the next tick
        self._ready: tuple[object, ...] = ()  # what ``_new`` was made of
        self._keeping: tuple[Backend, ...] = ()  # they take no new flows, and keep theirs
        self._held: tuple[Backend, ...] = ()  # those of them that have some
        if previous is not None:
            self._new, self._ready = previous._new, previous._ready
            self._before, self._since = previous._before, previous._since
        self._present: Strategy | None = None
        self._whole: Strategy | None = None  # where it differs from the present one
        pool.watch(self._refresh)

    def tick(self, now: float) -> None:
        """Drop what is over at ``now`` (seconds); called periodically."""
        if self._before is not None:
            kept = self._pool.drain_timeout
            if self._since is None:
                self._since = now
            elif now >= self._since + (KEPT if kept is None else kept):
                self._before = None
        if self._keeping and self._holding() != self._held:
            self._refresh(self._pool.ready)

    def pick(self, flow: NewFlow, refused: tuple[Backend, ...] = ()) -> Backend | None:
        """The backend of ``flow``, except those that have ``refused`` it, by the first table that
        has one; None if none has.
        """
        if self._present is None:
            return None
        if not refused:
            return self._present.pick(flow)
        for table in (self._present, self._new, self._whole, self._before):
            backend = None if table is None else table.pick(flow)
            if backend is not None and not backend.lost and backend not in refused:
                return backend
        return None

    def _holding(self) -> tuple[Backend, ...]:
        return tuple(backend for backend in self._keeping if backend.flows)

    def _refresh(self, ready: tuple[Backend, ...]) -> None:
        """Make the tables that have changed."""
        among = self._strategy.among
        made_of = (self._strategy, *((backend, backend.weight) for backend in ready))
        if made_of != self._ready:
            self._ready = made_of
            if self._new is not None and self._new is not self._strategy:
                self._before, self._since = self._new, None
            # A policy has one set of backends, and no copies.
            self._new = (among(ready) or self._strategy) if ready else None
        self._keeping = tuple(
            backend
            for backend in self._pool.backends
            if backend.full_weight > 0 and not (backend.ready or backend.lost)
        )
        self._held = self._holding()
        self._present = self._whole = self._new
        if self._held:
            self._present = among(ready + self._held) or self._new
        if self._keeping:
            self._whole = among(ready + self._keeping) or self._new
