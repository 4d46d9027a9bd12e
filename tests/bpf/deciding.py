"""A service about whose new flows the program decides, and the packets of its clients.

Lives here: ``Deciding``.
Rules: as in ``carrying``; the service has the family's VIP and the port ``VIP_PORT``.
"""

from __future__ import annotations

import socket
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from threading import Barrier, Thread

from paraglider.bpf import syscall
from paraglider.bpf.decisions import open_decisions
from paraglider.bpf.layout import BY_CLIENT, BY_FLOW, BY_TURN, FLOW, SERVICE
from paraglider.core.pool import Backend
from paraglider.core.strategies.base import DecisionTable
from tests.bpf.carrying import (
    CLIENT_PORT,
    FIRST,
    MAPPED_PORT,
    NUMBER,
    SECOND,
    VIP_PORT,
    Bed,
    Ran,
    tcp,
    udp,
)
from tests.core.packets import FAMILIES, Family, packed

KINDS = {"client": BY_CLIENT, "flow": BY_FLOW, "turn": BY_TURN}
#: the first packet of a flow, and what counts it where a worker decides
FIRST_PACKET = {"tcp": "> S", "udp": "> udp"}
UNDECIDED = {"tcp": "syn", "udp": "no_flow"}
NAME = b"the name"
#: key of the hash, seed of steering, workers
KEY, SEED, WORKERS = (0x0123456789ABCDEF, 0xFEDCBA9876543210), 0x12345678, 2


class Deciding:
    """The decision of the service; ``bed`` has the program."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self.decisions = open_decisions(bed.maps)
        index = self.decisions.claim(NAME)
        assert index is not None
        self.index = index
        for family in FAMILIES:
            self.steer(family)

    def close(self) -> None:
        """Have nothing decided any more."""
        self.decisions.set_services({})
        self.decisions.release(self.index)
        self.decisions.close()

    def steer(self, family: Family, workers: int = WORKERS) -> None:
        """Set how packets are steered."""
        self.decisions.set_steering(family.number, SEED, workers)

    def decide(
        self, family: Family, kind: str, slots: Sequence[int] = (FIRST,), *,
        port: int = VIP_PORT, bound: int = 100, flags: int = 0, mapped: bool = False,
        aliased: bool = False,
    ) -> None:  # fmt: skip
        """Have the service of both protocols decided, for two backends."""
        for index, backend in ((FIRST, 0), (SECOND, 1)):
            self.bed.translate(family, mapped=mapped, index=index, backend=backend, aliased=aliased)
        if not aliased:
            for protocol in NUMBER:
                self.bed.origin(family, protocol, MAPPED_PORT if mapped else VIP_PORT)
        self.decisions.configure(self.index, KINDS[kind], KEY, bound, flags)
        self.decisions.write(self.index, array("H", slots))
        ends = [
            SERVICE.pack(packed(family.vip), port.to_bytes(2, "big"), protocol, family.number)
            for protocol in NUMBER.values()
        ]
        self.decisions.set_services(dict.fromkeys(ends, self.index))

    def write(
        self, kind: int, table: DecisionTable, numbers: Mapping[Backend, int], flags: int = 0
    ) -> None:
        """Have the program pick by a strategy's ``table``, and without entries where it can."""
        self.decisions.configure(self.index, kind, table.hash_key, bound=0, flags=flags)
        slots = [numbers[table.backends[entry]] for entry in table.entries]
        assert self.decisions.write(self.index, array("H", slots))

    def step(
        self, family: Family, step: str, *, client_port: int = CLIENT_PORT, port: int = VIP_PORT,
        backend_port: int = 0, ttl: int = 64, seq: int = 1000, ack: int = 2000,
    ) -> Ran:  # fmt: skip
        """A packet of the client ("> S") or of the first backend ("< SA"): TCP flags, or "udp"."""
        way, _, what = step.partition(" ")
        build = udp(family, b"query") if what == "udp" else tcp(family, what, seq=seq, ack=ack)
        if way == ">":
            ends = (family.client, family.vip, client_port, port)
        else:
            ends = (family.backends[0], family.client, backend_port or port, client_port)
        return self.bed.run(
            self.bed.frame(bytes(build(*ends, ttl)), "pub" if way == ">" else "priv")
        )

    def reasons(self, family: Family, *steps: str) -> list[str]:
        """What counted each of the packets, of which each has one reason."""
        found = []
        for step in steps:
            (reason,) = self.step(family, step).counted
            found.append(reason)
        return found

    def first(self, family: Family, protocol: str, **how: int) -> str:
        """What counts the first packet of a flow."""
        (reason,) = self.step(family, FIRST_PACKET[protocol], **how).counted
        return reason

    def syns_at_once(self, family: Family, ports: Sequence[int]) -> Counter[str]:
        """What counts a client's SYN from each of ``ports``, each on two CPUs at once."""
        bed, interface = self.bed, socket.if_nametoindex("pub")
        segments = [
            tcp(family, "S")(family.client, family.vip, port, VIP_PORT, 64) for port in ports
        ]
        frames = [bed.frame(bytes(segment)) for segment in segments]
        begin = Barrier(2)

        def send() -> None:
            begin.wait()
            for frame in frames:
                syscall.run_program(bed.program, frame, interface)

        before = Counter(bed.counts())
        threads = [Thread(target=send) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return Counter(bed.counts()) - before

    def entries(self, family: Family) -> dict[bytes, int]:
        """The translation of each entry of TCP, by its key."""
        flows = self.bed.maps.flows[NUMBER["tcp"], family.number]
        found = {}
        for keys, values, count in flows.dump():
            for at in range(count):
                value = values[at * flows.value_size :][: flows.value_size]
                key = keys[at * flows.key_size :][: flows.key_size]
                found[key] = FLOW.unpack(value)[3]
        return found

    def flows(self) -> int:
        """The number of entries."""
        return sum(n for flows in self.bed.maps.flows.values() for _, _, n in flows.dump())
