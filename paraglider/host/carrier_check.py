"""The carrier's self-check: compares the program's packets with those of a worker.

For IPv4 and IPv6, TCP and UDP, a packet of a client, the reply of its backend, and the first packet
of a flow about which the program decides by its hash go through the program (BPF_PROG_TEST_RUN) and
through the packet path of a worker; the bytes must be equal. With dsr, the client's packet must not
be changed but for its TTL; with tunnel, it must leave in the outer header of a worker. The program
for XDP has a check of its own: it must also write the MAC addresses, have dsr decided by the hash
of a flow without an entry, and leave other new flows and tunnels unchanged to tc. Each check has
its own maps, and a network namespace with one interface, so it affects neither the host nor a flow.

Lives here: ``self_check``; ``record``, by which `paraglider.config` runs the check for the daemon,
which systemd may not permit a network namespace; and ``checked``, the result of either.
Rules: a failed check raises ``CarrierUnavailableError`` with the difference, and
``XdpUnavailableError`` for the program at XDP. If the program leaves tunnels alone to the workers,
as on a kernel that does not give it the source of a route, that is no failure, but the result.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from array import array
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from paraglider.bpf import loader, syscall
from paraglider.bpf.decisions import open_decisions
from paraglider.bpf.layout import (
    BY_FLOW,
    DEVICE,
    DSR,
    ESTABLISHED,
    FLOW,
    INDEX,
    NAT,
    NO_ENTRIES,
    ORIGIN,
    REPLIED,
    SERVICE,
    TRANSLATION,
    TUNNEL,
    UP,
)
from paraglider.bpf.maps import CarrierMaps
from paraglider.config.model import Config
from paraglider.core.checksum import COMPLETE, internet_checksum, ones_sum
from paraglider.core.encapsulation import Outer, flow_hash
from paraglider.core.flow import TCP, UDP
from paraglider.core.packet import ACK, SYN
from paraglider.core.siphash import siphash13
from paraglider.core.verdict import REWRITTEN
from paraglider.errors import ParagliderError
from paraglider.forward.worker_datapath import build
from paraglider.host.carrier_record import RECORDS, Outcome, store, stored
from paraglider.host.carrier_support import (
    EARLY_PROGRAM,
    PROGRAM,
    CarrierUnavailableError,
    unavailable,
)
from paraglider.host.xdp_devices import CARRY_AT_TC, XdpUnavailableError
from paraglider.netfilter.programs import run

_REDIRECT, _XDP_REDIRECT = 7, 4  # linux/pkt_cls.h, linux/bpf.h
_CLONE_NEWNET: Final = 0x4000_0000
#: the interface, its MAC address, and that of the client and the backend
_INTERFACE: Final = "carrier0"
_OWN, _NEXT_HOP = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
#: XDP leaves one packet a second to each next hop to tc, on a slow machine perhaps two in turn
_TRIES: Final = 5
_CLIENT_PORT, _VIP_PORT, _BACKEND_PORT = 40000, 80, 8080
#: the client's port of a flow without an entry, and the hash and table that decide about it
_NEW_PORT, _HASH_KEY, _SLOTS = 40001, (1, 2), 257
_TTL: Final = 64
#: VIP, client, backend by family: documentation addresses (RFC 5737, RFC 3849), on one link
_ENDS: Final = {
    4: ("192.0.2.80", "192.0.2.2", "192.0.2.3"),
    6: ("2001:db8::80", "2001:db8::2", "2001:db8::3"),
}
_PREFIXES: Final = {4: "192.0.2.1/24", 6: "2001:db8::1/64"}
_NAMES: Final = {TCP: "tcp", UDP: "udp"}
_BROKEN_OFF: Final = "0 the self-check was broken off"
_SYSCTLS: Final = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}


def self_check(image: bytes, program: str = PROGRAM, records: Mapping[str, Path] = RECORDS) -> str:
    """Check the function ``program`` of the object file ``image``, in a child process. Returns why
    it cannot carry tunnels, empty if it can. If that is not permitted, the
    result of ``record`` for the same function, object and kernel is used. Raises
    ``CarrierUnavailableError``.
    """
    found = _outcome(image, program)
    if found.number == errno.EPERM:
        recorded = stored(image, program, records)
        if recorded is None:
            kind = XdpUnavailableError if program == EARLY_PROGRAM else CarrierUnavailableError
            raise kind(found.what, "run paraglider.config, which makes the self-check")
        found = recorded
    return _result(program, found)


def checked(image: bytes, program: str = PROGRAM, records: Mapping[str, Path] = RECORDS) -> str:
    """As ``self_check``, but if ``record`` has found since the boot that ``program`` passes, that
    is the result.
    """
    found = stored(image, program, records)
    if found is None or found.what:
        return self_check(image, program, records)
    return found.tunnels


def record(image: bytes, program: str = PROGRAM, records: Mapping[str, Path] = RECORDS) -> str:
    """Check ``program``, store the result for the others, and return the same; raises ``OSError``,
    or as ``self_check``.
    """
    found = _outcome(image, program)
    store(image, program, records, found)
    return _result(program, found)


def _result(program: str, found: Outcome) -> str:
    if found.what:
        raise _failed(program, found.number, found.what)
    return found.tunnels


def _failed(program: str, number: int, what: str) -> CarrierUnavailableError:
    if program == EARLY_PROGRAM:
        return XdpUnavailableError(what, f"report it with the kernel's version, {CARRY_AT_TC}")
    return unavailable(number, what)


def _outcome(image: bytes, program: str) -> Outcome:
    """What a child process finds."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        said = _BROKEN_OFF
        try:
            said = _said(image, program)
        finally:
            os.write(writing, said.encode(errors="replace")[:4000])
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        said = file.read().decode(errors="replace")
    os.waitpid(child, 0)
    return Outcome.of(said or _BROKEN_OFF)  # a child that was killed says nothing


def _said(image: bytes, program: str) -> str:
    """The error number and the reasons against BPF, as text of an ``Outcome``."""
    try:
        return f"0 {_checked(image, program)}"
    except loader.LoadError as error:
        return f"{error.number} {error}"
    except ParagliderError as error:
        return f"0 the self-check cannot be made: {error}"
    except OSError as error:
        return f"{error.errno or 0} the self-check cannot be made: {error.strerror or error}"


def _checked(image: bytes, program: str) -> str:
    """In the child: what differs, and in a second line why tunnels are not carried; each empty if
    all is well.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        raise OSError(number := ctypes.get_errno(), os.strerror(number))
    at_xdp = program == EARLY_PROGRAM
    maps = CarrierMaps.create_for_test()
    loaded = loader.load(image, program, maps.numbers)
    families = _network()  # by iproute2, which may need what the loader misses
    interface = socket.if_nametoindex(_INTERFACE)
    if at_xdp:
        syscall.attach_xdp(loaded, interface)  # else the kernel refuses test runs
        maps.devices.put(INDEX.pack(interface), DEVICE.pack(_OWN, True))
    which, tunnels = "program at XDP" if at_xdp else "program", ""
    for index, (family, protocol) in enumerate(((f, p) for f in families for p in (TCP, UDP)), 1):
        way = f"a packet of IPv{family} {_NAMES[protocol]}"
        for sent, wanted, method, flags in _cases(family, protocol, at_xdp=at_xdp):
            _install(maps, index, family, protocol, method)
            _have_decided(maps, index, family, protocol, flags)
            frame = _OWN + _NEXT_HOP + _TYPES[family] + _with_ttl(sent, _TTL)
            carried, found = (_run_at_xdp if at_xdp else _run)(loaded, frame, interface)
            wrong = ""
            if wanted is None:
                wrong = "does not leave {} to tc" if carried or found != frame else ""
            elif not carried and method == TUNNEL and found == frame:
                tunnels = tunnels or _NO_TUNNELS.format(way, os.uname().release)
            elif not carried:
                wrong = "does not carry {}"
            elif found != (_NEXT_HOP + _OWN if at_xdp else frame[:12]) + frame[12:14] + wanted:
                wrong = "does not translate {} as a worker does"
            if wrong:
                return f"the self-check failed: the {which} {wrong.format(way)}"
    return f"\n{tunnels}"


def _cases(
    family: int, protocol: int, *, at_xdp: bool
) -> Iterator[tuple[bytes, bytes | None, int, int]]:
    """Packets, each with what becomes of it, or None if XDP leaves it to tc; the forward method,
    and the flags of the decision about new flows.
    """
    packets = list(_expected(family, protocol))
    (first, _), _, (new, _) = packets
    for sent, wanted in packets:
        left = at_xdp and sent is new
        yield sent, None if left else _with_ttl(wanted, _TTL - 1), NAT, 0
    yield first, _with_ttl(first, _TTL - 1), DSR, 0
    yield first, None if at_xdp else _encapsulated(first, family), TUNNEL, 0
    if at_xdp:
        yield new, _with_ttl(new, _TTL - 1), DSR, NO_ENTRIES


def _run(program: int, frame: bytes, interface: int) -> tuple[bool, bytes]:
    """Whether the program at tc carries ``frame``, and what becomes of it."""
    ran = syscall.run_program(program, frame, interface)
    return ran.value == _REDIRECT, ran.packet


def _run_at_xdp(program: int, frame: bytes, interface: int) -> tuple[bool, bytes]:
    """Whether the program at XDP carries ``frame`` by now, and what becomes of it."""
    for _ in range(_TRIES):
        ran = syscall.run_at_xdp(program, frame, interface)
        if ran.value == _XDP_REDIRECT or ran.packet != frame:
            break
    return ran.value == _XDP_REDIRECT, ran.packet


_NO_TUNNELS: Final = (
    "the program does not carry {} in a tunnel: it needs the source address of a route, which Linux"
    " has for BPF since 6.7 (this is {})"
)
_TYPES: Final = {4: b"\x08\x00", 6: b"\x86\xdd"}


def _network() -> tuple[int, ...]:
    """Make the interface in this network namespace; returns the families that the kernel has."""
    families = tuple(f for f, name in _SYSCTLS.items() if Path("/proc/sys/net", name).exists())
    if 6 in families:  # a host may have IPv6 off for new interfaces
        for scope in ("all", "default"):
            off = Path("/proc/sys/net/ipv6/conf", scope, "disable_ipv6")
            off.write_text("0", encoding="ascii")
    lines = [
        f"link add {_INTERFACE} address {_OWN.hex(':')} type veth peer name carrier1",
        f"link set {_INTERFACE} up",
        "link set carrier1 up",
        *(
            f"address add {_PREFIXES[f]} dev {_INTERFACE}{' nodad' if f == 6 else ''}"
            for f in families
        ),
        *(
            f"neigh add {to} lladdr {_NEXT_HOP.hex(':')} dev {_INTERFACE} nud permanent"
            for f in families
            for to in _ENDS[f][1:]
        ),
    ]
    run(["ip", "-batch", "-"], stdin="\n".join(lines) + "\n")
    for family in families:
        Path("/proc/sys/net", _SYSCTLS[family]).write_text("1", encoding="ascii")
    return families


def _install(maps: CarrierMaps, index: int, family: int, protocol: int, method: int) -> None:
    """A flow from the client to the VIP, which goes to the backend."""
    vip, client, backend = (ip_address(one).packed for one in _ENDS[family])
    ports = (_VIP_PORT.to_bytes(2, "big"), _BACKEND_PORT.to_bytes(2, "big"))
    name = b"check".ljust(8, b"\0")
    number = INDEX.pack(index)
    maps.translations.put(
        number, TRANSLATION.pack(vip, backend, *ports, family, method, UP, 0, name)
    )
    maps.origins.put(ORIGIN.pack(backend, ports[1], protocol, family), number)
    flags = REPLIED | ESTABLISHED if protocol == TCP else 0
    key = client + vip + _CLIENT_PORT.to_bytes(2, "big") + ports[0]
    maps.flows[protocol, family].put(key, FLOW.pack(0, flags, 0, index, 0, 0, 0))


def _have_decided(maps: CarrierMaps, index: int, family: int, protocol: int, flags: int) -> None:
    """Have new flows to the VIP decided, with ``flags``, by a table in which that of ``_NEW_PORT``
    alone has the translation of ``index``.
    """
    vip, client, _ = (ip_address(one).packed for one in _ENDS[family])
    port = _VIP_PORT.to_bytes(2, "big")
    slots = array("H", bytes(2 * _SLOTS))
    key = client + vip + _NEW_PORT.to_bytes(2, "big") + port
    slots[siphash13(*_HASH_KEY, key) % _SLOTS] = index
    decisions = open_decisions(maps)
    decision = decisions.claim(index.to_bytes(8, "big"))
    if decision is not None:
        decisions.configure(decision, BY_FLOW, _HASH_KEY, bound=1, flags=flags)
        decisions.write(decision, slots)
        decisions.set_steering(family, seed=1, workers=1)
        decisions.set_services({SERVICE.pack(vip, port, protocol, family): decision})
    decisions.close()


def _expected(family: int, protocol: int) -> Iterator[tuple[bytes, bytes]]:
    """A packet of the client, one of the backend, and the first one of another flow, each with what
    a worker makes of it.
    """
    vip, client, backend = _ENDS[family]
    service = {
        "name": "check",
        "vip": vip,
        "protocol": _NAMES[protocol],
        "ports": _VIP_PORT,
        "backends": [{"address": backend, "port": _BACKEND_PORT}],
    }
    path = build(Config.model_validate({"services": [service]}), 0, 0.0)

    def through(packet: bytes) -> bytes:
        buffer = bytearray(packet)
        if path.handle(buffer, 0, len(buffer), COMPLETE, 0.0) != REWRITTEN:
            raise CarrierUnavailableError("the core refuses a packet of the self-check")
        return bytes(buffer)

    out = (client, vip, _CLIENT_PORT, _VIP_PORT)
    back = (backend, client, _BACKEND_PORT, _CLIENT_PORT)
    if protocol == TCP:
        through(_packet(out, protocol, SYN))
        through(_packet(back, protocol, SYN | ACK))
    for ends in (out, back):
        packet = _packet(ends, protocol, ACK)
        yield packet, through(packet)
    packet = _packet((client, vip, _NEW_PORT, _VIP_PORT), protocol, SYN)
    yield packet, through(packet)


def _encapsulated(packet: bytes, family: int) -> bytes:
    """``packet`` as a worker sends it to the backend, by GUE to the backend's port."""
    source, backend = (
        ip_address(one).packed for one in (_PREFIXES[family].partition("/")[0], _ENDS[family][2])
    )
    outer = Outer(source, backend, _BACKEND_PORT)
    return outer.wrap(_with_ttl(packet, _TTL - 1), flow_hash(packet))


def _packet(ends: tuple[str, str, int, int], protocol: int, flags: int) -> bytes:
    """An IP packet with some bytes of data and valid checksums."""
    source, destination = (ip_address(one) for one in ends[:2])
    ports = struct.pack("!HH", *ends[2:])
    if protocol == TCP:
        body = ports + struct.pack("!IIBBHHH", 1, 1, 0x50, flags, 1000, 0, 0) + b"check"
    else:
        body = ports + struct.pack("!HH", 8 + 5, 0) + b"check"
    pseudo = source.packed + destination.packed + struct.pack("!HH", protocol, len(body))
    check = internet_checksum(body, ones_sum(pseudo)).to_bytes(2, "big")
    at = 16 if protocol == TCP else 6
    body = body[:at] + check + body[at + 2 :]
    if source.version == 6:
        head = struct.pack("!IHBB", 6 << 28, len(body), protocol, _TTL)
    else:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, _TTL, protocol, 0)
    return head + source.packed + destination.packed + body


def _with_ttl(packet: bytes, ttl: int) -> bytes:
    """``packet`` with the TTL or hop limit ``ttl``, and a valid IPv4 checksum."""
    if packet[0] >> 4 == 6:
        return packet[:7] + bytes([ttl]) + packet[8:]
    head = packet[:8] + bytes([ttl, packet[9], 0, 0]) + packet[12:20]
    return head[:10] + internet_checksum(head).to_bytes(2, "big") + head[12:] + packet[20:]
