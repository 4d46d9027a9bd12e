"""Backends, their lifecycle, and the pool of a service.

The lifecycle is defined by the table ``TRANSITIONS``: a state, an event, the next state. An event
that is not in a state's row changes nothing.

                 new flows   existing flows
    READY        yes         continue
    DRAIN        no          continue for at most ``drain_timeout`` seconds
    MAINT        no          continue, as in HAProxy (drain first to end them); its health is
                             ignored
    DOWN         no          ``on_down``: reset or keep; returns to READY
    DRAIN_DOWN   no          the same; returns to DRAIN

The end of UDP and echo flows cannot be observed, and a client may never change its port. Their
flows are therefore moved away from a backend that takes no new flows: after ``drain_timeout``
seconds (default DATAGRAM_DRAIN) if it drains, at once if it is in MAINT.

A backend of weight 0 takes no new flows in any state. If no backend is READY, ``all_down`` decides:
with use_all the DOWN backends take new flows, and their flows continue; with reject new flows are
refused.

Slow start: the weight of a backend that returns from DOWN or MAINT grows to its full value in STEPS
steps over ``slow_start`` seconds. Meanwhile all weights of the pool are multiplied by STEPS, so
that a fraction of weight 1 can be expressed; strategies compare weights only with each other. rr
ignores weights and has no slow start.

Rules: time is an argument of ``tick`` only: a drain or slow start begins with the tick that follows
its event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Final, Literal

#: steps of a slow start: strategies prepare again at each, which takes maglev some 50 ms
STEPS: Final = 10
#: seconds after which UDP and echo flows leave a draining backend without a ``drain_timeout``
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
    """One backend of one pool.

    ``address`` is the packed address (4 or 16 bytes), ``port`` the mapped port or 0 if the client's
    port is kept, ``conns`` the number of connections so far. ``flows`` is the number of active
    flows, ``opening`` of flows that are not established yet, ``closing`` of closed flows that are
    still in the table. ``refused`` counts openings that the backend answered with a RST,
    ``unanswered`` openings that the client repeated without an answer, if these packets pass
    through this host; ``adopted`` flows that were adopted in mid-stream (``adoption``). Strategies
    use ``weight``; ``full_weight`` is the configured one, which differs during a slow start in the
    pool. ``ready`` is true if the backend takes new flows; ``lost`` if its flows end with the
    client's next packet; ``datagrams_lost`` if at least its UDP and echo flows do. The pool sets
    all three.
    """

    __slots__ = (
        "address",
        "adopted",
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
        self.adopted = 0

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
    def has_flows(self) -> bool:
        """Whether it has any flow in the table."""
        return self.flows + self.opening + self.closing > 0

    def __repr__(self) -> str:
        return f"<Backend {self.name} weight {self.weight} {self.state}>"


class Pool:
    """The backends of a service in the order of the configuration.

    ``ready`` are the backends that take new flows now. The keyword arguments are the
    configuration's keys of the same names; times are in seconds. ``before`` is the pool that this
    one replaces: drains and slow starts of backends that are in both continue. Watchers (``watch``)
    are called with ``ready`` once at the start and after every change: a strategy prepares its
    tables there, off the packet path.
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
        # The start times; None until the next tick.
        self._draining: dict[Backend, float | None] = {}
        self._slow_starts: dict[Backend, float | None] = {}
        self._steps: dict[Backend, int] = {}  # of the slow starts
        self._drain_over: set[Backend] = set()  # ``drain_timeout`` has passed
        self._datagrams_over: set[Backend] = set()  # DATAGRAM_DRAIN has passed
        self._watchers: list[Callable[[tuple[Backend, ...]], None]] = []
        if before is not None:
            self._inherit(before)
        self._refresh()

    def _inherit(self, before: Pool) -> None:
        """Copy the drains and slow starts of ``before`` for the backends that are still here."""
        here = set(self.backends)
        self._draining = {b: since for b, since in before._draining.items() if b in here}
        self._drain_over = before._drain_over & here
        self._datagrams_over = before._datagrams_over & here
        if self.slow_start:
            self._slow_starts = {b: since for b, since in before._slow_starts.items() if b in here}
            self._steps = {b: step for b, step in before._steps.items() if b in here}

    def watch(self, watcher: Callable[[tuple[Backend, ...]], None]) -> None:
        """Call ``watcher`` with the ready backends now and whenever they or weights change."""
        self._watchers.append(watcher)
        watcher(self.ready)

    def unwatch_all(self) -> None:
        """Remove all watchers: another pool replaces this one."""
        self._watchers.clear()

    def apply(self, backend: Backend, event: Event) -> bool:
        """Apply ``event`` to ``backend``; False if the table has no such transition."""
        after = TRANSITIONS[backend.state].get(event)
        if after is None:
            return False
        self._set_state(backend, after)
        self._refresh()
        return True

    def apply_states(self, states: Mapping[Backend, tuple[State, int]]) -> None:
        """Set the states and weights of backends, without regard to ``TRANSITIONS``; strategies
        prepare once for all of them, and only after a change.
        """
        changed = False
        for backend, (state, weight) in states.items():
            if backend.state is not state:
                self._set_state(backend, state)
                changed = True
            if backend.full_weight != weight:
                backend.full_weight = weight
                changed = True
        if changed:
            self._refresh()

    def set_weight(self, backend: Backend, weight: int) -> None:
        """Set the weight of ``backend``; with 0 it takes no new flows."""
        if weight < 0:
            raise ValueError(f"weight {weight} is negative; write 0 or more")
        backend.full_weight = weight
        self._refresh()

    @property
    def changing(self) -> bool:
        """Whether a slow start or a drain is in progress, so that ``tick`` has work."""
        return bool(self._slow_starts or self._draining)

    def tick(self, now: float) -> None:
        """Advance slow starts and drains to ``now`` (seconds); called periodically."""
        if not self._slow_starts and not self._draining:
            return
        changed = False
        for backend, since in list(self._slow_starts.items()):
            begin = now if since is None else since
            self._slow_starts[backend] = begin
            step = 1 + int((now - begin) * STEPS / self.slow_start)
            changed |= step != self._steps[backend]
            self._steps[backend] = step
            if step >= STEPS:
                self._end_slow_start(backend)
        for backend, since in self._draining.items():
            if since is None:
                self._draining[backend] = now
                continue
            if self.drain_timeout is not None and now >= since + self.drain_timeout:
                changed |= backend not in self._drain_over
                self._drain_over.add(backend)
            if self.drain_timeout is None and now >= since + DATAGRAM_DRAIN:
                changed |= backend not in self._datagrams_over
                self._datagrams_over.add(backend)
        if changed:
            self._refresh()

    def drained(self, backend: Backend) -> bool:
        """Whether the drain of ``backend`` is complete: its last flow has ended, or
        ``drain_timeout`` has passed (remaining flows end with the client's next packet).
        """
        return backend in self._draining and (not backend.busy or backend in self._drain_over)

    def _set_state(self, backend: Backend, after: State) -> None:
        before, backend.state = backend.state, after
        if after in _DRAINS and before not in _DRAINS:
            self._draining[backend] = None
        elif after not in _DRAINS:
            self._draining.pop(backend, None)
            self._drain_over.discard(backend)
            self._datagrams_over.discard(backend)
        if after is State.READY and before in (State.DOWN, State.MAINT) and self.slow_start:
            self._slow_starts[backend] = None
            self._steps[backend] = 1
        elif after is not State.READY:
            self._end_slow_start(backend)

    def _end_slow_start(self, backend: Backend) -> None:
        self._slow_starts.pop(backend, None)
        self._steps.pop(backend, None)

    def _refresh(self) -> None:
        for backend in self.backends:
            full = backend.full_weight
            backend.weight = full * self._steps.get(backend, STEPS) if self._slow_starts else full
        self.ready = self._weighted(State.READY)
        if not self.ready and self.all_down == "use_all":
            self.ready = self._weighted(State.DOWN)
        ready = set(self.ready)
        for backend in self.backends:
            down = backend.state in DOWN and self.on_down == "reset"
            backend.ready = backend in ready
            backend.lost = (down and not backend.ready) or backend in self._drain_over
            left = backend.state is State.MAINT or backend in self._datagrams_over
            backend.datagrams_lost = left or backend.lost
        for watcher in self._watchers:
            watcher(self.ready)

    def _weighted(self, state: State) -> tuple[Backend, ...]:
        return tuple(b for b in self.backends if b.state is state and b.full_weight > 0)
