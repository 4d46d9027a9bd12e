"""Imports the block `stream` of ``nginx.conf``.

Lives here: ``LOOKS``, ``convert``.
Rules: names and defaults as nginx's modules of `stream` have them. nginx connects by itself, so TCP
becomes `forward: proxy`; a datagram's source is nginx too, so UDP becomes `forward: offload` with
`snat`; with `proxy_bind $remote_addr transparent` both are `nat`. A server that ends TLS, or
chooses by a variable, is left out, with a note.
"""

from __future__ import annotations

import re

from paraglider.config.diagnostics import Mark
from paraglider.config.importers import nginx_reader
from paraglider.config.importers.blocks import Statement
from paraglider.config.importers.draft import Draft
from paraglider.config.importers.endpoints import host_and_port, listening, port_number
from paraglider.config.importers.includes import Includes
from paraglider.config.importers.nginx_upstream import Upstream, seconds, upstream_of
from paraglider.config.importers.services import (
    FoundBackend,
    FoundService,
    Given,
    ServiceWriter,
    longest,
)
from paraglider.config.types import IPAddress
from paraglider.config.wording import shown, ticked

LOOKS = re.compile(
    r"\s*(stream|events|http)\s*\{|\s*upstream\s+[^\s:{;]+\s*\{|\s*server\s*\{"
    r"|\s*(worker_processes|worker_connections|load_module|proxy_pass|proxy_timeout)\s+[^=:]*;"
)
# Directives with a counterpart, or that are not about the connections.
_KNOWN = {
    *("listen", "proxy_pass", "proxy_timeout", "proxy_connect_timeout", "proxy_protocol"),
    *("proxy_bind", "proxy_next_upstream", "upstream", "server"),
}
# What has no counterpart → what to do instead.
_REMEDIES = {
    "map": "a service has one pool: give each name its own VIP",
    "split_clients": "give the backends weights",
    "geo": "a service has one pool: give each network its own VIP",
    "ssl_preread": "the name in TLS is not read: give each name its own VIP",
    "allow": "allow networks in the host's firewall",
    "deny": "deny networks in the host's firewall",
    "access_log": "connections are counted, not logged (docs/metrics.md)",
    "log_format": "connections are counted, not logged (docs/metrics.md)",
    "limit_conn": "limit connections in the host's firewall",
    "proxy_ssl": "connections to the backends are not encrypted: let the clients do it",
    "health_check": "write a `check` (docs/health.md)",
    "resolver": "names are not looked up for backends by address: write addresses, or SRV records",
}
_TIMES = {
    "proxy_timeout": (("timeouts", "established"), "a connection may be idle for one time"),
    "proxy_connect_timeout": (("timeouts", "connect"), "a backend may take one time to accept"),
}
_LISTEN_FLAGS = {"reuseport", "bind", "udp", "deferred", "so_keepalive", "fastopen", "backlog"}
_LISTEN_FLAGS |= {"rcvbuf", "sndbuf", "ipv6only", "setfib", "accept_filter"}


def convert(text: str, includes: Includes | None = None) -> Draft:
    """The services of an nginx.conf; ``includes`` reads its included files."""
    draft = Draft()
    statements = nginx_reader.read(text, includes or Includes(), draft)
    if not draft.problems:
        _NginxConversion(draft, text).run(statements)
    return draft


class _NginxConversion:
    def __init__(self, draft: Draft, text: str) -> None:
        self._draft = draft
        self._writer = ServiceWriter(draft, text)
        self._upstreams: dict[str, Statement] = {}
        self._used: set[str] = set()
        self._pools: dict[str, Upstream] = {}
        self._times: dict[str, list[Given]] = {name: [] for name in _TIMES}

    def run(self, statements: list[Statement]) -> None:
        """Convert every block `stream`, or what is a part of one."""
        for each in statements:
            if each.name == "stream":
                self._stream(each)
            elif each.name == "http":
                what = "`http` works on requests, and a layer-4 balancer passes bytes"
                self._draft.note(each.mark, f"{what}; it stays with nginx, or behind this balancer")
            elif each.name not in ("events", "upstream", "server", *_KNOWN):
                self._draft.note(each.mark, f"{ticked(str(each))} is nginx's own; leave it out")
        loose = [each for each in statements if each.name in ("upstream", "server")]
        if loose:
            self._stream(Statement(loose[0].mark, "stream", (), loose))
        if not self._writer.count and not self._draft.problems:
            what = "there is no server of `stream` that could be taken over"
            remedy = "import the file that has the block `stream`; `http` cannot be taken over"
            self._draft.mistake(("services",), Mark(1, 1), f"{what}; {remedy}")
        for name, (path, what) in _TIMES.items():
            longest(self._draft, path, self._times[name], what)

    def _stream(self, stream: Statement) -> None:
        self._upstreams.update((each.word, each) for each in stream.all("upstream"))
        for each in stream.inner:
            if each.name == "server" and not self._writer.full:
                self._server(each, stream)
            elif each.name not in _KNOWN:
                self._draft.note(each.mark, _without(each))
        for name, each in self._upstreams.items():
            if name not in self._used:
                what = f"no server of `stream` uses the upstream {shown(name)}"
                self._draft.note(each.mark, f"{what}; it is left out")
                self._used.add(name)

    def _server(self, server: Statement, stream: Statement) -> None:
        """The services of one `server`: one for each address and protocol that it listens on."""
        if any(each.name in ("location", "server_name", "root") for each in server.inner):
            what = "this `server` is one of `http`, which works on requests"
            self._draft.note(server.mark, f"{what}; it stays with nginx, or behind this balancer")
            return
        target = server.last("proxy_pass")
        reason = _why_not(server, target)
        if reason or target is None:
            self._used.add(target.word if target is not None else "")
            self._draft.note(server.mark, f"this `server` is left out: {reason}")
            return
        places: dict[tuple[str, IPAddress | str], list[tuple[Mark, int | str]]] = {}
        for listen in server.all("listen"):
            place = self._listen(listen)
            if place is not None:
                protocol, address, port = place
                places.setdefault((protocol, address), []).append((listen.mark, port))
        pool = self._pool(target)
        if not places:
            what = "this `server` listens nowhere that could be taken over"
            self._draft.note(server.mark, f"{what}; add `listen PORT`")
        for index, ((protocol, address), ports) in enumerate(places.items()):
            service = FoundService(
                ports[0][0],
                f"{target.word.partition(':')[0]}-{protocol}",
                address,
                protocol,
                [port for _, port in ports],
            )
            self._forward(service, server, stream)
            pool.apply(service)
            if index == 0:
                for each in server.inner:
                    if each.name not in _KNOWN:
                        service.note(each.mark, _without(each))
            for name in _TIMES:
                found = server.last(name) or stream.last(name)
                if found is not None:
                    self._times[name].append(Given(seconds(found.word), found.mark, name))
            self._writer.write(service)

    def _pool(self, target: Statement) -> Upstream:
        """The upstream that ``target`` names, or one of the single address that it has."""
        self._used.add(target.word)
        known = self._upstreams.get(target.word)
        if known is not None:
            if target.word not in self._pools:
                self._pools[target.word] = upstream_of(known)
            return self._pools[target.word]
        try:
            address, port = host_and_port(target.word)
        except ValueError as error:
            self._draft.mistake(("services",), target.mark, str(error))
            address, port = target.word, None
        return Upstream([FoundBackend(target.mark, address, port)])

    def _listen(self, listen: Statement) -> tuple[str, IPAddress | str, int | str] | None:
        """The protocol, address and port of `listen`; None, with a note, if it has none."""
        text = listen.word
        if text.startswith("unix:"):
            what = f"{shown(text)} is a socket of this host"
            self._draft.note(listen.mark, f"{what}; a service has an address, so it is left out")
            return None
        for flag in listen.words[1:]:
            if flag == "proxy_protocol":
                what = "`listen … proxy_protocol`: a header from the clients is not read"
                self._draft.note(listen.mark, f"{what}; it goes to the backends as it is")
            elif flag.partition("=")[0] not in _LISTEN_FLAGS:
                self._draft.note(listen.mark, f"{ticked(flag)} has no counterpart; leave it out")
        address, colon, port = text.rpartition(":")
        if not colon or text.endswith("]"):
            address, port = ("", text) if re.fullmatch(r"[\d-]+", text) else (text, "")
        first, dash, last = port.partition("-")
        try:
            value: int | str = port_number(first)
            if dash:
                value = f"{value}-{port_number(last)}"
        except ValueError as error:
            self._draft.note(listen.mark, f"{error}; without a port it is left out")
            return None
        protocol = "udp" if "udp" in listen.words[1:] else "tcp"
        return protocol, listening(address), value

    def _forward(self, service: FoundService, server: Statement, stream: Statement) -> None:
        bound = server.last("proxy_bind") or stream.last("proxy_bind")
        header = server.last("proxy_protocol") or stream.last("proxy_protocol")
        tcp = service.protocol == "tcp"
        if bound is not None and "transparent" in bound.words:
            service.keys["forward",] = Given("nat", bound.mark, "transparent")
        elif tcp:
            service.keys["forward",] = Given("proxy", service.mark, "nginx connects by itself")
        else:
            service.keys["forward",] = Given("offload", service.mark, "UDP")
            source = "eth0" if bound is None else bound.word
            where = service.mark if bound is None else bound.mark
            if bound is None:
                service.keys["snat", "interface"] = Given(
                    source, where, "the backends see nginx now"
                )
                what = "the backends see the address of this host, as with nginx"
                service.note(where, f"{what}; write the interface towards them", "snat")
            else:
                service.keys["snat",] = Given(source, where, "proxy_bind")
        if tcp and bound is not None and "transparent" not in bound.words and bound.word != "off":
            what = f"{ticked(str(bound))}: the proxy connects from the address of the route"
            service.note(bound.mark, f"{what}; leave it out")
        if header is not None and header.word == "on":
            if tcp and service.keys["forward",].value == "proxy":
                service.keys["proxy_protocol",] = Given("v1", header.mark, "proxy_protocol on")
            else:
                what = "`proxy_protocol on` has no counterpart for UDP, or with `transparent`"
                service.note(header.mark, f"{what}; the backends see the client's address")


def _without(each: Statement) -> str:
    """What to say about a directive without a counterpart."""
    remedy = _REMEDIES.get(each.name, "leave it out")
    return f"{ticked(str(each))} has no counterpart; {remedy}"


def _why_not(server: Statement, target: Statement | None) -> str:
    """Why a `server` cannot be taken over; empty if it can. "what; remedy"."""
    if target is None:
        return "it has no `proxy_pass`; nothing is balanced here"
    if "$" in target.word:
        what = f"{shown(target.word)} is chosen for each connection"
        return f"{what}; give each value its own VIP, and a `server` with one `proxy_pass`"
    if target.word.startswith("unix:"):
        return f"{shown(target.word)} is a socket of this host; a backend has an address"
    if any("ssl" in listen.words[1:] for listen in server.all("listen")):
        return "it ends TLS; let the backends do that, remove `ssl`, and import again"
    secured = server.last("proxy_ssl")
    if secured is not None and secured.word == "on":
        return "it begins TLS towards the backends; let the clients do that, and import again"
    return ""
