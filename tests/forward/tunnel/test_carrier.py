"""Endpoints of backends: numbers in marks, paths, and how they outlive a change."""

from __future__ import annotations

from packets import V4, packed, service

from paraglider.core import flow
from paraglider.core.flow import FlowTimeouts
from paraglider.core.flow_table import FlowTable
from paraglider.core.verdict import MARK
from paraglider.forward.tunnel.carrier import PATH_SECONDS, Endpoint, TunnelCarrier
from paraglider.netfilter.rules.marks import LEASE, TUNNEL_BASE


class Paths:
    """Answers with ``mtu``, and counts the questions."""

    def __init__(self, mtu: int = 1500) -> None:
        self.mtu, self.asked = mtu, 0

    def send(self, packet: bytes, destination: str) -> int:
        """Nothing is sent here."""
        raise AssertionError(destination)

    def path(self, destination: str) -> tuple[int, bytes] | None:
        """The path to the first backend."""
        assert destination == V4.backends[0]
        self.asked += 1
        return self.mtu, packed("172.20.0.254")


def test_a_path_is_asked_for_once_a_second() -> None:
    """And at once when it was forgotten; the room is that of the encapsulation."""
    paths, end = Paths(), Endpoint(packed(V4.backends[0]), 6080)
    end.refresh(paths, 5.0)
    end.refresh(paths, 5.0 + PATH_SECONDS * 0.9)
    assert (paths.asked, end.room) == (1, 1468)
    paths.mtu = 1400
    end.refresh(paths, 5.0 + PATH_SECONDS)
    assert (paths.asked, end.room) == (2, 1368)
    end.forget()
    end.refresh(paths, 6.1)
    assert paths.asked == 3


def test_the_loopback_has_no_longer_packets() -> None:
    """An MTU of 65,536 leaves room for packets of 65,535 bytes with their outer header."""
    paths, end = Paths(65536), Endpoint(packed(V4.backends[0]), 0)
    end.refresh(paths, 0.0)
    assert end.room == 65515


def test_numbers_of_endpoints() -> None:
    """A backend keeps its number; a free one is used again; one with flows keeps its endpoint."""
    web = service(V4, routed=True)
    one, two, three = web.pool.backends
    carrier = TunnelCarrier()
    carrier.set_ports({one: 0, two: 0})
    assert carrier.verdicts[two] == MARK | (TUNNEL_BASE | 1) << 8
    carrier.endpoints[0].packets = 7
    carrier.set_ports({one: 0, three: 6080})
    assert carrier.counters(one)["packets_out"] == 7
    assert carrier.verdicts[three] == MARK | (TUNNEL_BASE | 1) << 8
    assert carrier.endpoints[1].port == 6080
    assert two not in carrier.verdicts
    table = FlowTable(FlowTimeouts(), 10)
    key = V4.syn()[12:20] + b"\x01\x02\x00\x50"
    translation = web.translations[three]
    held = table.open(flow.TCP, key, translation.reverse_key(key), translation, 0.0)
    carrier.set_ports({one: 0})
    assert carrier.install(held) == MARK | (TUNNEL_BASE | LEASE | 1) << 8
    carrier.set_ports({one: 0, two: 0})
    assert carrier.verdicts[two] == MARK | (TUNNEL_BASE | 2) << 8
    table.forget(held, 1.0)
    carrier.set_ports({one: 0, two: 0})
    assert three not in carrier.verdicts


def test_another_port() -> None:
    """A change of the encapsulation is for all packets, also of flows that are there."""
    web = service(V4, routed=True)
    one = web.pool.backends[0]
    carrier, paths = TunnelCarrier(), Paths()
    carrier.set_ports({one: 0})
    carrier.endpoints[0].refresh(paths, 0.0)
    carrier.set_ports({one: 6080})
    carrier.endpoints[0].refresh(paths, 0.1)
    assert carrier.endpoints[0].room == 1468
