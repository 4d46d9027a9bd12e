"""The hub's side of health: what the checker is to look at, and what follows from its news.

    targets   every backend of a service that is checked, or of any service with failover; one in
              maint is left alone
    news      a verdict moves the backend in the hub's table, a report is its last check; a host
              that failover found joins the configuration at work (``strangers``), and leaves it,
              with ``settle``

Lives here: ``HealthInput``.
Rules: the checker has no rights and is not believed: what is no news, or speaks of a backend that
is not there (any more), changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol

from paraglider.config.model import Config, Service
from paraglider.config.types import IPAddress
from paraglider.core.pool import DOWN, Event, State
from paraglider.daemon import log
from paraglider.daemon.inputs.passive_checks import PassiveChecks
from paraglider.daemon.processes.channel import Message
from paraglider.daemon.processes.counters import Sample
from paraglider.daemon.reconcile.host import HostPendingError
from paraglider.daemon.store.backends import BackendRecord, BackendTable, Checked
from paraglider.daemon.store.discovered import DiscoveredHosts
from paraglider.errors import OperatorError, ParagliderError
from paraglider.health.messages import Found, Targets, Verdict, told
from paraglider.health.sweep import MOST
from paraglider.health.targets import Target, scope, target

#: seconds between two times that hosts which failover found are taken over
SETTLED: Final = 0.5


class Body(Protocol):
    """What is needed of the hub."""

    config: Config
    wanted: Config
    pools: BackendTable

    def adopt(self, config: Config, said_by: str, again: Callable[[], object]) -> object:
        """Go on with ``config`` and what was found; raises as ``hub.Hub.adopt``."""

    def move(self, member: BackendRecord, event: Event, why: str) -> None:
        """Move ``member``; tells everybody."""


class HealthInput:
    """Care for the backends of ``hub``."""

    def __init__(self, hub: Body) -> None:
        self._hub = hub
        self.strangers = DiscoveredHosts()
        self._hints = PassiveChecks()
        self._found: list[Found] = []  # since the last ``settle``
        self._settle_at = 0.0
        self._met: list[Found] = []  # to be taken over when the host has been changed
        self._log: Any = log.logger()

    def order(self) -> Message:
        """What the checker is to look at now."""
        config = self._hub.config
        every = config.failover.enabled
        targets = [
            found
            for service in config.services
            if every or service.check is not None
            for found in self._targets(service)
        ]
        return Targets(tuple(targets), scope(config) if every else None).plain()

    def wait(self, now: float) -> float:
        """Seconds until ``hints`` is to be called."""
        return self._hints.wait(self._hub.config, now)

    def hints(self, samples: Iterable[Sample], now: float) -> Iterator[Message]:
        """What to say to the checker of what clients have met since the last call."""
        return (hint.plain() for hint in self._hints.look(self._hub.config, samples, now))

    def take(self, message: Message) -> None:
        """What the checker said."""
        try:
            news = told(message)
        except (KeyError, TypeError, ValueError) as error:
            self._log.error("the checker says what is no news", error=repr(error)[:200])
            return
        if isinstance(news, Found):
            failover = self._hub.config.failover
            if failover.enabled and failover.discover and len(self._found) < 2 * MOST:
                self._found.append(news)
            return
        try:
            member = self._hub.pools.find(news.service, news.backend)
        except OperatorError:  # it left while the news was on its way
            return
        if not self._looked_at(news.service):
            return
        if isinstance(news, Verdict):
            self._hub.move(member, news.event, news.detail)
        elif news.passed is None:
            self._log.warning(
                "a check could not take place",
                service=member.service,
                backend=member.backend,
                why=news.detail,
            )
        else:
            member.failed += not news.passed
            at = min(news.at, time.monotonic())
            member.check = Checked(at, news.passed, news.detail, news.duration)

    def settle(self, now: float) -> None:
        """Take over the hosts that have come and gone, all at once and once in SETTLED seconds: a
        round of failover may find many. One that is not to be taken over counts as untold.
        """
        if self._found and now >= self._settle_at:
            self._settle_at = now + SETTLED
            found, self._found = self._found, []
            listed = self.strangers.listed(self._hub.wanted)
            self._met += [news for news in found if self._meet(news, listed)]
        self._take_over()

    def _take_over(self) -> None:
        """Go on with the hosts that have come and gone, if the host is ready for that."""
        found, strangers, hub = self._met, self.strangers, self._hub
        if not found:
            return
        try:
            hub.adopt(strangers.listed(hub.wanted), "failover", self._take_over)
        except HostPendingError:
            return
        except ParagliderError as error:
            self._met = []
            self._log.error("what failover found is not taken over", why=str(error))
            for news in found:
                if news.joined:
                    strangers.leave(news.address)
            return
        self._met = []
        for news in found:
            if news.joined and news.address in strangers:
                for member in self._at(news.address):
                    hub.move(member, Event.CHECK_PASSED, news.detail)
                    member.why = news.detail

    def _meet(self, news: Found, listed: Config) -> bool:
        """Whether it changes anything that a host came or went; its flows are over if it went."""
        if news.joined:
            return self.strangers.join(news.address, listed)
        there = self._at(news.address)  # before it is a former one
        if not self.strangers.leave(news.address):
            return False
        for member in there:
            self._hub.move(member, Event.CHECK_FAILED, news.detail)
        return True

    def _at(self, address: IPAddress) -> list[BackendRecord]:
        """What a host that was found is in the pools."""
        return [
            self._hub.pools.find(service.name, backend.name)
            for service in self._hub.config.services
            for backend in service.backends
            if backend.address == address and (service.name, backend.name) in self.strangers.keys
        ]

    def _looked_at(self, name: str) -> bool:
        config = self._hub.config
        checked = any(s.name == name and s.check is not None for s in config.services)
        return checked or config.failover.enabled

    def _targets(self, service: Service) -> list[Target]:
        targets = []
        for backend in service.backends:
            key = service.name, backend.name
            state = self._hub.pools.find(*key).state
            if state is not State.MAINT and not self.strangers.former(key):
                up, found = state not in DOWN, key in self.strangers.keys
                targets.append(target(service, backend, backend.name, up=up, found=found))
        return targets


def checked(config: Config) -> bool:
    """Whether there is anything to look at."""
    return config.failover.enabled or any(s.check is not None for s in config.services)
