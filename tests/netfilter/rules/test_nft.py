"""Parts that the tables of offload and `start` have in common; whole ones are in tests/forward."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.config.types import ALL_PORTS, PortRange
from paraglider.netfilter.rules.nft import (
    KernelTable,
    by_hash,
    datagrams,
    first_packets,
    port_match,
    spans,
    without_counters,
)


def config(*services: dict[str, Any]) -> Config:
    """A configuration of services of offload on one VIP."""
    base = {"vip": "192.168.0.11/24", "forward": "offload", "backends": ["10.0.0.1"]}
    return Config.model_validate({"services": [{**base, **service} for service in services]})


@pytest.mark.parametrize(
    ("ports", "match"),
    [
        ((ALL_PORTS,), "meta l4proto tcp"),
        ((PortRange(80, 80),), "tcp dport 80"),
        ((PortRange(80, 90), PortRange(443, 443)), "tcp dport { 80-90, 443 }"),
    ],
)
def test_ports(ports: tuple[PortRange, ...], match: str) -> None:
    """All, one, or a set."""
    assert port_match("tcp", "dport", ports) == match


def test_shares_are_spans_of_numbers() -> None:
    """Each mark has numbers in proportion to its share; a share of 0 has none."""
    assert spans([(0x51000001, 3), (0x51000002, 0), (0x51000003, 1)]) == (
        "{ 0-2 : 0x51000001, 3 : 0x51000003 }",
        4,
    )
    hashed = by_hash("ip saddr", 0x1_0000_0001, [(0x51000001, 2)])
    assert hashed == "jhash ip saddr mod 2 seed 0x00000001 map { 0-1 : 0x51000001 }"


def test_the_narrower_service_of_a_vip_comes_first() -> None:
    """ICMP echo is matched only if the service has it."""
    web = {"name": "web", "protocol": "tcp", "ports": 80}
    found = first_packets(config({"name": "every", "protocol": "any"}, web).services, 4)
    assert [(service.name, protocol) for service, protocol, _ in found] == [
        ("web", "tcp"),
        ("every", "tcp"),
        ("every", "udp"),
        ("every", "icmp"),
    ]


def test_what_a_table_is_known_by() -> None:
    """Its marks in order, and the UDP ports that it serves."""
    services = config({"name": "dns", "protocol": "udp", "ports": "53-54"}).services
    table = KernelTable.of(4, ["add table ip paraglider"], services, {"dns": (0x51000007,)})
    assert table.text == "add table ip paraglider\n"
    assert table.marks == (0x51000007,)
    assert table.datagrams == datagrams(services) == (("192.168.0.11", 53, 54),)


def test_counters_that_go_are_added_first() -> None:
    """nft cannot delete a missing object."""
    name = "requests-51000001"
    assert without_counters(4, [0x51000001], ("requests",)) == (
        f"add counter ip paraglider {name}\ndelete counter ip paraglider {name}\n"
    )
