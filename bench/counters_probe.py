"""Measures the cost of the counters in shared memory for a worker's packet path; no network or
root.

``python -m bench.counters_probe [SLICES]`` handles packets of established flows, slice after slice
of a worker's time between two ticks, alternately with and without writing the counters at its end,
and prints a line for each number of backends: a packet's cost in both cases and the added cost in
percent of the packet path.

Rules: time is CPU time of this thread, so that other programs are not counted. Slices alternate,
and their medians are compared, so that a drift of the machine affects both alike. The path is fully
busy; a worker that waits for packets writes in its idle time.
"""

from __future__ import annotations

import gc
import itertools
import statistics
import struct
import sys
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

from bench.core_probe import AS_ON_THE_WIRE, VIP, syns
from paraglider.config.model import Config
from paraglider.daemon.shared_memory.counters import Counters, CounterWriter
from paraglider.daemon.workers.worker import WorkerCounts
from paraglider.forward.worker_datapath import WorkerDatapath, build
from paraglider.netfilter.queue import QueueReader
from paraglider.netfilter.queue.reader import TICK
from paraglider.netfilter.rules.steering import worker_queues

BACKENDS = (10, 1000)
FLOWS = 1000
SLICES = 100
ACK = 0x10
_FLAGS = 33  # where a segment's are, behind a header without options


@dataclass(frozen=True, slots=True)
class Cost:
    """Nanoseconds of one packet without and with the counters, and of one tick's writing."""

    backends: int
    without: float
    counted: float
    tick: float

    @property
    def percent(self) -> float:
        """The added cost in percent of the packet path, by the slices."""
        return (self.counted / self.without - 1) * 100

    @property
    def most(self) -> float:
        """The share of a fully busy worker's time for writing, in percent."""
        return self.tick / (TICK * 1e9) * 100


def main() -> None:
    """Measure, print."""
    slices = int(sys.argv[1]) if len(sys.argv) > 1 else SLICES
    gc.disable()
    for backends in BACKENDS:
        cost = measure(backends, slices, TICK)
        sys.stdout.write(
            f"{backends} backends: {cost.without:.0f} ns a packet, {cost.counted:.0f} ns with "
            f"counters ({cost.percent:+.2f} %); a tick writes for {cost.tick / 1000:.0f} us "
            f"({cost.most:.2f} % of a core)\n"
        )


def measure(backends: int, slices: int, seconds: float) -> Cost:
    """The cost with ``backends`` backends, over ``slices`` of ``seconds`` each, in both cases."""
    path = _path(backends)
    packets = list(itertools.islice(syns(), FLOWS))
    for packet in packets:
        path.handle(packet.copy(), 0, len(packet), AS_ON_THE_WIRE, 0.0)
        struct.pack_into("!B", packet, _FLAGS, ACK)
    if path.flows != FLOWS:
        raise AssertionError(f"{path.flows} flows in the table instead of {FLOWS}")
    one = SimpleNamespace(drops=SimpleNamespace(overflows=0, overruns=0))
    queue = SimpleNamespace(
        packets=0, batches=0, faults=0, refused=0, queues=(one,) * len(worker_queues(0)), first=1
    )
    counters = Counters()
    writer = CounterWriter(counters, WorkerCounts(path, cast(QueueReader, queue)))
    found: dict[bool, list[float]] = {False: [], True: []}
    ticks = []
    for counted in (False, True) * slices:
        begin = time.thread_time_ns()
        handled = _handle(path, packets, begin + int(seconds * 1e9))
        if counted:
            queue.packets += handled
            at = time.thread_time_ns()
            writer.tick()
            ticks.append(time.thread_time_ns() - at)
        found[counted].append((time.thread_time_ns() - begin) / handled)
    if counters.read().head["packets"] != queue.packets:
        raise AssertionError("the counters do not say what was counted")
    without, costs = (statistics.median(found[counted]) for counted in (False, True))
    return Cost(backends, without, costs, statistics.median(ticks))


def _handle(path: WorkerDatapath, packets: list[bytearray], end: int) -> int:
    """Handle ``packets`` again and again until ``end``; how many there were."""
    handled = 0
    while time.thread_time_ns() < end or not handled:
        for packet in packets:
            path.handle(packet.copy(), 0, 40, AS_ON_THE_WIRE, 1.0)
        handled += len(packets)
    return handled


def _path(backends: int) -> WorkerDatapath:
    service = {
        "name": "web",
        "vip": f"{VIP}/24",
        "protocol": "tcp",
        "ports": 80,
        "backends": [f"10.0.{n >> 8}.{n & 255}" for n in range(1, backends + 1)],
    }
    return build(Config.model_validate({"services": [service]}), 0, 0.0)


if __name__ == "__main__":
    main()
