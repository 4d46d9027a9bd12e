"""The fuzz targets: each accepts any bytes and may raise nothing.

Lives here: ``TARGETS``, by name.
Rules: a target passes the bytes to code that reads such bytes from outside, and ignores only the
errors that the code documents; any other exception is a finding. Nothing here changes the host.
"""

from __future__ import annotations

import contextlib
import io
import ipaddress
import struct
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from pydantic import ValidationError

from paraglider.config import listing
from paraglider.config.diagnostics import ConfigError
from paraglider.config.importers.formats import FORMATS, draft_of
from paraglider.core import journal, packet, strategies
from paraglider.core.balancer import Balancer
from paraglider.core.checksum import COMPLETE, KERNELS, UNFINISHED
from paraglider.core.client_hello import HelloReader
from paraglider.core.flow import TCP, UDP, FlowTimeouts
from paraglider.core.flow_table import FlowTable
from paraglider.core.hello_routes import RouteMatch, RouteTable
from paraglider.core.journal import Journal
from paraglider.core.pool import Backend, Pool
from paraglider.core.restore import Translations, restore
from paraglider.core.service import ALL_PORTS, ServiceMap, VirtualService
from paraglider.daemon.messages import FROM_ROLE, TO_ROLE
from paraglider.daemon.web import token
from paraglider.daemon.web.guard import RequestGuard
from paraglider.errors import OperatorError
from paraglider.forward.dsr.carrier import LeaseCarrier
from paraglider.forward.load import accepted, parse
from paraglider.forward.nat.datapath import NatDatapath
from paraglider.forward.offload.carrier import ConntrackCarrier
from paraglider.forward.offload.datapath import FirstPacketDatapath
from paraglider.forward.one_sided import OneSidedDatapath
from paraglider.forward.tunnel.carrier import TunnelCarrier
from paraglider.forward.tunnel.datapath import TunnelDatapath
from paraglider.health import agent, certificate
from paraglider.health.probes import dns as dns_probe
from paraglider.health.probes.base import ProbeError
from paraglider.host.capture import ip_packets
from paraglider.netfilter import connections, conntrack, nfnetlink
from paraglider.netfilter.queue import messages as queue

BOOT: Final = bytes(range(16))
dns_probe.Dns()  # which loads dnspython
#: client, VIP and backend of each family
ENDS: Final = {
    4: [ipaddress.ip_address(a).packed for a in ("192.168.0.100", "192.168.0.11", "10.0.0.1")],
    6: [ipaddress.ip_address(a).packed for a in ("2001:db8::100", "2001:db8::11", "fd00:10::1")],
}
_CHECKSUMS: Final = (COMPLETE, UNFINISHED, KERNELS)


_ROUTES: Final = RouteTable[int]()
for _number, _match in enumerate((("a.example", "*.a.example"), ("", "*.example"))):
    _ROUTES.add(RouteMatch("web", _match, ("h2",) if _number else ()), _number)


def _services(routed: bool = False) -> list[VirtualService]:
    """An `any` service of either family, and one of TCP with a mapped port."""
    made = []
    for number, (_, vip, backend) in ENDS.items():
        every = Pool([Backend(f"b{number}", backend, 0, 1)])
        strategy = _hash()
        made.append(
            VirtualService(
                f"a{number}",
                vip,
                (TCP, UDP),
                ALL_PORTS,
                every,
                strategy,
                echo=True,
                routed=routed,
                adopts=True,
            )
        )
        if not routed:
            mapped = Pool([Backend(f"m{number}", backend, 8080, 1)])
            made.append(
                VirtualService(f"w{number}", vip, (TCP,), ((80, 80),), mapped, _hash(), adopts=True)
            )
    return made


def _hash() -> strategies.Strategy:
    """A strategy by which flows are adopted, with a table that is soon made."""
    return strategies.create("maglev", strategies.Context(parameters={"table_size": 251}))


def _packet(data: bytes) -> None:
    """``core.packet``: parse, whole or a head."""
    for whole in (True, False):
        packet.parse(bytearray(data), 0, len(data), whole=whole)


def _series(data: bytes, handle: Callable[[bytearray, int, int, int, float], Any]) -> None:
    """Packets one after the other, each behind two bytes of length and one of checksum and time."""
    at, now = 0, 0.0
    while at + 3 <= len(data):
        size, how = struct.unpack_from("=HB", data, at)
        one = bytearray(data[at + 3 : at + 3 + size])
        at += 3 + len(one)
        now += how >> 2
        handle(one, 0, len(one), _CHECKSUMS[how & 3] if how & 3 < 3 else COMPLETE, now)


def _nat(data: bytes) -> None:
    """``forward.nat.datapath``: packets of flows, both ways, errors among them."""
    path = NatDatapath(Balancer(ServiceMap(_services())), FlowTable(FlowTimeouts(), 8))

    def handle(buf: bytearray, offset: int, length: int, checksum: int, now: float) -> None:
        path.handle(buf, offset, length, checksum, now)
        path.flows.expire(now, 4)
        assert len(path.flows) <= 8

    _series(data, handle)


def _director(data: bytes) -> None:
    """``forward.one_sided``: packets of dsr."""
    services = _services(routed=True)
    marks = {s.pool.backends[0]: 0x51000001 + i for i, s in enumerate(services)}
    carrier = LeaseCarrier(marks, 1 << 23)
    path = OneSidedDatapath(Balancer(ServiceMap(services)), FlowTable(FlowTimeouts(), 8), carrier)
    _series(data, path.handle)


class _Paths:
    """Narrow paths to the backends; what is sent fits them, and its length fields say so."""

    def send(self, packet: bytes, destination: str) -> int:
        """Check the packet, and lose it."""
        if packet[0] >> 4 == 4:
            size, most = int.from_bytes(packet[2:4], "big"), 600
        else:
            size, most = 40 + int.from_bytes(packet[4:6], "big"), 1280
        assert size == len(packet) <= most, (size, len(packet), destination)
        return 0

    def path(self, destination: str) -> tuple[int, bytes]:
        """600 bytes for IPv4, 1,280 for IPv6."""
        return (1280, ENDS[6][1]) if ":" in destination else (600, ENDS[4][1])


def _tunnel(data: bytes) -> None:
    """``forward.tunnel``: packets of clients, in outer headers; GUE if the first byte is odd."""
    services = _services(routed=True)
    carrier = TunnelCarrier()
    port = 6080 if data[:1] and data[0] & 1 else 0
    carrier.set_ports({b: port for s in services for b in s.pool.backends})
    balancer, flows = Balancer(ServiceMap(services)), FlowTable(FlowTimeouts(), 8)
    path = TunnelDatapath(balancer, flows, carrier, _Paths())
    _series(data[1:], path.handle)


def _marker(data: bytes) -> None:
    """``forward.offload.datapath``: first packets of offload."""
    services = _services()
    marks = {b: 0x51000001 + i for i, s in enumerate(services) for b in s.pool.backends}
    carrier = ConntrackCarrier(marks, bound=8)
    path = FirstPacketDatapath(Balancer(ServiceMap(services)), carrier)
    _series(data, path.handle)


def _journal(data: bytes) -> None:
    """``core.journal`` and ``core.restore``: a damaged journal."""
    buffer = bytearray(data)
    if journal.fault_of(buffer, BOOT) is not None:
        return
    found = Journal(buffer)
    table = FlowTable(FlowTimeouts(), 64)
    services = _services()
    NatDatapath(
        Balancer(ServiceMap(services)), FlowTable(FlowTimeouts(), 8)
    )  # makes the translations
    restore(table, found, Translations(services), 1000.0)
    table.expire(2000.0, 100)


def _queue(data: bytes) -> None:
    """``netfilter.queue.messages``: messages of the kernel's queue."""
    queue.answer(data)
    at = queue.payload_at(bytearray(data), 0, len(data))
    assert 0 <= at <= len(data) + 4


def _netlink(data: bytes) -> None:
    """``netfilter.nfnetlink``, ``connections``, ``conntrack``: dumps and events of the kernel."""
    for one in nfnetlink.split(data):
        connections.event(one)
        conntrack._entry(one)
        connections.tcp_state(dict(nfnetlink.attributes(one)))
        nfnetlink._count(one)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _config(data: bytes) -> None:
    """``config.load``: a configuration file, ours or a glider.yaml."""
    with contextlib.suppress(ConfigError):
        parse(_text(data), "fuzzed")


def _importers(data: bytes) -> None:
    """``config.importers``: the first byte selects the format."""
    names = [None, *FORMATS]
    with contextlib.suppress(ConfigError):
        _, draft = draft_of(
            _text(data[1:]), "fuzzed", names[data[0] % len(names)] if data else None
        )
        accepted(draft, "fuzzed")


def _listing(data: bytes) -> None:
    """``config.listing``: a file of backends."""
    listing.parse(_text(data), ("services", 0, "backends"))


def _capture(data: bytes) -> None:
    """``host.capture``: pcap and pcapng."""
    with contextlib.suppress(OperatorError):
        for _ in ip_packets(io.BytesIO(data), "fuzzed"):
            pass


def _checks(data: bytes) -> None:
    """What backends answer to checks: the first byte selects certificate, agent or DNS."""
    which, answer = (data[0] if data else 0) % 3, data[1:]
    if which == 0:
        with contextlib.suppress(ValueError):
            certificate.ends(answer)
    elif which == 1:
        with contextlib.suppress(ValueError):
            weight = agent.parse(answer).weight
            assert weight is None or 0 <= weight <= agent.MOST_PERCENT
    elif len(answer) >= 12:
        dns_probe._answers(answer, answer)
        with contextlib.suppress(ProbeError):
            dns_probe._evaluate(answer, "NOERROR", "x")


def _hello(data: bytes) -> None:
    """``core.client_hello``: what a client sends, whole and in pieces as long as the first byte."""
    size, sent = (data[0] + 1 if data else 1), data[1:]
    whole, pieces = HelloReader(), HelloReader()
    whole.feed(sent)
    for at in range(0, len(sent), size):
        if pieces.feed(sent[at : at + size]):
            break
    assert (whole.done, whole.hello) == (pieces.done, pieces.hello)
    if whole.hello is not None:
        _ROUTES.find(whole.hello)


def _http(data: bytes) -> None:
    """``daemon.web``: Host, Origin, the path and the token of a request, a line each."""
    lines = (_text(data).replace("\r", "").split("\n") + [""] * 4)[:4]
    host, origin, path, given = lines
    headers = {"Host": host} | ({"Origin": origin} if origin else {})
    try:
        request = make_mocked_request("GET", "/" + path, headers=headers)
    except ValueError:
        return  # aiohttp's parser takes no such thing
    with contextlib.suppress(web.HTTPException):
        RequestGuard(["balancer"]).check(request)
    token.matches(given, bytes(32))


def _messages(data: bytes) -> None:
    """The messages between the supervisor and its processes."""
    for receives in (*FROM_ROLE.values(), *TO_ROLE.values()):
        with contextlib.suppress(ValidationError):
            receives.validate_json(data)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "packet": _packet,
    "nat": _nat,
    "director": _director,
    "tunnel": _tunnel,
    "marker": _marker,
    "journal": _journal,
    "queue": _queue,
    "netlink": _netlink,
    "config": _config,
    "importers": _importers,
    "listing": _listing,
    "capture": _capture,
    "checks": _checks,
    "hello": _hello,
    "http": _http,
    "messages": _messages,
}
