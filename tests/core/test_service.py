"""Which service a packet is for: the narrower claim wins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import FAMILIES, MANY, V4, V6, Family, backend, packed, service

from paraglider.core.affinity import Affinity
from paraglider.core.client_hello import Hello
from paraglider.core.flow import ICMP, ICMP6, TCP, UDP
from paraglider.core.hello_routes import RouteMatch
from paraglider.core.pool import Event
from paraglider.core.service import ALL_PORTS, ServiceMap


def port(number: int) -> bytes:
    """A port as it stands in a packet."""
    return number.to_bytes(2, "big")


def name(services: ServiceMap, protocol: int, vip: str, number: int) -> str:
    """The name of the service found, or "none"."""
    found = services.find(protocol, packed(vip), port(number))
    return found.name if found else "none"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("turned", [False, True], ids=["as written", "turned round"])
@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (80, "exact"),
        (79, "range"),
        (81, "range"),
        (70, "range"),
        (90, "range"),
        (69, "all"),
        (91, "all"),
        (443, "exact"),
        (8000, "range"),
        (8099, "range"),
        (8100, "all"),
        (1, "all"),
        (65535, "all"),
    ],
)
def test_the_narrower_claim_wins(family: Family, turned: bool, number: int, expected: str) -> None:
    """An exact port precedes a range, and a range all ports, in any order of the file."""
    services = [
        service(family, name="all", ports=ALL_PORTS),
        service(family, name="range", ports=((70, 90), (8000, 8099))),
        service(family, name="exact", ports=((80, 80), (443, 443))),
    ]
    found = ServiceMap(services[::-1] if turned else services)
    assert name(found, TCP, family.vip, number) == expected


def test_protocol_and_vip_are_part_of_the_claim() -> None:
    """Services meet only where protocol and VIP are the same."""
    found = ServiceMap(
        [
            service(V4, name="web", ports=((80, 80),)),
            service(V4, name="other", vip=V4.other_vip, ports=((80, 80),)),
            service(V4, name="dns", protocols=(UDP,), ports=((53, 53),)),
            service(V6, name="web6", ports=((80, 80),)),
        ]
    )
    assert name(found, TCP, V4.vip, 80) == "web"
    assert name(found, TCP, V4.other_vip, 80) == "other"
    assert name(found, UDP, V4.vip, 53) == "dns"
    assert name(found, TCP, V6.vip, 80) == "web6"
    assert name(found, UDP, V4.vip, 80) == "none"
    assert name(found, TCP, V4.vip, 53) == "none"
    assert name(found, TCP, V4.client, 80) == "none"


@pytest.mark.parametrize(("family", "echo"), [(V4, ICMP), (V6, ICMP6)])
def test_any_has_tcp_udp_and_echo(family: Family, echo: int) -> None:
    """``protocol: any`` has its ports of TCP and UDP, and echo with any identifier."""
    found = ServiceMap(
        [service(family, name="any", protocols=(TCP, UDP), ports=((80, 80),), echo=True)]
    )
    assert name(found, TCP, family.vip, 80) == name(found, UDP, family.vip, 80) == "any"
    assert name(found, TCP, family.vip, 81) == "none"
    assert {name(found, echo, family.vip, identifier) for identifier in (0, 80, 4711)} == {"any"}


@pytest.mark.parametrize("protocol", [ICMP, ICMP6])
def test_echo_belongs_to_any_alone(protocol: int) -> None:
    """A VIP whose services are TCP or UDP answers pings itself."""
    found = ServiceMap([service(V4, protocols=(TCP, UDP)), service(V6, protocols=(TCP, UDP))])
    assert name(found, protocol, V4.vip, 80) == name(found, protocol, V6.vip, 80) == "none"


@MANY
@given(st.lists(st.integers(1, 65535), min_size=2, max_size=8, unique=True), st.integers(1, 65535))
def test_ranges_against_counting(ends: list[int], number: int) -> None:
    """A port is in a range exactly when it lies between its ends, both included."""
    ends = sorted(ends[: len(ends) // 2 * 2])
    ranges = tuple(zip(ends[::2], ends[1::2], strict=True))
    found = ServiceMap([service(V4, ports=ranges)])
    inside = any(first <= number <= last for first, last in ranges)
    assert name(found, TCP, V4.vip, number) == ("web" if inside else "none")


def test_every_backend_has_one_rewrite() -> None:
    """From the VIP to the backend, with the port mapped if the service has a single one."""
    backends = [backend("10.0.0.1"), backend("10.0.0.2", 8080)]
    affinity = Affinity(60, 10)
    web = service(V4, ports=((80, 80),), backends=backends, affinity=affinity, direct=True)
    assert list(web.translations) == backends
    plain, mapped = web.translations.values()
    assert (plain.mapped, mapped.mapped) == (False, True)
    assert (mapped.vip_port, mapped.backend_port) == (port(80), port(8080))
    for translation in (plain, mapped):
        assert translation.vip == packed(V4.vip)
        assert translation.direct
        assert translation.affinity is affinity


def test_the_strategy_follows_the_pool() -> None:
    """A service has its strategy prepared at once, and again when a backend leaves."""
    web = service(V4)
    web.pool.apply(web.pool.backends[0], Event.CHECK_FAILED)
    found = ServiceMap([web])
    assert found.services == (web,)
    assert web.pool.ready == web.pool.backends[1:]


@pytest.mark.parametrize("turned", [False, True], ids=["as written", "turned round"])
def test_a_route_claims_no_ports(turned: bool) -> None:
    """Packets are its service's; a ClientHello leads to it."""
    web = service(V4, ports=((443, 443),))
    route = service(V4, ports=((443, 443),), name="r", route=RouteMatch("web", ("a.example",), ()))
    found = ServiceMap([route, web] if turned else [web, route])
    assert name(found, TCP, V4.vip, 443) == "web"
    assert found.routes["web"].find(Hello("a.example")) is route
    assert list(found.routes) == ["web"]
    assert ServiceMap([web]).routes == {}
