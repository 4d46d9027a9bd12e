"""Health input: results of checks, and hosts that failover discovered.

    report           the result of a backend's last check
    verdict          the backend's state
    joined, left     a discovered host becomes a backend, or is removed (``settle``)

Lives here: ``HealthInput``.
Rules: the monitor has no privileges and is not trusted. An invalid message, or one about a backend
that does not exist or is not checked, changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, Final, Protocol

from paraglider.config.model import Config
from paraglider.config.types import IPAddress
from paraglider.core.pool import Event
from paraglider.daemon import log
from paraglider.daemon.inputs.passive_checks import PassiveChecks
from paraglider.daemon.messages import CheckSooner, HealthNews
from paraglider.daemon.reconcile.checks import is_checked
from paraglider.daemon.reconcile.host import HostPendingError
from paraglider.daemon.shared_memory.counters import Sample
from paraglider.daemon.store.backends import BackendRecord, BackendTable, Checked
from paraglider.daemon.store.discovered import DiscoveredHosts
from paraglider.errors import ParagliderError
from paraglider.health.results import CheckReport, DiscoveredHost, HealthChange
from paraglider.health.sweep import MOST

#: seconds between two changes of the discovered backends
SETTLED: Final = 0.5

News = CheckReport | HealthChange | DiscoveredHost


class HealthController(Protocol):
    """The desired state, and ways to change it."""

    @property
    def config(self) -> Config:
        """All services and backends."""

    @property
    def listed(self) -> Config:
        """Those of the file and the DNS."""

    @property
    def pools(self) -> BackendTable:
        """The state of every backend."""

    @property
    def discovered(self) -> DiscoveredHosts:
        """The hosts that failover found."""

    def apply_config(
        self, config: Config, requested_by: str, again: Callable[[], object]
    ) -> object:
        """Apply ``config`` with the discovered backends; raises as ``apply_config``."""

    def move(self, member: BackendRecord, event: Event, why: str) -> None:
        """Change the state of ``member`` by ``event``."""


class HealthInput:
    """Applies the monitor's results to the backends of ``controller``."""

    def __init__(self, controller: HealthController) -> None:
        self._controller = controller
        self._passive = PassiveChecks()
        self._found: list[DiscoveredHost] = []  # since the last ``settle``
        self._settle_at = 0.0
        self._met: list[DiscoveredHost] = []  # to be applied when the host has been changed
        self._log: Any = log.logger()

    def wait(self, now: float) -> float:
        """Seconds until ``hints`` is due."""
        return self._passive.wait(self._controller.config, now)

    def hints(self, samples: Iterable[Sample], now: float) -> CheckSooner | None:
        """The message about backends whose connections failed since the last call, None without
        any.
        """
        failed = tuple(self._passive.failing(self._controller.config, samples, now))
        return CheckSooner(backends=failed) if failed else None

    def handle(self, message: HealthNews) -> None:
        """Handle a message of the monitor."""
        some: Iterable[News] = chain(message.changes, message.reports, message.hosts)
        for news in some:
            self._handle(news)

    def _handle(self, news: News) -> None:
        if isinstance(news, DiscoveredHost):
            failover = self._controller.config.failover
            if failover.enabled and failover.discover and len(self._found) < 2 * MOST:
                self._found.append(news)
            return
        controller = self._controller
        member = controller.pools.get((news.service, news.backend))
        service = controller.pools.service(news.service)
        if member is None or service is None or not is_checked(controller.config, service):
            return  # it was removed while the message was in flight
        if isinstance(news, HealthChange):
            self._controller.move(member, news.event, news.detail)
        elif news.passed is None:
            self._log.warning(
                "check not run",
                service=member.service,
                backend=member.backend,
                code=news.code,
                why=news.detail,
            )
        else:
            member.failed += not news.passed
            at = min(news.at, time.monotonic())
            member.check = Checked(at, news.passed, news.code, news.detail, news.duration)

    def settle(self, now: float) -> None:
        """Apply the hosts that joined and left, together and once in SETTLED seconds, since a sweep
        of failover may find many. A host that is refused counts as not reported.
        """
        if self._found and now >= self._settle_at:
            self._settle_at = now + SETTLED
            found, self._found = self._found, []
            listed = self._controller.listed
            self._met += [news for news in found if self._meet(news, listed)]
        self._take_over()

    def _take_over(self) -> None:
        """Apply the hosts that joined and left, if the balancer's host is ready for that."""
        found, hosts, controller = self._met, self._controller.discovered, self._controller
        if not found:
            return
        try:
            controller.apply_config(controller.listed, "failover", self._take_over)
        except HostPendingError:
            return
        except ParagliderError as error:
            self._met = []
            self._log.error("discovered backend not added", why=str(error))
            for news in found:
                if news.up:
                    hosts.leave(news.address)
            return
        self._met = []
        for news in found:
            if news.up and news.address in hosts:
                for member in self._at(news.address):
                    controller.move(member, Event.CHECK_PASSED, news.detail)
                    member.why = news.detail

    def _meet(self, news: DiscoveredHost, listed: Config) -> bool:
        """Note that a host joined or left; returns whether that changes anything. A host that left
        loses its flows.
        """
        if news.up:
            return self._controller.discovered.join(news.address, listed)
        there = self._at(news.address)  # before it is removed
        if not self._controller.discovered.leave(news.address):
            return False
        for member in there:
            self._controller.move(member, Event.CHECK_FAILED, news.detail)
        return True

    def _at(self, address: IPAddress) -> list[BackendRecord]:
        """The records of a discovered host."""
        return [
            self._controller.pools.find(service.name, backend.name)
            for service in self._controller.config.services
            for backend in service.backends
            if backend.address == address
            and (service.name, backend.name) in self._controller.discovered.keys
        ]
