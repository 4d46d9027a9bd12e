"""The daemon's processes, as the controller has them: by number, by role, and as receivers.

Lives here: ``Processes``.
Rules: a message to a process that is not running is dropped: it inherits the state when it starts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Final

from paraglider.daemon.ipc import Broadcasts, Kind, encode
from paraglider.daemon.messages import Message
from paraglider.daemon.monitor.process import MonitorSpec
from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.manager import ProcessManager
from paraglider.daemon.processes.rolling_restart import RollingRestart
from paraglider.daemon.processes.spec import CARRIERS
from paraglider.daemon.reconcile.checks import monitors
from paraglider.errors import PlatformError

#: deadline, in seconds, of requests that are answered with the next tick
SOON: Final = 2.0


class Processes:
    """The processes of the daemon; empty until ``attach``."""

    def __init__(self) -> None:
        self._manager: ProcessManager | None = None
        self._children: dict[int, Child] = {}
        self._restart = RollingRestart()

    def attach(self, manager: ProcessManager) -> None:
        """Set the processes."""
        self._manager = manager
        self._children = {child.spec.index: child for child in manager}

    def __iter__(self) -> Iterator[Child]:
        return iter(self._children.values())

    def active(self) -> list[Child]:
        """The processes that are not idle."""
        return [child for child in self if not child.spec.idle]

    def roles(self, *, counting: bool) -> frozenset[str]:
        """The roles of the processes that are not idle, and "discovery" if one does discovery;
        without a conntrack counter that does not follow events (``counting``).
        """
        roles = {child.spec.role for child in self.active()}
        if not counting:
            roles.discard("conntrack counter")
        return frozenset(roles | {"discovery"} if self.discovering() else roles)

    def carriers(self) -> list[int]:
        """The numbers of the running processes that carry flows."""
        return [c.spec.index for c in self if c.spec.role in CARRIERS and c.up]

    def host_helper(self) -> int | None:
        """The number of the host helper, None while it is not running."""
        found = (c.spec.index for c in self if c.spec.role == "host helper" and c.up)
        return next(found, None)

    def http(self) -> Child | None:
        """The http process, None while it is not running."""
        return next((c for c in self if c.spec.role == "http" and c.up), None)

    def monitor(self) -> Child | None:
        """The monitor, None while it is not running."""
        return next(iter(monitors(self)), None)

    def discovering(self) -> list[int]:
        """The numbers of the processes that do discovery (DNS and files)."""
        return [child.spec.index for child in self if discovers(child)]

    def send(
        self, index: int, message: Message | bytes, kind: Kind = Kind.MESSAGE, number: int = 0
    ) -> None:
        """Send ``message`` to the process ``index``."""
        if self._manager is not None:
            self._manager.send(self._children[index], message, kind, number)

    def request(self, index: int, message: Message | bytes, number: int) -> None:
        """Send ``message`` as request ``number``."""
        self.send(index, message, Kind.REQUEST, number)

    def send_to_carriers(self, message: Message) -> None:
        """Send ``message`` to all processes that carry flows."""
        body = encode(message)
        for child in self:
            if child.spec.role in CARRIERS:
                self.send(child.spec.index, body)

    def ask_carriers(
        self, requests: Broadcasts, message: Message, then: Callable[[], object]
    ) -> None:
        """Send ``message`` to all processes that carry flows, by ``requests``; ``then`` is called
        when they have acknowledged it, also those that are starting, or after SOON seconds.
        """

        def answered(_answers: dict[int, Message]) -> None:
            then()

        to = [c.spec.index for c in self if c.spec.role in CARRIERS and c.pid and not c.hung]
        try:
            requests.request(to, message, time.monotonic() + SOON, answered)
        except PlatformError:  # too many requests are open
            self.send_to_carriers(message)
            then()

    def replace(self, children: Iterable[Child]) -> None:
        """Restart ``children``, one at a time."""
        self._restart.add(children)
        self.continue_restart()

    def replace_roles(self, roles: Container[str]) -> None:
        """Restart the processes of ``roles``, one at a time."""
        self.replace(child for child in self.active() if child.spec.role in roles)

    def continue_restart(self) -> None:
        """Restart the next process of a rolling restart, if no other is starting; called after
        every start.
        """
        if self._manager is not None:
            self._restart.advance(self._manager)

    def wake_monitor(self) -> None:
        """Start the monitor if it is idle."""
        for child in self:
            if child.spec.idle and child.spec.role == "monitor" and self._manager is not None:
                self._manager.wake(child)


def discovers(child: Child) -> bool:
    """Whether ``child`` does discovery (DNS and files)."""
    return isinstance(child.spec, MonitorSpec) and child.spec.discovers
