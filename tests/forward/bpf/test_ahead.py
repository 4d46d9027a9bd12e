"""Tests of ``paraglider.forward.bpf.ahead``: the program opens flows to a backend before their
worker has the configuration with it.
"""

from __future__ import annotations

import pytest
from bpf_world import WIDE, MemoryMap, MemoryRing, Program, Worker, client_key, memory_maps, web
from packets import V4, backend

from paraglider.bpf.layout import (
    ALIAS,
    CLOSED,
    DECIDED,
    ESTABLISHED,
    EVENT,
    EVENT_CLOSED,
    EVENT_ESTABLISHED,
    EVENT_OPENED,
    FIN_BACK,
    FIN_OUT,
    REPLIED,
)
from paraglider.bpf.maps import CarrierMaps
from paraglider.core.flow import TCP, UDP
from paraglider.core.service import VirtualService
from paraglider.core.translation import Translation
from paraglider.forward.bpf.ahead import INTERVAL, LOOKS, MOST, PATIENCE, EntriesAhead
from paraglider.forward.bpf.entry import FlowEntry, ticks_of

OPEN = DECIDED | REPLIED | ESTABLISHED
OVER = OPEN | FIN_OUT | FIN_BACK | CLOSED
KEY = client_key(1000)


class Behind:
    """A worker whose service has one backend; that of another worker has two already."""

    def __init__(self, ports: tuple[tuple[int, int], ...]) -> None:
        self.ports = ports
        self.maps, self.ring = memory_maps(), MemoryRing(1000)
        program = Program(self.maps, {0: self.ring})
        service = self.service(1)
        self.worker = Worker([service], self.maps, self.ring, program)
        self.worker.carrier.configure([service], (), [service])
        self.worker.settle(0.0)
        ahead = self.service(2)
        Worker([ahead], self.maps, MemoryRing(10), program).carrier.sync(0.0)
        self.new: Translation = list(ahead.translations.values())[1]

    def service(self, backends: int) -> VirtualService:
        """The service with so many backends."""
        addresses = V4.backends[:backends]
        return web(ports=self.ports, backends=[backend(address) for address in addresses])

    def content(self, protocol: int) -> dict[bytes, bytes]:
        """The entries of ``protocol``."""
        entries = self.maps.flows[protocol, 4]
        assert isinstance(entries, MemoryMap)
        return entries.content

    def opens(self, flags: int, protocol: int = TCP) -> None:
        """The program opens a flow to the new backend, whose entry has ``flags`` soon after."""
        content = self.content(protocol)
        content[KEY] = FlowEntry(ticks_of(0.0), flags, 0, self.new.slot).pack()
        if self.new.aliased:
            alias = FlowEntry(0, ALIAS, 0, self.new.slot).pack()
            content[self.new.reverse_key(KEY)] = alias
        self.tell(EVENT_OPENED, DECIDED, protocol)
        if flags & CLOSED:
            self.tell(EVENT_CLOSED, flags)

    def tell(self, kind: int, flags: int, protocol: int = TCP) -> None:
        """Send an event."""
        self.ring.events.append(EVENT.pack(kind, 4, protocol, flags, self.new.slot, KEY))

    def sync(self, first: float, last: float) -> None:
        """Ticks from ``first`` to ``last``."""
        for tick in range(round(first * 20), round(last * 20) + 1):
            self.worker.carrier.sync(tick / 20)

    def learn(self) -> Translation:
        """The worker gets the configuration with both backends."""
        service = self.service(2)
        self.worker.carrier.configure([service], (), [service])
        return list(service.translations.values())[1]


@pytest.fixture(params=[((80, 80),), WIDE], ids=["origin", "alias"])
def behind(request: pytest.FixtureRequest) -> Behind:
    """A worker with a service of one port, or of a range."""
    return Behind(request.param)


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_its_flow_is_added_when_the_backend_is_known(behind: Behind, protocol: int) -> None:
    """Until then the entry stays, with its alias; the connection is counted once."""
    behind.opens(OPEN if protocol == TCP else DECIDED, protocol)
    before = dict(behind.content(protocol))
    behind.sync(0, 1)
    assert behind.content(protocol) == before
    assert not behind.worker.flows.forward[protocol]
    translation = behind.learn()
    behind.sync(1, 2)
    (flow,) = behind.worker.flows.forward[protocol].values()
    assert (flow.translation, translation.backend.conns) == (translation, 1)
    assert behind.content(protocol).keys() == before.keys()
    assert not behind.worker.context.ahead
    behind.worker.check()


def test_a_later_event_does_not_remove_it(behind: Behind) -> None:
    """It is established, and then closed, while the backend is unknown."""
    behind.opens(OPEN)
    behind.sync(0, 0.2)
    behind.tell(EVENT_ESTABLISHED, OPEN)
    behind.sync(0.2, 0.4)
    assert KEY in behind.content(TCP)
    translation = behind.learn()
    behind.sync(0.4, 1)
    assert [flow.translation for flow in behind.worker.flows.forward[TCP].values()] == [translation]
    assert translation.backend.conns == 1


def test_a_connection_that_is_over_is_counted(behind: Behind) -> None:
    """Once, when its backend is known; its entry stays as that of any closed connection."""
    behind.opens(OVER)
    behind.sync(0, 1)
    translation = behind.learn()
    behind.sync(1, 3)
    assert KEY in behind.content(TCP)
    assert translation.backend.conns == 1
    assert not behind.worker.flows.forward[TCP]
    behind.sync(3, 20)
    assert not behind.content(TCP)


def test_an_entry_of_a_removed_service_goes(behind: Behind) -> None:
    """After a while, with its alias if a sweep finds that."""
    behind.opens(OPEN)
    behind.sync(0, PATIENCE - 1)
    assert KEY in behind.content(TCP)
    behind.sync(PATIENCE - 1, PATIENCE + 1)
    assert KEY not in behind.content(TCP)
    assert not behind.worker.context.ahead


def test_the_entries_that_wait_are_bounded() -> None:
    """One more does not stay; a look reads some, each after the others have been read."""
    maps: CarrierMaps = memory_maps(2 * MOST)
    ahead = EntriesAhead(maps)
    content = maps.flows[TCP, 4]
    keys = [client_key(number) for number in range(MOST)]
    for key in keys:
        content.put(key, FlowEntry(0, DECIDED, 0, 1).pack())
        assert ahead.keep(TCP, key, 0.0)
    assert not ahead.keep(TCP, client_key(MOST), 0.0)
    assert ahead.keep(TCP, keys[0], PATIENCE - 1)
    assert not ahead.keep(TCP, keys[0], PATIENCE)
    read: list[bytes] = []

    def waits(_protocol: int, key: bytes, _entry: FlowEntry) -> bool:
        read.append(key)
        return len(read) % 2 == 0

    ahead.look(1.0, waits)
    ahead.look(1.0 + INTERVAL / 2, waits)
    assert read == keys[:LOOKS]
    assert len(ahead) == MOST - LOOKS // 2
    ahead.look(1.0 + INTERVAL, waits)
    assert read == keys[: 2 * LOOKS]


def test_an_entry_that_is_gone_waits_no_longer() -> None:
    """The program or another has removed it."""
    maps = memory_maps()
    ahead = EntriesAhead(maps)
    assert ahead.keep(UDP, KEY, 0.0)
    ahead.look(1.0, lambda *_: pytest.fail("there is nothing to read"))
    assert not ahead
