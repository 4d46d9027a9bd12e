"""Backends from other sources than the configuration file: the DNS, or files of their own.

The monitor queries every DNS name and watches every file that services refer to, and reports
answers and changes. An answer or a changed file is a list of backends; the last valid list stays in
the store until another valid one replaces it.

Lives here: ``SourceInput``; ``startup_sources`` has the lists of the start.
Rules: files are read here, with the supervisor's privileges; the monitor is not trusted. A list is
validated as if the configuration file contained it, and applied as by a reload. A source that fails
is logged once, and once when it works again; a flapping source is logged once a minute.
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

#: seconds between two log lines about one source
QUIET: Final = 60.0
#: seconds after which a source that still fails is logged again
REMINDER: Final = 3600.0
#: least seconds between two lists of one source
SETTLED: Final = 0.5
#: seconds until a list that could not be applied is tried again
RETRY: Final = 30.0


class SourceController(Protocol):
    """What the input needs of the controller."""

    @property
    def listed(self) -> Config:
        """The services of the file, with the last lists of their sources."""

    def apply_config(
        self, config: Config, requested_by: str, again: Callable[[], object]
    ) -> object:
        """Go on with ``config``; raises as ``apply_config``, and nothing has changed then."""


@dataclass(slots=True)
class _Trouble:
    """A failing source; ``said`` is when it was last logged, None before."""

    why: str
    said: float | None = None


@dataclass(frozen=True, slots=True)
class _Offer:
    """A new list for a service; ``listing`` if it comes from a file, ``answer`` if from the DNS."""

    service: str
    backends: tuple[BackendConfig, ...]
    listing: FileListing | None = None
    answer: DnsUpdate | None = None


class SourceInput:
    """The sources ``named`` of the services of ``controller``; ``kept`` caches the DNS answers."""

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
        self._offers: dict[str, _Offer] = {}  # not applied yet
        self._early: dict[DnsName | str, DnsUpdate | FileChanged] = {}  # sources with recent lists
        self._heard: dict[DnsName | str, float] = {}  # time of the last list
        self._retry = 0.0
        self._soon = False  # a list waits until the host has been changed
        self._troubles: dict[str, _Trouble] = {}
        self._said: dict[str, float] = {}  # when a source that works again was last logged
        self._log: Any = log.logger()

    def order(self) -> SetSources:
        """The message with the names to query and the files to watch."""
        files = {origin.file for origin in self._origins.values() if origin.file is not None}
        names = (name_of(origin, service.family) for service, origin in self._services())
        known = dict.fromkeys(name for name in names if name is not None)
        return SetSources(names=tuple(known), files=tuple(sorted(files)))

    def prepared(self, config: Config, found: Found) -> Config:
        """``config``, as read from a file, with the backends of its sources: ``found`` from its
        files, and for DNS names the present backends of the service of that name.
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
        """Note that ``config`` was read from the file and applied."""
        self._origins = origins(config)
        self._offers.clear()
        self._early.clear()
        self._heard.clear()
        self._kept.keep_only(names_in(config))

    def handle(self, news: DnsUpdate | DnsFailure | FileChanged) -> None:
        """Handle a message of the monitor."""
        if isinstance(news, DnsFailure):
            if any(name_of(origin, s.family) == news.name for s, origin in self._services()):
                self._failed(called(news.name), news.why)
            return
        subject = news.name if isinstance(news, DnsUpdate) else news.file
        if not self._of(subject):
            return
        if self._clock() < self._heard.get(subject, -inf) + SETTLED:
            self._early[subject] = news  # only the newest counts
        else:
            self._hear(subject, news)

    def _of(self, subject: DnsName | str) -> list[Service]:
        """The services whose backends come from ``subject``, a DNS name or a file."""
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
        """Apply lists that were deferred, retry those that could not be applied; returns the
        seconds until the next is due.
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
        if self._accept(offer.service):  # a conflict with other lists may be resolved now
            for other in waiting:
                self._accept(other)
        elif len(self._offers) == 1:
            self._retry = self._clock() + RETRY

    def _accept(self, name: str) -> bool:
        """Apply the list for the service ``name``; False if that is not possible."""
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
        """Retry the list for ``name`` after a change of the host; the service may have been removed
        meanwhile.
        """
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
