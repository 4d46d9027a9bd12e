"""Measures the cost of filling a worker's flow table; no network, no root.

``python -m bench.core_probe STRATEGY SIZE...`` prints a ``CoreResult`` as JSON. It runs as a
separate process, whose environment selects the build and whose memory is that of the flows only.

Rules: as in a worker, Python's cyclic collector is off. Time is CPU time of this thread, so that
other programs are not counted. The packets are built before the clock starts.
"""

from __future__ import annotations

import gc
import itertools
import os
import socket
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from bench import builds, parse
from bench.results import CoreResult, CoreSize
from paraglider.daemon.workers.worker import EXPIRY_BUDGET
from paraglider.errors import OperatorError
from paraglider.forward.load import load_with_marks
from paraglider.forward.nat import datapath as core
from paraglider.forward.worker_datapath import WorkerDatapath, build
from paraglider.host import policies

CHUNK = 100  # flows between two readings of the clock
NEAR = 50  # chunks before a size over which the cost of a flow is taken
RATE = 10_000  # new flows per second of simulated time
BACKENDS = 10
PORTS = 50_000  # flows a client address
CLIENTS = int.from_bytes(socket.inet_aton("10.128.0.0"), "big")
VIP = "192.168.0.11"
SYN = 0x02
AS_ON_THE_WIRE = 0  # the checksum is complete
LATER = 100_000.0  # seconds, after which every flow is due

#: the cheapest possible policy: ``bench_policy:First``
POLICY = """
class First:
    def __init__(self, **context):
        self.first = None
    def prepare(self, ready):
        self.first = ready[0]
    def pick(self, flow):
        return self.first
"""

_SYN = struct.pack(
    "!BBHHHBBH4s4sHHIIBBHHH",
    *(0x45, 0, 40, 1, 0x4000, 64, socket.IPPROTO_TCP, 0, bytes(4), socket.inet_aton(VIP)),
    *(0, 80, 1, 0, 0x50, SYN, 64_000, 0, 0),
)


def main() -> None:
    """Parse the arguments, fill, empty, print."""
    strategy, *sizes = sys.argv[1:]
    compiled = builds.of_file(core.__file__)
    flows = [int(size) for size in sizes]
    try:
        path = packet_path(strategy, max(flows))
    except OperatorError as error:
        result = CoreResult(compiled, strategy, missing=parse.refusal(str(error)))
    else:
        result = measure(compiled, strategy, path, flows)
    sys.stdout.write(result.to_json())


def packet_path(strategy: str, flows: int) -> WorkerDatapath:
    """A worker's packet path with one service with ``strategy``, and room for ``flows`` flows.

    Raises ``OperatorError`` if this version does not have the strategy.
    """
    backends = [{"address": f"10.0.0.{n}", "weight": 1 + n % 3} for n in range(1, BACKENDS + 1)]
    service = {
        "name": "web",
        "vip": f"{VIP}/24",
        "protocol": "tcp",
        "ports": 80,
        "forward": "nat",
        "strategy": strategy,
        "backends": backends,
    }
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "policies").mkdir(mode=0o755)
        (directory / "policies" / "bench_policy.py").write_text(POLICY)
        file = directory / "paraglider.conf"
        file.write_text(yaml.safe_dump({"flows": {"max": flows}, "services": [service]}))
        loaded = load_with_marks(file)
        return build(loaded.config, 0, 0.0, policies.load(loaded))


def measure(build: str, strategy: str, path: WorkerDatapath, sizes: list[int]) -> CoreResult:
    """Open flows up to each of ``sizes``, then let all of them expire.

    Raises ``AssertionError`` if the table does not behave as expected.
    """
    result = CoreResult(build, strategy)
    packets, handle = syns(), path.handle
    gc.collect()
    gc.freeze()
    gc.disable()
    empty = resident_bytes()
    opened = 0
    for size in sorted(sizes):
        costs = []
        while opened < size:
            # Every flow stores the time it was seen, as a separate object.
            numbers = range(opened, min(opened + CHUNK, size))
            chunk = [(next(packets), number / RATE) for number in numbers]
            begin = time.thread_time_ns()
            for packet, now in chunk:
                handle(packet, 0, 40, AS_ON_THE_WIRE, now)
            costs.append((time.thread_time_ns() - begin) / len(chunk))
            opened += len(chunk)
        if path.flows != size:
            raise AssertionError(f"{path.flows} flows in the table instead of {size}")
        result.sizes.append(
            CoreSize(
                flows=size,
                new_flow_ns=statistics.median(costs[-NEAR:]),
                bytes_a_flow=(resident_bytes() - empty) / size,
                stall_ms=max(costs) * CHUNK / 1e6,
            )
        )
    result.expire_pause_ms = longest_pause(path)
    return result


def longest_pause(path: WorkerDatapath) -> float:
    """The longest call of ``expire``, as a worker calls it, in ms, until no flow is left."""
    longest = 0
    while path.flows:
        before = path.flows
        begin = time.thread_time_ns()
        path.expire(LATER, EXPIRY_BUDGET)
        longest = max(longest, time.thread_time_ns() - begin)
        if path.flows == before:
            raise AssertionError(f"{before} flows do not expire")
    return longest / 1e6


def syns() -> Iterator[bytearray]:
    """SYN segments to the VIP, each of another flow."""
    for number in itertools.count():
        client, port = divmod(number, PORTS)
        packet = bytearray(_SYN)
        struct.pack_into("!I", packet, 12, CLIENTS + client)
        struct.pack_into("!H", packet, 20, 10_000 + port)
        yield packet


def resident_bytes() -> int:
    """Memory of this process that is not swapped out (proc(5), ``statm``)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
