"""The carrier's program in the kernel, with maps of its own, and frames through it.

Lives here: ``Bed`` (the program, its maps, and a network namespace whose routes answer it), and
builders of packets from their addresses, which also build what is expected of them.
Rules: scapy builds every packet, and every expected packet from scratch.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scapy.layers.inet import TCP, UDP
from scapy.packet import Packet, Raw

import paraglider.bpf
from bench.program_probe import ETHERTYPES, MACS, network
from paraglider.bpf import layout, syscall
from paraglider.bpf.loader import load_programs
from paraglider.bpf.maps import CarrierMaps, Map
from paraglider.bpf.ring import Ring
from paraglider.core import flow as protocols
from paraglider.lab.namespace import Namespace
from tests.bpf.programs import XDP, returns
from tests.core.packets import FAMILIES, Family, packed

OBJECT = Path(paraglider.bpf.__file__).with_name("carrier.bpf.o")
#: at tc, and at XDP
PROGRAMS = ("carry", "carry_early")
UNSPEC, REDIRECT = 0xFFFFFFFF, 7  # linux/pkt_cls.h
XDP_PASS, XDP_REDIRECT = 2, 4  # linux/bpf.h
CLIENT_MAC = bytes.fromhex("020000000102")
#: name of a protocol → its number
NUMBER = {"tcp": protocols.TCP, "udp": protocols.UDP}
#: the longest IP packet that the namespace's devices send
MTU = 1500

CLIENT_PORT, VIP_PORT, MAPPED_PORT = 40000, 80, 8080
#: index of the translation that a test uses, and of another to a second backend
FIRST, SECOND = 7, 8

#: builds a packet from the addresses and ports of both ends, and its TTL
Build = Callable[[str, str, int, int, int], Packet]


def ip(family: Family, source: str, destination: str, ttl: int, **fields: object) -> Packet:
    """An IP header."""
    life = {"ttl" if family.number == 4 else "hlim": ttl}
    return family.ip(source, destination, **life, **fields)


def tcp(family: Family, flags: str = "A", data: bytes = b"", **fields: object) -> Build:
    """A builder of TCP segments with a timestamp option; ``fields`` are of its header."""
    options = [("Timestamp", (7, 9)), ("EOL", None)]

    def build(source: str, destination: str, sport: int, dport: int, ttl: int) -> Packet:
        header = TCP(sport=sport, dport=dport, flags=flags, options=options, **fields)
        return ip(family, source, destination, ttl) / header / Raw(data)

    return build


def udp(family: Family, data: bytes = b"", checksum: int | None = None) -> Build:
    """A builder of UDP datagrams; a ``checksum`` of 0 means none."""

    def build(source: str, destination: str, sport: int, dport: int, ttl: int) -> Packet:
        header = UDP(sport=sport, dport=dport, chksum=checksum)
        return ip(family, source, destination, ttl) / header / Raw(data)

    return build


def builder(family: Family, protocol: str, data: bytes = b"", **fields: object) -> Build:
    """A builder of plain packets of ``protocol``."""
    return tcp(family, data=data, **fields) if protocol == "tcp" else udp(family, data)


@dataclass(frozen=True)
class Ran:
    """What a frame met: whether it was redirected, the frame, the reasons that counted it, and the
    hook whose program did so.
    """

    carried: bool
    frame: bytes
    counted: dict[str, int]
    hook: str = "tc"

    @property
    def packet(self) -> bytes:
        """Its IP packet, with the padding."""
        return self.frame[14:]


@dataclass(frozen=True)
class Entry:
    """The entry of a flow (``layout.FLOW``)."""

    seen: int
    flags: int
    ack: int
    translation: int
    owner: int
    packets_out: int
    packets_back: int


class Bed:
    """The programs with maps of their own, in a namespace with a device ``pub`` for clients and a
    device ``priv`` for backends. ``hook``: the first program that a frame meets, "xdp" or "tc";
    what the one at XDP leaves meets the one at tc.
    """

    hook = "tc"

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.maps = CarrierMaps.create_for_test()
        self.program, self.early = load_programs(OBJECT.read_bytes(), PROGRAMS, self.maps.numbers)
        self._indexes = {name: socket.if_nametoindex(name) for name in MACS}
        # A test run needs a device with a program at XDP; frames of other tests just pass this one.
        idle = returns(XDP_PASS, XDP)
        self._links = [syscall.attach_xdp(idle, index) for index in self._indexes.values()]
        os.close(idle)
        self.admit(*MACS)
        self._sums = self._takes_sums()

    def _takes_sums(self) -> bool:
        """Whether the kernel compares a device's checksum in a test run (Linux 6.15)."""
        try:
            syscall.run_program(self.program, bytes(60), summed=True)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return False
        return True

    def close(self) -> None:
        """Give the maps and the program back."""
        self.maps.close()
        for number in (self.program, self.early, *self._links):
            os.close(number)

    def admit(self, *devices: str) -> None:
        """Have XDP carry what comes in by any device, and send by ``devices`` alone."""
        for name, index in self._indexes.items():
            value = layout.DEVICE.pack(MACS[name], name in devices)
            self.maps.devices.put(layout.INDEX.pack(index), value)

    def forbid(self, device: str) -> None:
        """Have XDP carry nothing that comes in by ``device``."""
        self.maps.devices.delete(layout.INDEX.pack(self._indexes[device]))

    @property
    def stateless(self) -> str:
        """The reason that counts what is carried by its hash."""
        return "stateless" if self.hook == "tc" else "carried"

    def clear(self) -> None:
        """Remove the flows and origins of a test, and read what the rings hold."""
        for flows in self.maps.flows.values():
            remove_all(flows)
        remove_all(self.maps.origins)
        self.events(0)
        self.events(1)

    def translate(
        self, family: Family, *, mapped: bool = False, index: int = FIRST, backend: int = 0,
        state: int = layout.UP, vip: str = "", method: int = layout.NAT,
        aliased: bool = False, outer_port: int = 0,
    ) -> None:  # fmt: skip
        """Write a translation from the VIP to the family's ``backend``."""
        ports = (VIP_PORT, MAPPED_PORT) if mapped else (0, outer_port)
        value = layout.TRANSLATION.pack(
            packed(vip or family.vip), packed(family.backends[backend]),
            *(port.to_bytes(2, "big") for port in ports),
            family.number, method, state, aliased, b"the name",
        )  # fmt: skip
        self.maps.translations.put(layout.INDEX.pack(index), value)

    def origin(self, family: Family, protocol: str, port: int, index: int = FIRST) -> None:
        """Name the translation of replies from the first backend's ``port``."""
        end = (packed(family.backends[0]), port.to_bytes(2, "big"))
        key = layout.ORIGIN.pack(*end, NUMBER[protocol], family.number)
        self.maps.origins.put(key, layout.INDEX.pack(index))

    def install(
        self, family: Family, protocol: str, source: str = "", destination: str = "",
        ports: tuple[int, int] = (CLIENT_PORT, VIP_PORT), *, flags: int = layout.ESTABLISHED,
        ack: int = 0, index: int = FIRST, owner: int = 1,
    ) -> None:  # fmt: skip
        """Insert an entry: of the client's flow to the VIP unless told otherwise."""
        key = self.key(family, source or family.client, destination or family.vip, ports)
        value = layout.FLOW.pack(0, flags, ack, index, owner, 0, 0)
        assert self.maps.flows[NUMBER[protocol], family.number].insert(key, value) == 0

    @staticmethod
    def key(family: Family, source: str, destination: str, ports: tuple[int, int]) -> bytes:
        """The key of packets between the two."""
        form = layout.KEY4 if family.number == 4 else layout.KEY6
        ends = (packed(source), packed(destination))
        return form.pack(*ends, *(port.to_bytes(2, "big") for port in ports))

    def entry(self, family: Family, protocol: str) -> Entry:
        """The entry of the client's flow to the VIP."""
        key = self.key(family, family.client, family.vip, (CLIENT_PORT, VIP_PORT))
        value = self.maps.flows[NUMBER[protocol], family.number].get(key)
        assert value is not None
        return Entry(*layout.FLOW.unpack(value))

    def prepare(
        self, family: Family, protocol: str, *, mapped: bool = False, flags: int = 0
    ) -> None:
        """A flow of the client to the first backend, with an origin for its replies."""
        self.translate(family, mapped=mapped)
        self.origin(family, protocol, MAPPED_PORT if mapped else VIP_PORT)
        self.install(family, protocol, flags=flags or layout.ESTABLISHED)

    def frame(self, packet: bytes, device: str = "pub") -> bytes:
        """``packet`` in a frame for ``device``."""
        kind = ETHERTYPES[packet[0] >> 4]
        return MACS[device] + CLIENT_MAC + kind + packet

    def run(self, frame: bytes, **options: Any) -> Ran:
        """``frame`` through the programs, as it comes in by the device with its MAC address, or by
        ``pub``; ``options`` are those of ``syscall.run_program``.
        """
        if self.hook == "xdp" and "segment" not in options:
            # A next hop may be due to be refreshed; with the next packet it is not.
            for _ in range(3):
                ran = self.run_at_xdp(frame)
                if ran.carried:
                    counted = {("carried" if k == "xdp" else k): n for k, n in ran.counted.items()}
                    return replace(ran, counted=counted)
                assert ran.frame == frame
                if "neighbour" not in ran.counted:
                    break
        options["summed"] = self._sums and options.get("summed", False)
        before = self.counts()
        ended = syscall.run_program(self.program, frame, self._came_in(frame), **options)
        return Ran(ended.value == REDIRECT, ended.packet, self._counted_since(before))

    def run_at_xdp(self, frame: bytes) -> Ran:
        """``frame`` through the program at XDP alone."""
        before = self.counts()
        ended = syscall.run_at_xdp(self.early, frame, self._came_in(frame))
        assert ended.value in (XDP_PASS, XDP_REDIRECT)
        counted = self._counted_since(before)
        return Ran(ended.value == XDP_REDIRECT, ended.packet, counted, "xdp")

    def _came_in(self, frame: bytes) -> int:
        return self._indexes["priv" if frame.startswith(MACS["priv"]) else "pub"]

    def _counted_since(self, before: dict[str, int]) -> dict[str, int]:
        after = self.counts()
        return {name: after[name] - before[name] for name in after if after[name] != before[name]}

    def counts(self) -> dict[str, int]:
        """The counters by reason."""
        total = self.maps.reasons.total
        return {name: total(index)[0] for index, name in enumerate(layout.REASONS)}

    def traffic(self, index: int = FIRST) -> tuple[int, ...]:
        """Packets and bytes out, packets and bytes back of a translation."""
        return self.maps.traffic.total(index)

    def events(self, owner: int = 1) -> list[tuple[int, int, int, int, int, bytes]]:
        """The events for a worker: kind, family, protocol, flags, translation, key."""
        found = Ring(self.maps.rings[owner], layout.RING_BYTES).read(100)
        return [layout.EVENT.unpack(event) for event in found]


def remove_all(elements: Map) -> None:
    """Remove all elements of a map."""
    for keys, _, _ in list(elements.dump()):
        for at in range(0, len(keys), elements.key_size):
            elements.delete(keys[at : at + elements.key_size])


@contextmanager
def make_bed() -> Iterator[Bed]:
    """A bed, in whose namespace this thread is meanwhile."""
    with network() as namespace:
        for family in FAMILIES:
            for device, near in (("pub", [family.client]), ("priv", family.backends)):
                to = f"lladdr {CLIENT_MAC.hex(':')} dev {device} nud permanent"
                namespace.ip(*(f"neigh add {address} {to}" for address in near))
        with closing(Bed(namespace)) as bed:
            yield bed
