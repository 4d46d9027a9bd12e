"""The `upstream` of nginx as backends and a strategy.

Lives here: ``Upstream``, ``upstream_of``, and ``seconds``, a time of nginx.
Rules: as ngx_stream_upstream_module: without another method the servers take turns by weight. A
server that is `down` stays with weight 0; one for the time when all others are down is left out.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from paraglider.config.importers.blocks import Statement
from paraglider.config.importers.draft import number
from paraglider.config.importers.endpoints import host_and_port
from paraglider.config.importers.services import FoundBackend, FoundService, Given
from paraglider.config.wording import shown, ticked

_TIME = re.compile(r"(?:(\d{1,9})(ms|[yMwdhms])?\s*)", re.ASCII)
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_UNITS |= {"M": 2_592_000, "y": 31_536_000}
_CLIENT = ("$remote_addr", "$binary_remote_addr")
_METHODS = ("least_conn", "hash", "random", "least_time")
_KNOWN = ("server", "zone", *_METHODS)


@dataclass(slots=True)
class Upstream:
    """Backends, with the keys that they bring to a service, and what to say."""

    backends: list[FoundBackend]
    keys: list[tuple[str, Given]] = field(default_factory=list)
    fails: list[Given] = field(default_factory=list)
    notes: list[tuple[Statement, str, tuple[str, ...]]] = field(default_factory=list)

    def apply(self, service: FoundService) -> None:
        """Add all of it to ``service``."""
        service.backends = list(self.backends)
        service.keys.update(((name,), given) for name, given in self.keys)
        if ("strategy",) not in service.keys:
            weights = {backend.weight for backend in self.backends} - {0}
            strategy = "wrr" if len(weights) > 1 else "rr"
            service.keys["strategy",] = Given(strategy, service.mark)
        for statement, message, path in self.notes:
            service.note(statement.mark, message, *path)
        if self.fails and service.protocol == "tcp":
            first = self.fails[0]
            service.keys["check", "type"] = Given("tcp", first.mark, "nginx watches connections")
            service.keys["check", "fall"] = first
        elif self.fails:
            what = "`max_fails` of UDP has no counterpart"
            service.note(self.fails[0].mark, f"{what}; write a `check` (docs/health.md)")


def seconds(text: str) -> int | str:
    """The seconds of `90`, `1m30s` or `500ms`, rounded up; other text as it is."""
    total, position = 0.0, 0
    while position < len(text):
        match = _TIME.match(text, position)
        if match is None:
            return text
        total += int(match[1]) * _UNITS[match[2] or "s"]
        position = match.end()
    return math.ceil(total) if text else text


def upstream_of(statement: Statement) -> Upstream:
    """The servers and the method of an `upstream`."""
    found = Upstream([])
    for each in statement.all("server"):
        _server(each, found)
    methods = [each for each in statement.inner if each.name in _METHODS]
    if methods:
        _method(methods[-1], found)
    for each in statement.inner:
        if each.name not in _KNOWN:
            found.notes.append((each, f"{ticked(str(each))} has no counterpart; leave it out", ()))
    return found


def _method(each: Statement, found: Upstream) -> None:
    strategy, comment, note = "weighted", str(each), ""
    if each.name == "hash":
        strategy = "source" if each.word in _CLIENT else "maglev"
        if strategy == "maglev" and each.word != "$remote_addr$remote_port":
            note = f"the key {shown(each.word)} has no counterpart; addresses and ports are hashed"
    elif each.name == "random" and each.words[:1] != ("two",):
        strategy = "wrr" if len({backend.weight for backend in found.backends} - {0}) > 1 else "rr"
        note = f"`random` has no counterpart; {strategy} gives the same shares"
    elif each.name != "least_conn":
        note = f"{ticked(str(each))} has no counterpart; {strategy} is the nearest"
    found.keys.append(("strategy", Given(strategy, each.mark, comment if not note else "")))
    if note:
        found.notes.append((each, note, ("strategy",)))


def _server(each: Statement, found: Upstream) -> None:
    text = each.word
    flags = {word.partition("=")[0]: word.partition("=")[2] for word in each.words[1:]}
    if text.startswith("unix:") or "backup" in flags:
        what = f"the server {shown(text)} is a socket of this host"
        remedy = "a backend has an address, so it is left out"
        if "backup" in flags:
            what = f"the server {shown(text)} is for the time when all others are down"
            remedy = "no backend is a spare one here, so it is left out"
        found.notes.append((each, f"{what}; {remedy}", ("backends",)))
        return
    try:
        address, port = host_and_port(text)
    except ValueError as error:
        found.notes.append((each, f"{error}; the server is left out", ("backends",)))
        return
    weight: Any = number(flags.get("weight", "1"))
    out = next((flag for flag in ("down", "drain") if flag in flags), "")
    backend = FoundBackend(each.mark, address, port, 0 if out else weight, out)
    found.backends.append(backend)
    fails = flags.get("max_fails", "")
    if fails not in ("", "0"):
        found.fails.append(Given(number(fails), each.mark, "max_fails"))
    if "slow_start" in flags:
        found.keys.append(("slow_start", Given(seconds(flags["slow_start"]), each.mark)))
    for flag, value in flags.items():
        if flag in ("weight", "down", "drain", "max_fails", "slow_start"):
            continue
        remedies = {
            "fail_timeout": "a check is repeated after `interval` seconds",
            "max_conns": "limit the connections at the server",
            "resolve": "names of backends are not looked up again: write addresses, or SRV records",
        }
        said = f"{flag}={value}" if value else flag
        what = f"{ticked(said)} of {shown(text)} has no counterpart"
        found.notes.append((each, f"{what}; {remedies.get(flag, 'leave it out')}", ("backends",)))
