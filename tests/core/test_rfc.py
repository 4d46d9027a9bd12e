"""The requirements of RFC 4787, 5382, 5508 and 7857 for a NAT, as scripts with the outcome of the
last packet.

docs/rfc.md has each requirement with its test; tests that are not here are with their module. A
script reads ``c:S b:SA c:A +7439 b:A``: the client sends a SYN, the backend SYN and ACK, the client
ACK, 7,439 seconds pass, the backend sends an ACK. Datagrams and echoes are ``c:.`` and ``b:.``.
"""

from __future__ import annotations

import pytest
from packets import FAMILIES, Family, backend, nat, run, service
from scapy.layers.inet import UDP
from scapy.packet import Raw

from paraglider.core import flow
from paraglider.core.verdict import DROP, PASS, REWRITTEN
from paraglider.forward.nat.datapath import NatDatapath

families = pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
PORT, IDENTIFIER = 40000, 4711
#: translated; or not, and then left to the host, which knows no such connection, or dropped
GOES_ON, STAYS = "goes on", "stays"
_MEANING = {REWRITTEN: GOES_ON, PASS: STAYS, DROP: STAYS}


def world(family: Family) -> NatDatapath:
    """TCP on port 80, UDP on 53, echo: one backend, which all flows reach."""
    server = family.backends[0]
    return nat(
        service(family, ports=((80, 80),), backends=[backend(server)]),
        service(family, protocols=(flow.UDP,), ports=((53, 53),), backends=[backend(server)]),
        service(family, protocols=(), backends=[backend(server)], echo=True, name="echo"),
    )


def packet(family: Family, protocol: str, who: str, flags: str) -> bytes:
    """The packet that a step of a script stands for."""
    server = family.backends[0]
    if protocol == "tcp":
        return family.segment(flags) if who == "c" else family.answer(flags, server)
    ends = (family.client, family.vip) if who == "c" else (server, family.client)
    if protocol == "icmp":
        return bytes(family.echo(*ends, reply=who == "b", identifier=IDENTIFIER))
    ports = (PORT, 53) if who == "c" else (53, PORT)
    return bytes(family.ip(*ends) / UDP(sport=ports[0], dport=ports[1]) / Raw(b"?"))


def outcome(family: Family, protocol: str, script: str, path: NatDatapath | None = None) -> str:
    """The outcome of the last packet of ``script``."""
    path, now, verdict = path or world(family), 0.0, -1
    for step in script.split():
        if step.startswith("+"):
            now += float(step)
            path.flows.expire(now, 10_000)
        else:
            who, flags = step.split(":")
            verdict, _ = run(path, packet(family, protocol, who, flags), now=now)
    return _MEANING[verdict]


ROWS = [
    # RFC 4787, Network Address Translation Behavioral Requirements for Unicast UDP
    ("4787 REQ-5", "a UDP flow lives for two minutes", "udp", "c:. b:. +119 b:.", GOES_ON),
    ("4787 REQ-5", "one without an answer too", "udp", "c:. +119 b:.", GOES_ON),
    ("4787 REQ-5", "it does not live for ever", "udp", "c:. b:. +400 b:.", STAYS),
    ("4787 REQ-6", "the client refreshes it", "udp", "c:. b:. c:. +100 c:. +100 b:.", GOES_ON),
    ("4787 REQ-6", "so does the backend", "udp", "c:. b:. c:. +100 b:. +100 c:. b:.", GOES_ON),
    ("4787 REQ-8", "who was not called is not let in", "udp", "b:.", STAYS),
    # RFC 5382, NAT Behavioral Requirements for TCP
    ("5382 REQ-2", "simultaneous open: both send a SYN", "tcp", "c:S b:S c:SA b:SA", GOES_ON),
    ("5382 REQ-2", "a handshake in order", "tcp", "c:S b:SA c:A", GOES_ON),
    ("5382 REQ-3", "who was not called is not let in", "tcp", "b:S", STAYS),
    ("5382 REQ-5", "idle for 2 h 4 min", "tcp", "c:S b:SA c:A +7439 b:A", GOES_ON),
    ("5382 REQ-5", "and the client goes on", "tcp", "c:S b:SA c:A +7439 c:A", GOES_ON),
    ("5382 REQ-5", "not for ever", "tcp", "c:S b:SA c:A +7500 c:A", STAYS),
    ("5382 REQ-5", "keepalives refresh it", "tcp", "c:S b:SA c:A +7000 b:A +7000 c:A", GOES_ON),
    ("7857 section 2", "a FIN of one side ends nothing", "tcp", "c:S b:SA c:A c:FA b:PA", GOES_ON),
    ("7857 section 2", "nor one of the other", "tcp", "c:S b:SA c:A b:FA c:PA", GOES_ON),
    (
        "7857 section 2",
        "half-closed it lives on",
        "tcp",
        "c:S b:SA c:A c:FA b:A +7000 b:PA",
        GOES_ON,
    ),
    ("7857 section 2", "by either side", "tcp", "c:S b:SA c:A b:FA c:A +7000 c:PA", GOES_ON),
    ("7857 section 2", "and ends some day", "tcp", "c:S b:SA c:A c:FA b:A +7500 b:PA", STAYS),
    (
        "7857 section 2",
        "closed it is soon over",
        "tcp",
        "c:S b:SA c:A c:FA b:FA c:A +70 b:A",
        STAYS,
    ),
    ("7857 section 2.2", "what follows a RST passes", "tcp", "c:S b:SA c:A c:R b:A", GOES_ON),
    ("7857 section 2.2", "and brings it back", "tcp", "c:S b:SA c:A c:R b:A +7000 b:PA", GOES_ON),
    ("7857 section 2.2", "from either side", "tcp", "c:S b:SA c:A b:R c:PA +7000 c:PA", GOES_ON),
    ("7857 section 2.2", "else it is soon over", "tcp", "c:S b:SA c:A b:R +15 b:A", STAYS),
    ("6146 3.5.2.2", "the last ACK passes", "tcp", "c:S b:SA c:A c:FA b:FA c:A", GOES_ON),
    ("6146 3.5.2.2", "a repeated FIN passes", "tcp", "c:S b:SA c:A c:FA b:FA b:FA", GOES_ON),
    ("6146 3.5.2.2", "a SYN on a live flow", "tcp", "c:S b:SA c:A c:S b:A", GOES_ON),
    ("6146 3.5.2.2", "a segment of no flow", "tcp", "c:A", STAYS),
    ("6146 3.5.2.2", "a RST of no flow", "tcp", "c:R", STAYS),
    # RFC 5508, NAT Behavioral Requirements for ICMP
    ("5508 REQ-1", "an echo and its reply", "icmp", "c:. b:.", GOES_ON),
    ("5508 REQ-2", "an echo flow lives for a minute", "icmp", "c:. +59 b:.", GOES_ON),
    ("5508 REQ-2", "not for ever", "icmp", "c:. +70 b:.", STAYS),
    ("5508 REQ-1", "a reply that nobody asked for", "icmp", "b:.", STAYS),
    ("5508 REQ-1", "an identifier that is used again", "icmp", "c:. b:. +70 c:. b:.", GOES_ON),
]


@families
@pytest.mark.parametrize(
    ("protocol", "script", "expected"),
    [row[2:] for row in ROWS],
    ids=[f"{row[0]}: {row[1]}" for row in ROWS],
)
def test_rows(family: Family, protocol: str, script: str, expected: str) -> None:
    """The last packet of each script goes where the requirement says."""
    assert outcome(family, protocol, script) == expected


@families
def test_the_same_backend_whatever_the_time_between(family: Family) -> None:
    """The mapping of a live flow depends only on its key (RFC 4787 REQ-1, RFC 5382 REQ-1)."""
    path = nat(service(family, protocols=(flow.UDP,), ports=((53, 53),)))
    seen = set()
    for now in range(0, 1000, 100):
        path.flows.expire(now, 100)
        _, after = run(path, packet(family, "udp", "c", ""), now=now)
        at = 16 if family.number == 4 else 24
        seen.add(after[at : at + (4 if family.number == 4 else 16)])
    assert len(seen) == 1


@families
def test_ports_of_clients_are_kept(family: Family) -> None:
    """No client's port is translated, so parity and contiguity stay (RFC 4787 REQ-3, REQ-4)."""
    path = nat(service(family, protocols=(flow.UDP,), ports=((53, 53),)))
    for port in (1, 1023, 1024, 40000, 40001, 65535):
        _, after = run(path, family.datagram(client_port=port))
        at = 20 if family.number == 4 else 40
        assert int.from_bytes(after[at : at + 2], "big") == port


@families
def test_an_outbound_packet_of_a_stranger_makes_no_flow(family: Family) -> None:
    """A packet that a backend sends first is not ours, and creates no flow (RFC 4787 REQ-8)."""
    path = world(family)
    for protocol, flags in (("udp", ""), ("tcp", "S"), ("tcp", "A"), ("icmp", "")):
        assert run(path, packet(family, protocol, "b", flags))[0] in (PASS, DROP)
    assert len(path.flows) == 0
