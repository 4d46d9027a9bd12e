"""The ports of a closed connection are used again: the program decides about the SYN, and the new
flow gets the entry.
"""

from __future__ import annotations

import errno

import pytest

from paraglider.bpf.layout import (
    ALIAS,
    CLOSED,
    DECIDED,
    DIRECT,
    ESTABLISHED,
    EVENT_CLOSED,
    EVENT_ESTABLISHED,
    EVENT_OPENED,
    FIN_BACK,
    FIN_OUT,
    LOST_FLOWS,
    NO_ENTRIES,
    REPLACED,
    REPLIED,
)
from paraglider.core.checksum import COMPLETE
from paraglider.core.flow import TCP
from paraglider.core.flow_states import LAST_ACK, LAST_ACK_BACKEND
from paraglider.core.verdict import REWRITTEN
from tests.bpf.carrying import CLIENT_PORT, FIRST, SECOND, VIP_PORT, Bed, tcp
from tests.bpf.deciding import Deciding
from tests.core.packets import FAMILIES, Family, backend, nat, packed, service

pytestmark = pytest.mark.root

families = pytest.mark.parametrize("family", FAMILIES, ids=("v4", "v6"))
TWO_SIDED = REPLIED | ESTABLISHED | FIN_OUT | FIN_BACK | CLOSED
ONE_SIDED = DIRECT | REPLIED | ESTABLISHED | FIN_OUT | CLOSED


def close(
    deciding: Deciding, family: Family, flags: int = DECIDED | TWO_SIDED, *,
    port: int = CLIENT_PORT, aliased: bool = False,
) -> None:  # fmt: skip
    """Have a closed flow of the client to the first backend."""
    bed = deciding.bed
    bed.install(family, "tcp", ports=(port, VIP_PORT), flags=flags)
    if aliased:
        ends = (family.backends[0], family.client, (VIP_PORT, port))
        bed.install(family, "tcp", *ends, flags=ALIAS)


@families
@pytest.mark.parametrize("direct", [0, DIRECT], ids=("two-sided", "one-sided"))
def test_the_new_flow_has_the_entry(deciding: Deciding, family: Family, direct: int) -> None:
    """Of the backend that is due, as if there had been no flow before; the worker hears of both in
    their order.
    """
    bed = deciding.bed
    deciding.decide(family, "turn", [SECOND], flags=direct)
    close(deciding, family, ONE_SIDED if direct else TWO_SIDED)  # by whichever decision
    ran = deciding.step(family, "> S")
    assert ran.counted == {"opened": 1}
    assert packed(family.backends[1]) in ran.packet
    entry = bed.entry(family, "tcp")
    assert (entry.flags, entry.ack, entry.translation) == (DECIDED | direct, 0, SECOND)
    assert (entry.packets_out, entry.packets_back) == (1, 0)
    assert deciding.flows() == 1
    events = [(kind, flags, index) for kind, _, _, flags, index, _ in bed.events(entry.owner)]
    assert events == [(EVENT_OPENED, DECIDED | direct, SECOND)]
    # What the first backend still sends is of no flow; it must not reach the new connection.
    late = deciding.step(family, "< FA")
    assert (late.carried, late.counted) == (False, {"no_flow": 1})


@families
def test_a_connection_after_another(deciding: Deciding, family: Family) -> None:
    """Three with the same ports, in turn to each backend; the worker hears of all."""
    bed = deciding.bed
    deciding.decide(family, "turn")
    for _ in range(3):
        found = deciding.reasons(family, "> S", "< SA", "> A", "< FA", "> FA", "< A")
        assert found == ["opened", *["carried"] * 5]
    events = [event[0] for event in bed.events(bed.entry(family, "tcp").owner)]
    assert events == [EVENT_OPENED, EVENT_ESTABLISHED, EVENT_CLOSED] * 3
    assert deciding.flows() == 1


@families
@pytest.mark.parametrize("chosen", [FIRST, SECOND], ids=("same-backend", "other-backend"))
def test_the_alias_follows(deciding: Deciding, family: Family, chosen: int) -> None:
    """Where replies need an entry too, the closed flow's goes, unless it is the new one's."""
    deciding.decide(family, "turn", [chosen], aliased=True)
    close(deciding, family, aliased=True)
    assert deciding.reasons(family, "> S") == ["opened"]
    to = family.backends[chosen - FIRST]
    assert deciding.entries(family) == {
        Bed.key(family, family.client, family.vip, (CLIENT_PORT, VIP_PORT)): chosen,
        Bed.key(family, to, family.client, (VIP_PORT, CLIENT_PORT)): chosen,
    }
    answer = tcp(family, "SA")(to, family.client, VIP_PORT, CLIENT_PORT, 64)
    assert deciding.bed.run(deciding.bed.frame(bytes(answer), "priv")).counted == {"carried": 1}


@families
def test_replies_that_another_flow_has(deciding: Deciding, family: Family) -> None:
    """The worker decides, and the closed flow still carries its late segments."""
    deciding.decide(family, "turn", [SECOND], aliased=True)
    close(deciding, family, aliased=True)
    ends = (family.backends[1], family.client, (VIP_PORT, CLIENT_PORT))
    deciding.bed.install(family, "tcp", *ends, flags=ALIAS, index=FIRST + 9)
    before = deciding.entries(family)
    assert deciding.reasons(family, "> S", "> S", "< FA", "> A") == ["syn", "syn"] + ["carried"] * 2
    assert deciding.entries(family) == before
    assert deciding.bed.events(1) == []


#: sentence, bound, kind, flags of the decision, slots, reason
LEFT: list[tuple[str, int, str, int, list[int], str]] = [
    ("by turn beyond the bound of openings", 0, "turn", 0, [SECOND], "flood"),
    ("by hash, where it would get no entry", 0, "flow", 0, [SECOND], "syn"),
    ("where flows have no entries any more", 9, "flow", NO_ENTRIES, [SECOND], "syn"),
    ("without a backend", 9, "turn", 0, [0], "no_backend"),
]


@families
@pytest.mark.parametrize("row", LEFT, ids=[row[0].replace(" ", "-") for row in LEFT])
def test_what_a_worker_decides(
    deciding: Deciding, family: Family, row: tuple[str, int, str, int, list[int], str]
) -> None:
    """Where the program would not open a flow either, the closed one's entry stays as it is."""
    _, bound, kind, flags, slots, reason = row
    deciding.decide(family, kind, slots, bound=bound, flags=flags)
    close(deciding, family)
    assert deciding.reasons(family, "> S") == [reason]
    assert deciding.bed.entry(family, "tcp").flags == DECIDED | TWO_SIDED
    assert deciding.bed.events(1) == []


@families
def test_a_syn_that_is_not_for_the_program(deciding: Deciding, family: Family) -> None:
    """Of a service that a worker decides; one that expires here; without a route; from a port whose
    entry another CPU is replacing.
    """
    close(deciding, family)
    deciding.bed.translate(family)
    assert deciding.reasons(family, "> S") == ["syn"]
    deciding.decide(family, "turn")
    assert deciding.step(family, "> S", ttl=1).counted == {"ttl": 1}
    route = f"blackhole {family.backends[0]}"
    deciding.bed.namespace.ip(f"route add {route}")
    assert deciding.reasons(family, "> S") == ["no_route"]
    deciding.bed.namespace.ip(f"route del {route}")
    assert deciding.bed.entry(family, "tcp").flags == DECIDED | TWO_SIDED
    deciding.bed.clear()
    close(deciding, family, DECIDED | TWO_SIDED | REPLACED)
    assert deciding.reasons(family, "> S") == ["syn"]


@families
def test_the_backend_was_lost_since(deciding: Deciding, family: Family) -> None:
    """The new flow goes to another one."""
    deciding.decide(family, "turn", [SECOND])
    close(deciding, family)
    deciding.bed.translate(family, state=LOST_FLOWS)
    assert deciding.reasons(family, "> S") == ["opened"]


@families
def test_a_full_map(deciding: Deciding, family: Family) -> None:
    """It needs no room."""
    deciding.decide(family, "turn", [SECOND], bound=5000)
    close(deciding, family)
    flows = deciding.bed.maps.flows[TCP, family.number]
    for number in range(2000):
        key = bytes(flows.key_size - 4) + number.to_bytes(4, "big")
        error = flows.insert(key, bytes(flows.value_size))
        if error:
            break
    assert error == errno.E2BIG
    assert deciding.reasons(family, "> S") == ["opened"]
    assert deciding.first(family, "tcp", client_port=9) == "flood"


@families
@pytest.mark.parametrize("aliased", [False, True], ids=("origin", "alias"))
def test_a_syn_on_two_cpus_at_once(deciding: Deciding, family: Family, aliased: bool) -> None:
    """One of them replaces the entry; the other goes the same way, or to the worker."""
    deciding.decide(family, "turn", [FIRST, SECOND], bound=1 << 31, aliased=aliased)
    ports = range(10_000, 10_300)
    for port in ports:
        close(deciding, family, port=port, aliased=aliased)
    counted = deciding.syns_at_once(family, ports)
    assert counted["opened"] == len(ports)
    assert counted["opened"] + counted["carried"] + counted["syn"] == 2 * len(ports)
    found = deciding.entries(family)
    assert len(found) == len(ports) * (1 + aliased)
    if aliased:  # each alias is of its flow's backend
        for port in ports:
            index = found[Bed.key(family, family.client, family.vip, (port, VIP_PORT))]
            to = family.backends[index - FIRST]
            assert found[Bed.key(family, to, family.client, (VIP_PORT, port))] == index


#: a connection: who ends it first, with segments that are sent again
LIVES = {
    "client": "> S,> S,< SA,< SA,> A,> PA,< A,< PA,> FA,> FA,< A,< FA,> A,< FA,> A",
    "backend": "> S,< SA,> A,< FA,< FA,> A,> PA,< A,> FA,< A,> FA,< A",
    "both": "> S,< SA,> A,> FA,< FA,> A,< A",
}


@families
@pytest.mark.parametrize("life", LIVES)
def test_a_syn_opens_a_flow_where_the_core_opens_one(
    deciding: Deciding, family: Family, life: str
) -> None:
    """After each segment of a connection. The program does not see the ACK of the second FIN: it
    takes the flow as closed with that, as the worker does when it reads the entry.
    """
    steps = LIVES[life].split(",")
    opened = []
    for length in range(1, len(steps) + 1):
        deciding.decide(family, "turn")
        path = nat(service(family, backends=[backend(family.backends[0])], ports=((80, 80),)))
        key = packed(family.client) + packed(family.vip)
        key += CLIENT_PORT.to_bytes(2, "big") + VIP_PORT.to_bytes(2, "big")
        for step in steps[:length]:
            feed(path, family, step)
            if deciding.step(family, step).counted.keys() & {"unknown_client"}:
                assert deciding.step(family, step).carried
        flow = path.flows.forward[TCP].get(key)
        assert flow is not None
        if flow.state in (LAST_ACK, LAST_ACK_BACKEND):
            feed(path, family, "> A" if flow.state == LAST_ACK else "< A")
        feed(path, family, "> S")
        anew = path.flows.forward[TCP].get(key) is not flow
        assert (deciding.step(family, "> S").counted == {"opened": 1}) == anew
        opened.append(anew)
        deciding.bed.clear()
    assert opened == sorted(opened)
    assert {False, True} == set(opened)


def feed(path: object, family: Family, step: str) -> None:
    """A segment of the connection through the worker's packet path, as ``Deciding.step`` has it."""
    way, flags = step.split()
    build = tcp(family, flags, seq=1000, ack=2000 if way == "<" else 1001)
    ends = (family.client, family.vip, CLIENT_PORT, VIP_PORT)
    if way == "<":
        ends = (family.backends[0], family.client, VIP_PORT, CLIENT_PORT)
    packet = bytearray(bytes(build(*ends, 64)))
    assert path.handle(packet, 0, len(packet), COMPLETE, 1.0) == REWRITTEN  # type: ignore[attr-defined]
