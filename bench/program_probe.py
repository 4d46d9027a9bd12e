"""Measures the BPF carrier's program: nanoseconds for a packet, by BPF_PROG_TEST_RUN.

``python -m bench.program_probe [OBJECT ...]``, as root, prints a line for each kind of packet, with
a column for each object file, by default for the one of this build. The objects are measured in
turns, and each figure is the least of many short runs, so that an old and a new object can be
compared on a busy machine. The network namespace, its devices and the maps are the probe's own.

Rules: a test run repeats the program with the packet that the previous run has left. So VIP and
backend of nat are the same address, and nothing but the TTL of a packet changes. Packets that open
a flow run once each, and their time includes that of reading the clock.
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from pyroute2 import netns

import paraglider.bpf
from paraglider.bpf import layout, syscall
from paraglider.bpf.decisions import open_decisions
from paraglider.bpf.loader import load
from paraglider.bpf.maps import CarrierMaps
from paraglider.bpf.ring import Ring
from paraglider.core.checksum import internet_checksum
from paraglider.core.flow import TCP, UDP
from paraglider.core.packet import ACK, SYN
from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import new_prefix

OBJECT: Final = Path(paraglider.bpf.__file__).with_name("carrier.bpf.o")
ROUNDS: Final = 200
REPEAT: Final = 200  # runs on one packet, less than its TTL
OPENINGS: Final = 50  # flows opened in a round
FLOWS: Final = 1 << 17
TTL: Final = 255
PSH: Final = 0x08
REDIRECT: Final = 7  # TC_ACT_REDIRECT
UNSPEC: Final = 0xFFFFFFFF  # TC_ACT_UNSPEC
CLIENT_PORT, PORT = 40000, 80
MACS: Final = {"pub": bytes.fromhex("020000000001"), "priv": bytes.fromhex("020000000002")}
ETHERTYPES: Final = {4: b"\x08\x00", 6: b"\x86\xdd"}
CLIENT: Final = {4: "192.168.0.100", 6: "2001:db8::100"}
#: the backend, and the VIP of nat
BACKEND: Final = {4: "10.0.0.1", 6: "fd00:10::1"}
#: the VIP of dsr
VIP: Final = {4: "192.168.0.11", 6: "2001:db8::11"}
#: indices of the translations of a family, to which its number is added
NAT, DSR = 10, 20
HASH_KEY: Final = (0x0123456789ABCDEF, 0xFEDCBA9876543210)
SLOTS: Final = 65537
_BY_HASH: Final = layout.DIRECT | layout.NO_ENTRIES | layout.WITHOUT_FLOWS

#: runs the program on a packet; returns nanoseconds
Case = Callable[[], int]


def main() -> None:
    """Parse the arguments, measure, print."""
    objects = [Path(name) for name in sys.argv[1:]] or [OBJECT]
    for line in measure(objects, ROUNDS):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def measure(objects: Sequence[Path], rounds: int) -> Iterator[str]:
    """A line for each kind of packet, each with the least time of ``rounds`` for every object."""
    with network(), ExitStack() as stack:
        beds = [stack.enter_context(closing(Bed(one))) for one in objects]
        for cases in zip(*(bed.cases() for bed in beds), strict=True):
            times = [[case() for _, case in cases] for _ in range(rounds)]
            least = "".join(f"{min(one):>8}" for one in zip(*times, strict=True))
            yield f"{cases[0][0]:<28}{least}"


class Bed:
    """The program of an object file, with maps of its own."""

    def __init__(self, image: Path) -> None:
        self._maps = CarrierMaps.create_for_test(FLOWS)
        self._program = load(image.read_bytes(), "carry", self._maps.numbers)
        self._decisions = open_decisions(self._maps)
        self._ring = Ring(self._maps.rings[0], layout.RING_BYTES)
        self._interfaces = {name: socket.if_nametoindex(name) for name in MACS}
        self._ports = itertools.cycle(range(1024, CLIENT_PORT))
        self._services: dict[bytes, int] = {}

    def close(self) -> None:
        """Close the maps and the program."""
        self._ring.close()
        self._decisions.close()
        self._maps.close()
        os.close(self._program)

    def cases(self) -> Iterator[tuple[str, Case]]:
        """The kinds of packets, each with its name."""
        for family in (4, 6):
            self._translate(family)
            yield from self._carried(family)
        for family in (4, 6):
            self._decide(family)
            for protocol, name in ((TCP, "TCP"), (UDP, "UDP")):
                sent = packet(family, CLIENT[family], VIP[family], protocol, flags=ACK)
                yield f"IPv{family} {name}, by hash only", self._repeated("pub", sent)
            yield f"IPv{family} SYN, decided", self._opened(family)
        foreign = packet(4, CLIENT[4], BACKEND[4], TCP, (CLIENT_PORT, 22), ACK)
        yield "IPv4 TCP, not balanced", self._repeated("pub", foreign, UNSPEC)

    def _translate(self, family: int) -> None:
        """Write a translation of nat and one of dsr, and a flow of each protocol for nat's."""
        backend = _packed(BACKEND[family])
        for index, vip, method in (
            (family + NAT, backend, layout.NAT),
            (family + DSR, _packed(VIP[family]), layout.DSR),
        ):
            value = layout.TRANSLATION.pack(
                vip, backend, bytes(2), bytes(2), family, method, layout.UP, 0, b"the name"
            )
            self._maps.translations.put(layout.INDEX.pack(index), value)
        for protocol in (TCP, UDP):
            origin = layout.ORIGIN.pack(backend, PORT.to_bytes(2, "big"), protocol, family)
            self._maps.origins.put(origin, layout.INDEX.pack(family + NAT))
            flags = layout.REPLIED | layout.ESTABLISHED
            entry = layout.FLOW.pack(0, flags, 0, family + NAT, 0, 0, 0)
            ports = struct.pack("!2H", CLIENT_PORT, PORT)
            key = _packed(CLIENT[family]) + backend + ports
            self._maps.flows[protocol, family].put(key, entry)

    def _carried(self, family: int) -> Iterator[tuple[str, Case]]:
        """Packets of these flows."""
        client, backend = CLIENT[family], BACKEND[family]
        for name, protocol, flags in (
            ("TCP", TCP, ACK),
            ("TCP with data", TCP, ACK | PSH),
            ("UDP", UDP, 0),
        ):
            out = packet(family, client, backend, protocol, flags=flags)
            back = packet(family, backend, client, protocol, (PORT, CLIENT_PORT), flags)
            self._run("priv", back)  # the first answer with data is left to the worker
            yield f"IPv{family} {name}, out", self._repeated("pub", out)
            yield f"IPv{family} {name}, back", self._repeated("priv", back)

    def _decide(self, family: int) -> None:
        """Have the program decide: by turn for nat, by a hash without flows for dsr."""
        services = self._services
        for name, kind, vip, index, flags in (
            (b"turn", layout.BY_TURN, BACKEND, family + NAT, 0),
            (b"hash", layout.BY_FLOW, VIP, family + DSR, _BY_HASH),
        ):
            decision = self._decisions.claim(name + str(family).encode() + bytes(3))
            assert decision is not None  # noqa: S101 - there is room for more
            self._decisions.configure(decision, kind, HASH_KEY, bound=(1 << 32) - 1, flags=flags)
            self._decisions.write(decision, array("H", [index] * SLOTS))
            for protocol in (TCP, UDP):
                end = (_packed(vip[family]), PORT.to_bytes(2, "big"))
                services[layout.SERVICE.pack(*end, protocol, family)] = decision
        self._decisions.set_services(services)
        self._decisions.set_steering(family, 1, 1, [_packed(VIP[family])])

    def _repeated(self, device: str, sent: bytes, expected: int = REDIRECT) -> Case:
        """Runs the program on the same packet many times."""
        return lambda: self._run(device, sent, expected, REPEAT)

    def _opened(self, family: int) -> Case:
        """Runs the program on SYNs of new flows."""

        def run() -> int:
            self._ring.read(OPENINGS)
            ports = itertools.islice(self._ports, OPENINGS)
            ends = (CLIENT[family], BACKEND[family])
            sent = [packet(family, *ends, TCP, (port, PORT), SYN) for port in ports]
            return min(self._run("pub", one) for one in sent)

        return run

    def _run(self, device: str, sent: bytes, expected: int = -1, repeat: int = 1) -> int:
        frame = MACS[device] + MACS["priv"] + ETHERTYPES[sent[0] >> 4] + sent
        ran = syscall.run_program(self._program, frame, self._interfaces[device], repeat)
        if expected not in (-1, ran.value):
            raise AssertionError(f"the program returned {ran.value}")
        return ran.nanoseconds


def packet(
    family: int,
    source: str,
    destination: str,
    protocol: int,
    ports: tuple[int, int] = (CLIENT_PORT, PORT),
    flags: int = 0,
) -> bytes:
    """A packet with 64 bytes of data, the TTL 255 and a wrong transport checksum."""
    data = bytes(64)
    if protocol == TCP:
        body = struct.pack("!2H2I2B3H", *ports, 1, 1, 0x50, flags, 64_000, 1, 0) + data
    else:
        body = struct.pack("!4H", *ports, 8 + len(data), 1) + data
    ends = _packed(source) + _packed(destination)
    if family == 6:
        return struct.pack("!IHBB", 6 << 28, len(body), protocol, TTL) + ends + body
    head = struct.pack("!2B3H2BH", 0x45, 0, 20 + len(body), 1, 0x4000, TTL, protocol, 0) + ends
    return head[:10] + internet_checksum(head).to_bytes(2, "big") + head[12:] + body


def _packed(address: str) -> bytes:
    return ip_address(address).packed


@contextmanager
def network() -> Iterator[Namespace]:
    """A network namespace with a device for clients and one for backends; this thread is in it."""
    with Namespace(f"{new_prefix()}-program") as namespace:
        for name, mac in MACS.items():
            namespace.ip(
                f"link add {name} address {mac.hex(':')} type veth peer name {name}-peer",
                f"link set {name} up",
                f"link set {name}-peer up",
            )
        namespace.ip(
            "address add 192.168.0.1/24 dev pub",
            "address add 2001:db8::1/64 dev pub nodad",
            "address add 10.0.0.254/24 dev priv",
            "address add fd00:10::fe/64 dev priv nodad",
        )
        namespace.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        netns.pushns(namespace.name)
        try:
            yield namespace
        finally:
            netns.popns()


if __name__ == "__main__":
    main()
