"""What the tests of the BPF carrier share: maps in memory, a model of the program, a worker.

Lives here: ``memory_maps`` (maps with the interface of the kernel's), ``Program`` (what the program
does to entries, as ``carrier.bpf.c`` says), ``Worker`` (a datapath of nat or, for a ``routed``
service, of dsr, whose carrier is BPF).
Rules: the program sees keys and flags of packets only; whatever it does not carry goes to the
worker as a packet, as in the kernel.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from packets import COMPLETE, V4, backend, packed

from paraglider.bpf.layout import (
    ALIAS,
    CLOSED,
    DECIDED,
    DIRECT,
    ESTABLISHED,
    EVENT,
    EVENT_CLOSED,
    EVENT_ESTABLISHED,
    EVENT_FIN,
    FIN_BACK,
    FIN_OUT,
    GROWN,
    INDEX,
    LOST_DATAGRAMS,
    ORIGIN,
    REASONS,
    REPLIED,
    TRANSLATION,
    UP,
)
from paraglider.bpf.maps import FLOW_MAPS, SHAPES, CarrierMaps, CounterArray, Map
from paraglider.core import strategies
from paraglider.core.balancer import Balancer
from paraglider.core.flow import TCP, UDP, Flow, FlowTimeouts
from paraglider.core.flow_states import UNSEEN_WINDOW
from paraglider.core.flow_table import FlowTable
from paraglider.core.pool import Pool
from paraglider.core.service import ServiceMap, VirtualService
from paraglider.core.translation import Translation
from paraglider.forward.bpf.carrier import BpfCarrier
from paraglider.forward.bpf.context import BpfContext
from paraglider.forward.bpf.entry import ALIASED, FlowEntry, flags_of, ticks_of
from paraglider.forward.bpf.loads import SharedLoads
from paraglider.forward.dsr.carrier import LeaseCarrier
from paraglider.forward.nat.datapath import NatDatapath
from paraglider.forward.one_sided import OneSidedDatapath
from paraglider.forward.worker_carrier import WorkerCarrier

_NO_FD = 0x7FFFFFFF
LEASE = 0x800  # the bit of a mark that requests a lease

EVENTS_LOST = REASONS.index("events_lost")

#: ports of a service whose flows are aliased
WIDE = ((80, 1080),)


class MemoryMap(Map):
    """A map in memory; ``writes`` counts what was put."""

    def __init__(self, key_size: int, value_size: int, entries: int) -> None:
        super().__init__(_NO_FD, key_size, value_size)
        self.content: dict[bytes, bytes] = {}
        self.entries = entries
        self.refusal = 0
        self.writes = 0
        self.calls = 0

    def get(self, key: bytes) -> bytes | None:
        """See ``Elements``."""
        self.calls += 1
        assert len(key) == self.key_size
        return self.content.get(key)

    def insert(self, key: bytes, value: bytes) -> int:
        """See ``Elements``; refuses with ``refusal`` if that is set."""
        self.calls += 1
        assert (len(key), len(value)) == (self.key_size, self.value_size)
        if key in self.content:
            return errno.EEXIST
        if self.refusal:
            return self.refusal
        if len(self.content) >= self.entries:
            return errno.E2BIG
        self.content[key] = value
        return 0

    def put(self, key: bytes, value: bytes) -> None:
        """See ``Elements``."""
        self.calls += 1
        assert (len(key), len(value)) == (self.key_size, self.value_size)
        if key not in self.content and len(self.content) >= self.entries:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        self.content[key] = value
        self.writes += 1

    def delete(self, key: bytes) -> bool:
        """See ``Elements``."""
        self.calls += 1
        return self.content.pop(key, None) is not None

    def delete_each(self, keys: Sequence[bytes]) -> None:
        """See ``Elements``."""
        self.calls += 1
        for key in keys:
            self.content.pop(key, None)

    def dump(self, chunk: int = 1024) -> Iterator[tuple[bytes, bytes, int]]:
        """See ``Map``."""
        keys = list(self.content)
        for at in range(0, len(keys), chunk):
            self.calls += 1
            some = [key for key in keys[at : at + chunk] if key in self.content]
            if some:
                yield b"".join(some), b"".join(self.content[key] for key in some), len(some)


class MemoryCounters(CounterArray):
    """Counters in memory."""

    def __init__(self) -> None:
        self.numbers_of: dict[int, int] = {}

    def total(self, index: int) -> tuple[int, ...]:
        """See ``CounterArray``."""
        return (self.numbers_of.get(index, 0),)

    def clear(self, index: int) -> None:
        """See ``CounterArray``."""
        self.numbers_of[index] = 0


def memory_maps(entries: int = 1000) -> CarrierMaps:
    """Maps of ``entries`` flows each."""

    def one(name: str, most: int = 0) -> MemoryMap:
        shape = SHAPES[name]
        return MemoryMap(shape.key_size, shape.value_size, most or shape.entries)

    arrays = ("translations", "devices", "slots", "origins", "services", "decisions", "tables")
    return CarrierMaps(
        {key: one(name, entries) for key, name in FLOW_MAPS.items()},
        *map(one, (*arrays, "steering")),
        reasons=MemoryCounters(),
        traffic=MemoryCounters(),
        outer=one("rings"),
        rings={},
    )


class MemoryRing:
    """A ring of events that holds ``room`` of them."""

    def __init__(self, room: int = 1000) -> None:
        self.events: list[bytes] = []
        self.room = room

    def read(self, most: int) -> list[bytes]:
        """See ``Ring``."""
        found, self.events = self.events[:most], self.events[most:]
        return found


class Program:
    """What the program does, as far as entries and events go; ``rings`` by owner."""

    def __init__(self, maps: CarrierMaps, rings: Mapping[int, MemoryRing]) -> None:
        self.maps = maps
        self.rings = rings
        self.attached = True
        self.known: set[bytes] = set()  # clients of one-sided flows

    def carries(
        self, protocol: int, key: bytes, flags: str, now: float, seq: int = 0, ack: int = 0
    ) -> bool:
        """Whether it carries the packet with ``key`` (as it comes) and TCP ``flags``."""
        if not self.attached or (protocol == TCP and (flags == "S" or "R" in flags)):
            return False
        flows = self.maps.flows[protocol, 4 if len(key) == 12 else 6]
        forward, back = self._find(protocol, flows, key)
        if forward is None:
            return False
        entry = FlowEntry.unpack(flows.get(forward) or b"")
        value = self.maps.translations.get(INDEX.pack(entry.slot))
        if value is None:
            return False
        _, address, _, port, family, _, state, *_ = TRANSLATION.unpack(value)
        size = (len(key) - 4) // 2
        if family != (4 if len(key) == 12 else 6):
            return False
        if back and (
            address[:size] != key[:size]
            or (port if any(port) else forward[-2:]) != key[-4:-2]
            or entry.flags & DIRECT
        ):
            return False
        if state != UP and not (state == LOST_DATAGRAMS and protocol == TCP):
            return False
        if protocol == TCP and entry.flags & DIRECT:
            return self._one_sided(flows, key, entry, flags, now, seq, ack)
        sets = 0
        if protocol == TCP:
            found = self._judged(entry, flags, ack, back=back)
            if found is None:
                return False
            sets = found
        after = entry.flags | sets
        if after & FIN_OUT and after & FIN_BACK:
            after |= CLOSED
        if sets & REPLIED:
            entry = entry._replace(ack=seq + 1)
        elif protocol == TCP and after & ESTABLISHED and back:
            entry = entry._replace(ack=ack)
        elif sets & ESTABLISHED:
            entry = entry._replace(ack=seq)
        new = after & ~entry.flags
        entry = entry._replace(
            ticks=ticks_of(now),
            flags=after,
            packets_out=entry.packets_out + (not back),
            packets_back=entry.packets_back + back,
        )
        flows.put(forward, entry.pack())
        if new & ESTABLISHED:
            self._tell(EVENT_ESTABLISHED, entry, forward)
        if new & CLOSED:
            self._tell(EVENT_CLOSED, entry, forward)
        return True

    def lose_event(self) -> None:
        """Count an event for which the ring had no room."""
        reasons = self.maps.reasons
        assert isinstance(reasons, MemoryCounters)
        reasons.numbers_of[EVENTS_LOST] = reasons.numbers_of.get(EVENTS_LOST, 0) + 1

    def _find(self, protocol: int, flows: Map, key: bytes) -> tuple[bytes | None, bool]:
        family, size = (4, 4) if len(key) == 12 else (6, 16)
        origin = ORIGIN.pack(key[:size], key[-4:-2], protocol, family)
        index = self.maps.origins.get(origin)
        if index is not None:
            forward = self._reply(INDEX.unpack(index)[0], flows, key)
            if forward is not None:
                return forward, True
        value = flows.get(key)
        if value is None:
            return None, False
        entry = FlowEntry.unpack(value)
        if entry.flags & ALIAS:
            return self._reply(entry.slot, flows, key), True
        return key, False

    def _reply(self, index: int, flows: Map, key: bytes) -> bytes | None:
        value = self.maps.translations.get(INDEX.pack(index))
        if value is None:
            return None
        vip, _, vip_port, _, family, *_ = TRANSLATION.unpack(value)
        size = (len(key) - 4) // 2
        if family != (4 if size == 4 else 6):
            return None
        port = vip_port if any(vip_port) else key[-4:-2]
        forward = key[size:-4] + vip[:size] + key[-2:] + port
        found = flows.get(forward)
        return None if found is None or FlowEntry.unpack(found).flags & ALIAS else forward

    @staticmethod
    def _judged(entry: FlowEntry, flags: str, ack: int, *, back: bool) -> int | None:
        """The flags that a segment gives its flow; None if it is not carried."""
        if "S" in flags:
            return REPLIED if back and not entry.flags & ESTABLISHED else None
        sets = 0
        if not entry.flags & ESTABLISHED:
            if back or not entry.flags & REPLIED or (ack - entry.ack) & 0xFFFFFFFF > 1 << 20:
                return None
            sets = ESTABLISHED
        if "F" in flags:
            sets |= FIN_BACK if back else FIN_OUT
        return sets

    def _one_sided(
        self, flows: Map, key: bytes, entry: FlowEntry, flags: str, now: float, seq: int, ack: int
    ) -> bool:
        """Whether it carries a client's segment of a flow whose replies do not pass here."""
        before, progress, total, sets = entry.flags, entry.packets_back, seq + ack, 0
        near = not entry.ack or (seq - entry.ack + UNSEEN_WINDOW) & 0xFFFFFFFF < 2 * UNSEEN_WINDOW
        if "S" in flags:
            return False
        if "F" in flags:
            client = key[: (len(key) - 4) // 2]
            unknown = not before & DECIDED and client not in self.known
            if near:
                self.known.add(client)
            if not near or unknown:
                return False
            progress, sets = ack, FIN_OUT
        elif before & FIN_OUT:
            sets = CLOSED if ack - progress == 1 else 0
        elif not before & (REPLIED | ESTABLISHED):
            progress, sets = total, REPLIED
        elif not before & ESTABLISHED and 0 < (total - progress) & 0xFFFFFFFF < 1 << 31:
            progress, sets = total, ESTABLISHED if before & GROWN else GROWN
        entry = entry._replace(
            ticks=ticks_of(now),
            flags=before | sets,
            ack=seq if near else entry.ack,
            packets_out=entry.packets_out + 1,
            packets_back=progress & 0xFFFFFFFF,
        )
        flows.put(key, entry.pack())
        kinds = {ESTABLISHED: EVENT_ESTABLISHED, FIN_OUT: EVENT_FIN, CLOSED: EVENT_CLOSED}
        if sets & ~before in kinds:
            self._tell(kinds[sets], entry, key)
        return True

    def _tell(self, kind: int, entry: FlowEntry, key: bytes) -> None:
        ring = self.rings[entry.owner]
        if len(ring.events) >= ring.room:
            self.lose_event()
            return
        family = 4 if len(key) == 12 else 6
        ring.events.append(EVENT.pack(kind, family, TCP, entry.flags & 0xFF, entry.slot, key))


class Worker:
    """A worker with a nat datapath over ``services``; packets go to the program first."""

    def __init__(
        self,
        services: Sequence[VirtualService],
        maps: CarrierMaps,
        ring: MemoryRing,
        program: Program,
        *,
        others: Sequence[VirtualService] = (),
        bound: int = 1000,
        timeouts: FlowTimeouts | None = None,
        index: int = 0,
        workers: int = 1,
        beside: Worker | None = None,
        loads: SharedLoads | None = None,
    ) -> None:
        every = (*services, *others)
        self.maps = maps
        self.ring = ring
        self.program = program
        self.flows = FlowTable(timeouts or FlowTimeouts(), bound)
        self.context = (
            BpfContext(maps, ring, index, workers, loads=loads or SharedLoads(workers))
            if beside is None
            else beside.context
        )
        self.ended: list[int] = []  # marks whose leases were ended
        balancer = Balancer(ServiceMap(every))
        self.path: NatDatapath | OneSidedDatapath
        if any(service.routed for service in every):
            backends = [backend for service in every for backend in service.pool.backends]
            marks = {backend: number for number, backend in enumerate(backends, 1)}
            leases = LeaseCarrier(marks, LEASE, self.ended.append)
            self.carrier = BpfCarrier(self.context, self.flows, leases)
            self.path = OneSidedDatapath(balancer, self.flows, leases, self.carrier)
        else:
            hand = WorkerCarrier()
            hand.set_services(every)
            self.carrier = BpfCarrier(self.context, self.flows, hand)
            self.path = NatDatapath(balancer, self.flows, None, self.carrier)
        self.carrier.configure(services, others)
        self.seen = 0
        self.verdict = 0  # the last

    def packet(
        self,
        protocol: int,
        key: bytes,
        flags: str = "",
        now: float = 0.0,
        *,
        seq: int = 0,
        ack: int = 0,
    ) -> bool:
        """Send a packet with ``key``; whether the program carried it."""
        if self.program.carries(protocol, key, flags, now, seq, ack):
            return True
        self.seen += 1
        body = key[-4:] + struct.pack("!HH", 8, 0)
        if protocol == TCP:
            bits = sum(1 << "FSRPA".index(flag) for flag in flags)
            body = key[-4:] + struct.pack("!IIBBHHH", seq, ack, 0x50, bits, 0, 0, 0)
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0)
        packet = bytearray(head + key[:-4] + body)
        self.verdict = self.path.handle(packet, 0, len(packet), COMPLETE, now)
        return False

    def open(self, client: int = 1000, now: float = 0.0) -> Flow:
        """An established flow from the client's port ``client``, all but its SYN by the program."""
        key = client_key(client)
        self.packet(TCP, key, "S", now)
        flow = self.flows.forward[TCP][key]
        assert self.packet(TCP, flow.reverse_key, "SA", now, seq=70)
        assert self.packet(TCP, key, "A", now, ack=71)
        return flow

    def finish(self, flow: Flow, now: float) -> None:
        """Both FINs of ``flow``, and the last ACK, by the program."""
        assert self.packet(TCP, flow.forward_key, "FA", now)
        assert self.packet(TCP, flow.reverse_key, "FA", now)
        assert self.packet(TCP, flow.forward_key, "A", now)

    def entry(self, flow: Flow) -> FlowEntry:
        """The entry of ``flow``, which has one."""
        value = self.maps.flows[flow.protocol, 4].get(flow.forward_key)
        assert value is not None
        return FlowEntry.unpack(value)

    def open_routed(self, client: int = 1000, now: float = 0.0) -> Flow:
        """The same of a service whose backends have the VIP: the client's numbers prove it."""
        key = client_key(client)
        self.packet(TCP, key, "S", now, seq=1)
        for number in (1, 2, 3):
            assert not self.packet(TCP, key, "A", now + number / 8, seq=2 * number, ack=70)
        return self.flows.forward[TCP][key]

    def settle(self, now: float) -> None:
        """Sync until no task is under way."""
        for _ in range(1000):
            self.carrier.sync(now)
            if self.flows.unread is not None:
                self.flows.unread.step()
            elif self.carrier.idle:
                return
        raise AssertionError("the tasks of the carrier do not end")

    @property
    def compact(self) -> set[bytes]:
        """The keys of the compact flows."""
        return {flow.forward_key for each in self.flows.compact for flow in each.walk()}

    def translation_of(self, protocol: int, key: bytes) -> Translation | None:
        """That of the flow with ``key``, which stays compact if it is; None without one."""
        if key in self.compact:
            found = [each.translation_of(key) for each in self.flows.compact]
            return next((each for each in found if each is not None), None)
        flow = self.flows.forward[protocol].get(key)
        return None if flow is None else flow.translation

    def check(self) -> None:
        """An entry exists if and only if its flow is in a carried state and has been installed, and
        says nothing that is not so.
        """
        wanted: dict[tuple[int, bytes], str] = {}
        for protocol in (TCP, UDP):
            for flow in self.flows.forward[protocol].values():
                if flow.carried:
                    assert flags_of(flow) >= 0
                    wanted[protocol, flow.forward_key] = "entry"
                    if flow.carried == ALIASED:
                        wanted[protocol, flow.reverse_key] = "alias"
        for compact in self.flows.compact:
            wanted |= {(compact.protocol, flow.forward_key): "entry" for flow in compact.walk()}
        found = {
            (protocol, key): "alias" if FlowEntry.unpack(value).flags & ALIAS else "entry"
            for (protocol, _), flows in self.maps.flows.items()
            for key, value in entries(flows).items()
        }
        assert found == wanted
        assert self.carrier.carried == sum(kind == "entry" for kind in found.values())


def entries(flows: Map) -> dict[bytes, bytes]:
    """All entries of a map."""
    found = {}
    for keys, values, count in flows.dump():
        for at in range(count):
            key = keys[at * flows.key_size : (at + 1) * flows.key_size]
            found[key] = values[at * flows.value_size : (at + 1) * flows.value_size]
    return found


def client_key(client: int, port: int = 80, vip: str = V4.vip, source: str = V4.client) -> bytes:
    """The key of packets of the client from its port ``client``."""
    ends = packed(source) + packed(vip)
    return ends + client.to_bytes(2, "big") + port.to_bytes(2, "big")


def web(**changes: Any) -> VirtualService:
    """A service of TCP and UDP on port 80 with two backends."""
    given: dict[str, Any] = {
        "name": "web",
        "vip": V4.vip,
        "ports": ((80, 80),),
        "backends": [backend(address) for address in V4.backends[:2]],
        "protocols": (TCP, UDP),
        "adopts": True,
        **changes,
    }
    pool = Pool(given.pop("backends"), **given.pop("life", {}))
    vip, ports, protocols = (given.pop(name) for name in ("vip", "ports", "protocols"))
    strategy = strategies.create(given.pop("strategy", "rr"))
    return VirtualService(given.pop("name"), packed(vip), protocols, ports, pool, strategy, **given)


def worker(
    *services: VirtualService, entries: int = 1000, room: int = 1000, **options: Any
) -> Worker:
    """A worker of its own with maps in memory."""
    maps, ring = memory_maps(entries), MemoryRing(room)
    one = Worker(services or (web(),), maps, ring, Program(maps, {0: ring}), **options)
    one.carrier.sync(0.0)
    return one
