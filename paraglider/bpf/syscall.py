"""bpf(2): maps, pins, links and test runs of programs.

Lives here: a function for each command; those for elements of maps are in ``elements``.
Rules: every descriptor is closed on exec(2). Refusals of the kernel raise ``OSError``. Structures
are those of union bpf_attr (linux/bpf.h), numbers of the system call those of
arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from dataclasses import dataclass
from typing import Final

_GENERIC: Final = 280
_NUMBER: Final = {"x86_64": 321}.get(platform.machine(), _GENERIC)

# enum bpf_cmd
MAP_CREATE: Final = 0
LOOKUP: Final = 1
UPDATE: Final = 2
DELETE: Final = 3
GET_NEXT_KEY: Final = 4
OBJ_PIN: Final = 6
OBJ_GET: Final = 7
PROG_TEST_RUN: Final = 10
OBJ_GET_INFO_BY_FD: Final = 15
LOOKUP_BATCH: Final = 24
DELETE_BATCH: Final = 27
LINK_CREATE: Final = 28
LINK_UPDATE: Final = 29
LINK_DETACH: Final = 34

#: the commands of a worker: elements of maps
ELEMENT_COMMANDS: Final = (LOOKUP, UPDATE, DELETE, LOOKUP_BATCH, DELETE_BATCH)

# enum bpf_map_type
HASH: Final = 1
ARRAY: Final = 2
PERCPU_ARRAY: Final = 6
ARRAY_OF_MAPS: Final = 12
RINGBUF: Final = 27

ANY: Final = 0
NOEXIST: Final = 1
NO_PREALLOC: Final = 1  # BPF_F_NO_PREALLOC
MMAPABLE: Final = 1 << 10  # BPF_F_MMAPABLE
_PATH_FD: Final = 1 << 14  # BPF_F_PATH_FD, Linux 6.5
_TEST_CHECKSUM_COMPLETE: Final = 1 << 2  # BPF_F_TEST_SKB_CHECKSUM_COMPLETE, Linux 6.15
_TCX_INGRESS: Final = 46  # BPF_TCX_INGRESS, Linux 6.6
_XDP: Final = 37  # BPF_XDP
_DRIVER_MODE: Final = 1 << 2  # XDP_FLAGS_DRV_MODE, linux/if_link.h

_LARGEST_OUTPUT: Final = 1 << 16

_libc: Final = ctypes.CDLL(None, use_errno=True)
_syscall: Final = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint)


def raw(command: int, attributes: ctypes.Array[ctypes.c_char], size: int) -> int:
    """Call bpf(2) with ``size`` bytes of ``attributes``; returns the result, -errno on refusal."""
    result: int = _syscall(_NUMBER, command, attributes, size)
    return -ctypes.get_errno() if result < 0 else result


def call(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    """Call bpf(2); returns a descriptor or 0, and raises ``OSError`` when the kernel refuses."""
    result = raw(command, attributes, len(attributes))
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def _packed(text: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(text, len(text))


def create_map(
    kind: int,
    key_size: int,
    value_size: int,
    entries: int,
    *,
    flags: int = 0,
    inner: int = 0,
    name: str = "",
) -> int:
    """A new map; ``inner`` is the descriptor of a map like those that an ARRAY_OF_MAPS holds."""
    head = (kind, key_size, value_size, entries, flags, inner, 0)
    return call(MAP_CREATE, _packed(struct.pack("=7I16s", *head, name.encode()[:15])))


def pin(number: int, directory: int, name: str) -> None:
    """Pin the object with descriptor ``number`` as ``name`` in the open bpffs ``directory``."""
    path = ctypes.create_string_buffer(os.fsencode(name))
    place = (ctypes.addressof(path), number, _PATH_FD, directory)
    call(OBJ_PIN, _packed(struct.pack("=QIIi4x", *place)))


def pinned(directory: int, name: str) -> int:
    """The descriptor of the object pinned as ``name``; raises ``FileNotFoundError`` without one."""
    path = ctypes.create_string_buffer(os.fsencode(name))
    place = (ctypes.addressof(path), 0, _PATH_FD, directory)
    return call(OBJ_GET, _packed(struct.pack("=QIIi4x", *place)))


@dataclass(frozen=True, slots=True)
class MapInfo:
    """Type, sizes and flags of a map."""

    kind: int
    key_size: int
    value_size: int
    entries: int
    flags: int


def map_info(number: int) -> MapInfo:
    """Type and sizes of the map with descriptor ``number``."""
    kind, _, key_size, value_size, entries, flags = struct.unpack_from("=6I", _info(number, 80))
    return MapInfo(kind, key_size, value_size, entries, flags)


def is_empty(number: int, key_size: int) -> bool:
    """Whether the map with descriptor ``number`` has no element."""
    key = ctypes.create_string_buffer(key_size)
    attributes = _packed(struct.pack("=I4xQQQ", number, 0, ctypes.addressof(key), 0))
    result = raw(GET_NEXT_KEY, attributes, len(attributes))
    if result not in (0, -errno.ENOENT):
        raise OSError(-result, os.strerror(-result))
    return result != 0


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """A link at tcx or XDP: its id, its program's id, its interface (0 if that was removed)."""

    link: int
    program: int
    interface: int


def link_info(number: int) -> LinkInfo:
    """The link with descriptor ``number`` (struct bpf_link_info)."""
    _, link, program, interface = struct.unpack_from("=III4xI", _info(number, 64))
    return LinkInfo(link, program, interface)


def program_id(number: int) -> int:
    """The kernel's number of the program with descriptor ``number``."""
    found: int = struct.unpack_from("=II", _info(number, 64))[1]
    return found


def _info(number: int, size: int) -> bytes:
    room = ctypes.create_string_buffer(size)
    request = struct.pack("=IIQ", number, size, ctypes.addressof(room))
    call(OBJ_GET_INFO_BY_FD, _packed(request))
    return room.raw


def attach_tcx(program: int, interface: int) -> int:
    """A link that runs ``program`` at the ingress of ``interface``, after those already there."""
    return call(
        LINK_CREATE, _packed(struct.pack("=6IQ", program, interface, _TCX_INGRESS, 0, 0, 0, 0))
    )


def attach_xdp(program: int, interface: int) -> int:
    """A link that runs ``program`` at XDP in the driver of ``interface``; raises ``OSError``
    EOPNOTSUPP if the driver has no XDP, EBUSY if a program is there.
    """
    place = (program, interface, _XDP, _DRIVER_MODE, 0, 0, 0)
    return call(LINK_CREATE, _packed(struct.pack("=6IQ", *place)))


def update_link(link: int, program: int) -> None:
    """Replace the program of ``link`` atomically: no packet passes between the two."""
    call(LINK_UPDATE, _packed(struct.pack("=4I", link, program, 0, 0)))


def detach_link(link: int) -> None:
    """Detach ``link`` from its interface; its descriptor and pin remain."""
    call(LINK_DETACH, _packed(struct.pack("=I", link)))


@dataclass(frozen=True, slots=True)
class RunResult:
    """The result of a test run: the program's return value, the packet, nanoseconds per run."""

    value: int
    packet: bytes
    nanoseconds: int


def run_program(
    program: int,
    packet: bytes,
    interface: int = 0,
    repeat: int = 1,
    *,
    segment: int = 0,
    segments: int = 0,
    summed: bool = False,
) -> RunResult:
    """Run the tc program ``program`` on ``packet``, a frame that came in by ``interface`` (1: the
    loopback device where 0).

    With ``segment`` it is a GSO packet of ``segments`` with that many bytes of payload each. With
    ``summed`` it has the checksum that a device computes over all of it (CHECKSUM_COMPLETE), and
    ``OSError`` EBADMSG is raised if the program changes the packet and not the sum.
    """
    # struct __sk_buff: ifindex, gso_segs, gso_size
    context = struct.pack("=40xI120xI8xI12x", interface, segments, segment)
    flags = _TEST_CHECKSUM_COMPLETE if summed else 0
    return _run(program, packet, context if interface or segment else b"", repeat, flags)


def run_at_xdp(program: int, packet: bytes, interface: int, repeat: int = 1) -> RunResult:
    """Run the XDP program ``program`` on ``packet``, a frame that came in by ``interface``, which
    must have a program at XDP.
    """
    # struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
    context = struct.pack("=6I", 0, len(packet), 0, interface, 0, 0)
    return _run(program, packet, context, repeat, 0)


def _run(program: int, packet: bytes, context: bytes, repeat: int, flags: int) -> RunResult:
    frame, out = _packed(packet), ctypes.create_string_buffer(_LARGEST_OUTPUT)
    around = _packed(context or b"\0")
    request = struct.pack(
        "=4I2Q4I2Q3I4x",
        *(program, 0, len(packet), len(out), ctypes.addressof(frame), ctypes.addressof(out)),
        *(repeat, 0, len(context), 0, ctypes.addressof(around) if context else 0, 0),
        *(flags, 0, 0),
    )
    attributes = _packed(request)
    call(PROG_TEST_RUN, attributes)
    _, value, _, size, _, _, _, took = struct.unpack_from("=4I2Q2I", attributes)
    return RunResult(value, out.raw[:size], took)
