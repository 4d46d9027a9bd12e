"""Backends, their lifecycle, and the pool of a service.

The lifecycle is defined by the table ``TRANSITIONS``: a state, an event, the next state. An event
that is not in a state's row changes nothing.

                 new flows       the flows it has
    READY        takes them      live on
    DRAIN        none            live on, for ``drain_timeout`` seconds at most
    MAINT        none            live on, as in HAProxy: to end them, drain first; its health is
                                 not looked at
    DOWN         none            ``on_down``: reset or keep; comes back READY
    DRAIN_DOWN   none            the same; comes back to DRAIN

The end of UDP and echo flows cannot be observed, and a client may never change its port. Their
flows therefore leave a backend that takes no new flows: one that drains after ``drain_timeout``
seconds (default DATAGRAM_DRAIN), one in MAINT at once.

A backend without weight takes no new flows in any state. Where no backend is READY, ``all_down``
decides: with use_all those that are DOWN take new flows as if they were not, and their flows live
on; with reject there are none, and new flows are refused at once.

Slow start: a backend that comes back from DOWN or MAINT is led to its weight in STEPS steps over
``slow_start`` seconds. Meanwhile all weights of the pool are STEPS times what the operator gave,
so that there is something between nothing and 1; strategies compare them and notice nothing. What
does not go by weight (rr) has no slow start.

Rules: time is an argument, and only of ``tick``: what an event begins, begins with the next tick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Final, Literal

#: steps of a slow start: each has the strategies prepare anew, which costs maglev some 50 ms
STEPS: Final = 10
#: seconds after which UDP and echo leave a backend that drains, without a ``drain_timeout``
DATAGRAM_DRAIN: Final = 15.0


class State(StrEnum):
    """The state of a backend."""

    READY = "ready"
    DRAIN = "drain"
    MAINT = "maint"
    DOWN = "down"
    DRAIN_DOWN = "drain-down"


class Event(StrEnum):
    """An event of a backend: the first three come from the operator, the others from health."""

    SET_READY = "set-ready"
    SET_DRAIN = "set-drain"
    SET_MAINT = "set-maint"
    CHECK_FAILED = "check-failed"
    CHECK_PASSED = "check-passed"


TRANSITIONS: dict[State, dict[Event, State]] = {
    State.READY: {
        Event.SET_DRAIN: State.DRAIN,
        Event.SET_MAINT: State.MAINT,
        Event.CHECK_FAILED: State.DOWN,
    },
    State.DRAIN: {
        Event.SET_READY: State.READY,
        Event.SET_MAINT: State.MAINT,
        Event.CHECK_FAILED: State.DRAIN_DOWN,
    },
    State.MAINT: {
        Event.SET_READY: State.READY,
        Event.SET_DRAIN: State.DRAIN,
    },
    State.DOWN: {
        Event.SET_DRAIN: State.DRAIN_DOWN,
        Event.SET_MAINT: State.MAINT,
        Event.CHECK_PASSED: State.READY,
    },
    State.DRAIN_DOWN: {
        Event.SET_READY: State.DOWN,
        Event.SET_MAINT: State.MAINT,
        Event.CHECK_PASSED: State.DRAIN,
    },
}


_DRAINS: Final = frozenset((State.DRAIN, State.DRAIN_DOWN))
#: states of a backend that failed its health checks
DOWN: Final = frozenset((State.DOWN, State.DRAIN_DOWN))


class Backend:
    """One real server of one pool.

    ``address`` is the packed address (4 or 16 bytes), ``port`` the mapped port or 0 where the
    client's port is kept, ``conns`` counts the connections begun. ``flows`` are the active flows,
    ``opening`` those that are not established yet, ``closing`` those that are closed and still in
    the table.
    ``refused`` counts openings that it answered with a RST, ``unanswered`` those that the client
    repeated without an answer, as far as these packets pass here.
    ``weight`` is what strategies go by; ``full_weight`` what the operator gave, which differs
    from it while a backend of the pool starts slowly. ``ready`` tells that it takes new flows,
    ``lost`` that the flows it has are over: a client's next packet ends them; ``datagrams_lost``
    that those of UDP and echo are, at least. All three are the pool's to set.
    """

    __slots__ = (
        "address",
        "closing",
        "conns",
        "datagrams_lost",
        "flows",
        "full_weight",
        "lost",
        "name",
        "opening",
        "port",
        "ready",
        "refused",
        "state",
        "unanswered",
        "weight",
    )

    def __init__(self, name: str, address: bytes, port: int = 0, weight: int = 1) -> None:
        self.name = name
        self.address = address
        self.port = port
        self.weight = self.full_weight = weight
        self.state = State.READY
        self.ready = self.lost = self.datagrams_lost = False
        self.flows = self.opening = self.closing = 0
        self.conns = 0
        self.refused = 0
        self.unanswered = 0

    @property
    def picked(self) -> int:
        """Deprecated: ``conns``, for policies of users."""
        return self.conns

    @property
    def inactive(self) -> int:
        """Flows in the table that are not active: ipvsadm's InActConn."""
        return self.opening + self.closing

    @property
    def busy(self) -> bool:
        """Whether it has flows that are active or opening."""
        return self.flows + self.opening > 0

    @property
    def remembered(self) -> bool:
        """Whether it has any flow in the table."""
        return self.flows + self.opening + self.closing > 0

    def __repr__(self) -> str:
        return f"<Backend {self.name} weight {self.weight} {self.state}>"


class Pool:
    """The backends of a service in the order of the configuration.

    ``ready`` are those that take new flows now; the keywords are the configuration's keys of the
    same names, seconds where they are times. ``before`` is the pool that this one takes the place
    of: what it began with a backend that is here too goes on. ``watch`` is called with ``ready``,
    once at the start and after every change: a strategy prepares its tables there, off the packet
    path.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        *,
        all_down: Literal["use_all", "reject"] = "reject",
        on_down: Literal["reset", "keep"] = "reset",
        slow_start: float = 0.0,
        drain_timeout: float | None = None,
        before: Pool | None = None,
    ) -> None:
        self.backends = tuple(backends)
        self.ready: tuple[Backend, ...] = ()
        self.all_down = all_down
        self.on_down = on_down
        self.slow_start = slow_start
        self.drain_timeout = drain_timeout
        # Since when, None until the next tick says so.
        self._draining: dict[Backend, float | None] = {}
        self._rising: dict[Backend, float | None] = {}
        self._steps: dict[Backend, int] = {}  # of those that rise
        self._overdue: set[Backend] = set()  # of those that drain
        self._emptied: set[Backend] = set()  # of datagrams
        self._watchers: list[Callable[[tuple[Backend, ...]], None]] = []
        if before is not None:
            self._carry_on(before)
        self._refresh()

    def _carry_on(self, before: Pool) -> None:
        """Copy the drains and slow starts of ``before`` for the backends that are still here."""
        here = set(self.backends)
        self._draining = {b: since for b, since in before._draining.items() if b in here}
        self._overdue = before._overdue & here
        self._emptied = before._emptied & here
        if self.slow_start:
            self._rising = {b: since for b, since in before._rising.items() if b in here}
            self._steps = {b: step for b, step in before._steps.items() if b in here}

    def watch(self, watcher: Callable[[tuple[Backend, ...]], None]) -> None:
        """Call ``watcher`` with the ready backends now and whenever they or weights change."""
        self._watchers.append(watcher)
        watcher(self.ready)

    def retire(self) -> None:
        """Remove all watchers: another pool replaces this one."""
        self._watchers.clear()

    def apply(self, backend: Backend, event: Event) -> bool:
        """Apply ``event`` to ``backend``; False if the table has no such transition."""
        after = TRANSITIONS[backend.state].get(event)
        if after is None:
            return False
        self._enter(backend, after)
        self._refresh()
        return True

    def put(self, states: Mapping[Backend, tuple[State, int]]) -> None:
        """Give backends the state and weight that were decided elsewhere, as ``apply`` and
        ``set_weight`` would; strategies prepare once for all of them, and only where one changed.
        """
        changed = False
        for backend, (state, weight) in states.items():
            if backend.state is not state:
                self._enter(backend, state)
                changed = True
            if backend.full_weight != weight:
                backend.full_weight = weight
                changed = True
        if changed:
            self._refresh()

    def set_weight(self, backend: Backend, weight: int) -> None:
        """Give ``backend`` another weight; 0 takes no new flows."""
        if weight < 0:
            raise ValueError(f"weight {weight} is negative; write 0 or more")
        backend.full_weight = weight
        self._refresh()

    def tick(self, now: float) -> None:
        """Time passes: slow starts go on, draining comes to its end; called by the clock."""
        if not self._rising and not self._draining:
            return
        changed = False
        for backend, since in list(self._rising.items()):
            begin = now if since is None else since
            self._rising[backend] = begin
            step = 1 + int((now - begin) * STEPS / self.slow_start)
            changed |= step != self._steps[backend]
            self._steps[backend] = step
            if step >= STEPS:
                self._risen(backend)
        for backend, since in self._draining.items():
            if since is None:
                self._draining[backend] = now
                continue
            if self.drain_timeout is not None and now >= since + self.drain_timeout:
                changed |= backend not in self._overdue
                self._overdue.add(backend)
            if self.drain_timeout is None and now >= since + DATAGRAM_DRAIN:
                changed |= backend not in self._emptied
                self._emptied.add(backend)
        if changed:
            self._refresh()

    def drained(self, backend: Backend) -> bool:
        """Whether the drain of ``backend`` is complete: its last flow has ended, or its time is
        over (remaining flows then end with the client's next packet).
        """
        return backend in self._draining and (not backend.busy or backend in self._overdue)

    def _enter(self, backend: Backend, after: State) -> None:
        before, backend.state = backend.state, after
        if after in _DRAINS and before not in _DRAINS:
            self._draining[backend] = None
        elif after not in _DRAINS:
            self._draining.pop(backend, None)
            self._overdue.discard(backend)
            self._emptied.discard(backend)
        if after is State.READY and before in (State.DOWN, State.MAINT) and self.slow_start:
            self._rising[backend] = None
            self._steps[backend] = 1
        elif after is not State.READY:
            self._risen(backend)

    def _risen(self, backend: Backend) -> None:
        self._rising.pop(backend, None)
        self._steps.pop(backend, None)

    def _refresh(self) -> None:
        for backend in self.backends:
            full = backend.full_weight
            backend.weight = full * self._steps.get(backend, STEPS) if self._rising else full
        self.ready = self._with_weight(State.READY)
        if not self.ready and self.all_down == "use_all":
            self.ready = self._with_weight(State.DOWN)
        ready = set(self.ready)
        for backend in self.backends:
            down = backend.state in DOWN and self.on_down == "reset"
            backend.ready = backend in ready
            backend.lost = (down and not backend.ready) or backend in self._overdue
            left = backend.state is State.MAINT or backend in self._emptied
            backend.datagrams_lost = left or backend.lost
        for watcher in self._watchers:
            watcher(self.ready)

    def _with_weight(self, state: State) -> tuple[Backend, ...]:
        return tuple(b for b in self.backends if b.state is state and b.full_weight > 0)
