"""Reconciles the kernel's tables and conntrack with the backends' states, for ``forward: offload``.

    hash          used when no worker decides: a backend that takes no new flows is removed from
                  it; one that does has its weight in it
    adoption      no connection begins with a segment of a lost backend
    connections   those of a lost backend are deleted, and the client's next packet is answered with
                  a RST. Deleted too: UDP connections of a backend that is drained or in maint,
                  because their clients may never change the port, with its closed TCP connections;
                  and UDP connections that a service refused while it had no backend, because an
                  untranslated connection stays so while its client sends

``core.pool`` defines which backends are lost or take new flows, as in workers.

Lives here: ``KernelTables``, ``EndedConnections``.
Rules: runs in the supervisor, and has nft run by the host helper; at most one run per family is
open, whatever the number of backends that change meanwhile, and none without changes. A failure of
nft is logged and retried after a pause that doubles, up to LONGEST_PAUSE.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, Final, Protocol

from paraglider.config.diff import predecessors
from paraglider.config.model import Config
from paraglider.core.pool import Backend, Pool
from paraglider.errors import ParagliderError
from paraglider.forward.offload.table import states_text
from paraglider.forward.services import States, apply_states, make_pool
from paraglider.netfilter.nft import Nft
from paraglider.netfilter.rules.marks import backend_marks
from paraglider.netfilter.rules.nft import datagrams


@dataclass(frozen=True, slots=True)
class EndedConnections:
    """Connections to delete as soon as no worker uses the old states: the marks of lost backends,
    the UDP ports (VIP, first, last) of services that have backends again, and the marks of backends
    that keep only live TCP connections.
    """

    marks: tuple[int, ...] = ()
    datagrams: tuple[tuple[str, int, int], ...] = ()
    passing: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.marks or self.passing or self.datagrams)


#: seconds to wait for nft at the daemon's stop
CLOSING: Final = 3.0
#: first and longest pause before a retry, in seconds
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0

_Written = tuple[dict[int, int], frozenset[int]]
"""Each backend's share of the hash, by mark; the marks of lost backends."""

Load = Callable[[str, Callable[[ParagliderError | None], object]], None]
"""Has nft load a text asynchronously, and calls back with the result."""


class BackendStates(Protocol):
    """The states of the backends in the daemon's store."""

    @property
    def version(self) -> int:
        """Grows with every change."""

    def states(self, since: int = 0) -> States:
        """The states that are newer than version ``since``."""


class KernelTables:
    """The offload services of ``config`` in the kernel; ``before`` is the reconciler of the
    previous configuration, whose tables have been changed for this one.

    ``load`` changes the tables, ``seed`` returns the seed of the hash, ``log`` gets the errors.
    """

    def __init__(
        self,
        config: Config,
        before: KernelTables | None = None,
        *,
        load: Load,
        seed: Callable[[], int],
        log: Any,
    ) -> None:
        self._config = config
        self._load = load
        self._seed = seed
        self._log = log
        self._services = [s for s in config.services if s.method.conntracked]
        marks = backend_marks(config)
        self._pools: dict[str, Pool] = {}
        names = predecessors(before._config, config) if before else {}
        self._marks: dict[int, dict[Backend, int]] = {}  # by family
        for service in self._services:
            known = before._pools.get(names.get(service.name, "")) if before else None
            pool = self._pools[service.name] = make_pool(service, known)
            found = zip(pool.backends, marks[service.name], strict=True)
            self._marks.setdefault(service.family, {}).update(found)
        self._set_up = {
            family: {
                mark: backend.weight
                for service in self._services
                if service.family == family
                for mark, backend in zip(marks[service.name], service.backends, strict=True)
            }
            for family in self._marks
        }
        # The table of a previous daemon is unknown: the first tick loads it.
        self._written: dict[int, _Written] = {}
        self._lost: frozenset[int] = before._lost if before else frozenset()
        self._passed: frozenset[int] = before._passed if before else frozenset()
        self._refusing: frozenset[str] = before._refusing if before else frozenset()
        self._changed = True
        self._retry: dict[
            int, tuple[float, float]
        ] = {}  # family → time of the retry, and the pause before it
        self._loading: set[int] = set()  # families
        self._version = 0  # version of the table: no state has been read yet
        for pool in before._pools.values() if before else ():
            pool.unwatch_all()
        for pool in self._pools.values():
            pool.watch(self._note)

    def reconcile(self, table: BackendStates) -> None:
        """Read the states and weights of ``table``, for the next ``tick``."""
        if table.version != self._version:
            states = table.states(since=self._version)
            self._version = table.version
            apply_states(self._pools.items(), states)

    def tick(self, now: float) -> EndedConnections:
        """Update the hash; returns the connections to delete."""
        for pool in self._pools.values():
            pool.tick(now)
        if not self._changed and not any(at <= now for at, _ in self._retry.values()):
            return EndedConnections()
        self._changed = False
        for family in self._marks:
            if self._retry.get(family, (now, 0.0))[0] <= now:
                self._hash(family, self._wanted(family), now)
        lost, passed, refusing = self._lost, self._passed, self._refusing
        backends = [item for marks in self._marks.values() for item in marks.items()]
        self._lost = frozenset(mark for backend, mark in backends if backend.lost)
        self._passed = frozenset(mark for backend, mark in backends if backend.datagrams_lost)
        self._refusing = frozenset(n for n, pool in self._pools.items() if not pool.ready)
        again = [s for s in self._services if s.name in refusing - self._refusing]
        passing = self._passed - passed - self._lost
        return EndedConnections(
            tuple(sorted(self._lost - lost)), datagrams(again), tuple(sorted(passing))
        )

    def put_back(self, family: int) -> None:
        """The table of ``family`` was restored to the set-up: the next tick loads the states."""
        self._written.pop(family, None)
        self._changed = True

    def close(self) -> None:
        """Reset the hash to the set-up, since the daemon stops."""
        self._load = _load_now  # the host helper has exited
        self._loading.clear()
        for family, weights in self._set_up.items():
            if family in self._written:
                self._hash(family, (weights, frozenset()), inf)

    def _note(self, _ready: tuple[Backend, ...]) -> None:
        self._changed = True

    def _wanted(self, family: int) -> _Written:
        """What is to be written."""
        marks = self._marks[family].items()
        weights = {mark: b.full_weight if b.ready else 0 for b, mark in marks}
        return weights, frozenset(mark for b, mark in marks if b.lost)

    def wait(self, now: float) -> float:
        """Seconds until the next retry."""
        return max(0.0, min((at for at, _ in self._retry.values()), default=inf) - now)

    def _hash(self, family: int, wanted: _Written, now: float) -> None:
        if wanted == self._written.get(family) or family in self._loading:
            return

        def loaded(error: ParagliderError | None) -> None:
            self._loading.discard(family)
            self._changed = True  # later changes still have to be loaded
            _, before = self._retry.pop(family, (0.0, 0.0))
            if error is not None:
                self._written.pop(family, None)
                pause = min(max(FIRST_PAUSE, 2 * before), LONGEST_PAUSE)
                self._retry[family] = now + pause, pause
                self._log.error(
                    f"hash of IPv{family}: not loaded, tried again", error=str(error), after=pause
                )

        self._written[family] = wanted
        self._loading.add(family)
        text = states_text(self._config, family, self._seed(), *wanted)
        self._load(text, loaded)


def _load_now(text: str, then: Callable[[ParagliderError | None], object]) -> None:
    try:
        Nft().load(text, CLOSING)
    except ParagliderError as error:
        then(error)
    else:
        then(None)
