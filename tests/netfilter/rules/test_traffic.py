"""Endpoints over services, and the port matches."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from paraglider.config.model import Config
from paraglider.config.service import Method
from paraglider.config.types import ALL_PORTS, PortRange
from paraglider.netfilter.rules.traffic import (
    MULTIPORT_SLOTS,
    port_matches,
    traffic_of,
    united_ports,
)

port_ranges = st.builds(
    lambda first, length: PortRange(first, min(first + length, 65535)),
    st.integers(1, 65535),
    st.integers(0, 300),
)


def named(name: str) -> Callable[[Method], bool]:
    """The match of the method with this name."""
    return lambda method: method.name == name


def config(*services: dict[str, Any]) -> Config:
    """A configuration of these services, completed with defaults."""
    base = {"vip": "192.168.0.11/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
    return Config.model_validate(
        {"services": [{"name": f"s{i}", **base, **s} for i, s in enumerate(services)]}
    )


def covered(matches: tuple[str, ...]) -> set[int]:
    """The ports that iptables would match, none of them in two rules."""
    ports: list[int] = []
    for match in matches:
        for item in match.split()[-1].split(","):
            first, _, last = item.partition(":")
            ports += range(int(first), int(last or first) + 1)
    assert len(ports) == len(set(ports))
    return set(ports)


@given(st.lists(port_ranges, min_size=1, max_size=40))
def test_united_ports_are_the_same_ports(ranges: list[PortRange]) -> None:
    """Uniting loses no port, adds none, and leaves no two ranges that overlap or touch."""
    united = united_ports(ranges)
    assert {p for r in ranges for p in (r.first, r.last)} <= {
        p for r in united for p in range(r.first, r.last + 1)
    }
    assert sum(map(len, united)) == len({p for r in ranges for p in range(r.first, r.last + 1)})
    assert all(a.last + 1 < b.first for a, b in itertools.pairwise(united))


@given(st.lists(port_ranges, min_size=1, max_size=60))
def test_matches_cover_exactly_the_ports(ranges: list[PortRange]) -> None:
    """For any ranges, the rules match the requested ports, each once."""
    united = united_ports(ranges)
    matches = port_matches("tcp", "destination", united)
    assert covered(matches) == {p for r in united for p in range(r.first, r.last + 1)}


@given(st.lists(port_ranges, min_size=2, max_size=60))
def test_no_rule_exceeds_multiport(ranges: list[PortRange]) -> None:
    """A range takes two of multiport's slots, a port one."""
    for match in port_matches("udp", "source", united_ports(ranges)):
        items = match.split()[-1].split(",")
        assert sum(2 if ":" in item else 1 for item in items) <= MULTIPORT_SLOTS


def test_all_ports_need_no_match() -> None:
    """A service without `ports` is matched by protocol only."""
    assert port_matches("tcp", "source", (ALL_PORTS,)) == ("-p tcp",)


def test_ports_of_a_shared_vip_are_united() -> None:
    """Two services on one VIP and protocol become one endpoint."""
    traffic = traffic_of(config({"ports": 80}, {"ports": ["8000-8010", 81]}), 4, named("nat"))
    assert [(str(e.address), e.protocol, e.ports) for e in traffic.vips] == [
        ("192.168.0.11", "tcp", (PortRange(80, 81), PortRange(8000, 8010)))
    ]


def test_replies_come_from_the_mapped_port() -> None:
    """A backend with a mapped port answers from it, others from the service's."""
    backends = ["10.0.0.1", {"address": "10.0.0.2", "port": 8080}]
    traffic = traffic_of(config({"ports": 80, "backends": backends}), 4, named("nat"))
    assert {str(e.address): e.ports for e in traffic.replies} == {
        "10.0.0.1": (PortRange(80, 80),),
        "10.0.0.2": (PortRange(8080, 8080),),
    }


def test_direct_replies_do_not_concern_us() -> None:
    """Under return: direct there are no replies to match, but errors of the backends still."""
    traffic = traffic_of(config({"protocol": "any", "return": "direct"}), 4, named("nat"))
    assert traffic.replies == ()
    assert traffic.echo_replies == ()
    assert traffic.echo_vips == (ipaddress.ip_address("192.168.0.11"),)
    assert traffic.backends == (ipaddress.ip_address("10.0.0.1"),)


def test_families_do_not_mix() -> None:
    """A family sees its own services only."""
    both = config({}, {"vip": "2001:db8::11/64", "backends": ["fd00:10::1"]})
    assert [str(a) for a in traffic_of(both, 6, named("nat")).addresses] == ["2001:db8::11"]
    assert [str(a) for a in traffic_of(both, 4, named("nat")).addresses] == ["192.168.0.11"]
