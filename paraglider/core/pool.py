"""Backends, their lifecycle, and the pool of a service.

The lifecycle is the table ``TRANSITIONS`` and nothing else: a state, an event, the next state.
An event that is not in a state's row changes nothing. Only a READY backend with weight takes
new flows; flows it already has live on in every state.

    READY        takes new flows
    DRAIN        keeps its flows, takes no new ones
    MAINT        taken out by the operator; health is not looked at
    DOWN         failed its checks; comes back READY
    DRAIN_DOWN   failed its checks while draining; comes back to DRAIN
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum


class State(StrEnum):
    """Where a backend stands in its life."""

    READY = "ready"
    DRAIN = "drain"
    MAINT = "maint"
    DOWN = "down"
    DRAIN_DOWN = "drain-down"


class Event(StrEnum):
    """What can happen to a backend: the first three are the operator's, the others health's."""

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


class Backend:
    """One real server of one pool.

    ``address`` is the packed address (4 or 16 bytes), ``port`` the mapped port or 0 where the
    client's port is kept, ``flows`` the live flows, ``picked`` all flows ever given to it.
    """

    __slots__ = ("address", "flows", "name", "picked", "port", "state", "weight")

    def __init__(self, name: str, address: bytes, port: int = 0, weight: int = 1) -> None:
        self.name = name
        self.address = address
        self.port = port
        self.weight = weight
        self.state = State.READY
        self.flows = 0
        self.picked = 0

    def __repr__(self) -> str:
        return f"<Backend {self.name} weight {self.weight} {self.state}>"


class Pool:
    """The backends of a service in the order of the configuration.

    ``ready`` are those that take new flows now. ``watch`` is called with it, once at the start
    and after every change: a strategy prepares its tables there, off the packet path.
    """

    def __init__(self, backends: Sequence[Backend]) -> None:
        self.backends = tuple(backends)
        self.ready: tuple[Backend, ...] = ()
        self._watchers: list[Callable[[tuple[Backend, ...]], None]] = []
        self._refresh()

    def watch(self, watcher: Callable[[tuple[Backend, ...]], None]) -> None:
        """Call ``watcher`` with the ready backends now and whenever they or weights change."""
        self._watchers.append(watcher)
        watcher(self.ready)

    def apply(self, backend: Backend, event: Event) -> bool:
        """Move ``backend`` by ``event``; False where the table has no such move."""
        after = TRANSITIONS[backend.state].get(event)
        if after is None:
            return False
        backend.state = after
        self._refresh()
        return True

    def set_weight(self, backend: Backend, weight: int) -> None:
        """Give ``backend`` another weight; 0 takes no new flows."""
        if weight < 0:
            raise ValueError(f"weight {weight} is negative; write 0 or more")
        backend.weight = weight
        self._refresh()

    def _refresh(self) -> None:
        self.ready = tuple(b for b in self.backends if b.state is State.READY and b.weight > 0)
        for watcher in self._watchers:
            watcher(self.ready)
