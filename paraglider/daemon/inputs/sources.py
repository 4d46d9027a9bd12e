"""Backends that the configuration file does not list: from the DNS or from separate files.

The monitor queries each DNS name and watches each file of the services, and reports answers and
changes. An answer or a changed file is a list of backends. The last valid list stays in the store
until another valid list replaces it.

Lives here: ``SourceInput``; ``startup_sources`` has the lists at the start.
Rules: files are read here, with the supervisor's privileges; the monitor is not trusted. A list is
validated as if the configuration file contained it, and applied as by a reload. A source that fails
is logged once when it fails and once when it works again; a flapping source, once a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from pydantic import ValidationError

from paraglider.config.diagnostics import ConfigError
from paraglider.config.model import BackendConfig, BackendSource, Config, Service
from paraglider.config.sources import FileListing, Found, origins, refusals, resolved
from paraglider.daemon import log
from paraglider.daemon.inputs.dns_cache import DnsCache
from paraglider.daemon.inputs.startup_sources import (
    backends_of,
    dns_name_of,
    dns_names_in,
    first_line,
    shown,
    validate,
)
from paraglider.daemon.messages import (
    DnsFailure,
    DnsName,
    DnsUpdate,
    FileChanged,
    SetSources,
)
from paraglider.daemon.reconcile.host import HostPendingError
from paraglider.daemon.store.store import Store
from paraglider.errors import ParagliderError
from paraglider.host.resolv_conf import ResolvConf

#: seconds between two log lines about one source
QUIET: Final = 60.0
#: seconds after which a source that still fails is logged again
REMINDER: Final = 3600.0
#: least seconds between two lists from one source
SETTLED: Final = 0.5
#: seconds until a list that could not be applied is tried again
RETRY: Final = 30.0


@dataclass(slots=True)
class _Failure:
    """A failing source; ``logged`` is when it was last logged, None if it was not."""

    why: str
    logged: float | None = None


@dataclass(frozen=True, slots=True)
class _NewList:
    """A new list for a service; ``listing`` if it comes from a file, ``answer`` if from the DNS."""

    service: str
    backends: tuple[BackendConfig, ...]
    listing: FileListing | None = None
    answer: DnsUpdate | None = None


class SourceInput:
    """The sources of the services of ``store``: ``named`` by service. ``kept`` caches the DNS
    answers, ``resolv_conf`` has the host's name servers, ``apply_config`` applies another
    configuration (``controller.Controller.apply_config``).
    """

    def __init__(
        self,
        store: Store,
        apply_config: Callable[[Config, str, Callable[[], object]], object],
        named: Mapping[str, BackendSource],
        clock: Callable[[], float] = time.monotonic,
        kept: DnsCache | None = None,
        resolv_conf: ResolvConf | None = None,
    ) -> None:
        self._store = store
        self._apply_config = apply_config
        self._cache = kept or DnsCache()
        self._resolv_conf = resolv_conf
        self._origins = dict(named)
        self._clock = clock
        self._new_lists: dict[str, _NewList] = {}  # not applied yet
        # news of sources whose last list is recent
        self._deferred: dict[DnsName | str, DnsUpdate | FileChanged] = {}
        self._last_lists: dict[DnsName | str, float] = {}  # time of the last list
        self._retry = 0.0
        self._host_pending = False  # a list waits for a change of the host
        self._failures: dict[str, _Failure] = {}
        self._recoveries: dict[str, float] = {}  # when a recovered source was last logged
        self._log: Any = log.logger()

    def order(self) -> SetSources:
        """The message with the names to query and the files to watch."""
        files = {origin.file for origin in self._origins.values() if origin.file is not None}
        names = (dns_name_of(origin, service.family) for service, origin in self._services())
        known = dict.fromkeys(name for name in names if name is not None)
        text = "" if self._resolv_conf is None else self._resolv_conf.text
        return SetSources(names=tuple(known), files=tuple(sorted(files)), resolv_conf=text)

    @property
    def watches_files(self) -> bool:
        """Whether files list backends."""
        return any(origin.file is not None for origin in self._origins.values())

    def order_changed(self, now: float) -> bool:
        """Whether the host's name servers have changed since the last call, and ``order`` with
        them.
        """
        return self._resolv_conf is not None and self._resolv_conf.changed(now)

    def prepared(self, config: Config, found: Found) -> Config:
        """``config``, as read from its file, with the backends of its sources: ``found`` has those
        from files; a service with a DNS name keeps its present backends.
        """
        known = {s.name: s.backends for s in self._store.listed.services if s.backends}
        kept = {
            service.name: known[service.name]
            for service in config.services
            if service.source is not None and service.name in known
        }
        if refusals(config, {**kept, **found}):
            return resolved(config, found)
        return resolved(config, {**kept, **found})

    def apply_config(self, config: Config) -> None:
        """Use the sources of ``config``, which was read from the file and applied."""
        self._origins = origins(config)
        self._new_lists.clear()
        self._deferred.clear()
        self._last_lists.clear()
        self._cache.keep_only(dns_names_in(config))

    def handle(self, news: DnsUpdate | DnsFailure | FileChanged) -> None:
        """Handle a message of the monitor."""
        if isinstance(news, DnsFailure):
            if any(dns_name_of(origin, s.family) == news.name for s, origin in self._services()):
                self._log_failure(shown(news.name), news.why)
            return
        subject = news.name if isinstance(news, DnsUpdate) else news.file
        if not self._services_with(subject):
            return
        if self._clock() < self._last_lists.get(subject, -inf) + SETTLED:
            self._deferred[subject] = news  # the newest replaces an earlier one
        else:
            self._handle(subject, news)

    def _services_with(self, subject: DnsName | str) -> list[Service]:
        """The services whose backends come from ``subject``, a DNS name or a file."""
        return [
            service
            for service, origin in self._services()
            if subject in (dns_name_of(origin, service.family), origin.file)
        ]

    def _handle(self, subject: DnsName | str, news: DnsUpdate | FileChanged) -> None:
        self._last_lists[subject] = self._clock()
        for service in self._services_with(subject):
            if isinstance(news, DnsUpdate):
                self._handle_answer(service, news)
            else:
                self._handle_file(service, news.file)

    def turn(self, now: float) -> float:
        """Apply deferred lists, and retry those that could not be applied; returns the seconds
        until the next turn is due.
        """
        for subject in [s for s in self._deferred if now >= self._last_lists[s] + SETTLED]:
            self._handle(subject, self._deferred.pop(subject))
        soon = min((self._last_lists[s] + SETTLED - now for s in self._deferred), default=RETRY)
        if self._resolv_conf is not None:
            soon = min(soon, self._resolv_conf.wait(now))
        if not self._new_lists:
            return soon
        if now >= self._retry or self._host_pending:
            self._host_pending = False
            self._retry = now + RETRY
            for name in list(self._new_lists):
                self._apply_again(name)
        return min(soon, max(0.0, self._retry - now))

    def _services(self) -> Iterator[tuple[Service, BackendSource]]:
        for service in self._store.listed.services:
            if service.name in self._origins:
                yield service, self._origins[service.name]

    def _handle_answer(self, service: Service, news: DnsUpdate) -> None:
        try:
            backends = backends_of(service, news.records)
        except ValidationError as error:
            self._log_failure(shown(news.name), str(error.errors()[0]["msg"]))
            return
        self._submit(_NewList(service.name, backends, answer=news))

    def _handle_file(self, service: Service, file: str) -> None:
        try:
            listed = FileListing.read(self._store.listed, service.name, file)
        except ConfigError as error:
            self._log_failure(file, first_line(error.lines))
            return
        self._submit(_NewList(service.name, listed.backends, listed))

    def _submit(self, new: _NewList) -> None:
        waiting = [other for other in self._new_lists if other != new.service]
        self._new_lists[new.service] = new
        if self._apply(new.service):  # a conflict with other lists may be resolved now
            for other in waiting:
                self._apply(other)
        elif len(self._new_lists) == 1:
            self._retry = self._clock() + RETRY

    def _apply(self, name: str) -> bool:
        """Apply the new list of the service ``name``; returns False if that is not possible."""
        new, source = self._new_lists[name], self._source_name(name)
        wanted = resolved(self._store.listed, {name: new.backends})
        try:
            if wanted != self._store.listed:
                validate(self._store.listed, name, new.backends, new.listing)
                self._apply_config(wanted, source, lambda: self._apply_again(name))
        except HostPendingError:
            self._host_pending = True
            return False
        except ParagliderError as error:
            self._log_failure(source, str(error))
            return False
        del self._new_lists[name]
        if new.answer is not None:
            self._cache.add(new.answer)
        self._log_recovery(source)
        return True

    def _apply_again(self, name: str) -> None:
        """Retry the list of ``name`` after a change of the host, unless the service was removed
        meanwhile.
        """
        if name in self._new_lists and any(s.name == name for s, _ in self._services()):
            self._apply(name)

    def _source_name(self, name: str) -> str:
        service, origin = next(found for found in self._services() if found[0].name == name)
        asked = dns_name_of(origin, service.family)
        return shown(asked) if asked is not None else str(origin.file)

    def _log_failure(self, source: str, why: str) -> None:
        now = self._clock()
        failure = self._failures.setdefault(source, _Failure(why))
        last = failure.logged if failure.logged is not None else self._recoveries.get(source)
        news = failure.logged is None or failure.why != why
        if last is not None and now - last < (QUIET if news else REMINDER):
            return
        failure.why, failure.logged = why, now
        self._log.warning("source of backends fails, last list kept", source=source, why=why)

    def _log_recovery(self, source: str) -> None:
        failure = self._failures.pop(source, None)
        if failure is not None and failure.logged is not None:
            self._recoveries[source] = failure.logged
            self._log.info("source of backends works again", source=source)
