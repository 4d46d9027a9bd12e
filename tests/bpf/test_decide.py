"""What the program decides itself, and what it leaves to a worker."""

from __future__ import annotations

import socket
from collections import Counter
from dataclasses import replace

import pytest

from paraglider.bpf import layout, syscall
from paraglider.bpf.layout import (
    DIRECT,
    EVENT_OPENED,
    INDEX,
    LOST_DATAGRAMS,
    LOST_FLOWS,
    NO_ENTRIES,
)
from tests.bpf.carrying import (
    CLIENT_PORT,
    FIRST,
    MAPPED_PORT,
    NUMBER,
    REDIRECT,
    SECOND,
    VIP_PORT,
    Bed,
    tcp,
    udp,
)
from tests.bpf.deciding import FIRST_PACKET, UNDECIDED, Deciding
from tests.core.packets import FAMILIES, V4, V6, Family, packed

pytestmark = pytest.mark.root

families = pytest.mark.parametrize("family", FAMILIES, ids=("v4", "v6"))
protocols = pytest.mark.parametrize("protocol", ["tcp", "udp"])
#: index of the tick of the last opening without an entry among the fields of a record
STATELESS_AT = 7


#: sentence, kind of decision, bound, and packets with the reason that counts each
WAYS: list[tuple[str, str, int, list[tuple[str, str]]]] = [
    (
        "by turn a SYN opens a flow, whose packets are carried to its end",
        "turn",
        1,
        [
            ("> S", "opened"),
            ("< SA", "carried"),
            ("> A", "carried"),
            ("< FA", "carried"),
            ("> FA", "carried"),
            ("< A", "carried"),
        ],
    ),
    (
        "by hash too",
        "flow",
        1,
        [("> S", "opened"), ("< SA", "carried"), ("> A", "carried"), ("< A", "carried")],
    ),
    (
        "a SYN sent again goes the way of the first",
        "turn",
        1,
        [("> S", "opened"), ("> S", "carried")],
    ),
    (
        "also when the backend has answered, and the answer was lost",
        "client",
        1,
        [("> S", "opened"), ("< SA", "carried"), ("> S", "carried")],
    ),
    (
        "a SYN in an open flow is the worker's",
        "turn",
        1,
        [("> S", "opened"), ("< SA", "carried"), ("> A", "carried"), ("> S", "syn")],
    ),
    (
        "a SYN after one FIN is the worker's; after both it opens another flow",
        "turn",
        9,
        [
            *(("> S", "opened"), ("< SA", "carried"), ("> A", "carried"), ("> FA", "carried")),
            *(("> S", "syn"), ("< FA", "carried"), ("> S", "opened"), ("> S", "carried")),
            *(("< SA", "carried"), ("> A", "carried"), ("> S", "syn")),
        ],
    ),
    ("a SYN with a FIN is the worker's", "turn", 1, [("> SF", "syn")]),
    ("a SYN that offers ECN is one", "turn", 1, [("> SEC", "opened"), ("> SEC", "carried")]),
    ("a RST of no flow too", "turn", 1, [("> R", "no_flow"), ("> RA", "no_flow")]),
    ("and one in a flow", "turn", 1, [("> S", "opened"), ("> R", "rst"), ("< RA", "rst")]),
    ("a segment of no flow is the worker's", "flow", 1, [("> A", "no_flow"), ("< A", "no_flow")]),
    ("by turn above the bound a worker decides", "turn", 0, [("> S", "flood"), ("> udp", "flood")]),
    (
        "by hash above the bound a flow is carried without an entry, until the backend sends more",
        "flow",
        0,
        [
            *(("> S", "stateless"), ("> S", "stateless"), ("< SA", "stateless")),
            *(("> A", "stateless"), ("< A", "opened"), ("> A", "carried"), ("< A", "carried")),
        ],
    ),
    (
        "so it is by the client's address, where the backend's RST needs no entry",
        "client",
        0,
        [("> S", "stateless"), ("< RA", "stateless"), ("> S", "stateless")],
    ),
    (
        "a backend that ends a flow without an entry gives it one that says so",
        "flow",
        0,
        [("> S", "stateless"), ("< SA", "stateless"), ("< FA", "opened"), ("> FA", "carried")],
    ),
    (
        "datagrams by hash need no entry until the backend answers",
        "flow",
        0,
        [
            *(("> udp", "stateless"), ("> udp", "stateless"), ("< udp", "opened")),
            *(("> udp", "carried"), ("< udp", "carried")),
        ],
    ),
    (
        "a backend's datagram that no client asked for opens its flow",
        "client",
        0,
        [("< udp", "opened")],
    ),
    (
        "by turn the first datagram opens a flow",
        "turn",
        1,
        [("> udp", "opened"), ("> udp", "carried"), ("< udp", "carried")],
    ),
    ("by turn a backend's datagram of no flow is the worker's", "turn", 1, [("< udp", "no_flow")]),
]


@families
@pytest.mark.parametrize(
    ("kind", "bound", "steps"),
    [row[1:] for row in WAYS],
    ids=[row[0].replace(" ", "-") for row in WAYS],
)
def test_ways_of_a_flow(
    deciding: Deciding, family: Family, kind: str, bound: int, steps: list[tuple[str, str]]
) -> None:
    """What each packet meets."""
    deciding.decide(family, kind, bound=bound)
    found = deciding.reasons(family, *(step for step, _ in steps))
    assert list(zip((step for step, _ in steps), found, strict=True)) == steps


@families
@protocols
@pytest.mark.parametrize("kind", ["turn", "flow"])
@pytest.mark.parametrize("mapped", [False, True], ids=("same-port", "mapped"))
def test_a_decided_packet_is_translated(
    deciding: Deciding, family: Family, protocol: str, kind: str, mapped: bool
) -> None:
    """As one of a flow with an entry; the reply too."""
    deciding.decide(family, kind, mapped=mapped, bound=9)
    port = MAPPED_PORT if mapped else VIP_PORT
    build = udp(family, b"query") if protocol == "udp" else tcp(family, "S", seq=1000, ack=2000)
    ran = deciding.step(family, FIRST_PACKET[protocol])
    assert ran.packet == bytes(build(family.client, family.backends[0], CLIENT_PORT, port, 63))
    answer = {"tcp": "< SA", "udp": "< udp"}[protocol]
    build = udp(family, b"query") if protocol == "udp" else tcp(family, "SA", seq=1000, ack=2000)
    ran = deciding.step(family, answer, backend_port=port)
    assert ran.packet == bytes(build(family.vip, family.client, VIP_PORT, CLIENT_PORT, 63))
    key = Bed.key(family, family.client, family.vip, (CLIENT_PORT, VIP_PORT))
    kinds = [kind for kind, *_, found in deciding.bed.events(owner_of(deciding, family, protocol))
             if found == key.ljust(36, b"\0")]  # fmt: skip
    assert kinds == [EVENT_OPENED]


def owner_of(deciding: Deciding, family: Family, protocol: str) -> int:
    """The worker of the client's flow, by its entry."""
    return deciding.bed.entry(family, protocol).owner


@families
@protocols
@pytest.mark.parametrize("kind", ["turn", "flow", "client"])
def test_what_a_worker_decides(
    deciding: Deciding, family: Family, protocol: str, kind: str
) -> None:
    """Services that are not decided here, tables without a backend, and lost ones; each packet goes
    on unchanged, and no entry is made.
    """
    decided = "opened" if kind == "turn" or protocol == "tcp" else "stateless"
    undecided = UNDECIDED[protocol]
    deciding.decide(family, kind)
    assert deciding.first(family, protocol, port=VIP_PORT + 1) == undecided
    stranger = V6 if family is V4 else V4
    assert deciding.first(stranger, protocol) == undecided
    assert deciding.first(family, protocol, ttl=1) == undecided
    deciding.decisions.clear(deciding.index)
    assert deciding.first(family, protocol) == "no_backend"
    for slots in ([0], [layout.TRANSLATIONS], [layout.TRANSLATIONS - 1]):
        deciding.decide(family, kind, slots)
        ran = deciding.step(family, FIRST_PACKET[protocol])
        assert (ran.carried, ran.counted) == (False, {"no_backend": 1})
    deciding.decide(family, kind)
    for changes in (
        {"state": LOST_FLOWS},
        {"state": LOST_DATAGRAMS},
        {"state": 0},
        {"vip": family.other_vip},
    ):
        deciding.bed.translate(family, **changes)  # type: ignore[arg-type]
        assert deciding.first(family, protocol) == "no_backend"
    deciding.bed.translate(stranger)
    assert deciding.first(family, protocol) == "no_backend"
    deciding.bed.translate(family, mapped=True)
    deciding.decide(family, kind, port=0)
    deciding.bed.translate(family, mapped=True)
    assert deciding.first(family, protocol, port=VIP_PORT + 1) == "no_backend"
    deciding.decide(family, kind)
    deciding.steer(family, workers=0)
    assert deciding.first(family, protocol) == undecided
    deciding.steer(family)
    assert deciding.flows() == 0
    assert deciding.first(family, protocol) == decided


@families
def test_turns_go_round(deciding: Deciding, family: Family) -> None:
    """Each flow takes the next slot, whatever its client."""
    deciding.decide(family, "turn", [FIRST, SECOND, SECOND])
    turn = deciding.decisions.status(deciding.index).turn
    found = []
    for port in range(1000, 1009):
        ran = deciding.step(family, "> S", client_port=port)
        assert ran.counted == {"opened": 1}
        found.append(packed(family.backends[0]) in ran.packet)
    assert [(turn + at) % 3 == 0 for at in range(9)] == found
    assert deciding.decisions.status(deciding.index).turn == turn + 9


def with_client(family: Family, number: int) -> Family:
    """``family`` with a client of another network: the program remembers those that are known."""
    client = f"192.168.9.{number}" if family is V4 else f"2001:db8:{number}::9"
    return replace(family, client=client)


@families
def test_a_known_client_has_a_bound_too(deciding: Deciding, family: Family) -> None:
    """Of 500 flows a second, 67 in a tick: more are as those of an unknown client."""
    deciding.decide(family, "turn", bound=0)
    bed, known = deciding.bed, with_client(family, 3)
    bed.install(known, "tcp", ports=(3001, VIP_PORT))
    assert deciding.step(known, "< PA", client_port=3001).counted == {"unknown_client": 1}
    frame = bed.frame(bytes(tcp(known, "S")(known.client, known.vip, 3002, VIP_PORT, 64)))
    key = Bed.key(known, known.client, known.vip, (3002, VIP_PORT))
    interface, opened = socket.if_nametoindex("pub"), 0
    while syscall.run_program(bed.program, frame, interface).value == REDIRECT:
        assert bed.maps.flows[NUMBER["tcp"], known.number].delete(key)
        opened += 1
        assert opened < 100_000
    assert opened >= 67


@families
@pytest.mark.parametrize("kind", ["turn", "flow"])
def test_the_bound_is_of_a_tick(deciding: Deciding, family: Family, kind: str) -> None:
    """No more entries than the bound are made in one; a known client is not counted."""
    deciding.decide(family, kind, bound=5)
    beyond = {"turn": "flood", "flow": "stateless"}[kind]
    opened: Counter[int] = Counter()
    for port in range(2000, 20_000):
        found = deciding.first(family, "tcp", client_port=port)
        status = deciding.decisions.status(deciding.index)
        if found == beyond:
            break
        assert found == "opened"
        opened[status.tick] += 1
    assert found == beyond
    assert max(opened.values()) == 5 == opened[status.tick]
    assert status.stateless == status.tick
    deciding.decide(family, kind, bound=0)
    assert deciding.first(family, "tcp", client_port=3000) == beyond
    known = with_client(family, 1 + (kind == "flow"))
    assert deciding.first(known, "tcp") == beyond
    deciding.bed.install(known, "tcp", ports=(3001, VIP_PORT))
    introduced = deciding.step(known, "< PA", client_port=3001)
    assert introduced.counted == {"unknown_client": 1}  # nft learns of the client
    assert deciding.first(known, "tcp", client_port=3002) == "opened"


@families
def test_a_flow_without_an_entry_goes_on_for_a_while_only(
    deciding: Deciding, family: Family
) -> None:
    """Without a flood before, the program does not believe that segments are of such flows."""
    deciding.decide(family, "flow", bound=9)
    assert deciding.reasons(family, "> A", "< SA", "< A") == ["no_flow"] * 3
    deciding.decide(family, "flow", bound=0)
    assert deciding.reasons(family, "> S", "> A", "< SA") == ["stateless"] * 3
    records, index = deciding.bed.maps.decisions, INDEX.pack(deciding.index)
    value = records.get(index)
    assert value is not None
    record = list(layout.DECISION.unpack(value))
    record[STATELESS_AT] -= 1 + (64 * 10**9 >> layout.TICK_SHIFT)
    records.put(index, layout.DECISION.pack(*record))
    assert deciding.reasons(family, "> A", "< SA", "< A") == ["no_flow"] * 3


@families
def test_a_reply_of_another_backend_is_none(deciding: Deciding, family: Family) -> None:
    """The hash leads the flow elsewhere: a worker knows of it, or nobody."""
    deciding.decide(family, "flow", [SECOND], bound=0)
    assert deciding.reasons(family, "> S", "< SA", "< A", "< udp") == [
        "stateless",
        *["no_flow"] * 3,
    ]
    assert deciding.flows() == 0


@families
@protocols
def test_a_packet_that_stays_as_it_is(deciding: Deciding, family: Family, protocol: str) -> None:
    """Of dsr: the hash finds the backend to which the packet goes on unchanged."""
    deciding.decide(family, "flow", flags=DIRECT | NO_ENTRIES)
    deciding.bed.translate(family, method=layout.DSR)
    build = udp(family, b"query") if protocol == "udp" else tcp(family, "S", seq=1000, ack=2000)
    ran = deciding.step(family, FIRST_PACKET[protocol])
    assert ran.counted == {deciding.bed.stateless: 1}
    assert ran.packet == bytes(build(family.client, family.vip, CLIENT_PORT, VIP_PORT, 63))
