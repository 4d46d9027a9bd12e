"""Answers of all ports that began at another balancer, and connections of the backends' own: the
client is asked whose a backend's segment is.
"""

from __future__ import annotations

import pytest
from packets import FAMILIES, V4, Family, backend, nat, packed, run, service
from scapy.layers.inet import TCP
from scapy.packet import Raw

from paraglider.core import flow
from paraglider.core.flow_states import STATE_NAMES
from paraglider.core.own_connections import ASKED_SECONDS, OWN_SECONDS
from paraglider.core.service import VirtualService
from paraglider.core.verdict import PASS, REWRITTEN
from paraglider.forward.nat.datapath import NatDatapath

families = pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])


def every(family: Family, **changes: object) -> VirtualService:
    """A service on all ports over three backends, by a hash."""
    backends = [backend(address) for address in family.backends]
    return service(family, backends=backends, **{"strategy": "maglev", **changes})  # type: ignore[arg-type]


def data(family: Family, source: str, flags: str = "PA", port: int = 80) -> bytes:
    """A segment with data from a backend's port, or from the VIP's."""
    segment = TCP(sport=port, dport=40000, flags=flags) / Raw(b"data")
    return bytes(family.ip(source, family.client) / segment)


def is_answer(path: NatDatapath, family: Family, packet: bytes, now: float = 0.0) -> bool:
    """Whether a backend's segment gets the VIP as its source; else it passes unchanged."""
    outcome, after = run(path, packet, now=now)
    if outcome == REWRITTEN:
        assert packed(family.vip) in after[:40]
        return True
    assert (outcome, after) == (PASS, packet)
    return False


def states(path: NatDatapath) -> list[str]:
    """The states of all flows."""
    return [STATE_NAMES[each.state] for each in path.flows.forward[flow.TCP].values()]


@families
@pytest.mark.parametrize("flags", ["PA", "A", "FA"])
def test_an_answer_is_adopted(family: Family, flags: str) -> None:
    """At the first segment that has to be acknowledged; the client's word makes it lasting."""
    path = nat(every(family))
    source = family.backends[1]
    packet = family.answer("FA", source) if flags == "FA" else data(family, source, flags)
    assert is_answer(path, family, packet)
    assert states(path)[0].startswith("adopted-backend")
    assert run(path, family.segment("A"))[0] == REWRITTEN
    assert states(path) == ["fin-backend" if flags == "FA" else "established"]
    assert is_answer(path, family, packet, ASKED_SECONDS + 1)


@families
def test_an_empty_segment_asks_nothing(family: Family) -> None:
    """A client need not answer it."""
    path = nat(every(family))
    assert not is_answer(path, family, family.answer("A", family.backends[1]))
    assert states(path) == []


@families
def test_a_stranger_answers_rst(family: Family) -> None:
    """It does not reach the backend, whose connection goes on with the next segment, for as long as
    it is used.
    """
    path, packet = nat(every(family)), data(family, family.backends[1])
    assert is_answer(path, family, packet)
    rst = family.segment("R")
    assert run(path, rst) == (PASS, rst)
    assert states(path) == []
    for now in (0.1, 5.0, OWN_SECONDS * 0.8, OWN_SECONDS * 1.6):
        assert not is_answer(path, family, packet, now)
    assert is_answer(path, family, packet, OWN_SECONDS * 2.6)


@families
def test_a_stranger_is_silent(family: Family) -> None:
    """The backend's segment passes when it has been repeated for long enough."""
    path, packet = nat(every(family)), data(family, family.backends[1])
    assert is_answer(path, family, packet)
    assert is_answer(path, family, packet, ASKED_SECONDS * 0.9)
    assert not is_answer(path, family, packet, ASKED_SECONDS)
    assert states(path) == []


@families
def test_a_connection_that_began_here_is_not_asked_about(family: Family) -> None:
    """Its SYN was seen."""
    path, source = nat(every(family)), family.backends[1]
    assert not is_answer(path, family, family.answer("S", source))
    assert not is_answer(path, family, data(family, source))


@families
@pytest.mark.parametrize(
    "changes", [{"strategy": "rr"}, {"adopts": False}, {"direct": True}], ids=str
)
def test_without_adoption_nothing_is_asked(family: Family, changes: dict[str, object]) -> None:
    """All packets of the backends that are not of a flow pass."""
    path = nat(every(family, **changes))
    assert not is_answer(path, family, data(family, family.backends[1]))
    assert states(path) == []


def test_two_vips_on_all_ports() -> None:
    """It is not known which one to ask for."""
    path = nat(every(V4), every(V4, vip=V4.other_vip))
    assert not is_answer(path, V4, data(V4, V4.backends[1]))


@pytest.mark.parametrize("full", [True, False])
def test_where_no_flow_can_be_adopted(full: bool) -> None:
    """With a full table, or above the limit, no connection of a backend's own suffers."""
    path = nat(every(V4), bound=1)
    run(path, V4.syn(81))
    run(
        path,
        V4.answer(
            "SA", next(iter(path.flows.forward[flow.TCP].values())).translation.backend.name, 81
        ),
    )
    run(path, V4.segment("A", 81, ack=1))
    assert states(path) == ["established"]
    if not full:
        path.flows.bound = 10
        path.adopter.limit = 1
        assert is_answer(path, V4, data(V4, V4.backends[0], port=90))
    assert not is_answer(path, V4, data(V4, V4.backends[1]))
