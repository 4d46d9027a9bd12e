"""Programs of a few instructions, as the kernel takes them, for tests without an object file."""

from __future__ import annotations

import ctypes
import re
import struct

from paraglider.bpf import syscall

PROG_LOAD = 5
SCHED_CLS, XDP = 3, 6  # BPF_PROG_TYPE_SCHED_CLS, BPF_PROG_TYPE_XDP
UNSPEC, OK = -1, 0  # linux/pkt_cls.h


def instruction(code: int, registers: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    """One struct bpf_insn; the source register is the high half of ``registers``."""
    return struct.pack("=BBhi", code, registers, offset, immediate)


def load(*instructions: bytes, kind: int = SCHED_CLS) -> int:
    """The descriptor of a program, at tc unless told otherwise."""
    text = b"".join(instructions)
    code = ctypes.create_string_buffer(text, len(text))
    license_ = ctypes.create_string_buffer(b"GPL")
    where = (ctypes.addressof(code), ctypes.addressof(license_))
    attributes = struct.pack("=2I2Q2IQ8x", kind, len(text) // 8, *where, 0, 0, 0)
    return syscall.call(PROG_LOAD, ctypes.create_string_buffer(attributes, len(attributes)))


def returns(value: int, kind: int = SCHED_CLS) -> int:
    """A program that returns ``value``."""
    return load(instruction(0xB7, 0, 0, value), instruction(0x95), kind=kind)


def without_source(image: bytes) -> bytes:
    """The object file ``image`` as a kernel before Linux 6.7 has it: where the program asks for the
    source address of a route, the kernel gets a flag that it does not know, and refuses.
    """
    skip_neighbour, source, unknown = 4, 16, 1 << 30  # enum BPF_FIB_LOOKUP_*
    asks = re.escape(instruction(0xB4, 4, 0, skip_neighbour | source) + instruction(0x85, 0, 0, 69))
    refused = instruction(0xB4, 4, 0, skip_neighbour | unknown) + instruction(0x85, 0, 0, 69)
    found, count = re.subn(asks, refused, image)
    assert count > 0
    return found


def sends(ring: int, number: int, size: int = 8) -> int:
    """A program that sends ``number`` to the ring, as a record of ``size`` bytes."""
    return load(
        instruction(0x7A, 0x0A, -16, 0),  # *(u64 *)(r10 - 16) = 0
        instruction(0x7A, 0x0A, -8, number),  # *(u64 *)(r10 - 8) = number
        *_outputs(ring, -size, size),  # to the number's end
    )


def fills(ring: int, kind: int, size: int) -> int:
    """A program that sends an event of ``kind`` to the ring, ``size`` bytes, zeros otherwise."""
    room = -(-size // 8) * 8
    return load(
        *(instruction(0x7A, 0x0A, -at, 0) for at in range(8, room, 8)),  # *(u64 *)(r10 - at) = 0
        instruction(0x7A, 0x0A, -room, kind),
        *_outputs(ring, -room, size),
    )


def _outputs(ring: int, at: int, size: int) -> tuple[bytes, ...]:
    """Send the ``size`` bytes from ``at`` in the stack on; return what the helper returns."""
    return (
        instruction(0x18, 0x11, 0, ring),  # r1 = the map
        instruction(0),
        instruction(0xBF, 0xA2),  # r2 = r10
        instruction(0x07, 0x02, 0, at),
        instruction(0xB7, 0x03, 0, size),  # r3 = size
        instruction(0xB7, 0x04, 0, 1),  # r4 = BPF_RB_NO_WAKEUP
        instruction(0x85, 0, 0, 130),  # bpf_ringbuf_output
        instruction(0x95),
    )
