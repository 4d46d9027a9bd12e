"""Small value types of the configuration file, and their parsers.

Lives here: port and status ranges, exempt endpoints, IP interfaces and networks, names of
interfaces, user-facing literals.
Rules: a type raises ``ValueError`` with a message "what is wrong; remedy"; it never reads the host.
``load`` adds file:line:column. Editors use the schema beside each type.
"""

from __future__ import annotations

import ipaddress
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from paraglider.config.wording import MOST_SHOWN, shown

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

# As the kernel's dev_valid_name() (net/core/dev.c), without iptables' special characters "+" and
# "!".
InterfaceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$")]

_LONGEST_PATTERN = 1000
_BRACKETS = re.compile(r"\[([^\]]*)\](?::(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """An inclusive range of transport ports, 1 ≤ ``first`` ≤ ``last`` ≤ 65535."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    def __contains__(self, port: object) -> bool:
        return isinstance(port, int) and self.first <= port <= self.last

    def __len__(self) -> int:
        return self.last - self.first + 1

    def overlaps(self, other: PortRange) -> bool:
        """True when a port lies in both ranges."""
        return self.first <= other.last and other.first <= self.last


ALL_PORTS = PortRange(1, 65535)


@dataclass(frozen=True, slots=True, order=True)
class StatusRange:
    """An inclusive range of HTTP status codes, 100 ≤ ``first`` ≤ ``last`` ≤ 599."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    def __contains__(self, status: object) -> bool:
        return isinstance(status, int) and self.first <= status <= self.last


@dataclass(frozen=True, slots=True)
class Exempt:
    """An endpoint that is never balanced (loaded's name server): address, port, protocol.

    ``port`` and ``protocol`` are None if the file omits them: all are exempt.
    """

    address: IPAddress
    port: int | None
    protocol: str | None

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 and self.port else self.address
        port = f":{self.port}" if self.port else ""
        return f"{host}{port}" + (f"/{self.protocol}" if self.protocol else "")


def parse_port(value: Any) -> int:
    """A port number from 1 to 65535; raises ``ValueError`` with the remedy."""
    if isinstance(value, bool) or not isinstance(value, int):
        quoted = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 6
        remedy = f"write {value} without quotes" if quoted else "write a number from 1 to 65535"
        raise ValueError(f"{shown(value)} is no port number; {remedy}")
    if not 1 <= value <= 65535:
        raise ValueError(f"port {shown(value)} is out of range; write a number from 1 to 65535")
    return value


def parse_port_range(value: Any) -> PortRange:
    """One port (80) or a range ("8000-8099")."""
    if isinstance(value, str):
        text = value.strip()
        if text.isascii() and text.isdigit():
            port = parse_port(int(text[:9]))
            return PortRange(port, port)
        match = re.fullmatch(r"(\d{1,9})\s*-\s*(\d{1,9})", text, re.ASCII)
        if not match:
            raise ValueError(f'{shown(value)} is no port or range; write 80 or "8000-8099"')
        first, last = parse_port(int(match[1])), parse_port(int(match[2]))
        if first > last:
            raise ValueError(f'range {shown(value)} runs backwards; write "{last}-{first}"')
        return PortRange(first, last)
    port = parse_port(value)
    return PortRange(port, port)


def parse_ports(value: Any) -> tuple[PortRange, ...]:
    """80 | "8000-8099" | [80, 443, "8000-8099"] as sorted ranges that do not overlap."""
    if isinstance(value, tuple) and all(isinstance(item, PortRange) for item in value):
        return value
    items = value if isinstance(value, list) else [value]
    if not items:
        raise ValueError("the list of ports is empty; name a port or leave `ports` out for all")
    ranges = sorted(parse_port_range(item) for item in items)
    for left, right in itertools.pairwise(ranges):
        if left.overlaps(right):
            raise ValueError(f"ports {left} and {right} overlap; name each port once")
    return tuple(ranges)


def parse_statuses(value: Any) -> tuple[StatusRange, ...]:
    """200 | "200-399" | [200, "300-399"] as ranges, in the order of the file."""
    if isinstance(value, tuple) and all(isinstance(item, StatusRange) for item in value):
        return value
    items = value if isinstance(value, list) else [value]
    if not items:
        raise ValueError("the list of status codes is empty; name one, such as 200")
    return tuple(_parse_status(item) for item in items)


def _parse_status(value: Any) -> StatusRange:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    shape = r"\s*([1-5]\d\d)\s*(?:-\s*([1-5]\d\d)\s*)?"
    match = re.fullmatch(shape, text, re.ASCII) if isinstance(text, str) else None
    if match is None:
        raise ValueError(
            f'{shown(value)} is no status code from 100 to 599; write 200 or "200-399"'
        )
    first, last = int(match[1]), int(match[2] or match[1])
    if first > last:
        raise ValueError(f'range {shown(value)} runs backwards; write "{last}-{first}"')
    return StatusRange(first, last)


def parse_pattern(value: Any) -> str:
    """A regular expression (Python's ``re``), as text."""
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is no regular expression; write a text in quotes")
    if len(value) > _LONGEST_PATTERN:
        raise ValueError(f"the expression is too long; write at most {_LONGEST_PATTERN} characters")
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(
            f"{shown(value)} is no regular expression ({error});"
            ' a character with a meaning is taken as itself after a backslash: "1\\.0"'
        ) from None
    return value


def parse_exempt(value: Any) -> Exempt:
    """``ADDRESS[:PORT][/PROTOCOL]``; an IPv6 address with a port stands in brackets."""
    if isinstance(value, Exempt):
        return value
    shape = 'write "192.168.0.1:53/udp", "[2001:db8::1]:53/udp" or an address alone'
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is no endpoint; {shape}")
    text, _, protocol = value.partition("/")
    if protocol not in ("", "tcp", "udp"):
        raise ValueError(f"{shown(protocol)} is no protocol of an exempt endpoint; {shape}")
    match = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::(\d{1,5}))?", text, re.ASCII)
    if match is None and text.count(":") > 1:
        match = re.fullmatch(r"([0-9A-Fa-f:.]+)()", text, re.ASCII)
    elif match is None:
        match = re.fullmatch(r"([0-9.]+)(?::(\d{1,5}))?", text, re.ASCII)
    try:
        if match is None:
            raise ValueError
        address = ipaddress.ip_address(match[1])
    except ValueError:
        raise ValueError(f"{shown(value)} is no endpoint; {shape}") from None
    port = parse_port(int(match[2])) if match[2] else None
    return Exempt(address, port, protocol or None)


def parse_address(value: Any) -> IPAddress:
    """An IPv4 or IPv6 address without prefix and without zone."""
    if isinstance(value, ipaddress.IPv4Address | ipaddress.IPv6Address):
        return value
    try:
        # An int is an address to ``ipaddress``, and a zone ("%eth0") never occurs in a packet.
        if not isinstance(value, str) or "%" in value:
            raise ValueError
        return ipaddress.ip_address(value)
    except ValueError:
        raise ValueError(f"{shown(value)} is no IP address; {_address_hint(value)}") from None


def several(text: str) -> list[str]:
    """The items of a list written as one string, ``a, b`` or ``a b``; empty for a single item."""
    items = [item for item in re.split(r"[\s,;]+", text.strip(" \t[],;")) if item]
    return items if len(items) > 1 else []


def quoted(items: Iterable[str]) -> str:
    """``items`` as a list in YAML."""
    return f"[{', '.join(json.dumps(item, ensure_ascii=False) for item in items)}]"


def _is_address(text: str) -> bool:
    """Whether ``text`` is an address that packets between hosts can carry."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    here = address.is_multicast or address.is_unspecified or address.is_loopback
    return not here and not (address.version == 6 and address.is_link_local)


def _address_hint(value: Any) -> str:
    if isinstance(value, str) and len(value) <= MOST_SHOWN:
        items = several(value)
        if items and all(map(_is_address, items)):
            return f"write an item of the list for each: {quoted(items)}"
        host, slash, _ = value.partition("/")
        if slash and _is_address(host):
            return f"leave the prefix out: {host}"
        host, _, port = value.partition(":")
        if _is_address(host) and port.isascii() and port.isdigit() and 0 < int(port) < 65536:
            return f"leave the port out: {host} (that of a backend is `port: {int(port)}`)"
        host = value.partition("%")[0]
        if "%" in value and _is_address(host):
            return f"leave the zone out: {host}"
        if "%" in value:
            return "write a global or unique local address of that host, such as fd00:10::1"
    return "write an IPv4 or IPv6 address such as 10.0.0.1 or fd00:10::1"


def parse_endpoint(value: Any) -> tuple[IPAddress, int]:
    """``ADDRESS:PORT``; an IPv6 address stands in brackets. Raises ``ValueError``."""
    shape = 'write one such as 10.0.0.1:80 or "[2001:db8::1]:80"'
    match = None
    if isinstance(value, str):
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})", value)
    try:
        if match is None:
            raise ValueError
        address = ipaddress.IPv6Address(match[1]) if match[1] else ipaddress.IPv4Address(match[2])
    except ValueError:
        raise ValueError(f"{shown(value)} is no ADDRESS:PORT; {shape}") from None
    return address, parse_port(int(match[3]))


def parse_backend(text: str, shape: str) -> Iterator[tuple[str, Any]]:
    """``ADDRESS`` or ``ADDRESS:PORT`` as keys of a backend; an IPv6 address with a port stands in
    brackets. Raises ``ValueError``, whose remedy is ``shape``, or one about the port.
    """
    brackets = _BRACKETS.fullmatch(text)
    if brackets is not None:
        host, port = brackets[1], brackets[2]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, None
    try:
        address = parse_address(host)
    except ValueError:
        raise ValueError(f"{shown(text)} is no ADDRESS[:PORT]; {shape}") from None
    if brackets is not None and address.version == 4:
        raise ValueError(f"{shown(text)}: an IPv4 address stands without brackets; {shape}")
    yield "address", address
    if port is not None:
        if not re.fullmatch(r"[0-9]{1,9}", port):
            raise ValueError(f"{shown(port)} is no port number; write a number from 1 to 65535")
        yield "port", parse_port(int(port))


def is_endpoint(value: Any) -> bool:
    """Whether ``parse_endpoint`` accepts ``value``."""
    try:
        parse_endpoint(value)
    except ValueError:
        return False
    return True


def parse_interface(value: Any) -> IPInterface:
    """An address with an optional prefix length; without one it stands alone (/32, /128)."""
    if isinstance(value, ipaddress.IPv4Interface | ipaddress.IPv6Interface):
        return value
    try:
        if not isinstance(value, str) or "%" in value:
            raise ValueError
        return ipaddress.ip_interface(value)
    except ValueError:
        raise ValueError(
            f"{shown(value)} is no address with a prefix;"
            " write one such as 192.168.0.11/24 or 2001:db8::11/64"
        ) from None


def parse_network(value: Any) -> IPNetwork:
    """A network with its prefix length."""
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    shape = "write one such as 10.0.0.0/8 or fd00:10::/64"
    try:
        if not isinstance(value, str) or "%" in value:
            raise ValueError
        within = ipaddress.ip_interface(value)
    except ValueError:
        raise ValueError(f"{shown(value)} is no network; {shape}") from None
    if within.ip != within.network.network_address:
        raise ValueError(f"{shown(value)} is an address in a network; write {within.network}")
    return within.network


def _type(parse: Any, schema: dict[str, Any]) -> Any:
    return (BeforeValidator(parse), PlainSerializer(_plain), WithJsonSchema(schema))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, PortRange | StatusRange) and value.first == value.last:
        return value.first
    return str(value)


_PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
_RANGE = {
    "type": "string",
    "pattern": r"^\s*[0-9]{1,5}(\s*-\s*[0-9]{1,5})?\s*$",
    "examples": ["8000-8099"],
}
_PORT_OR_RANGE = {"anyOf": [_PORT, _RANGE]}
_PORTS = {"anyOf": [_PORT, _RANGE, {"type": "array", "items": _PORT_OR_RANGE, "minItems": 1}]}
_ADDRESS = {"anyOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}]}
_PREFIXED = {"type": "string", "pattern": r"^[0-9A-Fa-f:.]+(/[0-9.]+)?$"}
_STATUS = {
    "anyOf": [
        {"type": "integer", "minimum": 100, "maximum": 599},
        {
            "type": "string",
            "pattern": r"^\s*[1-5][0-9]{2}(\s*-\s*[1-5][0-9]{2})?\s*$",
            "examples": ["200-399"],
        },
    ]
}
_STATUSES = {"anyOf": [*_STATUS["anyOf"], {"type": "array", "items": _STATUS, "minItems": 1}]}
_PATTERN = {"type": "string", "format": "regex", "maxLength": _LONGEST_PATTERN}
_EXEMPT = {
    "type": "string",
    "pattern": r"^(\[[0-9A-Fa-f:.]+\]|[0-9A-Fa-f:.]+)(:[0-9]+)?(/(tcp|udp))?$",
}

# Field types of ``model``: parser, printer and schema of each type.
Port = Annotated[int, BeforeValidator(parse_port), WithJsonSchema(_PORT)]
Ports = Annotated[tuple[PortRange, ...], *_type(parse_ports, _PORTS)]
Statuses = Annotated[tuple[StatusRange, ...], *_type(parse_statuses, _STATUSES)]
Pattern = Annotated[str, BeforeValidator(parse_pattern), WithJsonSchema(_PATTERN)]
ExemptEndpoint = Annotated[Exempt, *_type(parse_exempt, _EXEMPT)]
Address = Annotated[IPAddress, *_type(parse_address, _ADDRESS)]
AddressWithPrefix = Annotated[IPInterface, *_type(parse_interface, _PREFIXED)]
NetworkPrefix = Annotated[IPNetwork, *_type(parse_network, _PREFIXED)]
