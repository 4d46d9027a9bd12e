"""Tests of ``paraglider.forward.flows``: selecting, listing and ending flows."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import V4, V6, Family, backend, nat, packed, run, service

from paraglider.core.flow import Flow
from paraglider.core.flow_states import ESTABLISHED, GONE
from paraglider.core.pool import Backend
from paraglider.errors import OperatorError
from paraglider.forward.flows import FlowView, Match
from paraglider.forward.nat.datapath import NatDatapath
from paraglider.forward.worker_carrier import WorkerCarrier

addresses = st.ip_addresses()


@given(addresses, addresses, st.integers(0, 128))
def test_clients_of_a_network(
    one: ipaddress.IPv4Address | ipaddress.IPv6Address, network: Any, prefix: int
) -> None:
    """As ``ipaddress`` computes it; none of another family."""
    length = min(prefix, network.max_prefixlen)
    match = Match.of({"client": f"{network}/{length}"})
    assert match.client is not None
    assert match.matches_client(one.packed) == (one in match.client)
    assert match.matches_client(network.packed)
    assert Match().matches_client(one.packed)


def test_a_backend_by_its_name_or_its_address() -> None:
    """With any port; by its name with a port only."""
    one = Backend("10.0.0.1:8080", packed("10.0.0.1"), 8080)
    for word, meant in {"10.0.0.1": True, "10.0.0.1:8080": True, "10.0.0.1:80": False}.items():
        assert Match(backend=word).matches_backend(one) == meant
    assert Match().matches_backend(one)
    assert not Match(backend="10.0.0.2").matches_backend(one)


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
    """A match as words is parsed to an equal match, so that it can be sent to another process."""
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
def test_an_invalid_match_is_an_error(words: dict[str, Any], said: str) -> None:
    """With the remedy."""
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
    """The selected flows; the walk yields once for every flow."""
    found = list(view.walk(Match.of(words)))
    return [flow for flow in found if flow is not None]


@pytest.mark.parametrize("family", [V4, V6])
def test_a_walk_gives_what_is_meant(family: Family) -> None:
    """Each condition alone, and all together; the walk yields for other flows too."""
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
    """With both ends, the name of its service, and its idle time."""
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
        "carrier": "worker",
        "packets_in": None,
        "packets_out": None,
        "idle": 2.3,
    }
    assert view.describe(flow, 1.0)["idle"] == 0.0


class Kernel(WorkerCarrier):
    """A carrier that has seen packets of every flow."""

    def refresh(self, flow: Flow) -> bool:
        """See ``Carrier``."""
        flow.seen, flow.state = 30.0, ESTABLISHED
        return True

    def packets(self, flow: Flow) -> tuple[int, int] | None:
        """See ``Carrier``."""
        return 7, 9


def test_a_flow_that_the_kernel_carries_is_described_as_it_is_there() -> None:
    """Its entry has been asked for: when it was last seen, its state, and its packets."""
    path, view = viewed(V4)
    (flow,) = meant(view, service="tls", backend=V4.backends[1])
    path.carrier = Kernel()
    found = view.describe(flow, 31.0)
    assert (found["carrier"], found["packets_in"], found["packets_out"]) == ("bpf", 7, 9)
    assert (found["idle"], found["state"]) == (1.0, "established")


def test_a_flow_is_ended_once() -> None:
    """It is in no walk afterwards; the others stay."""
    path, view = viewed(V4)
    flow, *others = meant(view)
    assert view.forget(flow, 11.0)
    assert flow.state == GONE
    assert not view.forget(flow, 11.0)
    assert set(meant(view)) == set(others)
    assert path.flows is not None
    assert len(path.flows) == 5


def test_a_flow_of_another_table_is_not_ended() -> None:
    """Also with an equal key."""
    _, view = viewed(V4)
    _, other = viewed(V4)
    assert not view.forget(meant(other)[0], 11.0)
    assert len(meant(view)) == len(meant(other)) == 6
