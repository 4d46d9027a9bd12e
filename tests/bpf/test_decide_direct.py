"""Flows that the program decides and whose replies do not pass here: their entries have the states
and numbers that a worker's flow would have.
"""

from __future__ import annotations

import itertools
import socket
import struct
from dataclasses import replace
from random import Random

import pytest

from paraglider.bpf import syscall
from paraglider.bpf.layout import (
    CLOSED,
    DECIDED,
    DIRECT,
    DSR,
    ESTABLISHED,
    EVENT_CLOSED,
    EVENT_ESTABLISHED,
    EVENT_FIN,
    EVENT_OPENED,
    FIN_OUT,
    FLOW,
    GROWN,
    LOST_FLOWS,
    NO_ENTRIES,
    REPLIED,
)
from paraglider.core import flow_states as states
from paraglider.core.flow import TCP, Flow
from paraglider.core.flow_states import EVENTS, GROWTHS, ONE_SIDED_NEXT, UNSEEN_WINDOW
from paraglider.core.pool import Backend
from paraglider.core.tcp_events import client_event
from paraglider.core.translation import Translation
from tests.bpf.carrying import FIRST, REDIRECT, SECOND, VIP_PORT, XDP_REDIRECT
from tests.bpf.deciding import FIRST_PACKET, Deciding
from tests.core.packets import FAMILIES, V4, Family, packed

pytestmark = pytest.mark.root

families = pytest.mark.parametrize("family", FAMILIES, ids=("v4", "v6"))
protocols = pytest.mark.parametrize("protocol", ["tcp", "udp"])

OPENED = DECIDED | DIRECT
#: flows of a family that are compared with the core's, and how many at a time
FLOWS, BATCH = 25_000, 1000

#: sentence, kind of decision, flags of the decision besides DIRECT, bound, and packets with the
#: reason that counts each
WAYS: list[tuple[str, str, int, int, list[tuple[str, str]]]] = [
    (
        "by turn the client's packets are carried from the SYN on",
        "turn",
        0,
        1,
        [("> S", "opened"), ("> A", "carried"), ("> PA", "carried"), ("> FA", "carried")],
    ),
    ("by hash too", "flow", 0, 1, [("> S", "opened"), ("> A", "carried"), ("> FA", "carried")]),
    (
        "a SYN sent again is the worker's, which may pick another backend",
        "turn",
        0,
        1,
        [("> S", "opened"), ("> S", "syn"), ("> A", "carried"), ("> S", "syn")],
    ),
    (
        "so are a RST, and a SYN with ACK, which no client sends",
        "turn",
        0,
        1,
        [("> S", "opened"), ("> R", "rst"), ("> RA", "rst"), ("> SA", "flags")],
    ),
    (
        "a SYN after the client's FIN is the worker's, which prefers the same backend",
        "turn",
        0,
        9,
        [("> S", "opened"), ("> A", "carried"), ("> FA", "carried"), ("> S", "syn")],
    ),
    ("a segment of no flow is the worker's", "turn", 0, 9, [("> A", "no_flow")]),
    ("a reply that comes by is of no flow", "turn", 0, 9, [("> S", "opened"), ("< SA", "no_flow")]),
    (
        "by turn above the bound a worker decides",
        "turn",
        0,
        0,
        [("> S", "flood"), ("> udp", "flood")],
    ),
    (
        "by hash above the bound the hash leads all packets to the backend",
        "flow",
        0,
        0,
        [("> S", "stateless"), ("> A", "stateless"), ("> FA", "stateless"), ("> R", "stateless")],
    ),
    (
        "a datagram opens a flow, by turn",
        "turn",
        0,
        1,
        [("> udp", "opened"), ("> udp", "carried"), ("< udp", "no_flow")],
    ),
    ("and by hash", "client", 0, 1, [("> udp", "opened"), ("> udp", "carried")]),
    (
        "above the bound, a hash carries datagrams without a flow",
        "client",
        0,
        0,
        [("> udp", "stateless"), ("> udp", "stateless")],
    ),
    (
        "by a hash alone there are no flows",
        "flow",
        NO_ENTRIES,
        9,
        [
            *(("> S", "stateless"), ("> A", "stateless"), ("> FA", "stateless")),
            *(("> R", "stateless"), ("> udp", "stateless"), ("< SA", "no_flow")),
        ],
    ),
]


@families
@pytest.mark.parametrize("method", [0, DSR], ids=("nat", "dsr"))
@pytest.mark.parametrize(
    ("kind", "flags", "bound", "steps"),
    [row[1:] for row in WAYS],
    ids=[row[0].replace(" ", "-") for row in WAYS],
)
def test_ways_of_a_flow(
    deciding: Deciding,
    family: Family,
    kind: str,
    flags: int,
    bound: int,
    steps: list[tuple[str, str]],
    method: int,
) -> None:
    """What each packet meets."""
    decide(deciding, family, kind, flags=flags, bound=bound, method=method)
    found = deciding.reasons(family, *(step for step, _ in steps))
    expected = [reason for _, reason in steps]
    if flags & NO_ENTRIES:
        expected = [deciding.bed.stateless if why == "stateless" else why for why in expected]
    assert found == expected


def decide(
    deciding: Deciding, family: Family, kind: str, *, flags: int = 0, bound: int = 9,
    method: int = 0, slots: tuple[int, ...] = (FIRST,),
) -> None:  # fmt: skip
    """Have the service decided, whose replies do not pass here."""
    deciding.decide(family, kind, slots, bound=bound, flags=DIRECT | flags)
    for index, backend in ((FIRST, 0), (SECOND, 1)):
        deciding.bed.translate(family, method=method, index=index, backend=backend)


@families
def test_the_entry_and_its_events(deciding: Deciding, family: Family) -> None:
    """Two growths of its numbers establish the flow; the entry has its last sequence number and its
    progress; the ACK of the backend's FIN closes it.
    """
    decide(deciding, family, "turn")
    bed = deciding.bed
    rows = [
        ("> S", 1000, 0, OPENED, 0, 0),
        ("> A", 1001, 5001, OPENED | REPLIED, 1001, 6002),
        ("> PA", 1001, 5001, OPENED | REPLIED, 1001, 6002),
        ("> A", 1101, 5001, OPENED | REPLIED | GROWN, 1101, 6102),
        ("> A", 1101, 5001, OPENED | REPLIED | GROWN, 1101, 6102),
        ("> A", 1101, 5301, OPENED | REPLIED | GROWN | ESTABLISHED, 1101, 6402),
        ("> A", 1201, 5301, OPENED | REPLIED | GROWN | ESTABLISHED, 1201, 6402),
        ("> FA", 1301, 5301, OPENED | REPLIED | GROWN | ESTABLISHED | FIN_OUT, 1301, 5301),
        ("> A", 1302, 5301, OPENED | REPLIED | GROWN | ESTABLISHED | FIN_OUT, 1302, 5301),
        ("> A", 1302, 5302, OPENED | REPLIED | GROWN | ESTABLISHED | FIN_OUT | CLOSED, 1302, 5301),
    ]
    for number, (step, seq, ack, *expected) in enumerate(rows):
        assert deciding.step(family, step, seq=seq, ack=ack).carried
        entry = bed.entry(family, "tcp")
        assert [entry.flags, entry.ack, entry.packets_back] == expected
        assert entry.packets_out == number + 1
    kinds = [(kind, flags) for kind, _, _, flags, _, _ in bed.events(entry.owner)]
    open_flags = OPENED | REPLIED | ESTABLISHED
    assert kinds == [
        (EVENT_OPENED, OPENED),
        (EVENT_ESTABLISHED, open_flags),
        (EVENT_FIN, open_flags | FIN_OUT),
        (EVENT_CLOSED, open_flags | FIN_OUT | CLOSED),
    ]


@families
def test_an_implausible_number(deciding: Deciding, family: Family) -> None:
    """A FIN outside of the window is the worker's; another segment does not move the number."""
    decide(deciding, family, "turn")
    for step, seq in (("> S", 1000), ("> A", 1001)):
        assert deciding.step(family, step, seq=seq).carried
    for seq in (1001 + UNSEEN_WINDOW, 1000 - UNSEEN_WINDOW & 0xFFFFFFFF):
        assert deciding.step(family, "> A", seq=seq).carried
        assert deciding.bed.entry(family, "tcp").ack == 1001
        assert deciding.step(family, "> FA", seq=seq).counted == {"flags": 1}
    assert deciding.step(family, "> FA", seq=1000 + UNSEEN_WINDOW).carried


@families
@protocols
def test_a_lost_backend(deciding: Deciding, family: Family, protocol: str) -> None:
    """One write gives its flows to the worker."""
    decide(deciding, family, "turn")
    assert deciding.first(family, protocol) == "opened"
    deciding.bed.translate(family, state=LOST_FLOWS)
    follows = {"tcp": "> A", "udp": "> udp"}[protocol]
    assert deciding.reasons(family, follows) == ["lost"]


@families
@pytest.mark.parametrize("way", ["grown twice", "grown once, and a FIN"])
def test_a_client_becomes_known_by_its_numbers(
    deciding: Deciding, family: Family, way: str
) -> None:
    """Where no reply is seen: only then may it open flows beyond the bound."""
    client = {4: "192.168.8.{}", 6: "2001:db8:80{}::1"}[family.number]
    known = replace(family, client=client.format(len(way)))
    decide(deciding, family, "turn", bound=1 << 31)
    steps = [("> S", 1000), ("> A", 1001), ("> A", 1101)]
    last = ("> A", 1201) if way == "grown twice" else ("> FA", 1101)
    for step, seq in (*steps, last):
        decide(deciding, family, "turn", bound=0)
        assert deciding.first(known, "tcp", client_port=99) == "flood"
        decide(deciding, family, "turn", bound=1 << 31)
        assert deciding.step(known, step, seq=seq).carried
    decide(deciding, family, "turn", bound=0)
    assert deciding.first(known, "tcp", client_port=99) == "opened"


@families
def test_a_syn_and_a_fin_prove_nothing(deciding: Deciding, family: Family) -> None:
    """A client that sends no more remains unknown."""
    client = {4: "192.168.7.7", 6: "2001:db8:77::1"}[family.number]
    forged = replace(family, client=client)
    decide(deciding, family, "turn", bound=1 << 31)
    for step in ("> S", "> FA", "> A"):
        assert deciding.step(forged, step).carried
    decide(deciding, family, "turn", bound=0)
    assert deciding.first(forged, "tcp", client_port=99) == "flood"


def header(client: int, flags: int, seq: int, ack: int) -> bytes:
    """A TCP header from the port ``client``."""
    return struct.pack("!HHIIBBHHH", client, VIP_PORT, seq, ack, 5 << 4, flags, 1000, 0, 0)


def packets(family: Family, segment: bytes) -> bytes:
    """``segment`` of the client to the VIP."""
    ends = packed(family.client) + packed(family.vip)
    if family is V4:
        return struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, 6, 0) + ends + segment
    return struct.pack("!IHBB", 6 << 28, 20, 6, 64) + ends + segment


@families
def test_the_core_has_the_same_flows(deciding: Deciding, family: Family) -> None:
    """25,000 flows of a family and hook, each with a SYN and some segments with numbers near and
    far: the turn's backend, and state, numbers and evidence as a worker has them.
    """
    random = Random(family.number)
    slots = (FIRST, SECOND, SECOND)
    decide(deciding, family, "turn", bound=1 << 31, slots=slots)
    bed, interface = deciding.bed, socket.if_nametoindex("pub")
    entries = bed.maps.flows[TCP, family.number]
    ends = packed(family.client) + packed(family.vip)
    backend = Backend("b", packed(family.backends[0]))
    translation = Translation(packed(family.vip), VIP_PORT, backend, direct=True)
    turns = itertools.count(deciding.decisions.status(deciding.index).turn)
    found = set()
    for _ in range(FLOWS // BATCH):
        flows = {}
        for number in range(BATCH):
            port = 1024 + number
            key = ends + port.to_bytes(2, "big") + VIP_PORT.to_bytes(2, "big")
            flow = flows[key] = Flow(TCP, key, b"", translation, states.SYN_SENT, 0.0)
            seq, ack = random.getrandbits(32), random.getrandbits(32)
            run(deciding, family, header(port, 2, seq, 0), interface)
            for _ in range(random.randrange(7)):
                seq = seq + random.choice(STEPS) & 0xFFFFFFFF
                ack = ack + random.choice(STEPS) & 0xFFFFFFFF
                segment = header(port, random.choice(KINDS), seq, ack)
                if handle(flow, bytearray(segment)):
                    run(deciding, family, segment, interface)
        for key, flow in flows.items():
            value = entries.get(key)
            assert value is not None
            _, flags, last, index, _, out, progress = FLOW.unpack(value)
            assert index == slots[next(turns) % len(slots)]
            assert (state_of(flags), last, progress) == (flow.state, flow.expected, flow.progress)
            assert out == 1 + int(flow.seen)
            if flow.state == states.UNCONFIRMED:
                assert bool(flags & GROWN) == (flow.proof == 1)
            found.add(flow.state)
        bed.clear()
    assert found == {
        *(states.SYN_SENT, states.UNCONFIRMED, states.ESTABLISHED),
        *(states.CLIENT_DONE, states.TIME_WAIT),
    }


#: changes of the numbers from one segment to the next, and the flags of segments
STEPS = (0, 0, 0, 1, 1, 100, 1460, UNSEEN_WINDOW - 1, UNSEEN_WINDOW, 1 << 31, 0xFFFFFFFF)
KINDS = (0x10, 0x10, 0x10, 0x18, 0x11)


def run(deciding: Deciding, family: Family, segment: bytes, interface: int) -> None:
    """Have the program carry ``segment``."""
    bed = deciding.bed
    frame = bed.frame(packets(family, segment))
    if bed.hook == "xdp" and syscall.run_at_xdp(bed.early, frame, interface).value == XDP_REDIRECT:
        return
    assert syscall.run_program(bed.program, frame, interface).value == REDIRECT


def handle(flow: Flow, segment: bytearray) -> bool:
    """Update ``flow`` as the core does; returns whether the program carries the segment."""
    event = client_event(flow, segment, 0, True, False, flow.seen + 1)
    if event < 0:  # a FIN with an implausible number, which is the worker's
        return False
    flow.seen += 1
    after = ONE_SIDED_NEXT[flow.state * EVENTS + event]
    if after == states.ESTABLISHED:
        flow.proof = GROWTHS
    flow.state = after
    return True


def state_of(flags: int) -> int:
    """The state that the flags of an entry mean."""
    for flag, state in (
        (CLOSED, states.TIME_WAIT),
        (FIN_OUT, states.CLIENT_DONE),
        (ESTABLISHED, states.ESTABLISHED),
        (REPLIED, states.UNCONFIRMED),
    ):
        if flags & flag:
            return state
    return states.SYN_SENT


@families
@protocols
def test_no_route_makes_no_entry(deciding: Deciding, family: Family, protocol: str) -> None:
    """And the next hop of dsr is the backend, or the worker gets the packet."""
    decide(deciding, family, "turn", method=DSR)
    router = {4: "10.0.0.77", 6: "fd00:10::77"}[family.number]
    route = f"{family.backends[0]} via {router}"
    deciding.bed.namespace.ip(f"route add {route}")
    assert deciding.step(family, FIRST_PACKET[protocol]).counted == {"no_route": 1}
    deciding.bed.namespace.ip(f"route del {route}")
    assert deciding.flows() == 0
