"""The entries of flows that the program has decided, and the events about them."""

from __future__ import annotations

import pytest

from paraglider.bpf import layout
from paraglider.bpf.layout import (
    ALIAS,
    CLOSED,
    DECIDED,
    ESTABLISHED,
    EVENT_CLOSED,
    EVENT_ESTABLISHED,
    EVENT_OPENED,
    FIN_BACK,
    FIN_OUT,
    INDEX,
    LOST_FLOWS,
    REPLIED,
)
from paraglider.bpf.ring import Ring
from tests.bpf.carrying import (
    CLIENT_PORT,
    FIRST,
    NUMBER,
    SECOND,
    VIP_PORT,
    Bed,
)
from tests.bpf.deciding import FIRST_PACKET, UNDECIDED, Deciding
from tests.core.packets import FAMILIES, Family, packed

pytestmark = pytest.mark.root

families = pytest.mark.parametrize("family", FAMILIES, ids=("v4", "v6"))
protocols = pytest.mark.parametrize("protocol", ["tcp", "udp"])


@families
def test_the_entry_and_its_events(deciding: Deciding, family: Family) -> None:
    """The worker hears of the opening, the handshake and the end, and finds all in the entry."""
    bed = deciding.bed
    deciding.decide(family, "turn")
    deciding.reasons(family, "> S")
    entry = bed.entry(family, "tcp")
    assert (entry.flags, entry.ack, entry.translation) == (DECIDED, 0, FIRST)
    assert (entry.packets_out, entry.packets_back) == (1, 0)
    assert entry.seen > 0
    deciding.reasons(family, "< SA")
    assert bed.entry(family, "tcp").ack == 1001
    deciding.reasons(family, "> A", "< FA", "> FA")
    entry = bed.entry(family, "tcp")
    flags = DECIDED | REPLIED | ESTABLISHED | FIN_OUT | FIN_BACK | CLOSED
    assert (entry.flags, entry.packets_out, entry.packets_back) == (flags, 3, 2)
    key = Bed.key(family, family.client, family.vip, (CLIENT_PORT, VIP_PORT)).ljust(36, b"\0")
    told = (family.number, NUMBER["tcp"])
    assert bed.events(entry.owner) == [
        (EVENT_OPENED, *told, DECIDED, FIRST, key),
        (EVENT_ESTABLISHED, *told, DECIDED | REPLIED | ESTABLISHED, FIRST, key),
        (EVENT_CLOSED, *told, flags, FIRST, key),
    ]
    assert bed.events(1 - entry.owner) == []


@families
def test_an_entry_by_the_backends_segment(deciding: Deciding, family: Family) -> None:
    """It is of an established flow, and has the client's next number."""
    deciding.decide(family, "flow", bound=0)
    assert deciding.reasons(family, "> S", "< A") == ["stateless", "opened"]
    entry = deciding.bed.entry(family, "tcp")
    assert (entry.flags, entry.ack) == (DECIDED | REPLIED | ESTABLISHED, 2000)
    assert (entry.packets_out, entry.packets_back) == (0, 1)
    kinds = [event[0] for event in deciding.bed.events(entry.owner)]
    assert kinds == [EVENT_OPENED, EVENT_ESTABLISHED]


@families
@protocols
def test_no_route_makes_no_entry(deciding: Deciding, family: Family, protocol: str) -> None:
    """Nothing is changed before everything that may refuse has agreed."""
    deciding.decide(family, "turn")
    route = f"blackhole {family.backends[0]}"
    deciding.bed.namespace.ip(f"route add {route}")
    assert deciding.first(family, protocol) == "no_route"
    deciding.bed.namespace.ip(f"route del {route}")
    assert deciding.flows() == 0


@families
@protocols
@pytest.mark.parametrize("kind", ["turn", "flow"])
def test_several_services_on_one_backend(
    deciding: Deciding, family: Family, protocol: str, kind: str
) -> None:
    """Where the backend's end does not name the VIP, the flow gets an entry for its replies too."""
    bed = deciding.bed
    deciding.decide(family, kind, aliased=True)
    assert deciding.first(family, protocol) == "opened"
    entry = bed.entry(family, protocol)
    key = Bed.key(family, family.backends[0], family.client, (VIP_PORT, CLIENT_PORT))
    alias = layout.FLOW.pack(0, ALIAS, 0, FIRST, entry.owner, 0, 0)
    assert bed.maps.flows[NUMBER[protocol], family.number].get(key) == alias
    answer = {"tcp": "< SA", "udp": "< udp"}[protocol]
    assert deciding.step(family, answer).counted == {"carried": 1}
    assert deciding.flows() == 2
    deciding.decide(family, kind, aliased=True, bound=0)
    assert deciding.first(family, protocol, client_port=9) == "flood"
    assert deciding.flows() == 2


@families
@protocols
def test_an_alias_that_another_flow_has(deciding: Deciding, family: Family, protocol: str) -> None:
    """Two services, one client's port, one backend: the worker decides, and no entry is left."""
    deciding.decide(family, "turn", aliased=True)
    ends = (family.backends[0], family.client, (VIP_PORT, CLIENT_PORT))
    deciding.bed.install(family, protocol, *ends, flags=ALIAS, index=SECOND)
    assert deciding.first(family, protocol) == UNDECIDED[protocol]
    assert deciding.flows() == 1


@families
@protocols
def test_an_alias_of_a_flow_that_has_ended(
    deciding: Deciding, family: Family, protocol: str
) -> None:
    """A client's packet with its key is no reply: its destination is replaced, not its source."""
    deciding.decide(family, "flow", bound=0)
    deciding.bed.install(family, protocol, flags=ALIAS, index=SECOND)
    ran = deciding.step(family, FIRST_PACKET[protocol])
    assert ran.counted == {"stateless": 1}
    assert packed(family.client) + packed(family.backends[0]) in ran.packet


@families
@protocols
def test_a_service_with_all_ports(deciding: Deciding, family: Family, protocol: str) -> None:
    """Every port that has no service of its own is its."""
    deciding.decide(family, "turn", port=0, aliased=True)
    for port in (1, 80, 65535):
        ran = deciding.step(family, FIRST_PACKET[protocol], port=port, client_port=port)
        assert ran.counted == {"opened": 1}
        assert packed(family.backends[0]) in ran.packet
        answer = {"tcp": "< SA", "udp": "< udp"}[protocol]
        ran = deciding.step(family, answer, port=port, client_port=port)
        assert ran.counted == {"carried": 1}


@families
@protocols
@pytest.mark.parametrize("kind", ["turn", "flow"])
def test_a_full_map(deciding: Deciding, family: Family, protocol: str, kind: str) -> None:
    """By hash a flow goes on without an entry; by turn a worker decides."""
    deciding.decide(family, kind, bound=5000)
    flows = deciding.bed.maps.flows[NUMBER[protocol], family.number]
    for number in range(2000):
        key = bytes(flows.key_size - 4) + number.to_bytes(4, "big")
        if flows.insert(key, bytes(flows.value_size)):
            break
    beyond = {"turn": "flood", "flow": "stateless"}[kind]
    assert deciding.first(family, protocol) == beyond
    if kind == "flow":
        answer = {"tcp": "< A", "udp": "< udp"}[protocol]
        assert deciding.reasons(family, answer) == ["stateless"]
    index = INDEX.pack(deciding.index)
    assert deciding.bed.maps.decisions.get(index) is not None


@families
@pytest.mark.parametrize("kind", ["turn", "flow"])
def test_a_syn_on_two_cpus_at_once(deciding: Deciding, family: Family, kind: str) -> None:
    """One of them opens the flow, and the other goes the same way or to the worker."""
    bed = deciding.bed
    deciding.decide(family, kind, [FIRST, SECOND], bound=1 << 31)
    ports = range(10_000, 10_300)
    counted = deciding.syns_at_once(family, ports)
    assert counted["opened"] == len(ports) == deciding.flows()
    assert counted["opened"] + counted["carried"] + counted["syn"] == 2 * len(ports)
    assert kind == "turn" or counted["syn"] == 0
    told = [Ring(ring, layout.RING_BYTES).read(1000) for ring in bed.maps.rings.values()]
    assert sum(map(len, told)) == len(ports)


@families
def test_a_decided_flow_is_lost_with_its_backend(deciding: Deciding, family: Family) -> None:
    """Also one whose SYN comes again: the worker picks another."""
    deciding.decide(family, "turn")
    assert deciding.reasons(family, "> S") == ["opened"]
    deciding.bed.translate(family, state=LOST_FLOWS)
    assert deciding.reasons(family, "> S", "< SA", "> A") == ["lost"] * 3
