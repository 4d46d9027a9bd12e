"""Measures the cost of the BPF carrier for a worker: time and memory of a flow, the longest tick.

``python -m bench.carrier_probe [FLOWS]``, as root, with maps of the kernel and no network, prints
for each size up to ``FLOWS`` the cost of a new flow with its entry, then the memory of established
flows, and for all flows the cost of being restored after a restart, closed and expired. Between the
measurements, the probe sets the flags in entries and sends the events that the program would.

Rules: as in a worker, Python's cyclic collector is off. Time is CPU time of this thread; of ticks
also wall time, which other programs increase. A tick is ``expire`` and ``sync``, as in a worker.
Ticks that remove entries have a pause between them: the kernel frees entries a while later, and
would free those of hundreds of ticks in one of them.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import builds
from bench.core_probe import AS_ON_THE_WIRE, CHUNK, NEAR, RATE, VIP, resident_bytes, syns
from paraglider.bpf.layout import (
    CLOSED,
    ESTABLISHED,
    EVENT,
    EVENT_CLOSED,
    EVENT_ESTABLISHED,
    FIN_BACK,
    FIN_OUT,
    REPLIED,
)
from paraglider.bpf.maps import CarrierMaps
from paraglider.core import strategies
from paraglider.core.balancer import Balancer
from paraglider.core.flow import TCP, FlowTimeouts
from paraglider.core.flow_table import FlowTable
from paraglider.core.journal import RECORD, Journal, size_of, write_header
from paraglider.core.pool import Backend, Pool
from paraglider.core.restore import Translations, restore
from paraglider.core.service import ServiceMap, VirtualService
from paraglider.core.unread import begin
from paraglider.daemon.workers.journals import RESTORED_A_TICK
from paraglider.daemon.workers.worker import EXPIRY_BUDGET
from paraglider.forward.bpf.carrier import BpfCarrier
from paraglider.forward.bpf.compacting import AGE
from paraglider.forward.bpf.context import BpfContext
from paraglider.forward.bpf.entry import FlowEntry
from paraglider.forward.bpf.events import EVENTS
from paraglider.forward.nat import datapath as core
from paraglider.forward.nat.datapath import NatDatapath
from paraglider.forward.worker_carrier import WorkerCarrier

FLOWS = 1_000_000
SIZES = (10_000, 100_000)  # at which a new flow's cost is printed too
TICK = 0.05  # seconds from tick to tick
PAUSE = 0.005  # seconds between ticks that remove entries
KEY = slice(12, 24)  # of a flow, in a packet
LATER = 100_000.0  # seconds, after which every flow is due
_OPEN = REPLIED | ESTABLISHED


class Ring:
    """The ring of a worker, to which the probe adds events."""

    def __init__(self) -> None:
        self.events: list[bytes] = []

    def read(self, most: int) -> list[bytes]:
        """See ``paraglider.bpf.ring.Ring``."""
        found = self.events[:most]
        del self.events[:most]
        return found


class Probe:
    """A worker's flow table, packet path and carrier, with maps that outlive them."""

    def __init__(self, flows: int) -> None:
        self.room = flows
        self.maps = CarrierMaps.create_for_test(flows, 1)
        self.ring = Ring()
        self.memory = bytearray(size_of(flows))
        write_header(self.memory, flows, bytes(16))
        Journal(self.memory).complete = True
        self.start(0.0)

    def start(self, now: float) -> None:
        """Start a worker, which continues with maps and journal."""
        backends = [Backend(str(n), bytes((10, 0, 0, n))) for n in range(1, 11)]
        vip = bytes(map(int, VIP.split(".")))
        rr = strategies.create("rr")
        service = VirtualService("web", vip, (TCP,), ((80, 80),), Pool(backends), rr)
        self.table = FlowTable(FlowTimeouts(), self.room, now)
        hand = WorkerCarrier()
        self.carrier = BpfCarrier(BpfContext(self.maps, self.ring), self.table, hand)
        balancer = Balancer(ServiceMap([service]))
        self.path = NatDatapath(balancer, self.table, None, self.carrier)
        self.carrier.configure([service], ())
        journal, translations = Journal(self.memory), Translations([service])
        if begin(self.table, journal, translations, now) is None:
            restore(self.table, journal, translations, now)

    def tick(self, now: float) -> None:
        """One tick of a worker."""
        self.table.expire(now, EXPIRY_BUDGET)
        if self.table.unread is not None:
            self.table.unread.step(RESTORED_A_TICK)
        self.carrier.sync(now)

    def full(self) -> int:
        """Flows that are not compact."""
        return sum(map(len, self.table.forward.values()))

    def send_events(self, keys: list[bytes], kind: int, flags: int) -> None:
        """Set ``flags`` in the entries with ``keys`` and send an event of ``kind`` for each, as the
        program does.
        """
        entries = self.maps.flows[TCP, 4]
        for key in keys:
            entry = FlowEntry.unpack(entries.get(key) or b"")
            entries.put(key, entry._replace(flags=flags).pack())
            self.ring.events.append(EVENT.pack(kind, 4, TCP, flags, 0, key))


@dataclass(slots=True)
class Ticks:
    """CPU time of ticks, and the longest of them by CPU and by wall time, in ns; ``pause`` is in
    seconds, after each.
    """

    pause: float = 0.0
    spent: int = 0
    longest: int = 0
    longest_wall: int = 0
    count: int = 0

    def run(self, tick: Callable[[], object]) -> None:
        """Measure ``tick``."""
        wall, begin = time.perf_counter_ns(), time.thread_time_ns()
        tick()
        took, wall = time.thread_time_ns() - begin, time.perf_counter_ns() - wall
        self.spent += took
        self.count += 1
        self.longest = max(self.longest, took)
        self.longest_wall = max(self.longest_wall, wall)
        if self.pause:
            time.sleep(self.pause)

    def line(self, name: str, flows: int) -> str:
        """The line that is printed."""
        return (
            f"{name}: {self.spent / flows:.0f} ns a flow; {self.count} ticks, longest "
            f"{self.longest / 1e6:.2f} ms CPU, {self.longest_wall / 1e6:.2f} ms wall"
        )


def main() -> None:
    """Measure, print."""
    flows = int(sys.argv[1]) if len(sys.argv) > 1 else FLOWS
    gc.disable()
    for line in measure(flows):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def measure(flows: int, sizes: tuple[int, ...] = SIZES) -> Iterator[str]:
    """Measure the life of ``flows`` flows; prints a line for each part.

    Raises ``AssertionError`` if table and maps do not have what they should.
    """
    yield f"build: {builds.of_file(core.__file__)}"
    probe = Probe(flows)
    yield from _install(probe, flows, {*(size for size in sizes if size < flows), flows})
    now = flows / RATE + 2 * AGE
    whole = Ticks()
    whole.run(lambda: probe.start(now))
    yield whole.line("restarted, before the first packet", flows)
    ticks = Ticks()
    while probe.full() or not probe.carrier.idle:
        now += TICK
        ticks.run(lambda at=now: probe.tick(at))  # type: ignore[misc]
    _expect(probe.carrier.carried, flows)
    yield ticks.line("restored, and compact again", flows)
    yield _closed(probe, now)
    _expect(probe.table.active, 0)
    _expect(probe.carrier.carried, 0)
    yield _expiry(probe, "expired, closed", len(probe.table))
    packets = syns()
    for _ in range(flows):
        packet = next(packets)
        keys = [bytes(packet[KEY])]
        probe.path.handle(packet, 0, 40, AS_ON_THE_WIRE, LATER)
        probe.send_events(keys, EVENT_ESTABLISHED, _OPEN)
    now = LATER
    while probe.full():
        now += TICK
        probe.tick(now)
    yield _expiry(probe, "expired, compact", flows)


def _install(probe: Probe, flows: int, sizes: set[int]) -> Iterator[str]:
    """Open flows, which are established with the next tick, and become compact."""
    packets, handle = syns(), probe.path.handle
    empty, ticks, costs = resident_bytes(), Ticks(), []
    due, keys = TICK, []
    for opened in range(0, flows, CHUNK):
        some = min(CHUNK, flows - opened)
        chunk = [(next(packets), (opened + n) / RATE) for n in range(some)]
        keys += [bytes(packet[KEY]) for packet, _ in chunk]
        begin = time.thread_time_ns()
        for packet, now in chunk:
            handle(packet, 0, 40, AS_ON_THE_WIRE, now)
        costs.append((time.thread_time_ns() - begin) / some)
        if opened / RATE >= due or opened + some == flows:
            due += TICK
            probe.send_events(keys, EVENT_ESTABLISHED, _OPEN)
            keys = []
            ticks.run(lambda at=due: probe.tick(at))  # type: ignore[misc]
        if opened + some in sizes:
            _expect(probe.carrier.carried, opened + some)
            yield (
                f"new flow, {opened + some} flows: {statistics.median(costs[-NEAR:]):.0f} ns; "
                f"longest chunk of {CHUNK}: {max(costs) * CHUNK / 1e6:.2f} ms"
            )
    yield ticks.line("ticks of installing, established and compact", flows)
    while probe.full():
        due += TICK
        probe.tick(due)
    here = (resident_bytes() - empty) / flows
    kernel = _kernel_bytes(probe.maps.flows[TCP, 4].fd) / flows
    yield (
        f"{flows} established flows: {here:.0f} bytes here beside {RECORD} in the journal, "
        f"{kernel:.0f} in the kernel"
    )


def _closed(probe: Probe, now: float) -> str:
    keys = [flow.forward_key for flow in probe.table.walk()]
    ticks, flags = Ticks(PAUSE), _OPEN | FIN_OUT | FIN_BACK | CLOSED
    for number, at in enumerate(range(0, len(keys), EVENTS)):
        probe.send_events(keys[at : at + EVENTS], EVENT_CLOSED, flags)
        ticks.run(lambda at=now + number * TICK: probe.tick(at))  # type: ignore[misc]
    while probe.table.active:  # events of compact flows are fewer in a tick
        now += TICK
        ticks.run(lambda at=now: probe.tick(at))  # type: ignore[misc]
    return ticks.line("closed", len(keys))


def _expiry(probe: Probe, name: str, flows: int) -> str:
    ticks, now = Ticks(PAUSE), LATER * (2 if name.endswith("compact") else 1) + 1.0
    while len(probe.table):
        ticks.run(lambda: probe.tick(now))
    _expect(probe.carrier.carried, 0)
    return ticks.line(name, flows)


def _kernel_bytes(number: int) -> int:
    """The kernel memory of the map with descriptor ``number``, in bytes (bpf_map_show_fdinfo)."""
    text = Path(f"/proc/self/fdinfo/{number}").read_text(encoding="ascii")
    return int(text.split("memlock:")[1].split()[0])


def _expect(found: int, wanted: int) -> None:
    if found != wanted:
        raise AssertionError(f"{found} flows instead of {wanted}")


if __name__ == "__main__":
    main()
