"""The BPF carrier with maps of the kernel: what is told of them in memory holds there too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bpf_world import MemoryRing, Program, Worker, client_key, entries, web

from paraglider.bpf.layout import RING_BYTES
from paraglider.bpf.maps import CarrierMaps
from paraglider.bpf.ring import open_ring
from paraglider.core import flow_states as states
from paraglider.core.flow import TCP, UDP
from paraglider.core.journal import Journal, size_of, write_header
from paraglider.core.restore import Translations, restore
from paraglider.core.service import VirtualService
from paraglider.forward.bpf.carrier import CHUNK

pytestmark = pytest.mark.root

ROOM = 4 * CHUNK


@pytest.fixture
def maps() -> Iterator[CarrierMaps]:
    """New maps, without a program."""
    made = CarrierMaps.create_for_test(ROOM, 1)
    yield made
    made.close()


def started(maps: CarrierMaps, service: VirtualService) -> Worker:
    """A worker, with a ring in memory into which the model of the program writes."""
    ring = MemoryRing()
    one = Worker([service], maps, ring, Program(maps, {0: ring}), bound=2 * ROOM)
    one.carrier.sync(0.0)
    return one


@pytest.mark.parametrize("ports", [((80, 80),), ((80, 1080),)], ids=["origin", "alias"])
def test_lives_of_flows(maps: CarrierMaps, ports: tuple[tuple[int, int], ...]) -> None:
    """From the first packet to the last entry."""
    one = started(maps, web(ports=ports))
    flow = one.open(1000)
    one.carrier.sync(0.1)
    assert flow.state == states.ESTABLISHED
    for _ in range(2):
        one.packet(UDP, client_key(1001))
    assert one.packet(UDP, client_key(1001), now=1.0)
    one.check()
    for key in (flow.forward_key, flow.reverse_key):
        assert one.packet(TCP, key, "FA", 2.0)
    one.carrier.sync(2.1)
    assert flow.state == states.TIME_WAIT
    one.check()
    one.flows.expire(10_000.0)
    assert not any(entries(flows) for flows in maps.flows.values())


def test_a_full_map_and_a_restart(maps: CarrierMaps) -> None:
    """The kernel refuses what has no room; a sweep finds every entry again, and removes those of
    flows that are no more.
    """
    service = web()
    one = started(maps, service)
    memory = bytearray(size_of(2 * ROOM))
    write_header(memory, 2 * ROOM, bytes(16))
    one.flows.journal = Journal(memory)
    one.flows.journal.complete = True
    for port in range(1000, 1000 + ROOM + 10):
        one.packet(TCP, client_key(port), "S")
    assert (one.carrier.carried, one.carrier.counts()) == (ROOM, {"carrier_refused": 10})
    one.check()
    opened = [one.flows.forward[TCP][client_key(1000 + n)] for n in range(ROOM // 2)]
    for flow in opened:
        assert one.packet(TCP, flow.reverse_key, "SA", 0.5, seq=70)
        assert one.packet(TCP, flow.forward_key, "A", 0.5, ack=71)
    gone = opened[0]
    one.flows.journal.erase(gone.record)
    for flow in one.flows.forward[TCP].values():  # the services outlive the worker here
        flow.translation.backend.flows = flow.translation.backend.opening = 0
    after = started(maps, service)
    restore(after.flows, Journal(memory), Translations([service]), 1.0)
    after.settle(2.0)
    after.check()
    assert after.flows.active == ROOM // 2
    assert after.flows.forward[TCP][gone.forward_key].state == states.ESTABLISHED
    after.flows.expire(300.0, 2 * ROOM)
    after.check()
    assert after.carrier.carried == ROOM // 2


def test_the_ring_of_the_kernel_is_read(maps: CarrierMaps) -> None:
    """An empty one tells nothing."""
    ring = open_ring(maps.rings[0], RING_BYTES)
    assert ring.read(10) == []
    ring.close()
