"""The hub's side of health: what the checker is to look at, and what follows from its news.

    targets   every backend of a service that is checked, or of any service with failover; one in
              maint is left alone
    news      a verdict moves the backend in the hub's table, a report is its last check

Lives here: ``Health``.
Rules: the checker has no rights and is not believed: what is no news, or speaks of a backend that
is not there (any more), changes nothing. Found hosts do not join pools here; the checker is not
asked for them.
"""

from __future__ import annotations

from typing import Any, Protocol

from paraglider.config.model import Config, Service
from paraglider.control import log
from paraglider.control.channel import Message
from paraglider.control.pools import Checked, Member, Pools
from paraglider.core.pool import DOWN, Event, State
from paraglider.errors import OperatorError
from paraglider.health.messages import Report, Scope, Target, Targets, Verdict, told
from paraglider.health.targets import scope, target


class Body(Protocol):
    """What is needed of the hub."""

    config: Config
    pools: Pools

    def move(self, member: Member, event: Event, why: str) -> None:
        """Move ``member``; tells everybody."""


class Health:
    """Care for the backends of ``hub``."""

    def __init__(self, hub: Body) -> None:
        self._hub = hub
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
        return Targets(tuple(targets), _scope(config) if every else None).plain()

    def take(self, message: Message) -> None:
        """What the checker said."""
        try:
            news = told(message)
        except (KeyError, TypeError, ValueError) as error:
            self._log.error("the checker says what is no news", error=repr(error)[:200])
            return
        if not isinstance(news, Report | Verdict):
            return
        try:
            member = self._hub.pools.find(news.service, news.backend)
        except OperatorError:  # it left while the news was on its way
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
            member.check = Checked(news.at, news.passed, news.detail, news.duration)

    def _targets(self, service: Service) -> list[Target]:
        found = []
        for backend in service.backends:
            called = backend.name
            state = self._hub.pools.find(service.name, called).state
            if state is not State.MAINT:
                found.append(target(service, backend, called, up=state not in DOWN))
        return found


def checked(config: Config) -> bool:
    """Whether there is anything to look at."""
    return config.failover.enabled or any(s.check is not None for s in config.services)


def _scope(config: Config) -> Scope:
    """Where failover looks, for listed backends alone."""
    listed = config.failover.model_copy(update={"discover": False})
    return scope(config.model_copy(update={"failover": listed}))
