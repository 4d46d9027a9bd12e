"""Health input: results of checks, and hosts that failover discovered.

    report           the result of a backend's last check
    verdict          the backend's state
    agent            the weight and the state that the backend asks for
    joined, left     a discovered host becomes a backend, or is removed (``apply_discovered``)

Lives here: ``HealthInput``.
Rules: the monitor has no privileges and is not trusted. An invalid message, or one about a backend
that does not exist or is not checked, changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, Final

from paraglider.config.model import Config
from paraglider.config.types import IPAddress
from paraglider.core.pool import Event
from paraglider.daemon import log
from paraglider.daemon.inputs.passive_checks import PassiveChecks
from paraglider.daemon.messages import CheckSooner, HealthNews
from paraglider.daemon.reconcile.checks import is_checked
from paraglider.daemon.reconcile.host import HostPendingError
from paraglider.daemon.shared_memory.counters import Sample
from paraglider.daemon.store.backends import AgentFact, BackendRecord, Checked
from paraglider.daemon.store.store import Store
from paraglider.errors import ParagliderError
from paraglider.health.results import AgentReport, CheckReport, DiscoveredHost, HealthChange
from paraglider.health.sweep import MOST

#: seconds between two changes of the discovered backends
SETTLED: Final = 0.5

News = CheckReport | HealthChange | DiscoveredHost | AgentReport


class HealthInput:
    """Applies the monitor's results to the backends of ``store``. ``apply_config`` applies another
    configuration and the discovered backends (``controller.Controller.apply_config``).
    """

    def __init__(
        self, store: Store, apply_config: Callable[[Config, str, Callable[[], object]], object]
    ) -> None:
        self._store = store
        self._apply_config = apply_config
        self._passive = PassiveChecks()
        self._reported: list[DiscoveredHost] = []  # since the last ``apply_discovered``
        self._next = 0.0
        self._pending: list[DiscoveredHost] = []  # to be applied when the host has been changed
        self._log: Any = log.logger()

    def wait(self, now: float) -> float:
        """Seconds until ``hints`` is due."""
        return self._passive.wait(self._store.config, now)

    def hints(self, samples: Iterable[Sample], now: float) -> CheckSooner | None:
        """The message about backends whose connections failed since the last call, None without
        any.
        """
        failed = tuple(self._passive.failing(self._store.config, samples, now))
        return CheckSooner(backends=failed) if failed else None

    def handle(self, message: HealthNews) -> None:
        """Handle a message of the monitor."""
        some: Iterable[News] = chain(
            message.changes, message.reports, message.hosts, message.agents
        )
        for news in some:
            self._handle(news)

    def _handle(self, news: News) -> None:
        if isinstance(news, DiscoveredHost):
            failover = self._store.config.failover
            if failover.enabled and failover.discover and len(self._reported) < 2 * MOST:
                self._reported.append(news)
            return
        store = self._store
        member = store.pools.get((news.service, news.backend))
        service = store.pools.service(news.service)
        if member is None or service is None or not is_checked(store.config, service):
            return  # it was removed while the message was in flight
        if isinstance(news, HealthChange):
            self._move(member, news.event, news.detail)
        elif isinstance(news, AgentReport):
            if service.agent is not None:
                at = min(news.at, time.monotonic())
                said = (news.weight, news.mode, news.answered, news.code, news.detail)
                store.set_agent(member, AgentFact(*said, at), at)
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
            code, detail, took, warning = news.code, news.detail, news.duration, news.warning
            member.check = Checked(at, news.passed, code, detail, took, warning)

    def apply_discovered(self, now: float) -> None:
        """Apply the hosts that joined and left, together and once in SETTLED seconds, since a sweep
        of failover may find many. A host that is refused counts as not reported.
        """
        if self._reported and now >= self._next:
            self._next = now + SETTLED
            found, self._reported = self._reported, []
            listed = self._store.listed
            self._pending += [news for news in found if self._join_or_leave(news, listed)]
        self._apply_discovered()

    def _apply_discovered(self) -> None:
        """Apply the hosts that joined and left, if the balancer's host is ready for that."""
        found, hosts = self._pending, self._store.discovered
        if not found:
            return
        try:
            self._apply_config(self._store.listed, "failover", self._apply_discovered)
        except HostPendingError:
            return
        except ParagliderError as error:
            self._pending = []
            self._log.error("discovered backend not added", why=str(error))
            for news in found:
                if news.up:
                    hosts.leave(news.address)
            return
        self._pending = []
        for news in found:
            if news.up and news.address in hosts:
                for member in self._at(news.address):
                    self._move(member, Event.CHECK_PASSED, news.detail)
                    member.why = news.detail

    def _join_or_leave(self, news: DiscoveredHost, listed: Config) -> bool:
        """Note that a host joined or left; returns whether that changes anything. A host that left
        loses its flows.
        """
        if news.up:
            return self._store.discovered.join(news.address, listed)
        there = self._at(news.address)  # before it is removed
        if not self._store.discovered.leave(news.address):
            return False
        for member in there:
            self._move(member, Event.CHECK_FAILED, news.detail)
        return True

    def _move(self, member: BackendRecord, event: Event, why: str) -> None:
        self._store.move(member, event, why, time.monotonic())

    def _at(self, address: IPAddress) -> list[BackendRecord]:
        """The records of a discovered host."""
        return [
            self._store.pools.find(service.name, backend.name)
            for service in self._store.config.services
            for backend in service.backends
            if backend.address == address
            and (service.name, backend.name) in self._store.discovered.keys
        ]
