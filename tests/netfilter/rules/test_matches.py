"""Parts of rules: matches of requests, echo and errors; exempt packets; queues."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.config.service import Method
from paraglider.netfilter.rules.matches import echo, errors, exempt, queues, requests
from paraglider.netfilter.rules.steering import Steering
from paraglider.netfilter.rules.traffic import RuleTraffic, traffic_of


def named(name: str) -> Callable[[Method], bool]:
    """The match of the method with this name."""
    return lambda method: method.name == name


def traffic(*services: dict[str, Any], exempt: tuple[str, ...] = ()) -> RuleTraffic:
    """The rule traffic of these services."""
    base = {"name": "a", "vip": "192.168.0.11/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
    content = {
        "network": {"exempt": list(exempt)},
        "services": [{**base, **service} for service in services],
    }
    return traffic_of(Config.model_validate(content), 4, named("nat"))


def test_requests_by_how_much_of_the_ports_they_have() -> None:
    """All ports, some ports, or both."""
    found = traffic({"ports": 80}, {"vip": "192.168.0.12/24", "protocol": "udp"})
    some, every = "-d 192.168.0.11 -p tcp -m tcp --dport 80", "-d 192.168.0.12 -p udp"
    assert list(requests(found)) == [some, every]
    assert list(requests(found, all_ports=False)) == [some]
    assert list(requests(found, all_ports=True)) == [every]


def test_echo_is_of_any_alone() -> None:
    """Services of TCP or UDP do not match echo."""
    found = traffic({}, {"vip": "192.168.0.12/24", "protocol": "any"})
    assert list(echo(found, 4)) == ["-d 192.168.0.12 -p icmp -m icmp --icmp-type 8"]


@pytest.mark.parametrize(("family", "kinds"), [(4, [3, 11, 12]), (6, [1, 2, 3, 4])])
def test_errors(family: int, kinds: list[int]) -> None:
    """ICMP errors about flows of services."""
    assert [int(match.split()[-1]) for match in errors(family)] == kinds


@pytest.mark.parametrize(
    ("endpoint", "rules"),
    [
        ("192.0.2.1", ["-d 192.0.2.1 -j RETURN", "-s 192.0.2.1 -j RETURN"]),
        (
            "192.0.2.1:53/udp",
            [
                "-d 192.0.2.1 -p udp -m udp --dport 53 -j RETURN",
                "-s 192.0.2.1 -p udp -m udp --sport 53 -j RETURN",
            ],
        ),
    ],
)
def test_exempt_both_ways(endpoint: str, rules: list[str]) -> None:
    """Exempt endpoints as client and as server."""
    assert list(exempt(traffic({}, exempt=(endpoint,)).exempt)) == rules


def test_queues_have_the_numbers_of_the_cores() -> None:
    """One rule per worker, by its mark."""
    assert queues(Steering((2, 5), 1).queues()) == (
        "-m mark --mark 0x50470000 -j NFQUEUE --queue-num 2",
        "-m mark --mark 0x50470001 -j NFQUEUE --queue-num 5",
    )
