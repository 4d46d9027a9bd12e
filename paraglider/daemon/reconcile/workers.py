"""Reconciles workers and proxy workers: their configuration and the states of their backends.

A worker inherits both at its fork. Later changes are sent as a difference from the version that it
has. A worker writes the version that it has applied to shared memory (``heartbeat.Heartbeat``);
until it has applied a message it gets no further one, and then it gets the newest state.

Lives here: ``WorkerReconciler``.
Rules: never waits for a worker; sends nothing if nothing changed.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from math import inf
from typing import Final

from paraglider.daemon.ipc import encode
from paraglider.daemon.messages import ApplyConfig, Message, SetStates
from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.spec import CARRIERS
from paraglider.daemon.store.store import Store

#: seconds between two reads of the applied versions, while a request waits for them
POLL: Final = 0.01


@dataclass(slots=True)
class _Worker:
    """The state of a process: the version of the last message to it, and of its configuration."""

    starts: int
    version: int
    layout: int
    sent: int = 0  # version of a message, 0 before the first


@dataclass(slots=True)
class _Waiter:
    version: int
    deadline: float
    done: Callable[[], object]


class WorkerReconciler:
    """Brings the workers among ``processes`` to the state of ``store``, by ``send``."""

    def __init__(
        self,
        store: Store,
        processes: Callable[[], Iterable[Child]],
        send: Callable[[int, Message | bytes], object],
    ) -> None:
        self._store = store
        self._processes = processes
        self._send = send
        self._workers: dict[int, _Worker] = {}
        self._seen = store.pools.version  # at the last turn; inherited by processes forked since
        self._seen_layout = store.pools.layout
        self._waiting: list[_Waiter] = []

    def supersede(self, roles: Container[str]) -> None:
        """Processes of ``roles`` are being replaced: do not send them the newest configuration."""
        for child, worker in self._known():
            if child.spec.role in roles:
                worker.layout = self._store.pools.layout

    def when_applied(self, done: Callable[[], object], deadline: float) -> None:
        """Call ``done`` when all workers have applied the current store, also those that are still
        starting with an older one, or at ``deadline`` (monotonic seconds).
        """
        self._waiting.append(_Waiter(self._store.pools.version, deadline, done))

    def reconcile(self, now: float) -> float:
        """Send each worker the changes that it lacks; returns the seconds until the next turn is
        due.
        """
        table = self._store.pools
        configuration: bytes | None = None  # encoded once for all workers
        behind = False
        for child, worker in self._known():
            if child.endpoint is None or worker.version == table.version:
                continue
            if child.pending or child.spec.heartbeat.applied < worker.sent:
                behind = True
                continue
            if worker.layout < table.layout:
                configuration = configuration or encode(self._configuration())
                self._send(child.spec.index, configuration)
            else:
                states = table.states(since=worker.version)
                message = SetStates(states=states, version=table.version)
                self._send(child.spec.index, message)
            worker.version = worker.sent = table.version
            worker.layout = table.layout
        self._seen, self._seen_layout = table.version, table.layout
        self._end_waiting(now)
        return POLL if behind or self._waiting else inf

    def _configuration(self) -> Message:
        config, table = self._store.config, self._store.pools
        return ApplyConfig(config=config, states=table.states(), version=table.version)

    def _end_waiting(self, now: float) -> None:
        workers = [(c, w) for c, w in self._known() if c.pid and not c.hung]
        over = [
            each
            for each in self._waiting
            if now >= each.deadline
            or all(
                worker.version >= each.version and child.spec.heartbeat.applied >= worker.sent
                for child, worker in workers
            )
        ]
        self._waiting = [each for each in self._waiting if each not in over]
        for each in over:
            each.done()

    def _known(self) -> list[tuple[Child, _Worker]]:
        """The workers with the state of each; a worker forked since the last turn has inherited at
        least the state of that turn.
        """
        found = []
        for child in self._processes():
            if child.spec.role not in CARRIERS:
                continue
            worker = self._workers.get(child.spec.index)
            if worker is None or worker.starts != child.starts:
                worker = _Worker(child.starts, self._seen, self._seen_layout)
                self._workers[child.spec.index] = worker
            found.append((child, worker))
        return found
