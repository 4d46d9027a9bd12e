"""The checkers of ``keepalived`` as checks of ours.

Lives here: ``add_check``.
Rules: as keepalived.conf(5): a server is down after `retry` further checks failed, and up after one
passed; a virtual server's settings are the defaults of its servers, and theirs those of the
checkers. Here a service has one check for all its backends: that of the first server.
"""

from __future__ import annotations

import math
import shlex
from typing import Any

from paraglider.config.diagnostics import Path
from paraglider.config.importers.blocks import Statement
from paraglider.config.importers.draft import number
from paraglider.config.importers.endpoints import port_number
from paraglider.config.importers.lvs import LvsService
from paraglider.config.importers.services import Given
from paraglider.config.wording import shown, ticked

# The checker → our probe, and keepalived's default of `retry`.
CHECKERS = {
    "TCP_CHECK": ("tcp", 1),
    "HTTP_GET": ("http", 1),
    "SSL_GET": ("https", 1),
    "SMTP_CHECK": ("tcp", 1),
    "DNS_CHECK": ("tcp", 3),
    "MISC_CHECK": ("exec", 0),
    "PING_CHECK": ("icmp", 1),
    "UDP_CHECK": ("icmp", 1),
    "BFD_CHECK": ("icmp", 1),
    "FILE_CHECK": ("icmp", 1),
}
_NEAREST = {
    "SMTP_CHECK": "only the connection is checked here, no greeting; for that use `type: exec`",
    "DNS_CHECK": "only a connection over TCP is checked here; for a query use `type: exec`",
    "UDP_CHECK": "only an echo is checked here; for a datagram use `type: exec`",
    "BFD_CHECK": "only an echo is checked here; keep BFD for the routes",
    "FILE_CHECK": "only an echo is checked here; to read a file use `type: exec`",
}
#: seconds that keepalived waits between checks, and for a connection, by default
_INTERVAL, _TIMEOUT = 60, 5
_KNOWN = {
    *("connect_port", "connect_timeout", "retry", "nb_get_retry", "delay_loop", "url"),
    *("misc_path", "misc_timeout", "virtualhost", "enable_sni", "fast_recovery", "tls_compliant"),
}


def add_check(service: LvsService, virtual: Statement, servers: list[Statement]) -> None:
    """Add the check of ``servers``, which are those of the virtual server, to ``service``."""
    checkers = [[each for each in server.inner if each.name in CHECKERS] for server in servers]
    with_one = [index for index, each in enumerate(checkers) if each]
    if not with_one:
        return
    first = with_one[0]
    checker = checkers[first][0]
    _KeepalivedCheck(service, checker, servers[first], virtual).add()
    for index, each in enumerate(checkers):
        if not each:
            what = "this server has no checker, others of its service have"
            _note(service, servers[index], f"{what}; the check is for all of them")
        elif _settings(each[0]) != _settings(checker):
            what = "this checker differs from that of the first server"
            _note(service, each[0], f"{what}; the check of a service is for all its backends")
        for further in each[1:]:
            what = f"a second checker, {ticked(further.name)}, has no counterpart"
            _note(
                service, further, f"{what}; a service has one check, `type: exec` can have several"
            )


def _note(service: LvsService, where: Statement, message: str, *path: str) -> None:
    service.notes.append((where.mark, message, path))


def _settings(statement: Statement) -> tuple[Any, ...]:
    """What a checker says, to compare it with another."""
    inner = sorted((_settings(each) for each in statement.inner), key=repr)
    return (statement.name, statement.words, *inner)


class _KeepalivedCheck:
    """One check in the making."""

    def __init__(
        self, service: LvsService, checker: Statement, server: Statement, virtual: Statement
    ) -> None:
        self._service = service
        self._checker = checker
        self._levels = (checker, server, virtual)

    def add(self) -> None:
        """Add the keys of the check."""
        checker = self._checker
        kind, retry = CHECKERS[checker.name]
        self._set(("type",), kind, checker, checker.name)
        self._numbers(retry, kind)
        if checker.name in _NEAREST:
            what = f"{ticked(checker.name)} has no counterpart"
            _note(self._service, checker, f"{what}; {_NEAREST[checker.name]}", "check", "type")
        if kind in ("http", "https"):
            self._http()
        elif kind == "exec":
            self._program()
        port = checker.last("connect_port")
        if port is not None and kind != "icmp":
            try:
                self._set(("port",), port_number(port.word), port)
            except ValueError as error:
                _note(self._service, port, str(error), "check")
        for each in checker.inner:
            if each.name not in _KNOWN:
                what = f"{shown(str(each))} of {checker.name}"
                self._service.left_out.append((each.mark, what))

    def _numbers(self, retry: int, kind: str) -> None:
        interval = self._given("delay_loop")
        self._time(("interval",), interval, _INTERVAL)
        if kind != "exec":
            self._time(("timeout",), self._given("connect_timeout"), _TIMEOUT)
        self._set(("rise",), 1, self._checker)
        given = self._given("retry") or self._given("nb_get_retry")
        wanted = number(given.word) if given is not None else retry
        fall = wanted + 1 if isinstance(wanted, int) else wanted
        comment = f"retry {wanted}" + ("" if given is not None else ", keepalived's default")
        self._set(
            ("fall",), fall, given or self._checker, comment if isinstance(wanted, int) else ""
        )

    def _time(self, path: Path, given: Statement | None, default: int) -> None:
        if given is None:
            self._set(path, default, self._checker, "keepalived's default")
            return
        try:
            seconds = float(given.word)
        except ValueError:
            seconds = math.nan
        value: Any = seconds if math.isfinite(seconds) else given.word
        if math.isfinite(seconds) and seconds == int(seconds):
            value = int(seconds)
        self._set(path, value, given, given.name)

    def _given(self, name: str) -> Statement | None:
        found = (level.last(name) for level in self._levels)
        return next((each for each in found if each is not None), None)

    def _set(self, path: Path, value: Any, where: Statement, comment: str = "") -> None:
        self._service.keys["check", *path] = Given(value, where.mark, comment)

    def _http(self) -> None:
        urls = list(self._checker.all("url"))
        for further in urls[1:]:
            what = "a second `url` has no counterpart"
            _note(self._service, further, f"{what}; a check has one path", "check")
        url = urls[0] if urls else Statement(self._checker.mark, "url", (), [])
        path, status = url.last("path"), url.last("status_code")
        if path is not None and path.word:
            self._set(("path",), path.word if path.word.startswith("/") else f"/{path.word}", path)
        codes: list[int | str] = ["200-299"]
        if status is not None and status.words:
            codes = [number(word) for word in status.words]
        comment = "" if status is not None else "keepalived's default"
        value: Any = codes if len(codes) > 1 else codes[0]
        self._set(("expect", "status"), value, status or url, comment)
        regex = url.last("regex")
        if regex is not None and regex.word and url.last("regex_no_match") is None:
            self._set(("expect", "body"), regex.word, regex)
        host = url.last("virtualhost") or self._given("virtualhost")
        if host is not None and host.word:
            self._set(("host",), host.word, host)
        for each in url.inner:
            taken = each.name == "regex" and url.last("regex_no_match") is None
            if (
                each.name not in ("path", "status_code", "virtualhost", "tls_compliant")
                and not taken
            ):
                remedy = "a text that the body has to have is `expect.body`"
                what = f"{shown(str(each))} of a `url` has no counterpart"
                _note(self._service, each, f"{what}; {remedy}", "check")

    def _program(self) -> None:
        path = self._checker.last("misc_path")
        if path is None or not path.words:
            what = "MISC_CHECK without `misc_path` checks nothing"
            _note(self._service, self._checker, f"{what}; write a check with a `command`")
            for key in [key for key in self._service.keys if key[0] == "check"]:
                del self._service.keys[key]
            return
        try:
            command = shlex.split(path.word) if len(path.words) == 1 else list(path.words)
        except ValueError:
            command = [path.word]
        self._set(("command",), command, path)
        if any(str(server.host) in " ".join(command) for server in self._service.servers):
            what = "the program names one server, and is run for each backend"
            remedy = "let it check $PARAGLIDER_ADDRESS (docs/health.md)"
            _note(self._service, path, f"{what}; {remedy}", "check")
        timeout = self._checker.last("misc_timeout")
        if timeout is not None:
            self._time(("timeout",), timeout, _TIMEOUT)
        else:
            interval = self._service.keys["check", "interval"].value
            self._set(
                ("timeout",), interval, self._checker, "as `interval`: keepalived has no limit"
            )
