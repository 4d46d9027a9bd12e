"""A file's memory that a process writes to, and survives the loss of.

A page of a mapped file that lies behind the file's end (somebody has cut it), or that the file
system has no room for, ends the process that touches it: SIGBUS (mmap(2)). Here a handler puts
memory of the process's own in the page's place, and in that of all that follow, notes it in
``lost``, and the instruction is repeated. ``restore`` gives the file its length back and maps it
anew at the same place, so whoever has a view of the memory need not know.

Lives here: ``Mapped``.
Rules: the handler is Python, called through ctypes. A signal of this kind comes from the very
instruction that touches the page, in the thread that has the interpreter's lock, so that it is a
call like any other; it is for that alone, and any other SIGBUS ends the process as it always did.
The signal module cannot be used: its handlers wait for the end of the instruction.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import weakref
from typing import Final

# asm-generic/mman.h, asm-generic/siginfo.h (64 bit), asm-generic/signal-defs.h
_FIXED: Final = 0x10
_SI_ADDR: Final = 16
_SA_SIGINFO: Final = 0x4
_WRITABLE: Final = mmap.PROT_READ | mmap.PROT_WRITE

_POPULATE_WRITE: Final = 23  # MADV_POPULATE_WRITE of asm-generic/mman-common.h, Linux 5.14

_libc: Final = ctypes.PyDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
_libc.signal.restype = ctypes.c_void_p
_libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
_Handler = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class _Action(ctypes.Structure):
    """``struct sigaction`` of the C library (sigaction(2)); its set of signals has 1,024 bits."""

    _fields_ = (
        ("handler", _Handler),
        ("mask", ctypes.c_ubyte * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


#: where each mapping of this process begins, and whose it is
_mappings: dict[int, weakref.ref[Mapped]] = {}


class Mapped:
    """All of the file behind ``handle``, which is not empty, as ``memory``; it is shared with
    whoever else maps it, and ``handle`` may be closed. ``lost`` tells that a page was missing.

    Raises OSError where the kernel refuses it. As long as it lives, so does a lock on ``handle``.
    """

    def __init__(self, handle: int) -> None:
        self.memory = mmap.mmap(handle, 0)
        self.lost = False
        self.size = len(self.memory)
        self._handle = os.dup(handle)
        self._begin = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        weakref.finalize(self, _forget, self._begin, self._handle)
        _mappings[self._begin] = weakref.ref(self)
        _catch()

    @property
    def cut(self) -> bool:
        """Whether the file is shorter than what was mapped of it."""
        return os.fstat(self._handle).st_size < self.size

    def reserve(self, begin: int, end: int) -> bool:
        """Have memory behind the bytes from ``begin`` to ``end``; False: there is none."""
        begin -= begin % mmap.PAGESIZE
        try:
            self.memory.madvise(_POPULATE_WRITE, begin, end - begin)
        except OSError:
            return False
        return True

    def restore(self) -> None:
        """Make the file what it was in length, and zeros in content; raises OSError where there is
        no room for its first page.
        """
        os.ftruncate(self._handle, 0)
        os.ftruncate(self._handle, self.size)
        _map(self._begin, self.size, mmap.MAP_SHARED, self._handle)
        self.memory.madvise(_POPULATE_WRITE, 0, mmap.PAGESIZE)
        self.lost = False

    def lose(self, address: int) -> bool:
        """Have memory of our own from the page of ``address`` on, if that is ours."""
        if not self._begin <= address < self._begin + self.size:
            return False
        page = address - address % mmap.PAGESIZE
        size = self._begin + self.size - page
        _map(page, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1)
        self.lost = True
        return True


def _map(address: int, size: int, flags: int, handle: int) -> None:
    """mmap(2) at ``address``, in place of what is there; raises OSError."""
    if _libc.mmap(address, size, _WRITABLE, flags | _FIXED, handle, 0) != address:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _forget(begin: int, handle: int) -> None:
    _mappings.pop(begin, None)
    os.close(handle)


def _missing(number: int, info: int, _context: int) -> None:
    """SIGBUS: the page at the address in ``info`` (``siginfo_t``) is missing."""
    try:
        address = ctypes.c_size_t.from_address(info + _SI_ADDR).value
        found = [mapping() for mapping in _mappings.values()]
        if any(mapping is not None and mapping.lose(address) for mapping in found):
            return
    except OSError:
        pass  # no memory is left for it
    _libc.signal(number, None)  # SIG_DFL: the instruction is repeated, and ends the process


_HANDLER: Final = _Handler(_missing)  # kept for as long as the kernel may call it


def _catch() -> None:
    """Have ``_missing`` called from now on; raises OSError."""
    action = _Action(handler=_HANDLER, flags=_SA_SIGINFO)
    if _libc.sigaction(signal.SIGBUS, ctypes.byref(action), None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
