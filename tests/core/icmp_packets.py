"""ICMP errors built by scapy: the input, and the expected output, both from scratch.

Lives here: the kinds of error, the packets inside them, and ``world``, a packet path with a flow
for each of those packets; ``bare_world`` has none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from packets import Family, backend, nat, run, service
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
)
from scapy.packet import Packet, Raw

from paraglider.core import flow
from paraglider.core.verdict import REWRITTEN
from paraglider.forward.nat.datapath import NatDatapath

CLIENT_PORT, IDENTIFIER = 40000, 0x1234
#: services of the world, as protocol and VIP port: port at the backend
SERVICES = {
    (flow.TCP, 80): 8080,
    (flow.TCP, 81): 81,
    (flow.UDP, 53): 5353,
    (flow.UDP, 54): 54,
}

#: every kind of error that is translated, by family
ERRORS: dict[int, dict[str, Packet]] = {
    4: {
        "host unreachable": ICMP(type=3, code=1),
        "port unreachable": ICMP(type=3, code=3),
        "fragmentation needed": ICMP(type=3, code=4, nexthopmtu=1400),
        "time exceeded": ICMP(type=11, code=0),
        "parameter problem": ICMP(type=12, code=0, ptr=20),
    },
    6: {
        "port unreachable": ICMPv6DestUnreach(code=4),
        "packet too big": ICMPv6PacketTooBig(mtu=1400),
        "time exceeded": ICMPv6TimeExceeded(code=0),
        "parameter problem": ICMPv6ParamProblem(code=1, ptr=40),
    },
}
TOO_BIG = {4: "fragmentation needed", 6: "packet too big"}


def bare_world(family: Family, strategy: str = "rr", **changes: Any) -> NatDatapath:
    """Services of TCP, UDP and echo with one backend."""
    server, given = family.backends[0], {"strategy": strategy, **changes}
    services = [
        service(
            family, protocols=(p,), ports=((vip, vip),), backends=[backend(server, port)], **given
        )
        for (p, vip), port in SERVICES.items()
    ]
    services.append(
        service(family, protocols=(), backends=[backend(server)], echo=True, name="echo", **given)
    )
    return nat(*services)


def world(family: Family) -> NatDatapath:
    """The same, and a flow of the client through each."""
    path = bare_world(family)
    packets = [family.syn(80), family.syn(81), family.datagram(53), family.datagram(54)]
    packets.append(
        bytes(family.echo(family.client, family.vip, reply=False, identifier=IDENTIFIER))
    )
    for packet in packets:
        assert run(path, packet)[0] == REWRITTEN
    assert len(path.flows) == len(packets)
    return path


#: builds the inner packet of an error, between two addresses; the port is ours, and the last
#: argument is true for the backend's or our reply, false for the client's request
Inner = Callable[[Family, str, str, int, bool], Packet]


def inner_tcp(family: Family, source: str, destination: str, port: int, reply: bool) -> Packet:
    """A segment with data."""
    sport, dport = (port, CLIENT_PORT) if reply else (CLIENT_PORT, port)
    segment = TCP(sport=sport, dport=dport, flags="PA", seq=77)
    return family.ip(source, destination) / segment / Raw(b"too much to carry")


def inner_udp(family: Family, source: str, destination: str, port: int, reply: bool) -> Packet:
    """A datagram."""
    sport, dport = (port, CLIENT_PORT) if reply else (CLIENT_PORT, port)
    return family.ip(source, destination) / UDP(sport=sport, dport=dport) / Raw(b"too much")


def inner_echo(family: Family, source: str, destination: str, _: int, reply: bool) -> Packet:
    """A ping."""
    return family.echo(source, destination, reply=reply, identifier=IDENTIFIER)


INNERS = [
    ("TCP, port mapped", inner_tcp, (flow.TCP, 80)),
    ("TCP, same port", inner_tcp, (flow.TCP, 81)),
    ("UDP, port mapped", inner_udp, (flow.UDP, 53)),
    ("UDP, same port", inner_udp, (flow.UDP, 54)),
    ("echo", inner_echo, None),
]


def head(packet: Packet, kept: int | None) -> bytes:
    """The IP header of ``packet`` and ``kept`` bytes behind it, or all of it."""
    wire = bytes(packet)
    return wire if kept is None else wire[: (20 if wire[0] >> 4 == 4 else 40) + kept]


def error(
    family: Family, kind: str, source: str, destination: str, inner: Packet, kept: int | None = None
) -> bytes:
    """An ICMP error from ``source`` about ``inner``."""
    header = family.ip(source, destination) / ERRORS[family.number][kind].copy()
    return bytes(header / Raw(head(inner, kept)))


def our_ports(ports: tuple[int, int] | None) -> tuple[int, int]:
    """The port at the VIP and at the backend of one of ``SERVICES``."""
    return (ports[1], SERVICES[ports]) if ports else (0, 0)


def towards_backend(
    family: Family,
    kind: str,
    sender: str,
    build: Inner,
    ports: tuple[int, int] | None,
    kept: int | None,
) -> tuple[bytes, bytes]:
    """An error about a reply to the client: as received, and as it must be forwarded."""
    vip_port, backend_port = our_ports(ports)
    server = family.backends[0]
    before = build(family, family.vip, family.client, vip_port, True)
    after = build(family, server, family.client, backend_port, True)
    return (
        error(family, kind, sender, family.vip, before, kept),
        error(family, kind, sender, server, after, kept),
    )


def towards_client(
    family: Family,
    kind: str,
    sender: str,
    build: Inner,
    ports: tuple[int, int] | None,
    kept: int | None,
) -> tuple[bytes, bytes]:
    """An error about a request to the backend: as received, and as it must be forwarded."""
    vip_port, backend_port = our_ports(ports)
    server = family.backends[0]
    before = build(family, family.client, server, backend_port, False)
    after = build(family, family.client, family.vip, vip_port, False)
    return (
        error(family, kind, sender, family.client, before, kept),
        error(family, kind, family.vip, family.client, after, kept),
    )
