"""Tests of ``paraglider.forward.bpf.closed``: entries of closed connections go after a while."""

from __future__ import annotations

import pytest
from bpf_world import MemoryMap, MemoryRing, Worker, web, worker
from packets import FAMILIES, V4, Family, backend, packed

from paraglider.bpf.layout import ALIAS, CLOSED, DECIDED
from paraglider.core.flow import TCP
from paraglider.core.translation import Translation
from paraglider.forward.bpf.closed import FRESH, LINGER, MOST_CLOSED, REMOVALS, ClosedEntries
from paraglider.forward.bpf.context import BpfContext
from paraglider.forward.bpf.entry import FlowEntry, ticks_of
from paraglider.forward.bpf.flows import CarriedFlows
from paraglider.forward.bpf.slots import Slots


class Closing:
    """Entries of a worker with a service of ``family``, whose connections close."""

    def __init__(self, family: Family = V4, *, wide: bool = False) -> None:
        ports = ((80, 1080),) if wide else ((80, 80),)
        service = web(vip=family.vip, ports=ports, backends=[backend(family.backends[0])])
        self.family = family
        self.worker: Worker = worker(service, bound=3000, entries=4 * MOST_CLOSED)
        maps = self.worker.maps
        slots = Slots(maps)
        flows = CarriedFlows(BpfContext(maps, MemoryRing()), slots, self.worker.flows)
        self.entries = maps.flows[TCP, family.number]
        self.translation: Translation = next(iter(service.translations.values()))
        self.translation.aliased = wide
        self.closed = ClosedEntries(maps, flows, slots)

    @property
    def content(self) -> dict[bytes, bytes]:
        """All entries."""
        assert isinstance(self.entries, MemoryMap)
        return self.entries.content

    @property
    def calls(self) -> int:
        """Calls of the kernel so far."""
        assert isinstance(self.entries, MemoryMap)
        return self.entries.calls

    def key(self, number: int) -> bytes:
        """The key of the client's connection ``number``; each is another one."""
        ends = packed(self.family.client), packed(self.family.vip)
        source = (int.from_bytes(ends[0], "big") + (number >> 16)).to_bytes(len(ends[0]), "big")
        return source + ends[1] + (number & 0xFFFF).to_bytes(2, "big") + b"\0\x50"

    def close(self, key: bytes, now: float, flags: int = DECIDED | CLOSED) -> None:
        """The connection with ``key`` is closed; its entry has ``flags``."""
        self.content[key] = FlowEntry(ticks_of(now), flags).pack()
        if self.translation.aliased:
            alias = FlowEntry(0, ALIAS, 0, self.translation.slot).pack()
            self.content[self.translation.reverse_key(key)] = alias
        self.closed.add(key, self.translation, now)


@pytest.mark.parametrize("wide", [False, True], ids=["origin", "alias"])
@pytest.mark.parametrize("family", FAMILIES, ids=["v4", "v6"])
def test_an_entry_stays_for_a_while(family: Family, wide: bool) -> None:
    """Then it is removed, with its alias; all of one tick in one call."""
    closing = Closing(family, wide=wide)
    keys = [closing.key(1000 + n) for n in range(20)]
    for key in keys:
        closing.close(key, 1.0)
    calls = closing.calls
    closing.closed.sync(0.9 + LINGER)
    assert len(closing.content) == 20 * (1 + wide)
    assert all(key in closing.closed for key in keys)
    assert closing.calls == calls
    closing.closed.sync(1.0 + LINGER)
    assert closing.content == {}
    assert not any(key in closing.closed for key in keys)
    # each is read, with its alias, and all are removed
    assert closing.calls == calls + len(keys) * (1 + wide) + 1


def test_an_entry_that_is_closed_again_stays_longer() -> None:
    """From the later time on."""
    closing = Closing()
    key = closing.key(1000)
    for now in (1.0, 2.0):
        closing.close(key, now)
    closing.closed.sync(1.5 + LINGER)
    assert list(closing.content) == [key]
    closing.closed.sync(2.0 + LINGER)
    assert closing.content == {}


def test_an_entry_of_another_connection_stays() -> None:
    """The key was used again, by a flow of the program's or one of the worker's."""
    closing = Closing()
    for port in (1000, 1001):
        closing.close(closing.key(port), 1.0)
    closing.closed.discard(closing.key(1000))
    closing.worker.packet(TCP, closing.key(1001), "S")
    assert closing.worker.flows.forward[TCP][closing.key(1001)].carried
    closing.closed.sync(1.0 + LINGER)
    assert set(closing.content) == {closing.key(1000), closing.key(1001)}


@pytest.mark.parametrize("wide", [False, True], ids=["origin", "alias"])
def test_an_entry_that_is_in_use_stays_longer(wide: bool) -> None:
    """Its place may have been given to a new connection, whose event was not read yet."""
    closing = Closing(wide=wide)
    keys = [closing.key(1000 + n) for n in range(2)]
    for key in keys:
        closing.close(key, 1.0)
    closing.content[keys[0]] = FlowEntry(ticks_of(10.5), DECIDED | CLOSED).pack()
    closing.closed.sync(1.0 + LINGER)
    assert {key for key in keys if key in closing.content} == {keys[0]}
    assert len(closing.content) == 1 + wide
    closing.closed.sync(1.0 + LINGER + FRESH)
    assert len(closing.content) == 1 + wide
    closing.closed.sync(1.0 + 2 * LINGER)
    assert closing.content == {}


@pytest.mark.parametrize("wide", [False, True], ids=["origin", "alias"])
def test_an_open_entry_stays(wide: bool) -> None:
    """However long no packet has passed: if the event of its connection is lost, a sweep finds it.
    When the connection is closed, the entry goes.
    """
    closing = Closing(wide=wide)
    key = closing.key(1000)
    closing.close(key, 1.0)
    closing.content[key] = FlowEntry(ticks_of(1.5), DECIDED).pack()
    for number in (1, 2, 3):
        closing.closed.sync(1.0 + number * LINGER)
        assert len(closing.content) == 1 + wide
    closing.content[key] = FlowEntry(ticks_of(1.5), DECIDED | CLOSED).pack()
    closing.closed.sync(1.0 + 4 * LINGER)
    assert closing.content == {}


def test_an_entry_that_is_gone() -> None:
    """Nothing is removed, so that an alias of another flow stays."""
    closing = Closing(wide=True)
    key = closing.key(1000)
    closing.close(key, 1.0)
    del closing.content[key]
    closing.closed.sync(1.0 + LINGER)
    assert list(closing.content) == [closing.translation.reverse_key(key)]


def test_removals_are_bounded() -> None:
    """In one call of ``sync``; the rest follows."""
    closing = Closing()
    for number in range(REMOVALS + 10):
        closing.close(closing.key(1000 + number), 1.0)
    closing.closed.sync(1.0 + LINGER)
    assert len(closing.content) == 10
    closing.closed.sync(1.0 + LINGER)
    assert closing.content == {}


def test_too_many_entries_stay_for_less() -> None:
    """The oldest are removed first."""
    closing = Closing()
    keys = [closing.key(number) for number in range(MOST_CLOSED)]
    for key in keys:
        closing.close(key, 1.0)
    closing.closed.sync(1.1)
    assert len(closing.content) == MOST_CLOSED
    for port in range(10):
        closing.close(closing.key(MOST_CLOSED + port), 2.0)
    closing.closed.sync(2.1)
    assert len(closing.content) == MOST_CLOSED
    assert all(closing.key(MOST_CLOSED + port) in closing.content for port in range(10))


def test_one_of_too_many_entries_that_was_replaced_stays() -> None:
    """Its connection is open, and new."""
    closing = Closing()
    keys = [closing.key(number) for number in range(MOST_CLOSED + 2)]
    for key in keys[:-2]:
        closing.close(key, 1.0)
    oldest = next(reversed(keys[:-2]))  # those of a tick are removed from the last on
    closing.content[oldest] = FlowEntry(ticks_of(1.9), DECIDED).pack()
    for key in keys[-2:]:
        closing.close(key, 2.0)
    for now in (2.1, 2.2):
        closing.closed.sync(now)
    assert oldest in closing.content
    assert len(closing.content) == MOST_CLOSED
