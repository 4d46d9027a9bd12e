"""A worker's successor counts the connections that its predecessor did not, and those only."""

from __future__ import annotations

import pytest
from bpf_world import MemoryMap, MemoryRing, Program, Worker, client_key, memory_maps, web
from packets import V4, backend

from paraglider.bpf.layout import (
    CLOSED,
    DECIDED,
    ESTABLISHED,
    EVENT,
    EVENT_CLOSED,
    EVENT_OPENED,
    FIN_BACK,
    FIN_OUT,
    REPLIED,
)
from paraglider.core.flow import TCP
from paraglider.forward.bpf.carrier import LOST_INTERVAL
from paraglider.forward.bpf.closed import LINGER
from paraglider.forward.bpf.entry import FlowEntry
from paraglider.forward.bpf.loads import SharedLoads

OVER = DECIDED | REPLIED | ESTABLISHED | FIN_OUT | FIN_BACK | CLOSED


class Daemon:
    """Maps and a ring, which outlive workers and daemons, and what the workers of one share."""

    def __init__(self) -> None:
        self.maps = memory_maps()
        self.ring = MemoryRing(1000)
        self.program = Program(self.maps, {0: self.ring})
        self.loads = SharedLoads(1)
        self.moment = 0.0
        self.worker = self.start()

    def start(self) -> Worker:
        """The next worker, whose service is decided by the program."""
        service = web(ports=((80, 80),), backends=[backend(V4.backends[0])])
        one = Worker([service], self.maps, self.ring, self.program, loads=self.loads)
        one.carrier.configure([service], (), [service])
        self.worker = one
        return one

    def settle(self) -> None:
        """The worker has done what there is to do, and looked for lost events since."""
        for _ in range(2):
            self.moment += LOST_INTERVAL
            self.worker.settle(self.moment)

    def connect(self, port: int) -> None:
        """A connection of a client that is over at once."""
        (translation,) = self.worker.path.balancer.services.services[0].translations.values()
        key, entries = client_key(port), self.maps.flows[TCP, 4]
        entries.put(key, FlowEntry(0, OVER, 0, translation.slot).pack())
        if len(self.ring.events) >= self.ring.room:
            self.program.lose_event()
            return
        for kind in (EVENT_OPENED, EVENT_CLOSED):
            self.ring.events.append(EVENT.pack(kind, 4, TCP, OVER & 0xFF, translation.slot, key))

    @property
    def counted(self) -> int:
        """The connections that the present worker has counted."""
        (one,) = self.worker.path.balancer.services.services[0].pool.backends
        return one.conns


@pytest.fixture
def daemon() -> Daemon:
    """A daemon whose worker has settled."""
    made = Daemon()
    made.settle()
    return made


def test_connections_of_the_predecessor_are_not_counted_again(daemon: Daemon) -> None:
    """Though their entries stay for a while, and the successor removes them."""
    for port in (1000, 1001):
        daemon.connect(port)
    daemon.settle()
    assert daemon.counted == 2
    daemon.start()
    daemon.settle()
    assert daemon.counted == 0
    daemon.worker.settle(daemon.moment + LINGER)
    entries = daemon.maps.flows[TCP, 4]
    assert isinstance(entries, MemoryMap)
    assert not entries.content


def test_nor_by_the_worker_after_the_next(daemon: Daemon) -> None:
    """The second successor inherits what the first one knew."""
    daemon.connect(1000)
    daemon.settle()
    for _ in range(2):
        daemon.start()
        daemon.settle()
        assert daemon.counted == 0


def test_connections_while_there_was_no_worker_are_counted_once(daemon: Daemon) -> None:
    """By their events, though the sweep may come to their entries before."""
    daemon.connect(1000)
    late, daemon.ring.events = daemon.ring.events, []
    daemon.start()
    daemon.worker.carrier.sync(daemon.moment)
    daemon.ring.events = late
    daemon.settle()
    assert daemon.counted == 1


def test_connections_whose_events_were_lost_are_counted(daemon: Daemon) -> None:
    """While there was no worker, or where its predecessor had no time for it."""
    daemon.ring.room = 0
    daemon.connect(1000)
    daemon.start()
    daemon.settle()
    assert daemon.counted == 1
    daemon.start()
    daemon.settle()
    assert daemon.counted == 0


def test_the_next_daemon_counts_all_again(daemon: Daemon) -> None:
    """Its counters begin at 0."""
    daemon.connect(1000)
    daemon.settle()
    daemon.loads = SharedLoads(1)
    daemon.start()
    daemon.settle()
    assert daemon.counted == 1


def test_losses_are_known_after_the_first_sweep(daemon: Daemon) -> None:
    """A successor counts what its own ring lost, as any worker does."""
    daemon.start()
    daemon.settle()
    daemon.ring.room = 0
    daemon.connect(1000)
    daemon.settle()
    assert daemon.counted == 1
