"""Tests of ``paraglider.forward.bpf.ahead``: the program opens flows to a backend before their
worker has the configuration with it.
"""

from __future__ import annotations

import pytest
from bpf_deciding import NEW, OPEN, OVER, DecidingProgram
from bpf_world import WIDE, MemoryRing, Worker, client_key, memory_maps, web
from packets import V4, backend

from paraglider.bpf.layout import (
    DECIDED,
    EVENT_ESTABLISHED,
)
from paraglider.bpf.maps import CarrierMaps
from paraglider.core.flow import TCP, UDP
from paraglider.core.service import VirtualService
from paraglider.core.translation import Translation
from paraglider.forward.bpf.ahead import INTERVAL, LOOKS, MOST, PATIENCE, EntriesAhead
from paraglider.forward.bpf.entry import FlowEntry

KEY = client_key(1000)


class Behind(DecidingProgram):
    """A worker whose service has one backend; that of another worker has two already, and all flows
    go to the new one.
    """

    def __init__(self, ports: tuple[tuple[int, int], ...]) -> None:
        self.ports = ports
        super().__init__(self.service(1))
        ahead = self.service(2)
        Worker([ahead], self.maps, MemoryRing(10), self.program).carrier.sync(0.0)
        self.translations = list(ahead.translations.values())[1:]
        self.keys = [KEY]

    def service(self, backends: int) -> VirtualService:
        """The service with so many backends."""
        addresses = V4.backends[:backends]
        return web(ports=self.ports, backends=[backend(address) for address in addresses])

    def sync(self, first: float, last: float) -> None:
        """Ticks from ``first`` to ``last``."""
        for tick in range(round(first * 20), round(last * 20) + 1):
            self.one.carrier.sync(tick / 20)

    def learn(self) -> Translation:
        """The worker gets the configuration with both backends."""
        service = self.service(2)
        self.one.carrier.configure([service], (), [service])
        return list(service.translations.values())[1]


@pytest.fixture(params=[((80, 80),), WIDE], ids=["origin", "alias"])
def behind(request: pytest.FixtureRequest) -> Behind:
    """A worker with a service of one port, or of a range."""
    return Behind(request.param)


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_its_flow_is_added_when_the_backend_is_known(behind: Behind, protocol: int) -> None:
    """Until then the entry stays, with its alias; the connection is counted once."""
    behind.opens(0, OPEN if protocol == TCP else NEW, protocol=protocol)
    before = dict(behind.entries(protocol))
    behind.sync(0, 1)
    assert behind.entries(protocol) == before
    assert not behind.one.flows.forward[protocol]
    translation = behind.learn()
    behind.sync(1, 2)
    (flow,) = behind.one.flows.forward[protocol].values()
    assert (flow.translation, translation.backend.conns) == (translation, 1)
    assert behind.entries(protocol).keys() == before.keys()
    assert not behind.one.context.ahead
    behind.one.check()


def test_a_later_event_does_not_remove_it(behind: Behind) -> None:
    """It is established while the backend is unknown."""
    behind.opens(0)
    behind.sync(0, 0.2)
    behind.set(0, OPEN, 0.2)
    behind.tell(EVENT_ESTABLISHED, 0, OPEN)
    behind.sync(0.2, 0.4)
    assert KEY in behind.entries(TCP)
    translation = behind.learn()
    behind.sync(0.4, 1)
    assert [flow.translation for flow in behind.one.flows.forward[TCP].values()] == [translation]
    assert translation.backend.conns == 1


def test_a_connection_that_is_over_is_counted(behind: Behind) -> None:
    """Once, when its backend is known; its entry stays as that of any closed connection."""
    behind.opens(0, OVER)
    behind.sync(0, 1)
    translation = behind.learn()
    behind.sync(1, 3)
    assert KEY in behind.entries(TCP)
    assert translation.backend.conns == 1
    assert not behind.one.flows.forward[TCP]
    behind.sync(3, 20)
    assert not behind.entries(TCP)


def test_an_entry_of_a_removed_service_goes(behind: Behind) -> None:
    """After a while, with its alias if a sweep finds that."""
    behind.opens(0, OPEN)
    behind.sync(0, PATIENCE - 1)
    assert KEY in behind.entries(TCP)
    behind.sync(PATIENCE - 1, PATIENCE + 1)
    assert KEY not in behind.entries(TCP)
    assert not behind.one.context.ahead


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
