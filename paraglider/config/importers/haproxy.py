"""Imports ``haproxy.cfg``: what is in `mode tcp`.

Lives here: ``LOOKS``, ``convert``.
Rules: names, units and defaults as HAProxy's configuration manual. HAProxy connects by itself, so a
service is `forward: proxy`. What looks into requests (`mode http`), ends TLS, or chooses between
backends by a condition, is named and left out: a layer-4 balancer passes bytes.
"""

from __future__ import annotations

import math
import re

from paraglider.config.diagnostics import Mark
from paraglider.config.importers import haproxy_reader
from paraglider.config.importers.draft import Draft
from paraglider.config.importers.haproxy_pool import HaproxyPool
from paraglider.config.importers.haproxy_proxy import PROXIES, HaproxyProxy, keyword_of, proxies
from paraglider.config.importers.haproxy_reader import HaproxyLine, HaproxySection
from paraglider.config.importers.haproxy_server import HaproxyBind, binds, milliseconds
from paraglider.config.importers.services import FoundService, Given, ServiceWriter, longest
from paraglider.config.types import IPAddress
from paraglider.config.wording import shown, ticked

LOOKS = re.compile(
    r"\s*(?:(?:frontend|listen|backend)\s+[^\s:={]+\s*(?:#.*)?$"
    r"|listen\s+\S+\s+\S*:\d"
    r"|(?:global|defaults)\s*(?:#.*)?$|defaults\s+[\w.-]+\s*(?:from\s.*)?$"
    r"|timeout\s+(?:connect|client|server)\s|mode\s+(?:tcp|http)\s*$)"
)
_KNOWN = {
    *("bind", "mode", "default_backend", "use_backend", "server", "default-server", "balance"),
    *("hash-type", "stick-table", "stick", "tcp-check", "http-check", "retries", "id"),
    *("description", "enabled", "contimeout", "clitimeout", "srvtimeout", "redispatch"),
}
_KNOWN_OPTIONS = {
    *("tcp-check", "httpchk", "ssl-hello-chk", "mysql-check", "pgsql-check", "redis-check"),
    *("smtpchk", "ldap-check", "spop-check", "external-check", "redispatch", "tcpka", "clitcpka"),
    *("srvtcpka", "splice-auto", "splice-request", "splice-response"),
}
_KNOWN_TIMEOUTS = {"client", "server", "tunnel", "connect", "check"}
_SNI = "a service has one pool: give each name its own VIP"
_FIREWALL = "limit or refuse connections in the host's firewall"
_COUNTED = "connections are counted, not logged (docs/metrics.md)"
# What has no counterpart → what to do instead.
_REMEDIES = {
    "acl": _SNI,
    "use-server": _SNI,
    "tcp-request": _FIREWALL,
    "maxconn": "limit the connections at the servers",
    "fullconn": "limit the connections at the servers",
    "log": _COUNTED,
    "option tcplog": _COUNTED,
    "option httplog": _COUNTED,
    "log-format": _COUNTED,
    "stats enable": "the page of `stats.bind` has what is up (docs/stats.md)",
    "source": "the proxy connects from the address of the route",
    "option transparent": "use `forward: nat` for a service whose backends see the client",
}
# A time of HAProxy → ours, and what to say if it differs between services.
_IDLE = (("timeouts", "established"), "a connection may be idle for one time")
_CONNECT = (("timeouts", "connect"), "a backend may take one time to accept")
_OLD = {"contimeout": "connect", "clitimeout": "client", "srvtimeout": "server"}


def convert(text: str) -> Draft:
    """The services of a haproxy.cfg: one for each frontend and address in `mode tcp`."""
    draft = Draft()
    sections = haproxy_reader.read(text, draft)
    every = list(proxies(sections, draft))
    if not draft.problems:
        _HaproxyConversion(draft, text, every).run(sections)
    return draft


class _HaproxyConversion:
    def __init__(self, draft: Draft, text: str, every: list[HaproxyProxy]) -> None:
        self._draft = draft
        self._writer = ServiceWriter(draft, text)
        self._proxies = every
        self._backends = {
            each.name: each for each in every if each.section.kind in ("backend", "listen")
        }
        self._pools: dict[str, HaproxyPool] = {}
        self._idle: list[Given] = []
        self._connect: list[Given] = []
        self._kept: list[Given] = []
        self._inherited: set[Mark] = set()

    def run(self, sections: list[HaproxySection]) -> None:
        """Convert the proxies, and say what is left out."""
        for proxy in self._proxies:
            if proxy.section.kind != "backend" and not self._writer.full:
                self._frontend(proxy)
        for proxy in self._proxies:
            if proxy.section.kind == "backend" and proxy.name not in self._pools:
                what = f"no frontend in `mode tcp` uses the backend {shown(proxy.name)}"
                self._draft.note(proxy.section.mark, f"{what}; it is left out")
        for section in sections:
            if section.kind in ("global", "defaults"):
                self._settings(section)
            elif section.kind not in PROXIES:
                what = f"the section {ticked(str(section))} has no counterpart"
                self._draft.note(section.mark, f"{what}; leave it out")
        if not self._writer.count and not self._draft.problems:
            what = "there is no frontend or listen in `mode tcp` that could be taken over"
            remedy = "`mode http` works on requests: it stays with HAProxy, or becomes `mode tcp`"
            self._draft.mistake(("services",), Mark(1, 1), f"{what}; {remedy}")
        longest(self._draft, _IDLE[0], self._idle, _IDLE[1])
        longest(self._draft, _CONNECT[0], self._connect, _CONNECT[1])
        path = ("timeouts", "affinity")
        longest(self._draft, path, self._kept, "a client is kept for one time")

    def _frontend(self, proxy: HaproxyProxy) -> None:
        reason = self._why_not(proxy)
        target = proxy.last("default_backend") or self._unconditional(proxy)
        name = target.word(1) if target is not None else proxy.name
        if reason:
            self._draft.note(proxy.section.mark, f"{ticked(str(proxy.section))}{reason}")
            return
        backend = self._backends.get(name)
        if target is not None and backend is None:
            what = f"there is no backend {shown(name)}"
            self._draft.mistake(("services",), target.mark, f"{what}; add it, or correct the name")
        if backend is None:
            if target is None:
                what = f"{ticked(str(proxy.section))} has no `default_backend`, so it is left out"
                self._draft.note(proxy.section.mark, f"{what}; name a backend with servers")
            return
        first = name not in self._pools
        if first:
            self._pools[name] = HaproxyPool(backend)
        pool = self._pools[name]
        reason = pool.why_not()
        if reason:
            self._draft.note(proxy.section.mark, f"{ticked(str(proxy.section))}{reason}")
            return
        self._services(proxy, pool, first)

    def _services(self, proxy: HaproxyProxy, pool: HaproxyPool, first: bool) -> None:
        """Add a service for each address of ``proxy``; ``first``: its pool has none yet."""
        places: dict[IPAddress | str, list[HaproxyBind]] = {}
        for line in proxy.all("bind"):
            for bind in binds(line):
                if isinstance(bind, tuple):
                    self._draft.note(*bind)
                elif "ssl" in bind.others:
                    what = "this `bind` ends TLS; let the servers do that, remove `ssl`"
                    self._draft.note(bind.mark, f"{what}, and import again")
                else:
                    places.setdefault(bind.vip, []).append(bind)
        if not places:
            what = f"{ticked(str(proxy.section))} has no address that could be taken over"
            self._draft.note(proxy.section.mark, f"{what}; add `bind ADDRESS:PORT`")
        for index, (vip, every) in enumerate(places.items()):
            ports = list(dict.fromkeys(bind.port for bind in every))
            service = FoundService(every[0].mark, proxy.name, vip, "tcp", ports)
            comment = "HAProxy connects by itself"
            service.keys["forward",] = Given("proxy", every[0].mark, comment)
            pool.apply(service, self._kept)
            if index == 0:
                self._unmapped(service, proxy, every)
                if pool.backend is not proxy and first:
                    self._unmapped(service, pool.backend, [])
            else:
                service.notes = []
            self._times(proxy, pool.backend)
            self._writer.write(service)

    def _unmapped(
        self, service: FoundService, proxy: HaproxyProxy, every: list[HaproxyBind]
    ) -> None:
        """Note the lines of ``proxy``, and parameters of its binds, without a counterpart."""
        for bind in every:
            for key, value in bind.others.items():
                if key in ("v4v6", "v6only", "name", "id", "transparent"):
                    continue
                said = f"{key} {value}".strip()
                remedy = "leave it out"
                if key == "accept-proxy":
                    remedy = "a header from the clients is not read, and goes to the backends"
                service.note(bind.mark, f"{ticked(said)} of `bind` has no counterpart; {remedy}")
        self._inherited |= {line.mark for line in proxy.defaults}
        for line in proxy.section.lines:
            message = _unmapped(line)
            if message:
                service.note(line.mark, message)

    def _times(self, frontend: HaproxyProxy, backend: HaproxyProxy) -> None:
        idle: list[Given] = []
        for proxy, name in ((frontend, "client"), (backend, "server"), (backend, "tunnel")):
            given = self._time(proxy, name)
            if given is not None and name == "tunnel":
                idle = [given]  # it replaces the others, once both sides have sent
            elif given is not None:
                idle.append(given)
        if idle:
            self._idle.append(max(idle, key=lambda given: int(given.value)))
        connect = self._time(backend, "connect")
        if connect is not None:
            self._connect.append(connect)

    def _time(self, proxy: HaproxyProxy, name: str) -> Given | None:
        line = proxy.last("timeout", name)
        text = line.word(2) if line is not None else ""
        if line is None:
            old = next(old for old, new in (*_OLD.items(), (name, name)) if new == name)
            line = proxy.last(old)
            text = line.word(1) if line is not None else ""
        if line is None:
            return None
        try:
            seconds = math.ceil(milliseconds(text) / 1000)
        except ValueError as error:
            self._draft.mistake(("timeouts",), line.mark, str(error))
            return None
        return Given(seconds, line.mark, f"timeout {name}") if seconds else None

    def _unconditional(self, proxy: HaproxyProxy) -> HaproxyLine | None:
        lines = (line for line in proxy.all("use_backend") if len(line.words) == 2)
        return next(lines, None)

    def _why_not(self, proxy: HaproxyProxy) -> str:
        """Why ``proxy`` cannot be taken over, as the end of a sentence; empty if it can."""
        if proxy.mode != "tcp":
            what = f" is `mode {proxy.mode}`, which works on requests, and is left out"
            if proxy.mode == "http" and proxy.last("stats", "enable") is not None:
                return f"{what}; the page of `stats.bind` has what is up (docs/stats.md)"
            return f"{what}; a layer-4 balancer passes bytes: make it `mode tcp`, or keep it"
        if proxy.last("disabled") is not None:
            return " is `disabled`, and is left out; remove the line if it is needed"
        chosen = proxy.all("use_backend")
        if chosen and proxy.last("default_backend") is None and self._unconditional(proxy) is None:
            return f" chooses its backend by a condition, and is left out; {_SNI}"
        return ""

    def _settings(self, section: HaproxySection) -> None:
        """One note for all that a section `global` or `defaults` has and this has not."""
        lines = section.lines
        if section.kind == "defaults":
            lines = [line for line in lines if line.mark in self._inherited and _unmapped(line)]
        else:
            lines = [line for line in lines if line.keyword not in ("setenv", "presetenv")]
        if not lines:
            return
        named = [f"`{keyword_of(line.words)}` (line {line.mark.line})" for line in lines[:30]]
        more = f" and {len(lines) - 30} more" if len(lines) > 30 else ""
        what = f"of `{section.kind}`, these have no counterpart: {', '.join(named)}{more}"
        remedy = "leave them out"
        if section.kind == "global":
            remedy = "`user`, `chroot`, `workers` and `stats` are the settings of that kind here"
        self._draft.note(section.mark, f"{what}; {remedy}")


def _unmapped(line: HaproxyLine) -> str:
    """What to say about a line without a counterpart; empty if it has one."""
    second = line.word(1)
    known = line.keyword in _KNOWN
    known |= line.keyword == "option" and second in _KNOWN_OPTIONS
    known |= line.keyword == "timeout" and second in _KNOWN_TIMEOUTS
    known |= line.words[:2] in (("no", "option"), ("no", "log"))
    said = ticked(keyword_of(line.words) if line.keyword == "stats" else str(line))  # no passwords
    if line.keyword == "use_backend" and len(line.words) > 2:
        return f"{said} chooses by a condition; {_SNI}"
    if known:
        return ""
    remedy = _REMEDIES.get(f"{line.keyword} {second}") or _REMEDIES.get(line.keyword)
    if line.keyword.startswith(("http-", "cookie", "rspadd", "reqadd", "errorfile", "compression")):
        remedy = "it works on requests: leave it out"
    return f"{said} has no counterpart; {remedy or 'leave it out'}"
