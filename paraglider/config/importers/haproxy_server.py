"""The lines `server`, `default-server` and `bind` of ``haproxy.cfg``.

Lives here: ``HaproxyServer``, ``servers``, ``HaproxyBind``, ``binds``, and ``milliseconds``.
Rules: as HAProxy's configuration manual, section 5. A server has the parameters of the
`default-server` lines above it, and its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from paraglider.config.diagnostics import Mark
from paraglider.config.importers.endpoints import ANY, ANY6, host, listening, port_number
from paraglider.config.importers.haproxy_reader import HaproxyLine
from paraglider.config.types import IPAddress
from paraglider.config.wording import shown

# Parameters of a server without a value; any other one has one.
_FLAGS = {
    *("agent-check", "allow-0rtt", "backup", "check", "check-send-proxy", "check-ssl"),
    *("check-via-socks4", "disabled", "enabled", "send-proxy", "send-proxy-v2"),
    *("send-proxy-v2-ssl", "send-proxy-v2-ssl-cn", "ssl", "stick", "non-stick", "tfo"),
    *("force-sslv3", "force-tlsv10", "force-tlsv11", "force-tlsv12", "force-tlsv13", "ktls"),
    *("ssl-reuse", "tls-tickets", "verifyhost-none", "renegotiate"),
}
_BIND_VALUED = {
    *("accept-netscaler-cip", "alpn", "backlog", "ca-file", "ca-sign-file", "ciphers"),
    *("ciphersuites", "crl-file", "crt", "crt-list", "curves", "ecdhe", "expose-fd", "gid"),
    *("group", "guid-prefix", "id", "idle-ping", "interface", "label", "level", "maxconn"),
    *("mode", "mss", "name", "namespace", "nbconn", "nice", "npn", "proto", "process", "severity"),
    *("shards", "ssl-max-ver", "ssl-min-ver", "tcp-md5sig", "tcp-ut", "thread", "uid", "user"),
    "verify",
}
_TIME = re.compile(r"(\d{1,12})(us|ms|s|m|h|d)?", re.ASCII)
_UNITS = {"us": 0.001, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_ADDRESSED = re.compile(r"(?:(?:ip|ipv4|ipv6|tcp|tcp4|tcp6)@)(.*)")


@dataclass(frozen=True, slots=True)
class HaproxyServer:
    """A server; ``port`` None is that of the client's connection."""

    mark: Mark
    name: str
    host: IPAddress | str
    port: int | None
    parameters: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HaproxyBind:
    """An address, with its ports, that a frontend listens on; ``others`` are its parameters."""

    mark: Mark
    vip: IPAddress | str
    port: int | str
    others: dict[str, str] = field(default_factory=dict)


def milliseconds(text: str) -> float:
    """A time in HAProxy's words, by default in milliseconds; raises ``ValueError``."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{shown(text)} is no time; write one such as 30s")
    return float(int(match[1]) * _UNITS[match[2] or "ms"])


def servers(lines: Iterable[HaproxyLine]) -> Iterator[HaproxyServer | tuple[Mark, str]]:
    """The servers of ``lines``; in place of one that has no address, its place and a message."""
    default: dict[str, str] = {}
    for line in lines:
        if line.keyword == "default-server":
            default |= _parameters(line.words[1:], _is_flag)
        elif line.keyword == "server":
            parameters = default | _parameters(line.words[3:], _is_flag)
            for flag in [flag for flag in parameters if flag.startswith("no-")]:
                parameters.pop(flag.removeprefix("no-"), None)
                del parameters[flag]
            try:
                address, port = _server_address(line.word(2))
            except ValueError as error:
                yield line.mark, f"server {shown(line.word(1))}: {error}"
                continue
            yield HaproxyServer(line.mark, line.word(1), address, port, parameters)


def _is_flag(word: str) -> bool:
    return word in _FLAGS or word.startswith("no-")


def _is_bind_flag(word: str) -> bool:
    return word not in _BIND_VALUED


def _parameters(words: Sequence[str], is_flag: Callable[[str], bool]) -> dict[str, str]:
    """The parameters among ``words``, in their order; a flag has an empty value."""
    found: dict[str, str] = {}
    rest = list(reversed(words))
    while rest:
        word = rest.pop()
        found[word] = "" if is_flag(word) or not rest else rest.pop()
    return found


def _server_address(text: str) -> tuple[IPAddress | str, int | None]:
    """The address and port of a server; raises ``ValueError`` ("what; remedy")."""
    text = _without_family(text)
    if not text:
        raise ValueError("there is no address; write one such as 10.0.0.1:80")
    if text.startswith("/") or "@" in text:
        raise ValueError(f"{shown(text)} is a socket of this host; a backend has an address")
    if text.count(":") > 1 and not text.startswith("["):
        # HAProxy takes the last colon for the one before the port.
        address, _, port = text.rpartition(":")
        if isinstance(host(text), str) or not isinstance(host(address), str):
            return host(address), _port(port)
    address, colon, port = text.rpartition(":")
    if colon and not isinstance(host(text), str):
        return host(text), None
    return host(address if colon else text), _port(port) if colon else None


def _port(text: str) -> int | None:
    if text.startswith(("+", "-")):
        what = f"the port {shown(text)} is counted from the client's"
        raise ValueError(f"{what}; write services of one port each")
    return port_number(text) if text else None


def _without_family(text: str) -> str:
    match = _ADDRESSED.fullmatch(text)
    return match[1] if match is not None else text


def binds(line: HaproxyLine) -> Iterator[HaproxyBind | tuple[Mark, str]]:
    """What the line `bind` listens on; in place of what is no address, a message."""
    others = _parameters(line.words[2:], _is_bind_flag)
    for text in line.word(1).split(","):
        try:
            yield _bind(line.mark, _without_family(text.strip()), others)
        except ValueError as error:
            yield line.mark, f"bind {shown(text)}: {error}"


def _bind(mark: Mark, text: str, others: dict[str, str]) -> HaproxyBind:
    if text.startswith("/") or "@" in text:
        raise ValueError(f"{shown(text)} is no address of TCP; it is left out")
    address, colon, ports = text.rpartition(":")
    if not colon or not ports:
        raise ValueError("there is no port; write ADDRESS:PORT")
    first, dash, last = ports.partition("-")
    port: int | str = port_number(first)
    if dash:
        port = f"{port}-{port_number(last)}"
    found = listening(address)
    if found == ANY6 and "v6only" not in others:
        found = ANY  # as Linux has it: IPv4 too
    return HaproxyBind(mark, found, port, others)
