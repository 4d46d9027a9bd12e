"""The monitor's targets: every backend of a service that is checked, or of any service with
failover. A backend in maintenance is not checked; if its agent set that, the agent is asked on.

The monitor gets all targets when it starts and when failover changes, and the changed ones after
that. Its own results change no target, and are not sent back to it.

Lives here: ``CheckReconciler``, ``checked``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import Final

from paraglider.config.model import Config, Service
from paraglider.core.pool import DOWN, State
from paraglider.daemon.messages import Message, SetTargets
from paraglider.daemon.processes.child import Child
from paraglider.daemon.store.backends import BackendRecord, Key, Origin
from paraglider.daemon.store.store import Store
from paraglider.health.targets import Scope, Target, scope, target

#: seconds until sending to a monitor whose channel is full is tried again
FULL: Final = 0.05


class CheckReconciler:
    """Brings the monitor (the process ``child``, if it is running) to the state of ``store``, by
    ``send``.
    """

    def __init__(
        self,
        store: Store,
        child: Callable[[], Child | None],
        send: Callable[[int, Message], object],
    ) -> None:
        self._store = store
        self._child = child
        self._send = send
        self._starts = 0
        self._version = self._layout = -1
        self._scope: Scope | None = None
        self._sent: dict[Key, Target] = {}

    def reconcile(self, now: float) -> float:
        """Send what changed; returns the seconds until the next turn is due."""
        child, table = self._child(), self._store.pools
        if child is None:
            self._starts = 0
            return inf
        if child.starts == self._starts and self._version == table.version:
            return inf
        if child.pending:
            return FULL
        message = self._difference(anew=child.starts != self._starts)
        self._starts, self._version, self._layout = child.starts, table.version, table.layout
        if message is not None:
            self._send(child.spec.index, message)
        return inf

    def _difference(self, *, anew: bool) -> SetTargets | None:
        """The message with the targets that the monitor lacks, None if none; all targets if it has
        just started (``anew``).
        """
        config, table = self._store.config, self._store.pools
        if not anew and self._layout == table.layout:
            return self._changed({r.key: self._target(r) for r in table.changes(self._version)})
        wanted_scope = scope(config) if config.failover.enabled else None
        found = {
            record.key: target
            for service in config.services
            if is_checked(config, service)
            for record in table.of(service.name)
            if (target := self._target(record)) is not None
        }
        if anew or wanted_scope != self._scope:
            self._scope, self._sent = wanted_scope, found
            return SetTargets.of(found.values(), wanted_scope)
        gone: dict[Key, Target | None] = {key: None for key in self._sent if key not in found}
        return self._changed({**found, **gone})

    def _changed(self, wanted: dict[Key, Target | None]) -> SetTargets | None:
        """The targets of ``wanted`` that the monitor lacks; None stands for no target."""
        new = {k: t for k, t in wanted.items() if t is not None and not self._has(t)}
        gone = [k for k, t in wanted.items() if t is None and self._sent.pop(k, None) is not None]
        self._sent |= new
        if not new and not gone:
            return None
        return SetTargets.of(new.values(), self._scope, gone, whole=False)

    def _has(self, target: Target) -> bool:
        """Whether the monitor has ``target``; whether a listed backend is up is not compared, since
        the monitor itself determines it.
        """
        sent = self._sent.get(target.key)
        return sent is not None and (
            sent == target or (not target.found and sent._replace(up=target.up) == target)
        )

    def _target(self, record: BackendRecord) -> Target | None:
        """The check target of the backend; None if it is not checked."""
        service = self._store.pools.service(record.service)
        if service is None or not is_checked(self._store.config, service):
            return None
        discovered, backend = self._store.discovered, self._store.pools.configured(record.key)
        if backend is None or discovered.former(record.key):
            return None
        ended = record.state is State.MAINT
        if ended and record.mode_by is not Origin.AGENT:
            return None
        up, found = record.state not in DOWN, record.key in discovered.keys
        wanted = target(service, backend, record.backend, up=up, found=found)
        return wanted._replace(check=None) if ended else wanted


def is_checked(config: Config, service: Service) -> bool:
    """Whether backends of ``service`` are checked: by its own checks, its agents, or by
    failover.
    """
    return service.check is not None or service.agent is not None or config.failover.enabled


def checked(config: Config) -> bool:
    """Whether any backend is checked."""
    return any(is_checked(config, service) for service in config.services)


def monitors(processes: Iterable[Child]) -> list[Child]:
    """The running monitors."""
    return [child for child in processes if child.spec.role == "monitor" and child.up]
