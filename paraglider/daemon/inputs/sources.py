"""Backends that are listed elsewhere than in the file: in the DNS, or in files of their own.

The monitor asks for every name and watches every file that services refer to, and reports answers
and changes. An answer, or a file that changed, is a list of backends; the last good list stays in
the store until another is as good.

Lives here: ``SourceInput``; ``startup_sources`` has the lists of the start.
Rules: files are read here, with the supervisor's rights; the monitor is not trusted. A list is
checked as if the file had it, and applied as by a reload. A source that fails is logged once, and
once when it works again; a source that fails and works by turns, once a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Final, Protocol

from pydantic import ValidationError

from paraglider.config.diagnostics import ConfigError
from paraglider.config.model import BackendConfig, BackendSource, Config, Service
from paraglider.config.sources import FileListing, Found, origins, refusals, resolved
from paraglider.daemon import log
from paraglider.daemon.inputs.dns_cache import DnsCache
from paraglider.daemon.inputs.startup_sources import (
    backends_of,
    called,
    first_of,
    judge,
    name_of,
    names_in,
)
from paraglider.daemon.messages import (
    DnsFailure,
    DnsName,
    DnsUpdate,
    FileChanged,
    SetSources,
)
from paraglider.daemon.reconcile.host import HostPendingError
from paraglider.errors import ParagliderError

#: seconds between two lines about one source
QUIET: Final = 60.0
#: seconds after which a source that still fails is logged again
REMINDER: Final = 3600.0
#: seconds between two news of one source, at least
SETTLED: Final = 0.5
#: seconds until a list that could not be taken over is tried again
RETRY: Final = 30.0


class SourceController(Protocol):
    """What is needed of the controller."""

    @property
    def listed(self) -> Config:
        """The services of the file, with the backends that their sources listed last."""

    def apply_config(
        self, config: Config, requested_by: str, again: Callable[[], object]
    ) -> object:
        """Go on with ``config``; raises as ``apply_config``, and nothing has changed then."""


@dataclass(slots=True)
class _Trouble:
    """A source that fails; ``said`` is when the log last had it, None before."""

    why: str
    said: float | None = None


@dataclass(frozen=True, slots=True)
class _Offer:
    """What was found for a service; ``listing`` where it was in a file, ``answer`` where it was in
    the DNS.
    """

    service: str
    backends: tuple[BackendConfig, ...]
    listing: FileListing | None = None
    answer: DnsUpdate | None = None


class SourceInput:
    """The sources ``named`` of the services of ``controller``; answers of the DNS are ``kept``."""

    def __init__(
        self,
        controller: SourceController,
        named: Mapping[str, BackendSource],
        clock: Callable[[], float] = time.monotonic,
        kept: DnsCache | None = None,
    ) -> None:
        self._controller = controller
        self._kept = kept or DnsCache()
        self._origins = dict(named)
        self._clock = clock
        self._offers: dict[str, _Offer] = {}  # what could not be taken over yet
        self._early: dict[DnsName | str, DnsUpdate | FileChanged] = {}  # of what had news just now
        self._heard: dict[DnsName | str, float] = {}  # when there were news of it last
        self._retry = 0.0
        self._soon = False  # an offer waits for the host to be changed
        self._troubles: dict[str, _Trouble] = {}
        self._said: dict[str, float] = {}  # when the log last had a source that works by now
        self._log: Any = log.logger()

    def order(self) -> SetSources:
        """What the monitor is to ask and to watch now."""
        files = {origin.file for origin in self._origins.values() if origin.file is not None}
        names = (name_of(origin, service.family) for service, origin in self._services())
        known = dict.fromkeys(name for name in names if name is not None)
        return SetSources(names=tuple(known), files=tuple(sorted(files)))

    def prepared(self, config: Config, found: Found) -> Config:
        """``config``, as a file has it, with what is known of its sources: ``found``, which its
        files list, and for names what a service of that name has now.
        """
        known = {s.name: s.backends for s in self._controller.listed.services if s.backends}
        kept = {
            service.name: known[service.name]
            for service in config.services
            if service.source is not None and service.name in known
        }
        if refusals(config, {**kept, **found}):
            return resolved(config, found)
        return resolved(config, {**kept, **found})

    def apply_config(self, config: Config) -> None:
        """The file has become ``config``, and the controller has taken it over."""
        self._origins = origins(config)
        self._offers.clear()
        self._early.clear()
        self._heard.clear()
        self._kept.keep_only(names_in(config))

    def handle(self, news: DnsUpdate | DnsFailure | FileChanged) -> None:
        """What the monitor found."""
        if isinstance(news, DnsFailure):
            if any(name_of(origin, s.family) == news.name for s, origin in self._services()):
                self._failed(called(news.name), news.why)
            return
        subject = news.name if isinstance(news, DnsUpdate) else news.file
        if not self._of(subject):
            return
        if self._clock() < self._heard.get(subject, -inf) + SETTLED:
            self._early[subject] = news  # the newest of them is enough
        else:
            self._hear(subject, news)

    def _of(self, subject: DnsName | str) -> list[Service]:
        """The services that have their backends from ``subject``, a name or a file."""
        return [
            service
            for service, origin in self._services()
            if subject in (name_of(origin, service.family), origin.file)
        ]

    def _hear(self, subject: DnsName | str, news: DnsUpdate | FileChanged) -> None:
        self._heard[subject] = self._clock()
        for service in self._of(subject):
            if isinstance(news, DnsUpdate):
                self._answered(service, news)
            else:
                self._changed(service, news.file)

    def turn(self, now: float) -> float:
        """Take over what came early, try again what could not be taken over; seconds until there
        is something to do.
        """
        for subject in [s for s in self._early if now >= self._heard[s] + SETTLED]:
            self._hear(subject, self._early.pop(subject))
        soon = min((self._heard[s] + SETTLED - now for s in self._early), default=RETRY)
        if not self._offers:
            return soon
        if now >= self._retry or self._soon:
            self._soon = False
            self._retry = now + RETRY
            for name in list(self._offers):
                self._accept_again(name)
        return min(soon, max(0.0, self._retry - now))

    def _services(self) -> Iterator[tuple[Service, BackendSource]]:
        for service in self._controller.listed.services:
            if service.name in self._origins:
                yield service, self._origins[service.name]

    def _answered(self, service: Service, news: DnsUpdate) -> None:
        try:
            backends = backends_of(service, news.records)
        except ValidationError as error:
            self._failed(called(news.name), str(error.errors()[0]["msg"]))
            return
        self._offer(_Offer(service.name, backends, answer=news))

    def _changed(self, service: Service, file: str) -> None:
        try:
            listed = FileListing.read(self._controller.listed, service.name, file)
        except ConfigError as error:
            self._failed(file, first_of(error.lines))
            return
        self._offer(_Offer(service.name, listed.backends, listed))

    def _offer(self, offer: _Offer) -> None:
        waiting = [other for other in self._offers if other != offer.service]
        self._offers[offer.service] = offer
        if self._accept(offer.service):  # what was in the way of others may be gone
            for other in waiting:
                self._accept(other)
        elif len(self._offers) == 1:
            self._retry = self._clock() + RETRY

    def _accept(self, name: str) -> bool:
        """Take over what was found for the service ``name``; False where that cannot be."""
        offer, source = self._offers[name], self._called(name)
        wanted = resolved(self._controller.listed, {name: offer.backends})
        try:
            if wanted != self._controller.listed:
                judge(self._controller.listed, name, offer.backends, offer.listing)
                self._controller.apply_config(wanted, source, lambda: self._accept_again(name))
        except HostPendingError:
            self._soon = True
            return False
        except ParagliderError as error:
            self._failed(source, str(error))
            return False
        del self._offers[name]
        if offer.answer is not None:
            self._kept.put(offer.answer)
        self._works(source)
        return True

    def _accept_again(self, name: str) -> None:
        """The host may be ready for what was found for ``name``; it may have left meanwhile."""
        if name in self._offers and any(s.name == name for s, _ in self._services()):
            self._accept(name)

    def _called(self, name: str) -> str:
        service, origin = next(found for found in self._services() if found[0].name == name)
        asked = name_of(origin, service.family)
        return called(asked) if asked is not None else str(origin.file)

    def _failed(self, source: str, why: str) -> None:
        now = self._clock()
        trouble = self._troubles.setdefault(source, _Trouble(why))
        last = trouble.said if trouble.said is not None else self._said.get(source)
        news = trouble.said is None or trouble.why != why
        if last is not None and now - last < (QUIET if news else REMINDER):
            return
        trouble.why, trouble.said = why, now
        self._log.warning("source of backends fails, last list kept", source=source, why=why)

    def _works(self, source: str) -> None:
        trouble = self._troubles.pop(source, None)
        if trouble is not None and trouble.said is not None:
            self._said[source] = trouble.said
            self._log.info("source of backends works again", source=source)
