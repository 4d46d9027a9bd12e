"""A writable mapped file that survives truncation.

Access to a page of a mapped file beyond the file's end (the file was truncated), or to a page that
the file system has no room for, kills the process with SIGBUS (mmap(2)). Here a handler maps
anonymous memory over that page and all following ones, sets ``lost``, and the instruction is
repeated. ``restore`` restores the file's length and maps it again at the same address, so views of
the memory stay valid.

Lives here: ``Mapped``.
Rules: the handler is Python, called through ctypes. The signal is synchronous: it arrives in the
thread that accesses the page, which holds the interpreter's lock, so calling Python is safe. Any
other SIGBUS kills the process as usual. The signal module cannot be used, because it runs handlers
after the instruction.
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


#: the mappings of this process by their first address
_mappings: dict[int, weakref.ref[Mapped]] = {}


class Mapped:
    """The non-empty file of the descriptor ``handle``, mapped shared as ``memory``; ``handle`` may
    be closed afterwards. ``lost`` is set when a page was missing.

    Raises OSError when the kernel refuses. Keeps a lock on ``handle`` while it exists.
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
        """Whether the file is shorter than the mapping."""
        return os.fstat(self._handle).st_size < self.size

    def reserve(self, begin: int, end: int) -> bool:
        """Allocate memory for the bytes from ``begin`` to ``end``; False when there is none."""
        begin -= begin % mmap.PAGESIZE
        try:
            self.memory.madvise(_POPULATE_WRITE, begin, end - begin)
        except OSError:
            return False
        return True

    def restore(self) -> None:
        """Restore the file's length and fill it with zeros; raises OSError when there is no room
        for its first page.
        """
        os.ftruncate(self._handle, 0)
        os.ftruncate(self._handle, self.size)
        _map(self._begin, self.size, mmap.MAP_SHARED, self._handle)
        self.memory.madvise(_POPULATE_WRITE, 0, mmap.PAGESIZE)
        self.lost = False

    def lose(self, address: int) -> bool:
        """Map anonymous memory from the page of ``address`` on; False for a foreign address."""
        if not self._begin <= address < self._begin + self.size:
            return False
        page = address - address % mmap.PAGESIZE
        size = self._begin + self.size - page
        _map(page, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1)
        self.lost = True
        return True


def _map(address: int, size: int, flags: int, handle: int) -> None:
    """mmap(2) at ``address``, replacing the mapping there; raises OSError."""
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
        pass  # out of memory
    _libc.signal(number, None)  # SIG_DFL: the repeated instruction kills the process


_HANDLER: Final = _Handler(_missing)  # kept for as long as the kernel may call it


def _catch() -> None:
    """Install ``_missing`` as the handler of SIGBUS; raises OSError."""
    action = _Action(handler=_HANDLER, flags=_SA_SIGINFO)
    if _libc.sigaction(signal.SIGBUS, ctypes.byref(action), None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
