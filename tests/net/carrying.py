"""What the tests of the BPF carrier share: its maps and counters, sockets and frames of a client.

``both`` has a test run with either carrier: the fixture ``service`` gives its services the one at
hand. Tests without a mark run with the default, BPF.

Sockets are opened in a namespace by the test's own process, and stay there: no program has to be
started for each.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from waiting import wait_until

from paraglider.bpf import syscall
from paraglider.bpf.decisions import open_decisions
from paraglider.bpf.layout import DECISION, FLOW, INDEX, REASONS
from paraglider.bpf.maps import CarrierMaps
from paraglider.forward.bpf.entry import FlowEntry
from paraglider.forward.bpf.slot_names import slot_name
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import Topology
from paraglider.netfilter.queue import QUEUES

# linux/bpf.h
MAP_GET_FD_BY_ID, PROG_QUERY, TCX_INGRESS = 14, 16, 46
REQUEST = b"GET / HTTP/1.0\r\n\r\n"
CARRIERS = {name: ["worker", "bpf"] for name in ("nat", "dsr")}
TIMEOUT = 60.0  # seconds until an answer that must come counts as lost

both = pytest.mark.parametrize("carrier", ["worker", "bpf"], indirect=True)
#: for what is said of the workers' own carrying, whatever the default
by_workers = pytest.mark.parametrize("carrier", ["worker"], indirect=True)

#: each queue I/O with the workers' carrying, and the first with BPF's
every_io = pytest.mark.parametrize(
    ("io", "carrier"),
    [*((io, "worker") for io in QUEUES), (next(iter(QUEUES)), "bpf")],
    indirect=["carrier"],
)


def forwards(*names: str) -> pytest.MarkDecorator:
    """A test by these forward methods, with either carrier where a method has them."""
    found = [(name, carrier) for name in names for carrier in CARRIERS.get(name, [""])]
    return pytest.mark.parametrize(("forward", "carrier"), found, indirect=["carrier"])


def opened(namespace: Namespace, family: int, kind: socket.SocketKind) -> socket.socket:
    """A socket in ``namespace``."""
    with namespace.entered():
        made = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, kind)
    made.settimeout(TIMEOUT)
    return made


def answers_held(
    net: Topology,
    protocol: str,
    end: tuple[str, int],
    counts: Sequence[int],
    counted: Callable[[], int],
) -> Counter[str]:
    """The answers' names of flows to ``end`` that are all open and used at once: as many as
    ``counts`` has, and after each of these it waits until so many are ``counted``.
    """
    family = 6 if ":" in end[0] else 4
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    names: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        held = []
        for count in counts:
            for _ in range(count):
                held.append(stack.enter_context(opened(net.client, family, kind)))
                held[-1].connect(end)
                held[-1].send(REQUEST[:-2])
                if kind == socket.SOCK_DGRAM:
                    names[held[-1].recv(100).partition(b" ")[0].decode()] += 1
            wait_until(lambda: counted() == len(held), lambda: f"{counted()} of {len(held)}")
        for one in held if kind == socket.SOCK_STREAM else ():
            names[name_of(one, REQUEST[-2:])] += 1
    return names


def name_of(sock: socket.socket, request: bytes = REQUEST) -> str:
    """The name of the backend that answers a ``request`` over the connection ``sock``."""
    sock.sendall(request)
    answer = b"".join(iter(partial(sock.recv, 4096), b""))
    return answer.rpartition(b"\r\n")[2].decode().strip()


def wire(namespace: Namespace, device: str = "eth0") -> socket.socket:
    """A socket that sends frames by ``device`` as they are."""
    with namespace.entered():
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        made.bind((device, 0))
    return made


def mac(namespace: Namespace, device: str) -> str:
    """The hardware address of a device."""
    return namespace.run(["cat", f"/sys/class/net/{device}/address"]).stdout.strip()


def maps_of(running: LabBalancer) -> CarrierMaps:
    """The maps that the daemon uses, by descriptors of this process."""
    numbers: dict[str, int] = {}
    for info in Path(f"/proc/{running.pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):
            lines = dict(line.split(":", 1) for line in info.read_text().splitlines())
            if "map_id" in lines:
                request = struct.pack("=III", int(lines["map_id"]), 0, 0)
                number = syscall.call(MAP_GET_FD_BY_ID, _buffer(request))
                name = _name(number)
                if name in numbers:
                    os.close(number)
                else:
                    numbers[name] = number
    numbers.pop("events", None)
    return CarrierMaps.of(numbers, {})


def wrong_checksums(namespace: Namespace) -> int:
    """What TCP and UDP of both families have counted."""
    text = namespace.run(["cat", "/proc/net/snmp"]).stdout
    found = 0
    for name in ("Tcp", "Udp"):
        names, values = (line.split() for line in re.findall(f"^{name}: .*$", text, re.MULTILINE))
        found += int(dict(zip(names, values, strict=True))["InCsumErrors"])
    six = namespace.run(["cat", "/proc/net/snmp6"]).stdout
    return found + sum(map(int, re.findall(r"^Udp6InCsumErrors\s+(\d+)$", six, re.MULTILINE)))


def programs_at(namespace: Namespace, device: str) -> int:
    """How many programs are attached to the ingress of ``device`` by tcx."""
    with namespace.entered():
        index = socket.if_nametoindex(device)
        request = bytearray(struct.pack("=IIIIQII", index, TCX_INGRESS, 0, 0, 0, 0, 0) + bytes(32))
        attributes = _buffer(bytes(request))
        syscall.call(PROG_QUERY, attributes)
    found: int = struct.unpack_from("=I", attributes, 24)[0]
    return found


class Carried:
    """A balancer at work, and what its carrier has counted."""

    def __init__(self, running: LabBalancer) -> None:
        self.running = running
        self.maps = maps_of(running)

    def counted(self, reason: str) -> int:
        """How many packets the program has counted under ``reason``."""
        return self.maps.reasons.total(REASONS.index(reason))[0]

    @contextlib.contextmanager
    def counting(self, reason: str, least: int = 1) -> Iterator[None]:
        """What happens meanwhile is counted under ``reason``, ``least`` times or more."""
        before = self.counted(reason)
        yield
        self.until(lambda: self.counted(reason) >= before + least, f"{least} of {reason}")

    @contextlib.contextmanager
    def carrying(self, least: int) -> Iterator[None]:
        """The program carries ``least`` bytes or more meanwhile, both directions together.

        How many packets of TCP that is depends on how the kernel merges segments. Ask for half of
        what is sent: an answer that a worker must see may be a large one.
        """
        before = self.carried_bytes()
        yield
        self.until(lambda: self.carried_bytes() >= before + least, f"{least} bytes carried")

    def carried_bytes(self) -> int:
        """How many bytes the program has carried."""
        indexes = [
            INDEX.unpack_from(keys, INDEX.size * n)[0]
            for keys, _, count in self.maps.slots.dump()
            for n in range(count)
        ]
        return sum(
            sum(self.maps.traffic.total(index)[1::2])  # bytes out and back (layout.TRAFFIC)
            for index in indexes
        )

    def flags(self, protocol: int, family: int) -> dict[bytes, int]:
        """The flags of every entry of a protocol and family, by its key."""
        return {key: entry.flags for key, entry in self._entries(protocol, family)}

    def owners(self, protocol: int, family: int) -> dict[bytes, int]:
        """The number of the worker of every entry, by its key."""
        return {key: entry.owner for key, entry in self._entries(protocol, family)}

    def _entries(self, protocol: int, family: int) -> Iterator[tuple[bytes, FlowEntry]]:
        entries = self.maps.flows[protocol, family]
        size = entries.key_size
        for keys, values, count in entries.dump():
            for n in range(count):
                value = values[FLOW.size * n : FLOW.size * (n + 1)]
                yield bytes(keys[size * n : size * (n + 1)]), FlowEntry.unpack(value)

    def decide(self, services: int, flags: int = 0) -> None:
        """Wait until the program has a table for so many services, whose decisions have ``flags``:
        a worker may write it later than a reload is answered.
        """

        def tables() -> int:
            most = max(services, 8)
            records = [self.maps.decisions.get(INDEX.pack(n)) for n in range(1, most + 1)]
            found = [DECISION.unpack(record) for record in records if record is not None]
            return sum(table > 0 and given & flags == flags for table, *_, given, _ in found)

        self.until(lambda: tables() == services, f"{services} tables")

    def picks(self, service: str) -> int:
        """From how many backends the program picks for ``service``. A worker writes the table later
        than a change of a backend is answered.
        """
        with contextlib.closing(open_decisions(self.maps)) as decisions:
            name = slot_name(service, b"decision")
            index = decisions.claim(name) if name in decisions.names() else None
            return 0 if index is None else len(set(decisions.read(index)))

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for ``condition``; fail with the counters when it does not come true."""
        wait_until(condition, lambda: f"{what}: {self.counts()}\n{self.running.log()}")

    def counts(self) -> dict[str, int]:
        """Every counter that is not 0."""
        found = {reason: self.counted(reason) for reason in REASONS}
        return {reason: count for reason, count in found.items() if count}


def _buffer(text: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(text, len(text))


def _name(number: int) -> str:
    room = ctypes.create_string_buffer(80)
    syscall.call(
        syscall.OBJ_GET_INFO_BY_FD,
        _buffer(struct.pack("=IIQ", number, len(room), ctypes.addressof(room))),
    )
    return room.raw[24:40].rstrip(b"\0").decode()  # struct bpf_map_info
