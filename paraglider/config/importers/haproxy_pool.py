"""The servers of a backend of ``haproxy.cfg``, as the pool of a service.

Lives here: ``HaproxyPool``.
Rules: as HAProxy's configuration manual, sections 4 and 5.2. A server that is `disabled` stays with
weight 0; one for the time when all others are down (`backup`) is left out. Without
`on-marked-down shutdown-sessions` a connection outlives the health of its server.
"""

from __future__ import annotations

import math

from paraglider.config.importers.draft import number
from paraglider.config.importers.haproxy_checks import add_check
from paraglider.config.importers.haproxy_proxy import HaproxyProxy
from paraglider.config.importers.haproxy_server import HaproxyServer, milliseconds, servers
from paraglider.config.importers.services import FoundBackend, FoundService, Given
from paraglider.config.wording import shown, ticked

_PROXY = {
    "send-proxy": "v1",
    "send-proxy-v2": "v2",
    "send-proxy-v2-ssl": "v2",
    "send-proxy-v2-ssl-cn": "v2",
}
_KNOWN = {
    *("check", "port", "inter", "rise", "fall", "weight", "backup", "disabled", "enabled", "id"),
    *("send-proxy", "send-proxy-v2", "slowstart", "on-marked-down", "check-ssl", "stick", "ssl"),
    *("init-addr", "check-send-proxy", "verify"),
}
_REMEDIES = {
    "maxconn": "limit the connections at the server",
    "maxqueue": "connections do not wait here: a backend that refuses is passed over",
    "send-proxy-v2-ssl": "the header has no part about TLS",
    "send-proxy-v2-ssl-cn": "the header has no part about TLS",
    "agent-check": "set the weight by `paraglider set`, or by the API (docs/control.md)",
    "resolvers": "names of backends are not looked up again: write addresses, or SRV records",
    "fastinter": "a check is repeated after `interval`",
    "downinter": "a check is repeated after `interval`",
    "addr": "the backend itself is checked",
    "source": "the proxy connects from the address of the route",
}
_BY_TURNS = ("roundrobin", "static-rr")


class HaproxyPool:
    """The servers of ``backend``."""

    def __init__(self, backend: HaproxyProxy) -> None:
        self.backend = backend
        every = list(servers(backend.servers))
        self._servers = [each for each in every if isinstance(each, HaproxyServer)]
        self._without = [each for each in every if not isinstance(each, HaproxyServer)]

    def why_not(self) -> str:
        """Why the pool cannot be taken over, as the end of a sentence; empty if it can."""
        if self.backend.mode != "tcp":
            what = f" leads to a backend in `mode {self.backend.mode}`, and is left out"
            return f"{what}; make both `mode tcp`, or keep them"
        secured = next((each for each in self._servers if "ssl" in each.parameters), None)
        if secured is not None:
            what = f" begins TLS towards its servers (line {secured.mark.line}), and is left out"
            return f"{what}; let the clients do that, remove `ssl`, and import again"
        return ""

    def apply(self, service: FoundService, kept: list[Given]) -> None:
        """Add the servers and their settings; ``kept`` gets the time that a client is kept."""
        used = [each for each in self._servers if "backup" not in each.parameters]
        for server in self._servers:
            if "backup" in server.parameters:
                what = f"server {shown(server.name)} is for the time when all others are down"
                service.note(
                    server.mark, f"{what}; no backend is a spare one here, so it is left out"
                )
        for mark, message in self._without:
            service.note(mark, f"{message}; the server is left out")
        for line in self.backend.section.lines:
            if line.keyword == "server-template":
                what = f"{ticked(str(line))} looks its servers up"
                service.note(line.mark, f"{what}; write addresses, or `backends: {{dns: …}}`")
        for server in used:
            service.backends.append(_backend(server))
            self._unmapped(service, server)
        self._strategy(service)
        self._affinity(service, kept)
        self._common(service, used)
        add_check(service, self.backend, used)

    def _strategy(self, service: FoundService) -> None:
        weights = {backend.weight for backend in service.backends} - {0}
        turns = "wrr" if len(weights) > 1 else "rr"
        line = self.backend.last("balance")
        if line is None:
            service.keys["strategy",] = Given(turns, service.mark, "by turns: HAProxy's default")
            return
        algorithm = line.word(1)
        strategy, note = turns, ""
        if algorithm == "leastconn":
            strategy = "weighted"
        elif algorithm == "source" or line.words[1:3] == ("hash", "src"):
            strategy = "source"
        elif algorithm == "first":
            strategy, note = "weighted", "the servers are not filled one after another"
        elif algorithm.startswith("random"):
            strategy, note = "weighted", "the server with the fewest connections is taken"
        elif algorithm not in _BY_TURNS:
            note = f"it looks into requests; {strategy} takes turns"
        comment = algorithm if not note and strategy != algorithm else ""
        service.keys["strategy",] = Given(strategy, line.mark, comment)
        if note:
            what = f"{ticked(str(line))} has no counterpart"
            service.note(line.mark, f"{what}; {note}", "strategy")

    def _affinity(self, service: FoundService, kept: list[Given]) -> None:
        table, stick = self.backend.last("stick-table"), self.backend.last("stick")
        if stick is None:
            if table is not None:
                what = f"{ticked(str(table))} is used by no `stick on src`"
                service.note(table.mark, f"{what}; leave it out")
            return
        if "src" not in stick.words:
            what = f"{ticked(str(stick))} has no counterpart"
            remedy = "only a client's address can keep its backend (`affinity: client`)"
            service.note(stick.mark, f"{what}; {remedy}", "affinity")
            return
        service.keys["affinity",] = Given("client", stick.mark, str(stick)[:60])
        words = table.words if table is not None else ()
        expire = words[words.index("expire") + 1 :][:1] if "expire" in words else ()
        if table is None or not expire:
            what = "clients are kept for 300 s after their last connection"
            service.note(stick.mark, f"{what}; write another `timeouts.affinity`", "affinity")
            return
        try:
            seconds = math.ceil(milliseconds(expire[0]) / 1000)
        except ValueError as error:
            service.note(table.mark, str(error), "affinity")
            return
        kept.append(Given(seconds, table.mark, f"expire {expire[0]}"))

    def _common(self, service: FoundService, used: list[HaproxyServer]) -> None:
        """What a service has for all its backends, and servers here may have each."""
        headers = {server.mark: _header(server) for server in used}
        sent = next((header for header in headers.values() if header), "")
        if sent:
            first = next(mark for mark, header in headers.items() if header)
            service.keys["proxy_protocol",] = Given(sent, first, "send-proxy")
        for server in used:
            if sent and headers[server.mark] != sent:
                what = f"server {shown(server.name)} gets another PROXY header, or none"
                service.note(
                    server.mark, f"{what}; all backends of a service get {sent}", "proxy_protocol"
                )
        slow = next((each for each in used if "slowstart" in each.parameters), None)
        if slow is not None:
            try:
                seconds = milliseconds(slow.parameters["slowstart"]) / 1000
                service.keys["slow_start",] = Given(math.ceil(seconds), slow.mark, "slowstart")
            except ValueError as error:
                service.note(slow.mark, str(error), "slow_start")
        checked = [each for each in used if "check" in each.parameters]
        if checked and not any("on-marked-down" in each.parameters for each in checked):
            comment = "no `on-marked-down shutdown-sessions`"
            service.keys["on_down",] = Given("keep", checked[0].mark, comment)

    def _unmapped(self, service: FoundService, server: HaproxyServer) -> None:
        for key, value in server.parameters.items():
            if key not in _KNOWN:
                said = f"{key} {value}".strip()
                what = f"{ticked(said)} of server {shown(server.name)} has no counterpart"
                service.note(server.mark, f"{what}; {_REMEDIES.get(key, 'leave it out')}")


def _header(server: HaproxyServer) -> str:
    """The version of the PROXY header that ``server`` gets, or nothing."""
    return next((_PROXY[key] for key in server.parameters if key in _PROXY), "")


def _backend(server: HaproxyServer) -> FoundBackend:
    weight = number(server.parameters.get("weight", "1"))
    disabled = "disabled" in server.parameters and "enabled" not in server.parameters
    comment = server.name[:40] if server.name.isprintable() else ""
    if disabled:
        comment = f"{comment}, disabled"
    return FoundBackend(server.mark, server.host, server.port, 0 if disabled else weight, comment)
