"""Removes the outer headers of tunnels on a backend's host, by a BPF program at its interface.

Lives here: ``TunnelEnd``, ``Decapsulation``, and ``PINS``, where it is pinned.
Rules: an end is the address of the backend, a VIP and the UDP port of GUE (0: IP in IP); the
program, ``bpf/decap.bpf.c``, has them in a map. The map, and a link for each interface, are pinned
in a bpffs of their own (``host.bpffs``), so they outlast this process; with the last end they are
removed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from importlib import resources
from typing import Final, NamedTuple

from paraglider.bpf import loader, syscall
from paraglider.bpf.elements import Elements
from paraglider.config.types import IPAddress
from paraglider.errors import PlatformError
from paraglider.host import bpffs
from paraglider.host.ownership import RUN_DIRECTORY

#: not the carrier's bpffs, which a daemon uses and cleans
PINS: Final = RUN_DIRECTORY / "decapsulation"

OBJECT: Final = "decap.bpf.o"
PROGRAM: Final = "decapsulate"
_MAP: Final = "decap-ends"
LINK: Final = "decap-link-"
_KEY: Final = struct.Struct("=16s16sHH")
_ENDS: Final = 4096
_PRESENT: Final = struct.pack("=I", 1)


class TunnelEnd(NamedTuple):
    """Packets to ``backend`` with ``vip`` inside, in UDP to ``port``, or without UDP if it is 0."""

    backend: IPAddress
    vip: IPAddress
    port: int

    @property
    def key(self) -> bytes:
        """The key of the program's map: struct end."""
        return _KEY.pack(
            self.backend.packed, self.vip.packed, socket.htons(self.port), self.backend.version
        )


class Decapsulation:
    """The ends of tunnels in this network namespace."""

    def has(self, end: TunnelEnd, interface: str) -> bool:
        """Whether packets of ``end`` that arrive at ``interface`` are decapsulated."""
        with _pins(create=False) as pins:
            if pins is None:
                return False
            found = _elements(pins)
            if found is None:
                return False
            try:
                return found.get(end.key) is not None and _is_attached(pins, interface)
            finally:
                os.close(found.fd)

    def add(self, end: TunnelEnd, interface: str) -> None:
        """Decapsulate packets of ``end`` that arrive at ``interface``; raises ``PlatformError``."""
        try:
            with _pins(create=True) as pins:
                assert pins is not None  # noqa: S101 - created
                found = _elements(pins) or _new_map(pins)
                try:
                    found.put(end.key, _PRESENT)
                    if not _is_attached(pins, interface):
                        _attach(pins, found.fd, interface)
                finally:
                    os.close(found.fd)
        except (OSError, loader.LoadError) as error:
            self.remove(end, interface)
            raise PlatformError(
                f"the kernel does not take the outer header off by BPF: {error}",
                "use a kernel with the module ipip, ip6_tunnel or fou, or Linux 6.6 with BPF",
            ) from error

    def remove(self, end: TunnelEnd, interface: str) -> None:
        """Undo ``add``; with the last end, remove everything. Raises ``PlatformError``."""
        try:
            with _pins(create=False) as pins:
                if pins is None:
                    return
                found = _elements(pins)
                if found is not None:
                    found.delete(end.key)
                    empty = syscall.is_empty(found.fd, _KEY.size)
                    os.close(found.fd)
                    if not empty:
                        return
                for name in bpffs.names(pins):
                    if name.startswith(LINK):
                        _detach(pins, name)
                    elif name == _MAP:
                        bpffs.unpin(pins, name)
                left = bool(bpffs.names(pins))
            if not left:
                bpffs.remove_pins(PINS)
        except OSError as error:
            what = f"the BPF program of {interface} cannot be removed: {error.strerror or error}"
            raise PlatformError(what) from error


@contextlib.contextmanager
def _pins(*, create: bool) -> Iterator[int | None]:
    pins = bpffs.open_pins(PINS) if create else bpffs.find_pins(PINS)
    try:
        yield pins
    finally:
        if pins is not None:
            os.close(pins)


def _elements(pins: int) -> Elements | None:
    try:
        number = syscall.pinned(pins, _MAP)
    except FileNotFoundError:
        return None
    return Elements(number, _KEY.size, len(_PRESENT))


def _new_map(pins: int) -> Elements:
    number = syscall.create_map(syscall.HASH, _KEY.size, len(_PRESENT), _ENDS, name="ends")
    syscall.pin(number, pins, _MAP)
    return Elements(number, _KEY.size, len(_PRESENT))


def _attach(pins: int, ends: int, interface: str) -> None:
    image = resources.files("paraglider.bpf").joinpath(OBJECT).read_bytes()
    program = loader.load(image, PROGRAM, {"ends": ends})
    try:
        link = syscall.attach_tcx(program, socket.if_nametoindex(interface))
    finally:
        os.close(program)
    name = f"{LINK}{interface}"
    try:
        bpffs.unpin(pins, name)  # of an interface of that name before
        syscall.pin(link, pins, name)
    finally:
        os.close(link)


def _is_attached(pins: int, interface: str) -> bool:
    """Whether the interface of that name, which may be another than before, has the program."""
    try:
        link = syscall.pinned(pins, f"{LINK}{interface}")
    except FileNotFoundError:
        return False
    try:
        return syscall.link_info(link).interface == socket.if_nametoindex(interface)
    except OSError:
        return False
    finally:
        os.close(link)


def _detach(pins: int, name: str) -> None:
    try:
        link = syscall.pinned(pins, name)
    except FileNotFoundError:  # another process has removed it since
        return
    try:
        with contextlib.suppress(OSError):  # its interface is gone
            syscall.detach_link(link)
    finally:
        os.close(link)
    bpffs.unpin(pins, name)
