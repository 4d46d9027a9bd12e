"""Segments and datagrams of flows that began at another balancer: translated as if known."""

from __future__ import annotations

import random

import pytest
from packets import FAMILIES, V4, Family, backend, header, nat, packed, run, service
from scapy.layers.inet import TCP, UDP
from scapy.packet import Raw

from paraglider.core import flow
from paraglider.core.flow_states import STATE_NAMES
from paraglider.core.pool import Event
from paraglider.core.service import ServiceMap, VirtualService
from paraglider.core.strategies.base import NewFlow
from paraglider.core.verdict import DROP, PASS, REASON_NAMES, REWRITTEN
from paraglider.forward.nat.datapath import NatDatapath

families = pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
BOTH = (flow.TCP, flow.UDP)


def web(family: Family, port: int = 0, **changes: object) -> VirtualService:
    """A service of port 80 over three backends, by a hash."""
    backends = [backend(address, port) for address in family.backends]
    given = {"strategy": "maglev", "ports": ((80, 80),), "protocols": BOTH, **changes}
    return service(family, backends=backends, **given)  # type: ignore[arg-type]


def owner(family: Family, **changes: object) -> str:
    """The address of the backend that the client's flow has at another balancer."""
    path = nat(web(family, **changes))
    run(path, family.syn())
    (found,) = path.flows.forward[flow.TCP].values()
    return found.translation.backend.name


def state(path: NatDatapath) -> str:
    """The state of the only flow; empty without one."""
    found = [each for table in path.flows.forward.values() for each in table.values()]
    assert len(found) < 2
    return STATE_NAMES[found[0].state] if found else ""


def counts(path: NatDatapath) -> dict[str, int]:
    """The packets refused, by reason."""
    return {REASON_NAMES[number]: count for number, count in enumerate(path.counts) if count}


#: (what happens, packets and the state after each): c is the client's, b the backend's
STORIES = [
    ("the client goes on, and the backend does", "cA adopted, cPA adopted, bA established"),
    ("the backend's answer proves the connection", "cPA adopted, bPA established"),
    ("the backend goes on, and the client does", ("bPA adopted-backend, bA adopted-backend,"
     " cA established")),
    ("the client had ended its half", "cFA adopted-fin, bA fin-client, bFA last-ack, cA time-wait"),
    ("the client ends its half before the backend goes on", ("cA adopted, cFA adopted-fin,"
     " bFA last-ack, cA time-wait")),
    ("the backend had ended its half", ("bFA adopted-backend-fin, cA fin-backend,"
     " cFA last-ack-backend, bA time-wait")),
    ("the backend ends its half first", "cA adopted, bFA fin-backend, cFA last-ack-backend"),
    ("the backend's FIN, and then the client's", ("bFA adopted-backend-fin,"
     " cFA last-ack-backend, bA time-wait")),
    ("the backend does not have it", "cA adopted, bR reset"),
    ("the client resets", "cA adopted, cR client-reset"),
    ("the client opens another with the same ports", ("cA adopted, cS adopted, bSA syn-received,"
     " cA established")),
]  # fmt: skip


@families
@pytest.mark.parametrize(
    "story", [story for _, story in STORIES], ids=[each for each, _ in STORIES]
)
def test_states(family: Family, story: str) -> None:
    """What each segment makes of an adopted flow."""
    path, address = nat(web(family)), owner(family)
    for number, step in enumerate(story.split(", ")):
        packet, after = step.split()
        side, flags = packet[0], packet[1:]
        made = family.segment(flags) if side == "c" else family.answer(flags, address)
        assert run(path, made, now=float(number))[0] == REWRITTEN
        assert state(path) == after, step
    assert counts(path) == {}


#: the same where answers do not pass: the flags of the client's segments, each with new bytes
DIRECT_STORIES = [
    ("the client's numbers grow", "A unconfirmed, A unconfirmed, A established"),
    ("the client ends its half", "FA client-done"),
    ("the client resets", "A unconfirmed, R client-reset"),
]


@families
@pytest.mark.parametrize(
    "story", [s for _, s in DIRECT_STORIES], ids=[n for n, _ in DIRECT_STORIES]
)
def test_states_past_this_host(family: Family, story: str) -> None:
    """A flow is as half-open as after its SYN, until the client has shown that it is answered."""
    path = nat(web(family, direct=True))
    for number, step in enumerate(story.split(", ")):
        flags, after = step.split()
        made = family.segment(flags, seq=1000 + 10 * number, ack=500)
        assert run(path, made, now=float(number))[0] == REWRITTEN
        assert state(path) == after, step


@families
@pytest.mark.parametrize("port", [0, 8080])
def test_a_segment_is_translated(family: Family, port: int) -> None:
    """Both ways, as scapy builds it; its backend is the one of a new flow."""
    path, address = nat(web(family, port)), owner(family, port=port)
    outcome, after = run(path, family.segment("PA", seq=7, ack=9))
    segment = TCP(sport=40000, dport=port or 80, flags="PA", seq=7, ack=9)
    wanted = bytes(family.ip(family.client, address) / segment)
    assert (outcome, after[header(after) :]) == (REWRITTEN, wanted[header(wanted) :])
    at, size = (16, 4) if family.number == 4 else (24, 16)
    assert after[at : at + size] == packed(address)
    outcome, after = run(path, family.answer("PA", address, port or 80, seq=9, ack=8))
    segment = TCP(sport=80, dport=40000, flags="PA", seq=9, ack=8)
    wanted = bytes(family.ip(family.vip, family.client) / segment)
    assert (outcome, after[header(after) :]) == (REWRITTEN, wanted[header(wanted) :])


@families
@pytest.mark.parametrize("port", [0, 8080])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_answer_is_translated(family: Family, port: int, number: int) -> None:
    """Of any backend, one that drains too: it leaves with the VIP, and the client's next segment
    follows.
    """
    made = web(family, port)
    made.pool.apply(made.pool.backends[2], Event.SET_DRAIN)
    path = nat(made)
    outcome, after = run(path, family.answer("PA", family.backends[number], port or 80))
    segment = TCP(sport=80, dport=40000, flags="PA")
    wanted = bytes(family.ip(family.vip, family.client) / segment)
    assert (outcome, after) == (REWRITTEN, wanted)
    outcome, after = run(path, family.segment("A"))
    at, size = (16, 4) if family.number == 4 else (24, 16)
    assert after[at : at + size] == packed(family.backends[number])


@families
def test_a_datagram_of_a_backend(family: Family) -> None:
    """It leaves with the VIP, and the client's next one goes to the same backend."""
    path = nat(web(family))
    answer = family.ip(family.backends[1], family.client) / UDP(sport=80, dport=40000) / Raw(b"x")
    wanted = family.ip(family.vip, family.client) / UDP(sport=80, dport=40000) / Raw(b"x")
    assert run(path, bytes(answer)) == (REWRITTEN, bytes(wanted))
    assert state(path) == "udp-answered"
    outcome, after = run(path, family.datagram(80))
    at, size = (16, 4) if family.number == 4 else (24, 16)
    assert (outcome, after[at : at + size]) == (REWRITTEN, packed(family.backends[1]))


@families
@pytest.mark.parametrize("changes", [{"strategy": "rr"}, {"adopts": False}])
def test_without_adoption(family: Family, changes: dict[str, object]) -> None:
    """The client's segment goes to the local stack, which answers RST; answers are dropped."""
    path = nat(web(family, **changes))
    assert run(path, family.segment("PA"))[0] == PASS
    assert run(path, family.answer("PA", family.backends[0]))[0] == DROP
    assert counts(path) == {"no_flow": 1, "from_forgotten": 1}
    assert state(path) == ""


@families
@pytest.mark.parametrize("flags", ["R", "RA", "SA", "SF", "F", "", "SR", "P"])
def test_other_segments_adopt_nothing(family: Family, flags: str) -> None:
    """Of the client: to the local stack; of a backend: dropped, with its own address."""
    path = nat(web(family))
    assert run(path, family.segment(flags))[0] == PASS
    assert run(path, family.answer(flags, family.backends[0]))[0] == DROP
    assert state(path) == ""


@families
def test_a_forged_rst(family: Family) -> None:
    """Is not believed when it is far from the number of the segment by which the flow was adopted,
    nor from the backend's number later.
    """
    path, address = nat(web(family)), owner(family)
    far = 1 << 24
    run(path, family.segment("A", seq=1000))
    run(path, family.segment("R", seq=1000 + far))
    assert state(path) == "adopted"
    run(path, family.answer("A", address, ack=far))
    for seq, after in ((1000, "established"), (far + 1, "client-reset")):
        run(path, family.segment("R", seq=seq))
        assert state(path) == after


@families
@pytest.mark.parametrize("how", ["by hand", "lost backend"])
def test_an_ended_flow_is_not_adopted(family: Family, how: str) -> None:
    """Its segments go to the local stack, until the client connects again."""
    made = web(family)
    path = nat(made)
    run(path, family.syn())
    (one,) = path.flows.forward[flow.TCP].values()
    if how == "by hand":
        path.end(one, 1.0)
    else:
        made.pool.apply(one.translation.backend, Event.CHECK_FAILED)
    for now in (2.0, 3.0):
        assert run(path, family.segment("PA"), now=now)[0] == PASS
        assert state(path) == ""
    assert run(path, family.syn(), now=4.0)[0] == REWRITTEN
    assert run(path, family.segment("PA"), now=5.0)[0] == REWRITTEN


@families
def test_a_backend_that_refuses_at_once(family: Family) -> None:
    """The RST is dropped, and the client's next segment goes to the backend of the table before;
    the RST of that one reaches the client.
    """
    made = web(family)
    address = owner(family)
    mine = next(each for each in made.pool.backends if each.name == address)
    made.pool.apply(mine, Event.CHECK_FAILED)
    other = made.strategy.pick(flow_of(family)).name  # the flow began here, while ``mine`` was down
    made.pool.apply(mine, Event.CHECK_PASSED)
    path = nat(made)
    run(path, family.segment("PA"))
    assert run(path, family.answer("R", address), now=0.1)[0] == DROP
    assert counts(path) == {"other_backend": 1}
    assert state(path) == ""
    _, after = run(path, family.segment("PA"), now=0.3)
    at, size = (16, 4) if family.number == 4 else (24, 16)
    assert after[at : at + size] == packed(other)
    outcome, after = run(path, family.answer("R", other), now=0.4)
    assert outcome == REWRITTEN
    assert state(path) == "reset"


def flow_of(family: Family) -> NewFlow:
    """The client's flow, as a strategy sees it."""
    ends = packed(family.client) + packed(family.vip)
    key = ends + (40000).to_bytes(2, "big") + (80).to_bytes(2, "big")
    return NewFlow(flow.TCP, key, 0.0)


def test_a_flood_of_strays() -> None:
    """200,000 a second beside established flows: none of these ends, the table keeps its bound, and
    no more are adopted than the limit.
    """
    path = nat(web(V4), bound=2000)
    path.adopter.limit = 5000
    known = [family_flow(path, port) for port in range(20000, 20500)]
    packet = bytearray(V4.segment("A"))
    chance = random.Random(4)
    for number in range(40_000):
        packet[12:16] = chance.randbytes(4)
        packet[20:22] = chance.randbytes(2)
        path.handle(bytearray(packet), 0, len(packet), 0, 10.0 + number / 200_000)
    assert len(path.flows) == 2000
    assert {STATE_NAMES[each.state] for each in known} == {"established"}
    adopted = sum(each.adopted for each in path.balancer.services.services[0].pool.backends)
    assert adopted == 5000
    assert counts(path) == {"adoption_limit": 35_000}


def family_flow(path: NatDatapath, port: int) -> flow.Flow:
    """An established flow of the client."""
    run(path, V4.syn(client_port=port))
    key = next(
        each for each in path.flows.forward[flow.TCP] if each[8:10] == port.to_bytes(2, "big")
    )
    found = path.flows.forward[flow.TCP][key]
    for packet in (
        V4.answer("SA", found.translation.backend.name, client_port=port),
        V4.segment("A", client_port=port, ack=1),
    ):
        run(path, packet)
    return found


def test_a_datagram_of_a_lost_flow_adopts_nothing() -> None:
    """The client is a backend of another service, and its port is that service's; its own service
    is gone. Its datagram is refused, and so is the next one of another client.
    """
    dns = service(V4, protocols=(flow.UDP,), ports=((53, 53),), backends=[backend("10.0.0.9")])
    path = nat(dns, web(V4, vip=V4.other_vip, name="other"))
    query = bytes(V4.ip(V4.backends[1], V4.vip) / UDP(sport=80, dport=53) / Raw(b"x"))
    assert run(path, query)[0] == REWRITTEN
    dns.pool.apply(dns.pool.backends[0], Event.CHECK_FAILED)
    path.balancer.services = ServiceMap(path.balancer.services.services[1:])
    assert run(path, query) == (PASS, query)
    assert counts(path) == {"no_service": 1}
    assert len(path.flows) == 0
    assert run(path, V4.datagram()) == (PASS, V4.datagram())
