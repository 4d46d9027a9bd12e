"""TCP: how a flow opens and closes by its packets, and what its worker is told."""

from __future__ import annotations

import os

import pytest

from paraglider.bpf import layout, syscall
from paraglider.bpf.layout import (
    CLOSED,
    DIRECT,
    ESTABLISHED,
    EVENT_CLOSED,
    EVENT_ESTABLISHED,
    FIN_BACK,
    FIN_OUT,
    REPLIED,
)
from paraglider.bpf.ring import Ring
from tests.bpf.carrying import CLIENT_PORT, FIRST, VIP_PORT, Bed, tcp
from tests.core.packets import FAMILIES, Family

pytestmark = pytest.mark.root

families = pytest.mark.parametrize("family", FAMILIES, ids=("v4", "v6"))

#: the backend's initial sequence number, close to the end of all numbers
ISN = 0xFFFFFFF0
FIRST_ACK = (ISN + 1) & 0xFFFFFFFF


def step(bed: Bed, family: Family, back: bool, flags: str, **numbers: int) -> str:
    """A segment of the client's flow, from the backend if ``back``; the reason that counted it."""
    client, vip, backend = family.client, family.vip, family.backends[0]
    ends = (
        (backend, client, VIP_PORT, CLIENT_PORT) if back else (client, vip, CLIENT_PORT, VIP_PORT)
    )
    packet = bytes(tcp(family, flags, **numbers)(*ends, 64))
    ran = bed.run(bed.frame(packet, "priv" if back else "pub"))
    assert ran.carried == (ran.counted == {"carried": 1})
    (reason,) = ran.counted
    return reason


def opening(bed: Bed, family: Family) -> None:
    """A flow whose SYN the worker has just sent to the backend."""
    bed.translate(family)
    bed.origin(family, "tcp", VIP_PORT)
    bed.install(family, "tcp", flags=0)


def told(family: Family, kind: int, flags: int) -> tuple[int, int, int, int, int, bytes]:
    """An event of the client's flow."""
    key = Bed.key(family, family.client, family.vip, (CLIENT_PORT, VIP_PORT))
    return kind, family.number, 6, flags, FIRST, key.ljust(36, b"\0")


@families
def test_a_flow_opens(bed: Bed, family: Family) -> None:
    """The backend's SYN+ACK and the client's ACK of it pass, also again, and the worker is told
    once that the flow is established.
    """
    opening(bed, family)
    assert step(bed, family, True, "SA", seq=ISN) == "carried"
    assert step(bed, family, True, "SA", seq=ISN) == "carried"
    entry = bed.entry(family, "tcp")
    assert (entry.flags, entry.ack) == (REPLIED, FIRST_ACK)
    assert bed.events() == []
    assert step(bed, family, False, "A", seq=7, ack=FIRST_ACK) == "carried"
    assert bed.entry(family, "tcp").ack == 7
    assert step(bed, family, False, "PA", seq=7, ack=FIRST_ACK) == "carried"
    assert bed.entry(family, "tcp").ack == 7  # until the backend acknowledges more
    assert step(bed, family, True, "A", seq=FIRST_ACK, ack=100) == "carried"
    assert bed.entry(family, "tcp").ack == 100
    assert bed.entry(family, "tcp").flags == REPLIED | ESTABLISHED
    assert bed.events() == [told(family, EVENT_ESTABLISHED, REPLIED | ESTABLISHED)]
    assert bed.events(0) == []  # another worker's


@families
def test_nft_sees_the_first_answer_to_a_client(bed: Bed, family: Family) -> None:
    """One with data, of an established flow: from it nft knows that the client is not forged. The
    worker gets it, and all further ones to that client are carried.
    """
    bed.translate(family)
    bed.origin(family, "tcp", VIP_PORT)
    bed.install(family, "tcp", flags=REPLIED | ESTABLISHED)
    assert step(bed, family, True, "A") == "carried"
    assert step(bed, family, False, "PA") == "carried"
    assert step(bed, family, True, "PA") == "unknown_client"
    assert step(bed, family, True, "PA") == "carried"
    assert bed.entry(family, "tcp").packets_back == 2


@families
@pytest.mark.parametrize(
    ("ack", "reason"),
    [
        (FIRST_ACK, "carried"),
        (FIRST_ACK + (1 << 20), "carried"),
        (FIRST_ACK + (1 << 20) + 1, "opening"),
        (FIRST_ACK - 1, "opening"),
        (0, "carried"),  # 15 bytes of data acknowledged too
        (1 << 31, "opening"),
    ],
)
def test_only_the_right_number_opens(bed: Bed, family: Family, ack: int, reason: str) -> None:
    """A first ACK proves that the client received the SYN+ACK; any other goes to the worker."""
    opening(bed, family)
    assert step(bed, family, True, "SA", seq=ISN) == "carried"
    assert step(bed, family, False, "A", ack=ack & 0xFFFFFFFF) == reason
    established = bed.entry(family, "tcp").flags & ESTABLISHED
    assert bool(established) == (reason == "carried")
    assert len(bed.events()) == (reason == "carried")


@families
def test_before_it_is_open(bed: Bed, family: Family) -> None:
    """Before the backend's answer nothing of the client's passes, and before the client's nothing
    else of the backend's; a SYN meets the worker always.
    """
    opening(bed, family)
    assert step(bed, family, False, "A", ack=0) == "opening"
    assert step(bed, family, False, "PA", ack=1) == "opening"
    assert step(bed, family, True, "A", seq=1) == "opening"
    assert step(bed, family, False, "S") == "syn"
    assert bed.entry(family, "tcp").flags == 0
    assert step(bed, family, True, "SA", seq=ISN) == "carried"
    assert step(bed, family, True, "PA", seq=FIRST_ACK) == "opening"
    assert step(bed, family, True, "FA", seq=FIRST_ACK) == "opening"
    assert bed.entry(family, "tcp").flags == REPLIED
    assert bed.events() == []


@families
@pytest.mark.parametrize("first", [False, True], ids=("client", "backend"))
def test_a_flow_closes(bed: Bed, family: Family, first: bool) -> None:
    """With both FINs, in any order and repeated, the flow is closed, which is told once; what
    follows, such as the last ACK, is carried as long as the entry is there.
    """
    bed.prepare(family, "tcp")
    flags = (FIN_OUT, FIN_BACK)
    assert step(bed, family, first, "FA") == "carried"
    assert step(bed, family, first, "FA") == "carried"
    assert step(bed, family, not first, "A") == "carried"
    assert bed.entry(family, "tcp").flags == ESTABLISHED | flags[first]
    assert bed.events() == []
    for _ in range(2):
        assert step(bed, family, not first, "FPA") == "carried"
    closed = ESTABLISHED | FIN_OUT | FIN_BACK | CLOSED
    assert bed.entry(family, "tcp").flags == closed
    assert bed.events() == [told(family, EVENT_CLOSED, closed)]
    assert step(bed, family, first, "A") == "carried"


@families
def test_an_ack_with_fin_opens_too(bed: Bed, family: Family) -> None:
    """A client that opens and closes at once has the worker told of the opening."""
    opening(bed, family)
    assert step(bed, family, True, "SA", seq=ISN) == "carried"
    assert step(bed, family, False, "FA", ack=FIRST_ACK) == "carried"
    flags = REPLIED | ESTABLISHED | FIN_OUT
    assert bed.events() == [told(family, EVENT_ESTABLISHED, flags)]
    assert step(bed, family, True, "FA", seq=FIRST_ACK) == "carried"
    assert bed.events() == [told(family, EVENT_CLOSED, flags | FIN_BACK | CLOSED)]


@families
def test_an_open_flow_has_no_opening(bed: Bed, family: Family) -> None:
    """SYN, SYN+ACK and RST of an established flow are the worker's, and change nothing here."""
    bed.prepare(family, "tcp")
    entry = bed.entry(family, "tcp")
    assert step(bed, family, True, "SA", seq=ISN) == "flags"
    assert step(bed, family, False, "SA", seq=ISN) == "flags"
    assert step(bed, family, False, "S") == "syn"
    assert step(bed, family, True, "R") == "rst"
    assert step(bed, family, False, "RA") == "rst"
    assert bed.entry(family, "tcp") == entry
    assert bed.events() == []


@families
def test_a_flow_with_direct_return(bed: Bed, family: Family) -> None:
    """Of a flow whose replies do not pass here the FIN of a client unknown to nft is the worker's;
    a reply that comes nevertheless is too.
    """
    bed.prepare(family, "tcp", flags=ESTABLISHED | DIRECT)
    assert step(bed, family, False, "PA", seq=8) == "carried"
    assert step(bed, family, False, "FA", seq=9) == "unknown_client"
    assert step(bed, family, True, "A") == "no_flow"
    assert step(bed, family, False, "PA", seq=1 << 25) == "carried"
    assert bed.entry(family, "tcp").ack == 8  # and no forged number
    assert bed.entry(family, "tcp").flags == ESTABLISHED | DIRECT


@families
def test_an_event_without_a_ring(bed: Bed, family: Family) -> None:
    """The event of a worker without ring, or with a full one, is counted as lost; the packet is
    carried.
    """
    bed.translate(family)
    bed.origin(family, "tcp", VIP_PORT)
    bed.install(family, "tcp", owner=200)
    client, vip, backend = family.client, family.vip, family.backends[0]
    out = tcp(family, "FA")(client, vip, CLIENT_PORT, VIP_PORT, 64)
    back = tcp(family, "FA")(backend, client, VIP_PORT, CLIENT_PORT, 64)
    assert bed.run(bed.frame(bytes(out))).counted == {"carried": 1}
    assert bed.run(bed.frame(bytes(back), "priv")).counted == {"carried": 1, "events_lost": 1}
    assert bed.entry(family, "tcp").flags & CLOSED


def test_a_full_ring_loses_events_not_packets(bed: Bed) -> None:
    """Events for which a ring has no room are counted; those before are all there."""
    family, owner, size = FAMILIES[0], 2, 4096
    ring = syscall.create_map(syscall.RINGBUF, 0, 0, size)
    bed.maps.outer.put(layout.INDEX.pack(owner), layout.INDEX.pack(ring))
    opening(bed, family)
    key = Bed.key(family, family.client, family.vip, (CLIENT_PORT, VIP_PORT))
    value = layout.FLOW.pack(0, REPLIED, FIRST_ACK, FIRST, owner, 0, 0)
    ack = tcp(family, "A", ack=FIRST_ACK)(family.client, family.vip, CLIENT_PORT, VIP_PORT, 64)
    flows = bed.maps.flows[6, 4]
    sent = size // (8 + layout.EVENT.size) + 10
    lost = 0
    for _ in range(sent):
        flows.delete(key)
        assert flows.insert(key, value) == 0
        ran = bed.run(bed.frame(bytes(ack)))
        assert ran.carried
        lost += ran.counted.get("events_lost", 0)
    read = Ring(ring, size).read(sent)
    os.close(ring)
    assert lost >= 10
    assert len(read) + lost == sent
    assert {layout.EVENT.unpack(event) for event in read} == {
        told(family, EVENT_ESTABLISHED, REPLIED | ESTABLISHED)
    }
