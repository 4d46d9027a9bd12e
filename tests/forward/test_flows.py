"""Tests of ``paraglider.forward.flows``: which are meant, listed and ended."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import V4, V6, Family, backend, nat, packed, run, service

from paraglider.core.flow import Flow
from paraglider.core.flow_states import GONE
from paraglider.core.pool import Backend
from paraglider.errors import OperatorError
from paraglider.forward.flows import FlowView, Match
from paraglider.forward.nat.datapath import NatDatapath

addresses = st.ip_addresses()


@given(addresses, addresses, st.integers(0, 128))
def test_clients_of_a_network(
    one: ipaddress.IPv4Address | ipaddress.IPv6Address, network: Any, prefix: int
) -> None:
    """As ``ipaddress`` says; of another family, none."""
    length = min(prefix, network.max_prefixlen)
    match = Match.of({"client": f"{network}/{length}"})
    assert match.client is not None
    assert match.takes_client(one.packed) == (one in match.client)
    assert match.takes_client(network.packed)
    assert Match().takes_client(one.packed)


def test_a_backend_by_its_name_or_its_address() -> None:
    """Whatever its port; but by its name with a port alone."""
    one = Backend("10.0.0.1:8080", packed("10.0.0.1"), 8080)
    for word, meant in {"10.0.0.1": True, "10.0.0.1:8080": True, "10.0.0.1:80": False}.items():
        assert Match(backend=word).takes_backend(one) == meant
    assert Match().takes_backend(one)
    assert not Match(backend="10.0.0.2").takes_backend(one)


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"client": "192.0.2.0/24"},
        {"client": "2001:db8::/32", "backend": "fd00:10::1", "service": "web"},
        {"backend": "10.0.0.1:80"},
    ],
)
def test_words_are_read_as_they_are_written(words: dict[str, str]) -> None:
    """Both ways, so that one process can tell another."""
    assert Match.of(words).words() == words


def test_a_host_is_the_network_of_itself() -> None:
    """Bits behind the prefix are passed over; None stands for any."""
    assert Match.of({"client": "192.0.2.7"}).words() == {"client": "192.0.2.7/32"}
    assert Match.of({"client": "192.0.2.7/24"}).words() == {"client": "192.0.2.0/24"}
    assert Match.of({"client": None, "service": None, "other": 1}) == Match()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"client": "web"}, "client 'web' is no address and no network"),
        ({"client": "192.0.2.0/33"}, "is no address and no network"),
        ({"client": 7}, "`client` is no text"),
        ({"backend": ""}, "`backend` is no text"),
        ({"service": ["web"]}, "`service` is no text"),
    ],
)
def test_what_is_no_match_is_told(words: dict[str, Any], said: str) -> None:
    """With what to write."""
    with pytest.raises(OperatorError, match=said) as told:
        Match.of(words)
    assert "write" in str(told.value)


def viewed(family: Family) -> tuple[NatDatapath, FlowView]:
    """Three flows of each of two services, over two backends in turn."""
    ends = family.backends[:2]
    services = [
        service(
            family,
            name=name,
            ports=((port, port),),
            backends=[backend(a) for a in ends],
        )
        for name, port in (("web", 80), ("tls", 443))
    ]
    path = nat(*services)
    for port in (80, 443):
        for client_port in range(2000, 2003):
            run(path, family.syn(port=port, client_port=client_port), now=10.0)
    names = {t: one.name for one in services for t in one.translations.values()}
    return path, FlowView([path], names)


def meant(view: FlowView, **words: str) -> list[Flow]:
    """The flows that are meant; every flow gives something."""
    found = list(view.walk(Match.of(words)))
    return [flow for flow in found if flow is not None]


@pytest.mark.parametrize("family", [V4, V6])
def test_a_walk_gives_what_is_meant(family: Family) -> None:
    """Each condition by itself, and all together; who is not meant takes a turn as well."""
    _, view = viewed(family)
    assert len(meant(view)) == 6
    assert len(meant(view, service="web")) == 3
    assert len(meant(view, backend=family.backends[0])) == 4
    assert len(meant(view, service="web", backend=family.backends[1])) == 1
    assert len(meant(view, client=family.client)) == 6
    assert meant(view, client="203.0.113.0/24") == []
    assert list(view.walk(Match.of({"service": "no"}))) == [None] * 6


@pytest.mark.parametrize("family", [V4, V6])
def test_a_flow_is_described(family: Family) -> None:
    """With both ends, the name of its service, and how long it has been idle."""
    _, view = viewed(family)
    (flow,) = meant(view, service="tls", backend=family.backends[1])
    assert view.describe(flow, 12.34) == {
        "service": "tls",
        "protocol": "tcp",
        "client": family.client,
        "client_port": 2001,
        "vip": family.vip,
        "port": 443,
        "backend": family.backends[1],
        "state": "syn-sent",
        "idle": 2.3,
    }
    assert view.describe(flow, 1.0)["idle"] == 0.0


def test_a_flow_is_ended_once() -> None:
    """It is in no walk any more; the others stay."""
    path, view = viewed(V4)
    flow, *others = meant(view)
    assert view.forget(flow, 11.0)
    assert flow.state == GONE
    assert not view.forget(flow, 11.0)
    assert set(meant(view)) == set(others)
    assert path.flows is not None
    assert len(path.flows) == 5


def test_a_flow_of_another_table_is_not_ended() -> None:
    """Not even one with the same key."""
    _, view = viewed(V4)
    _, other = viewed(V4)
    assert not view.forget(meant(other)[0], 11.0)
    assert len(meant(view)) == len(meant(other)) == 6
