"""The health checks of HAProxy as checks of ours.

Lives here: ``add_check``.
Rules: as HAProxy's configuration manual, sections 4.2 and 5.2: a server is checked if it has
`check`; the check is a connection unless an option of the backend says more. Here a service has one
check for all its backends: that of the first server with one.
"""

from __future__ import annotations

import re
from typing import Any

from paraglider.config.importers.draft import number
from paraglider.config.importers.endpoints import port_number
from paraglider.config.importers.haproxy_proxy import HaproxyProxy
from paraglider.config.importers.haproxy_reader import HaproxyLine
from paraglider.config.importers.haproxy_server import HaproxyServer, milliseconds
from paraglider.config.importers.services import FoundService, Given
from paraglider.config.wording import shown, ticked

_OTHER_CHECKS = {
    *("ssl-hello-chk", "mysql-check", "pgsql-check", "redis-check", "smtpchk", "ldap-check"),
    *("spop-check", "external-check"),
}
_HOST = re.compile(r"host:\s*([A-Za-z0-9_.:\[\]-]+)", re.IGNORECASE)
# What is compared between servers, with HAProxy's defaults.
_COMPARED = {"inter": "2s", "rise": "2", "fall": "3", "port": None, "addr": None}
_INTERVAL = 2000.0  # default of `inter` in milliseconds


def add_check(service: FoundService, backend: HaproxyProxy, servers: list[HaproxyServer]) -> None:
    """Add the check of ``servers``, which are those of ``backend``."""
    checked = [server for server in servers if "check" in server.parameters]
    if not checked:
        return
    first = checked[0]
    for server in servers:
        if "check" not in server.parameters:
            what = f"server {shown(server.name)} has no `check`, others of its service have"
            service.note(server.mark, f"{what}; the check is for all of them", "check")
        elif _compared(first) != _compared(server):
            what = f"the check of server {shown(server.name)} differs from that of the first"
            service.note(server.mark, f"{what}; a service has one check for all", "check")
    _HaproxyCheck(service, backend, first).add()


def _compared(server: HaproxyServer) -> list[str | None]:
    return [server.parameters.get(key, default) for key, default in _COMPARED.items()]


class _HaproxyCheck:
    """One check in the making."""

    def __init__(self, service: FoundService, backend: HaproxyProxy, server: HaproxyServer) -> None:
        self._service = service
        self._backend = backend
        self._server = server

    def add(self) -> None:
        """Add the keys of the check."""
        kinds = ("httpchk", "tcp-check", *sorted(_OTHER_CHECKS))
        line = self._backend.last_option(kinds)
        chosen = line.word(1) if line is not None else ""
        kind, parameters = "tcp", self._server.parameters
        if chosen == "httpchk":
            kind = "https" if "check-ssl" in parameters else "http"
        mark = line.mark if line is not None else self._server.mark
        self._service.keys["check", "type"] = Given(kind, mark)
        for other in filter(None, map(self._backend.option, kinds)):
            if line is not None and other != line:
                what = f"{ticked(str(other))} is replaced by {ticked(str(line))}"
                self._note(other, f"{what}; leave it out", "type")
        if line is not None and chosen == "httpchk":
            self._http(line)
        elif line is not None and chosen == "tcp-check":
            self._tcp()
        elif line is not None:
            what = f"{ticked(str(line))} has no counterpart"
            remedy = "only the connection is checked; for more use `type: exec`"
            self._note(line, f"{what}; {remedy}", "type")
        self._times()
        for key in ("rise", "fall"):
            if key in parameters:
                self._set(number(parameters[key]), key)
        if "port" in parameters:
            try:
                self._set(port_number(parameters["port"]), "port")
            except ValueError as error:
                self._service.note(self._server.mark, str(error), "check")

    def _set(self, value: Any, *path: str, comment: str = "") -> None:
        self._service.keys["check", *path] = Given(value, self._server.mark, comment)

    def _note(self, line: HaproxyLine, message: str, *path: str) -> None:
        self._service.note(line.mark, message, "check", *path)

    def _times(self) -> None:
        """`inter`, and the time for a whole check: `timeout check`, or without it `inter`."""
        given = self._server.parameters.get("inter")
        limit = self._backend.last("timeout", "check")
        try:
            interval = milliseconds(given) if given is not None else _INTERVAL
            timeout = milliseconds(limit.word(2)) if limit is not None else interval
        except ValueError as error:
            self._service.note(self._server.mark, str(error), "check")
            return
        if given is not None:
            self._set(_seconds(interval), "interval", comment=f"inter {given}")
        comment = "as `inter`" if limit is None else "timeout check"
        mark = self._server.mark if limit is None else limit.mark
        self._service.keys["check", "timeout"] = Given(_seconds(timeout), mark, comment)

    def _tcp(self) -> None:
        for line in self._backend.all("tcp-check"):
            plain = line.word(1) == "connect"
            port = line.words[line.words.index("port") + 1 :] if "port" in line.words else ()
            if plain and port and port[0].isdigit():
                self._set(number(port[0]), "port")
                plain = len(line.words) == 4
            elif plain:
                plain = len(line.words) == 2
            if not plain:
                what = f"{ticked(str(line))} has no counterpart"
                remedy = "only the connection is checked; for more use `type: exec`"
                self._note(line, f"{what}; {remedy}", "type")

    def _http(self, line: HaproxyLine) -> None:
        words = line.words[2:]
        method, uri = ("OPTIONS", words[0] if words else "/")
        if len(words) > 1:
            method, uri = words[0], words[1]
        host = _HOST.search(" ".join(words[2:]))
        if host is None and len(words) > 3:
            host = re.fullmatch(r"([A-Za-z0-9_.:\[\]-]+)", words[3])
        name = host[1] if host is not None else ""
        for send in self._backend.all("http-check", "send"):
            named = dict(zip(send.words, send.words[1:], strict=False))
            method, uri = named.get("meth", method), named.get("uri", uri)
            if "hdr" in send.words and named["hdr"].lower() == "host":
                name = send.words[send.words.index("hdr") + 2 :][:1][0] if len(send.words) else name
        if method not in ("GET", "HEAD"):
            what = f"the check asks by GET, HAProxy by {method}"
            self._note(line, f"{what}; see that the servers answer a GET of it", "path")
        if uri != "*":
            self._service.keys["check", "path"] = Given(uri, line.mark)
        if name:
            self._service.keys["check", "host"] = Given(name, line.mark)
        for each in self._backend.all("http-check"):
            if each.word(1) == "expect":
                self._expect(each)
            elif each.word(1) != "send":
                self._note(each, f"{ticked(str(each))} has no counterpart; leave it out")

    def _expect(self, line: HaproxyLine) -> None:
        words = line.words[2:]
        kind = words[0] if words else ""
        value = words[1] if len(words) > 1 else ""
        place = ("check", "expect")
        if kind == "status" and value:
            codes = [number(code) for code in value.split(",")]
            wanted = codes if len(codes) > 1 else codes[0]
            self._service.keys[(*place, "status")] = Given(wanted, line.mark)
        elif kind == "string" and value:
            self._service.keys[(*place, "body")] = Given(re.escape(value), line.mark)
        elif kind == "rstring" and value:
            self._service.keys[(*place, "body")] = Given(value, line.mark)
        elif kind == "rstatus" and (found := _statuses(value)):
            self._service.keys[(*place, "status")] = Given(found, line.mark, value)
        else:
            remedy = "`expect` has status codes and a text of the body"
            self._note(line, f"{ticked(str(line))} has no counterpart; {remedy}")


def _statuses(pattern: str) -> list[str]:
    """The ranges of status codes of a pattern such as `^[23]` or `(2|3)[0-9][0-9]`."""
    rest = r"(?:\[0-9\]|\\d|\.)*(?:\{2\})?\$?\)?"
    match = re.fullmatch(rf"\^?\(?(?:\[([1-5]+)\]|\(?([1-5](?:\|[1-5])*)\)?){rest}", pattern)
    if match is None:
        return []
    digits = (match[1] or match[2]).replace("|", "")
    return [f"{digit}00-{digit}99" for digit in dict.fromkeys(digits)]


def _seconds(given: float) -> int | float:
    """Milliseconds as seconds, without a fraction of .0."""
    found = given / 1000
    return int(found) if found == int(found) else found
