"""What an adopter knows: which flows it adopts, how many, and which backends have refused them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from packets import FAMILIES, V4, Family, backend, packed, service

from paraglider.core import adoption, verdict
from paraglider.core.adoption import ENDED_SECONDS, REFUSED_SECONDS, Adopter
from paraglider.core.balancer import Balancer
from paraglider.core.flow import TCP, UDP, Flow, FlowTimeouts
from paraglider.core.flow_states import ADOPTED, ADOPTED_BACKEND, ADOPTED_FIN, STATE_NAMES
from paraglider.core.flow_table import FlowTable
from paraglider.core.pool import Event
from paraglider.core.service import ServiceMap, VirtualService
from paraglider.core.verdict import REASON_NAMES

families = pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
WEB = ((80, 80),)


def key_of(family: Family, port: int = 40000, vip_port: int = 80, vip: str = "") -> bytes:
    """The key of the client's packets."""
    ends = packed(family.client) + packed(vip or family.vip)
    return ends + port.to_bytes(2, "big") + vip_port.to_bytes(2, "big")


def answer_key(family: Family, source: str, port: int = 80, client_port: int = 40000) -> bytes:
    """The key of a backend's packets."""
    ends = packed(source) + packed(family.client)
    return ends + port.to_bytes(2, "big") + client_port.to_bytes(2, "big")


class World:
    """An adopter, the flow table and the balancer of services."""

    def __init__(self, *services: VirtualService, limit: int = 0, bound: int = 1000) -> None:
        self.adopter = Adopter(limit)
        self.balancer = Balancer(ServiceMap(services))
        self.flows = FlowTable(FlowTimeouts(), bound)

    def adopt(self, key: bytes, now: float = 0.0, protocol: int = TCP) -> Flow | None:
        """The flow of a packet."""
        service = self.balancer.find(protocol, key)
        return self.adopter.adopt(self.balancer, self.flows, protocol, key, now, service=service)

    def reason(self, key: bytes, now: float = 0.0, protocol: int = TCP) -> str:
        """Why the flow of a packet is not adopted."""
        assert self.adopt(key, now, protocol) is None
        return REASON_NAMES[self.adopter.reason]


def web(family: Family = V4, **changes: object) -> VirtualService:
    """A service that adopts."""
    given = {"strategy": "maglev", "ports": WEB, "protocols": (TCP, UDP), **changes}
    return service(family, **given)  # type: ignore[arg-type]


@families
def test_by_the_client(family: Family) -> None:
    """The flow is half-open, at the backend of the hash, which counts it."""
    made = web(family)
    world = World(made)
    found = world.adopt(key_of(family))
    assert found is not None
    assert STATE_NAMES[found.state] == "adopted"
    (owner,) = (each for each in made.pool.backends if each.adopted)
    assert found.translation.backend is owner
    assert (owner.adopted, owner.conns, owner.opening, owner.flows) == (1, 1, 1, 0)


@families
@pytest.mark.parametrize("mapped", [0, 8080])
def test_by_the_backend(family: Family, mapped: int) -> None:
    """Whichever it is, ready or not; with and without a mapped port."""
    backends = [backend(address, mapped) for address in family.backends]
    made = web(family, backends=backends)
    made.pool.apply(backends[1], Event.SET_DRAIN)
    world = World(made)
    for number, address in enumerate(family.backends):
        found = world.adopt(answer_key(family, address, mapped or 80, 50000 + number))
        assert found is not None
        assert found.translation.backend is backends[number]
        assert found.forward_key == key_of(family, 50000 + number)
        assert found.state == ADOPTED_BACKEND


def test_a_datagram_of_the_backend() -> None:
    """One exchange, as far as is known."""
    world = World(web())
    found = world.adopt(answer_key(V4, V4.backends[0]), protocol=UDP)
    assert found is not None
    assert STATE_NAMES[found.state] == "udp-answered"


def beside_all_ports(vip: str) -> list[VirtualService]:
    """Port 80 of the first VIP, and all ports of a VIP, over one backend."""
    server = backend(V4.backends[0])
    return [web(backends=[server]), web(vip=vip, ports=((1, 65535),), backends=[server])]


def one_backend(**changes: object) -> list[VirtualService]:
    """Two VIPs over one port of a backend."""
    both = [V4.vip, V4.other_vip]
    return [web(vip=vip, backends=[backend(V4.backends[0])], **changes) for vip in both]


REFUSALS = [
    ("an answer that may be of two VIPs", one_backend(), answer_key(V4, V4.backends[0]),
     "from_forgotten"),
    ("an answer that may be of another VIP's port 80", beside_all_ports(V4.other_vip),
     answer_key(V4, V4.backends[0]), "from_forgotten"),
    ("a backend's own connection", [web()], answer_key(V4, V4.backends[0], 40000, 443), "no_flow"),
    ("a stranger's segment", [web()], answer_key(V4, "10.0.0.77"), "no_flow"),
    ("a port without a service", [web()], key_of(V4, vip_port=81), "no_flow"),
    ("answers of all ports, which may be the backend's own connections",
     [web(ports=((1, 65535),))], answer_key(V4, V4.backends[0]), "no_flow"),
    ("a strategy that is no hash", [web(strategy="rr")], key_of(V4), "no_flow"),
    ("an answer for a strategy that is no hash", [web(strategy="rr")],
     answer_key(V4, V4.backends[0]), "from_forgotten"),
    ("`adopt: never`", [web(adopts=False)], key_of(V4), "no_flow"),
    ("an answer past this host (`return: direct`)", [web(direct=True)],
     answer_key(V4, V4.backends[0]), "no_flow"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("services", "key", "reason"),
    [each[1:] for each in REFUSALS],
    ids=[each[0] for each in REFUSALS],
)
def test_what_is_not_adopted(services: list[VirtualService], key: bytes, reason: str) -> None:
    """Each for its reason; no flow is made."""
    world = World(*services)
    assert world.reason(key) == reason
    assert len(world.flows) == 0


def test_the_other_ports_of_the_same_vip() -> None:
    """Another service has them: an answer from port 80 is not of that one."""
    services = beside_all_ports(V4.vip)
    assert World(*services).adopt(answer_key(V4, V4.backends[0])) is not None


def test_without_a_backend() -> None:
    """Nothing is adopted while no backend takes flows or keeps some."""
    made = web()
    for each in made.pool.backends:
        made.pool.apply(each, Event.CHECK_FAILED)
    assert World(made).reason(key_of(V4)) == "no_flow"


def test_keys_in_use() -> None:
    """Two flows of one client's port to two VIPs over one backend cannot both be adopted."""
    world = World(*one_backend())
    assert world.adopt(key_of(V4)) is not None
    assert world.reason(key_of(V4, vip=V4.other_vip)) == "collision"


@families
def test_an_answer_of_a_range(family: Family) -> None:
    """Its port is the VIP's, at either end of the range and within; beside it there is no flow."""
    world = World(web(family, ports=((70, 80), (100, 200))))
    for port in (70, 75, 80, 100, 200):
        found = world.adopt(answer_key(family, family.backends[1], port))
        assert found is not None
        assert found.forward_key == key_of(family, vip_port=port)
    for port in (69, 81, 99, 201):
        assert world.reason(answer_key(family, family.backends[1], port)) == "no_flow"


AMBIGUOUS = {
    "all ports, or the backend's own": lambda: [web(ports=((1, 65535),))],
    "two VIPs": lambda: [web(vip=vip) for vip in (V4.vip, V4.other_vip)],
    "a VIP's port, or all ports of another": lambda: [
        web(),
        web(vip=V4.other_vip, ports=((1, 65535),)),
    ],
}


@pytest.mark.parametrize("services", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_an_answer_that_may_be_of_another_flow(
    services: Callable[[], list[VirtualService]],
) -> None:
    """It is that of the flow which the client's segment has begun, at whichever backend; without
    one it is not adopted.
    """
    world = World(*services())
    guessed = world.adopt(key_of(V4))
    assert guessed is not None
    others = [
        each
        for each in world.balancer.services.services[0].pool.backends
        if each is not guessed.translation.backend
    ]
    assert world.adopt(answer_key(V4, others[0].name, client_port=40001)) is None
    found = world.adopt(answer_key(V4, others[0].name))
    assert found is not None
    assert found.translation.backend is others[0]
    assert found.forward_key == key_of(V4)
    assert len(world.flows) == 1
    assert world.reason(answer_key(V4, others[1].name)) != "adoption_limit"
    assert world.flows.forward[TCP].get(key_of(V4)) is found


def test_the_other_ports_of_a_vip_are_answered_by_their_own_service() -> None:
    """A port with a service of its own is none of the one with all ports: a backend of this one
    cannot answer for it.
    """
    one, every = web(backends=[backend(V4.backends[0])]), web(ports=((1, 65535),))
    world = World(one, every)
    assert world.adopt(key_of(V4)) is not None
    assert world.adopt(answer_key(V4, V4.backends[1])) is None


def test_a_datagram_of_another_backend_than_the_client_was_led_to() -> None:
    """That has said nothing: the flow goes to the one that does. Not so if it has answered, nor if
    a flow is one query.
    """
    for udp_reply in (0.0, 5.0):
        made = web(udp_reply=udp_reply)
        world = World(made)
        first, second, third = made.pool.backends
        key = key_of(V4)
        translation = made.translations[first]
        led = world.flows.open(UDP, key, translation.reverse_key(key), translation, 0.0)
        found = world.adopt(answer_key(V4, second.name), protocol=UDP)
        if udp_reply:
            assert found is None
            assert world.flows.forward[UDP].get(key) is led
        else:
            assert found is not None
            assert found.translation.backend is second
            assert world.reason(answer_key(V4, third.name), protocol=UDP) == "collision"


def test_an_answer_that_collides_leaves_the_flow() -> None:
    """Which the client's segment has begun, since nothing takes its place."""
    made = web()
    world = World(made)
    guessed = world.adopt(key_of(V4))
    assert guessed is not None
    other = next(each for each in made.pool.backends if each is not guessed.translation.backend)
    key, translation = key_of(V4, vip="192.0.2.77"), made.translations[other]
    world.flows.open(TCP, key, translation.reverse_key(key), translation, 0.0)
    assert world.reason(answer_key(V4, other.name)) == "collision"
    assert world.flows.forward[TCP].get(key_of(V4)) is guessed


def test_a_lost_backend_is_not_heard() -> None:
    """Its flows are over: the client's next segment is answered with RST, here or by a backend."""
    made = web(on_down="reset")
    made.pool.apply(made.pool.backends[0], Event.CHECK_FAILED)
    assert World(made).reason(answer_key(V4, V4.backends[0])) == "from_lost"


def test_the_service_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a client's segment."""
    world, asked = World(web()), []
    find = ServiceMap.find

    def counted(*given: Any) -> Any:
        asked.append(given)
        return find(*given)

    monkeypatch.setattr(ServiceMap, "find", counted)
    assert world.adopt(key_of(V4)) is not None
    assert len(asked) == 1


@pytest.mark.parametrize("fin", [False, True])
def test_the_backends_word_counts_more(fin: bool) -> None:
    """A client's segment has led to a backend that says nothing; another one goes on with the flow,
    and keeps it against a third.
    """
    made = web()
    world = World(made)
    guessed = world.adopt(key_of(V4))
    assert guessed is not None
    if fin:
        world.flows.move(guessed, ADOPTED_FIN, 0.0)
    others = [each for each in made.pool.backends if each is not guessed.translation.backend]
    found = world.adopt(answer_key(V4, others[0].name))
    assert found is not None
    assert found.translation.backend is others[0]
    assert len(world.flows) == 1
    assert world.reason(answer_key(V4, others[1].name)) == "collision"


def test_the_limit() -> None:
    """So many in a second and no more, of either side; the next second has its own."""
    world = World(web(), limit=3)
    keys = [key_of(V4, 1000 + number) for number in range(10)]
    keys += [answer_key(V4, V4.backends[0], 80, 2000 + number) for number in range(10)]
    for now in (5.0, 6.2):
        found = [world.adopt(each, now) for each in keys[::3]]
        assert sum(each is not None for each in found) == 3
        assert REASON_NAMES[world.adopter.reason] == "adoption_limit"
        keys = keys[10:]
    assert len(world.flows) == 6


def test_a_flood_evicts_no_established_flow() -> None:
    """The table is full of flows in use: strays replace strays, and then each other."""
    world = World(web(), bound=100)
    kept = []
    for number in range(60):
        flow = world.adopt(answer_key(V4, V4.backends[0], 80, 1000 + number))
        assert flow is not None
        world.flows.move(flow, STATE_NAMES.index("established"), 0.0)
        kept.append(flow)
    for number in range(2000):
        assert world.adopt(key_of(V4, 10000 + number), 1.0 + number / 1000) is not None
    assert len(world.flows) == 100
    assert all(STATE_NAMES[each.state] == "established" for each in kept)
    assert world.flows.evicted == 1960


def test_a_table_full_of_flows_in_use() -> None:
    """Adopts nothing."""
    world = World(web(), bound=1)
    flow = world.adopt(answer_key(V4, V4.backends[0]))
    assert flow is not None
    world.flows.move(flow, STATE_NAMES.index("established"), 0.0)
    assert world.reason(key_of(V4, 50000)) == "table_full"


@pytest.mark.parametrize("side", ["client", "backend"])
def test_an_ended_flow(side: str) -> None:
    """Is not adopted by a segment of either side, until its client sends a SYN, or was silent for
    as long as any flow is kept.
    """
    world = World(web())
    flow = world.adopt(key_of(V4))
    assert flow is not None
    world.flows.forget(flow, 0.0)
    world.adopter.end(flow.forward_key, 0.0)
    key = flow.forward_key if side == "client" else flow.reverse_key
    assert world.adopt(key, 10.0) is None
    if side == "client":
        world.adopter.begin(flow.forward_key)
        assert world.adopt(key, 20.0) is not None
    else:
        assert world.adopt(key, ENDED_SECONDS + 1) is not None


def test_so_many_ended_flows_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten, and is adopted."""
    monkeypatch.setattr(adoption, "ENDED_MOST", 2)
    world = World(web())
    keys = [key_of(V4, port) for port in (1, 2, 3)]
    for key in keys:
        world.adopter.end(key, 0.0)
    assert [world.adopt(key, 1.0) is None for key in keys] == [False, True, True]


def moved(world: World, made: VirtualService, first_port: int = 1000) -> Flow:
    """A flow to which a backend answers RST: it began while another backend was down."""
    made.pool.apply(made.pool.backends[0], Event.CHECK_FAILED)
    made.pool.apply(made.pool.backends[0], Event.CHECK_PASSED)
    for port in range(first_port, first_port + 1000):
        flow = world.adopt(key_of(V4, port))
        assert flow is not None
        if flow.translation.backend is made.pool.backends[0]:
            return flow
    raise AssertionError


def test_a_refused_flow_goes_to_the_backend_of_the_table_before() -> None:
    """Once; if that refuses it too, its RST is the client's."""
    made = web()
    world = World(made)
    first = moved(world, made)
    key = first.forward_key
    assert world.adopter.reject(world.balancer, first, 1.0)
    world.flows.forget(first, 1.0)
    second = world.adopt(key, 1.2)
    assert second is not None
    assert second.translation.backend is not first.translation.backend
    assert not world.adopter.reject(world.balancer, second, 1.3)
    world.flows.forget(second, 1.3)
    third = world.adopt(key, 1.4)
    assert third is not None
    assert third.translation.backend is first.translation.backend


def test_that_a_backend_refused_a_flow_is_forgotten() -> None:
    """A later flow with the same key has the backend of the present table."""
    made = web()
    world = World(made)
    first = moved(world, made)
    assert world.adopter.reject(world.balancer, first, 1.0)
    world.flows.forget(first, 1.0)
    later = world.adopt(first.forward_key, 1.0 + REFUSED_SECONDS)
    assert later is not None
    assert later.translation.backend is first.translation.backend


def test_so_many_refusals_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten."""
    monkeypatch.setattr(adoption, "REFUSED_MOST", 1)
    made = web()
    world = World(made)
    one, other = moved(world, made, 1000), moved(world, made, 2000)
    for flow in (one, other):
        assert world.adopter.reject(world.balancer, flow, 1.0)
        world.flows.forget(flow, 1.0)
    again = world.adopt(one.forward_key, 1.5)
    assert again is not None
    assert again.translation.backend is one.translation.backend


def test_without_another_table_the_rst_is_the_clients() -> None:
    """So it is for a flow that is no longer half-open, or that the backend itself began."""
    made = web()
    world = World(made)
    flow = world.adopt(key_of(V4))
    assert flow is not None
    assert flow.state == ADOPTED
    assert not world.adopter.reject(world.balancer, flow, 0.0)
    flow = moved(world, made)
    world.flows.move(flow, ADOPTED_BACKEND, 0.0)
    assert not world.adopter.reject(world.balancer, flow, 0.0)


def test_the_reasons_are_drops() -> None:
    """Neither a refused segment of a backend nor a flood's reaches anybody."""
    for reason in (verdict.OTHER_BACKEND, verdict.ADOPTION_LIMIT, verdict.FROM_FORGOTTEN):
        assert verdict.VERDICT_OF[reason] == verdict.DROP
