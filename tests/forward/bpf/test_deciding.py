"""Tests of ``paraglider.forward.bpf.deciding``: tables follow the pools, and only changes are
written.
"""

from __future__ import annotations

import struct
from collections import Counter

import pytest
from bpf_world import MemoryMap, web
from packets import V4, backend

from paraglider.bpf import layout
from paraglider.bpf.decisions import Decisions
from paraglider.bpf.layout import (
    BY_TURN,
    DECISION,
    DECISIONS,
    DIRECT,
    INDEX,
    NO_ENTRIES,
    ROW_SLOTS,
    SERVICE,
    SLOT,
    STEERED_BY_CLIENT,
    STEERING,
)
from paraglider.config.model import Config
from paraglider.core import strategies
from paraglider.core.flow import TCP, UDP
from paraglider.core.pool import Event, State
from paraglider.core.service import ALL_PORTS, VirtualService
from paraglider.core.translation import Translation
from paraglider.forward.bpf.deciding import ENTRIES, KernelDecisions
from paraglider.forward.bpf.entry import ticks_of

SERVICES = [{"name": "a", "vip": "192.0.2.1/24", "protocol": "tcp", "backends": ["10.0.0.1"]}]


def own_flows(translation: Translation) -> int:
    """The live flows of the only worker."""
    return translation.backend.flows


class World:
    """Decisions in memory, and their writer."""

    def __init__(self, rows: int = 256) -> None:
        self.services = MemoryMap(SERVICE.size, INDEX.size, layout.SERVICES)
        self.steering = MemoryMap(INDEX.size, STEERING.size, 2)
        self.records = bytearray(DECISIONS * DECISION.size)
        self.tables = bytearray(rows * ROW_SLOTS * SLOT.size)
        self.start()

    def start(self) -> None:
        """Another process continues."""
        self.decisions = Decisions(self.services, self.steering, self.records, self.tables)
        self.writer = KernelDecisions(self.decisions, 7, own_flows)

    def index(self, service: VirtualService, port: int = 80, protocol: int = TCP) -> int | None:
        """The index of the decision about packets to ``port`` of the service's VIP."""
        value = self.services.get(SERVICE.pack(service.vip, port.to_bytes(2, "big"), protocol, 4))
        return None if value is None else int(INDEX.unpack(value)[0])

    def table(self, service: VirtualService, port: int = 80) -> list[int]:
        """The slots that the program picks from."""
        index = self.index(service, port)
        assert index is not None
        return list(self.decisions.read(index))

    def turn(self, service: VirtualService, turns: int) -> Counter[int]:
        """What the program picks in the next ``turns`` turns."""
        index = self.index(service)
        assert index is not None
        table, at = self.table(service), index * DECISION.size + 24
        first = int.from_bytes(self.records[at : at + 4], "little")
        self.records[at : at + 4] = (first + turns).to_bytes(4, "little")
        return Counter(table[turn % len(table)] for turn in range(first, first + turns))


def placed(strategy: str = "rr", first: int = 1, **changes: object) -> VirtualService:
    """A service whose backends have slots from ``first`` on."""
    service = web(**changes)
    service.strategy = strategies.create(strategy)
    service.pool.watch(service.strategy.prepare)
    for slot, translation in enumerate(service.translations.values(), first):
        translation.slot = slot
    return service


def test_a_table_has_the_backends_that_take_flows() -> None:
    """It follows drains, failures and returns with the next sync; without any it is empty."""
    world, service = World(), placed()
    world.writer.configure([service])
    world.writer.sync(0.0)
    assert world.table(service) == [1, 2]
    first, second = service.pool.backends
    service.pool.apply(first, Event.SET_DRAIN)
    assert world.table(service) == [1, 2]
    world.writer.sync(0.0)
    assert world.table(service) == [2]
    service.pool.apply(second, Event.CHECK_FAILED)
    world.writer.sync(0.0)
    assert world.table(service) == []
    service.pool.apply_states({first: (State.READY, 1), second: (State.READY, 0)})
    world.writer.sync(0.0)
    assert world.table(service) == [1]


def test_weights_are_in_the_table() -> None:
    """Also those of a slow start, step by step."""
    world = World()
    service = placed("wrr", life={"slow_start": 10.0})
    first, second = service.pool.backends
    world.writer.configure([service])
    service.pool.set_weight(first, 3)
    world.writer.sync(0.0)
    assert Counter(world.table(service)) == {1: 3, 2: 1}
    service.pool.apply(second, Event.CHECK_FAILED)
    service.pool.apply(second, Event.CHECK_PASSED)
    service.pool.tick(0.0)
    world.writer.sync(0.0)
    assert Counter(world.table(service)) == {1: 30, 2: 1}
    service.pool.tick(5.0)
    world.writer.sync(0.0)
    assert Counter(world.table(service)) == {1: 5, 2: 1}


def test_nothing_is_written_without_a_change() -> None:
    """Neither by a sync nor by a reload nor by the next process, whatever the strategy."""
    world = World()
    services = [
        placed(name, name=name, vip=vip)
        for name, vip in (("rr", V4.vip), ("weighted", V4.other_vip))
    ]
    world.writer.configure(services)
    world.writer.sync(0.0)
    before = bytes(world.records), bytes(world.tables), world.services.writes
    world.writer.sync(0.0)
    world.writer.configure(services)
    world.writer.sync(0.0)
    world.start()
    world.writer.configure(services)
    world.writer.sync(0.0)
    assert (bytes(world.records), bytes(world.tables), world.services.writes) == before


def test_the_ends_of_a_service() -> None:
    """Each port and protocol of a few, 0 for all ports; none of a service that is removed, by this
    process or while there was none.
    """
    world = World()
    some, every = (
        placed(ports=((80, 81), (443, 443))),
        placed(vip=V4.other_vip, ports=ALL_PORTS, name="all"),
    )
    world.writer.configure([some, every])
    found = [world.index(some, port, protocol) for port in (80, 81, 443) for protocol in (TCP, UDP)]
    assert found[0] is not None
    assert set(found) == {found[0]}
    assert world.index(some, 82) is None
    assert world.index(every, 0) not in (None, found[0])
    assert len(world.services.content) == 8
    world.writer.sync(0.0)
    world.writer.configure([every])
    assert world.index(some) is None
    assert world.table(every, 0) == [1, 2]
    world.start()
    world.writer.configure([])
    assert world.services.content == {}
    assert world.decisions.names() == ()


def test_a_service_beside_one_with_all_ports() -> None:
    """Its packets are not those of the one that has the other ports: a worker decides."""
    world = World()
    every = placed(vip="192.0.2.1", ports=ALL_PORTS, name="all")
    ends = [{"name": "a", "ports": 22}, {"name": "b", "ports": "80-81", "protocol": "any"}]
    services = [{**SERVICES[0], **each, "decide": "python"} for each in ends]
    services += [
        {**SERVICES[0], "name": "all"},
        {**SERVICES[0], "name": "c", "vip": "192.0.2.2/24", "ports": 9},
    ]
    world.writer.set_config(Config.model_validate({"services": services}), 1)
    for _ in range(2):
        world.writer.configure([every])
        world.writer.sync(0.0)
        assert world.table(every, 0) == [1, 2]
        assert [world.table(every, port) for port in (22, 80, 81)] == [[], [], []]
        assert world.index(every, 81, UDP) == world.index(every, 22)
        assert len(world.services.content) == 2 + 1 + 4
    world.writer.configure([placed(vip="192.0.2.1", ports=((80, 80),))])
    assert len(world.services.content) == 2
    assert len(world.decisions.names()) == 1


def test_ports_beyond_the_room_for_them() -> None:
    """Those of a service with all ports, with the ports beside it for which a worker decides: one
    of them without the others would have their packets. The other services do not suffer.
    """
    world = World()
    every, other = placed(vip="192.0.2.1", ports=ALL_PORTS, name="all"), placed(name="other")
    wide = {**SERVICES[0], "name": "wide", "protocol": "any", "decide": "python"}
    for ports, unplaced in (("1-40000", ("all",)), ("1-30000", ()), ("1-40000", ("all",))):
        services = [{**SERVICES[0], "name": "all"}, {**wide, "ports": ports}]
        world.writer.set_config(Config.model_validate({"services": services}), 1)
        world.writer.configure([every, other])
        world.writer.sync(0.0)
        assert world.writer.unplaced == unplaced
        assert world.table(other) == [1, 2]
        keys = len(world.services.content)
        assert keys == (2 if unplaced else 2 + 2 + 60_000)
        assert len(world.decisions.names()) == (1 if unplaced else 3)


def test_a_service_whose_ports_have_no_room_is_an_exception() -> None:
    """Of the one with all ports of its VIP, which then has no room either."""
    world = World()
    ports = tuple((port, port) for port in range(64))
    many = [placed(name=f"s{n}", vip=f"10.{n >> 8}.{n & 255}.1", ports=ports) for n in range(511)]
    last = placed(name="last", vip="192.0.2.1", ports=((1, 1), *ports[3:], (99, 103)))
    every = placed(vip="192.0.2.1", ports=ALL_PORTS, name="all")
    config = [{**SERVICES[0], "name": "last", "protocol": "any", "ports": "1-80"}]
    world.writer.set_config(Config.model_validate({"services": config}), 1)
    world.writer.configure([every, *many, last])
    world.writer.sync(0.0)
    assert len(world.services.content) == 511 * 128
    assert world.writer.unplaced is not None
    assert set(world.writer.unplaced) == {"all", "last"}


def test_a_refusal_of_the_kernel_leaves_decisions_of_services_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker decides about what has no key; the key of all ports would have come last."""
    world, gone = World(), placed(name="gone", vip=V4.other_vip)
    every = placed(vip="192.0.2.1", ports=ALL_PORTS, name="all")
    config = [{**SERVICES[0], "name": "all"}, {**SERVICES[0], "name": "some", "ports": "1-9"}]
    world.writer.set_config(Config.model_validate({"services": config}), 1)
    world.writer.configure([gone])
    with monkeypatch.context() as patch:
        patch.setattr(world.services, "entries", 5)
        with pytest.raises(OSError, match="Argument list too long"):
            world.writer.configure([every])
    assert world.index(gone) is world.index(every, 0) is None
    assert len(world.services.content) == 5
    assert len(world.decisions.names()) == 2
    world.writer.configure([every])
    world.writer.sync(0.0)
    assert world.table(every, 0) == [1, 2]
    assert len(world.services.content) == 2 + 9


def test_weighted_follows_the_flows() -> None:
    """The least filled backend is next, from the turn on that is the next one."""
    world, service = World(), placed("weighted")
    world.writer.configure([service])
    world.writer.sync(0.0)
    assert world.turn(service, 5) in ({1: 3, 2: 2}, {1: 2, 2: 3})
    first, second = service.pool.backends
    first.flows = 10
    world.writer.sync(0.0)
    assert world.turn(service, 10) == {2: 10}
    second.flows = 10
    world.writer.sync(0.0)
    assert world.turn(service, 10) == {1: 5, 2: 5}


def test_the_work_of_a_sync_is_bounded() -> None:
    """What has to wait comes first the next time."""
    world = World(rows=8192)
    services = [
        placed(
            "wrr",
            name=f"s{n}",
            vip=f"192.0.2.{n}",
            backends=[backend(f"10.0.{n}.{m}") for m in range(1, 3)],
        )
        for n in range(1, 21)
    ]
    for service in services:
        service.pool.set_weight(service.pool.backends[0], 4095)
    world.writer.configure(services)
    for number in range(1, 6):
        world.writer.sync(0.0)
        written = sum(bool(world.table(service)) for service in services)
        assert written == number * ENTRIES // 4096


def test_without_room_a_worker_decides() -> None:
    """About the service that does not fit at the second try; it is named until it fits, also over a
    reload, but not while nothing is decided.
    """
    world = World(rows=2)
    small, large = placed(), placed("wrr", name="large", vip=V4.other_vip)
    large.pool.set_weight(large.pool.backends[0], 500)
    world.writer.configure([small, large])
    assert world.writer.unplaced is None
    world.writer.sync(0.0)
    assert (world.table(large), world.writer.unplaced) == ([], ())
    world.writer.sync(0.0)
    assert (world.table(small), world.writer.unplaced) == ([1, 2], ("large",))
    again = placed("wrr", name="large", vip=V4.other_vip)
    again.pool.set_weight(again.pool.backends[0], 500)
    world.writer.configure([small, again])
    world.writer.sync(0.0, busy=True)
    assert world.writer.unplaced is None
    world.writer.sync(0.0)
    assert world.writer.unplaced == ("large",)
    world.writer.enable(False)
    assert world.writer.unplaced == ()
    world.writer.enable(True)
    for _ in range(2):
        world.writer.sync(0.0)
    assert world.writer.unplaced == ("large",)
    again.pool.set_weight(again.pool.backends[0], 1)
    world.writer.sync(0.0)
    assert (world.table(again), world.writer.unplaced) == ([1, 2], ())


def test_a_table_takes_the_room_that_another_leaves() -> None:
    """Within a second, without a change of its own."""
    world = World(rows=12)
    first, second = placed("wrr"), placed("wrr", name="second", vip=V4.other_vip)
    first.pool.set_weight(first.pool.backends[0], 300)
    second.pool.set_weight(second.pool.backends[0], 250)
    world.writer.configure([first, second])
    for _ in range(2):
        world.writer.sync(0.0)
    assert (len(world.table(first)), world.writer.unplaced) == (301, ("second",))
    for weight in (1, 2):  # the room of a table is free with the change after the next
        first.pool.set_weight(first.pool.backends[0], weight)
        world.writer.sync(0.0)
    world.writer.sync(0.5)
    assert world.writer.unplaced == ("second",)
    world.writer.sync(1.0)
    assert (len(world.table(second)), world.writer.unplaced) == (251, ())


def test_a_table_takes_its_own_room_where_there_is_no_other() -> None:
    """With the next sync; between the two a worker decides."""
    world, service = World(rows=12), placed("wrr")
    for weight in (300, 302):
        service.pool.set_weight(service.pool.backends[0], weight)
        world.writer.configure([service])
        world.writer.sync(0.0)
    assert (world.table(service), world.writer.unplaced) == ([], ())
    world.writer.sync(0.0)
    assert (len(world.table(service)), world.writer.unplaced) == (303, ())


def test_services_beyond_the_decisions_are_unplaced() -> None:
    """There is no index for them."""
    world = World()
    services = [placed(name=f"s{n}", vip=V4.other_vip) for n in range(DECISIONS)]
    world.writer.configure(services)
    world.writer.sync(0.0)
    assert world.writer.unplaced == (f"s{DECISIONS - 1}",)


def record_of(rate: int, workers: int) -> tuple[int, ...]:
    """The fields of a service's decision where ``rate`` is the `openings_rate`."""
    world, service = World(), placed()
    config = Config.model_validate({"services": SERVICES, "queue": {"openings_rate": rate}})
    world.writer.set_config(config, workers)
    world.writer.configure([service])
    world.writer.sync(0.0)
    index = world.index(service)
    assert index is not None
    return DECISION.unpack_from(world.records, index * DECISION.size)


def test_the_record_of_a_decision() -> None:
    """Kind, and as many openings in a tick as unknown clients may open."""
    record = record_of(rate=1000, workers=2)
    assert (record[4], record[8]) == (2000 * (1 << 27) // 10**9, BY_TURN)


def test_nothing_is_decided_in_a_family_without_services() -> None:
    """The program looks for no decision there."""
    world = World()
    config = Config.model_validate({"services": [{**SERVICES[0], "decide": "auto"}]})
    world.writer.set_config(config, 3)
    found = [STEERING.unpack(world.steering.content[INDEX.pack(family)]) for family in (0, 1)]
    assert found == [(7, 3, 0), (7, 0, 0)]


def test_a_table_waits_for_the_flows_entries() -> None:
    """The first one, and that after the carrier was switched off, until no worker is busy; what
    changes later does not.
    """
    world, service = World(), placed()
    world.writer.configure([service])
    world.writer.sync(0.0, busy=True)
    assert world.table(service) == []
    world.writer.sync(0.0, busy=False)
    assert world.table(service) == [1, 2]
    service.pool.apply(service.pool.backends[0], Event.SET_DRAIN)
    world.writer.configure([service])
    world.writer.sync(0.0, busy=True)
    assert world.table(service) == [2]
    world.writer.enable(False)
    assert world.table(service) == []
    for on, busy, table in ((False, False, []), (True, True, []), (True, False, [2])):
        if on:
            world.writer.enable(True)
        world.writer.sync(0.0, busy=busy)
        assert world.table(service) == table


def test_floods_are_counted() -> None:
    """Once a second while openings of a service pass without an entry, or above the bound."""
    world, service = World(), placed()
    config = Config.model_validate({"services": SERVICES, "queue": {"openings_rate": 100}})
    world.writer.set_config(config, 1)
    world.writer.configure([service])
    index = world.index(service)
    assert index is not None
    at = index * DECISION.size

    def look(now: float, *, tick: int = 0, opened: int = 0, stateless: int = 0) -> int:
        """How often a flood was counted, after the program has noted this."""
        world.records[at + 32 : at + 44] = struct.pack("=III", tick, opened, stateless)
        world.writer.sync(now)
        return world.writer.floods

    assert look(100.0) == 0
    assert look(101.0, tick=ticks_of(100.9), opened=13) == 0
    assert look(102.0, tick=ticks_of(101.9), opened=14) == 1
    assert look(102.5, tick=ticks_of(102.4), opened=14) == 1
    assert look(103.0, tick=ticks_of(102.9), stateless=ticks_of(102.9)) == 2
    assert look(104.5, tick=ticks_of(102.9), opened=99, stateless=ticks_of(102.9)) == 2


def test_without_a_rate_every_opening_gets_an_entry() -> None:
    """`openings_rate: 0` is no limit."""
    assert record_of(rate=0, workers=1)[4] == 0xFFFFFFFF


def test_a_hash_alone_is_looked_for_in_its_family() -> None:
    """Where no other service is, whose packets are steered otherwise."""
    hashed = {"forward": "dsr", "strategy": "maglev", "decide": "hash"}
    for keys, workers in ((hashed, 3), ({"forward": "dsr"}, 0)):
        world = World()
        config = Config.model_validate({"services": [{**SERVICES[0], **keys}]})
        world.writer.set_config(config, 3)
        found = [STEERING.unpack(world.steering.content[INDEX.pack(n)])[1] for n in (0, 1)]
        assert found == [workers, 0]


#: a service, another one of its family, flags of the decision about the first
FLAGGED: list[tuple[dict[str, object], dict[str, object], int]] = [
    ({}, {}, 0),
    ({"return": "direct"}, {}, DIRECT),
    ({"forward": "dsr"}, {}, DIRECT),
    ({"forward": "dsr", "strategy": "maglev", "decide": "hash"}, {}, DIRECT | NO_ENTRIES),
    ({}, {"affinity": "client"}, STEERED_BY_CLIENT),
    ({}, {"affinity": "client", "forward": "offload"}, STEERED_BY_CLIENT),
    ({"forward": "dsr"}, {"affinity": "client"}, DIRECT),
    ({}, {"affinity": "client", "forward": "dsr"}, 0),
    ({"forward": "dsr"}, {"affinity": "client", "forward": "dsr"}, DIRECT | STEERED_BY_CLIENT),
]


@pytest.mark.parametrize(("first", "second", "expected"), FLAGGED)
def test_the_flags_of_a_decision(
    first: dict[str, object], second: dict[str, object], expected: int
) -> None:
    """Where replies go, whether flows have entries, and how the rules steer packets: by the client
    alone if a service that shares the rules has affinity.
    """
    world, service = World(), placed()
    other = {**SERVICES[0], "name": "other", "vip": V4.other_vip, **second}
    config = Config.model_validate({"services": [{**SERVICES[0], "name": "web", **first}, other]})
    world.writer.set_config(config, 3)
    world.writer.configure([service])
    world.writer.sync(0.0)
    index = world.index(service)
    assert index is not None
    assert DECISION.unpack_from(world.records, index * DECISION.size)[9] == expected
