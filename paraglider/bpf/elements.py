"""The elements of a map, by its descriptor; ``_maps`` has a compiled version.

Lives here: ``Elements``; ``publish``, for maps whose memory is mapped.
Rules: keys and values must have exactly the sizes of the map, since the kernel reads that many
bytes. Values to which the program writes are not updated in place: use ``insert`` and ``delete``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import threading
from collections.abc import Sequence

from paraglider.bpf.syscall import ANY, DELETE, DELETE_BATCH, LOOKUP, NOEXIST, UPDATE, raw

_SIZE = 32  # of the attributes of an element: descriptor, key, value, flags
_DELETE_SIZE = 16
_BATCH = struct.Struct("=4Q2I2Q")  # of a batch: two tokens, keys, values, count, descriptor, flags


_LOCK = threading.Lock()


def publish(words: memoryview, at: int, value: int) -> None:
    """Write ``value`` to ``words[at]`` (64 bits), after everything that was written before: who
    reads the new value, on whichever CPU, then reads that too. The compiled one is a store with
    release semantics.
    """
    # Interpreted there is none. What precedes the release of a lock is visible before what follows
    # an acquisition after it (C11, of one lock); on x86 stores keep their order anyway.
    for _ in range(2):
        with _LOCK:
            pass
    words[at] = value


class Elements:
    """The elements of the map with descriptor ``fd``; sizes in bytes, as user space sees them."""

    def __init__(self, fd: int, key_size: int, value_size: int) -> None:
        self.fd = fd
        self.key_size = key_size
        self.value_size = value_size
        self._key = ctypes.create_string_buffer(key_size)
        self._value = ctypes.create_string_buffer(value_size)
        where = (ctypes.addressof(self._key), ctypes.addressof(self._value))
        self._attributes = ctypes.create_string_buffer(struct.pack("=I4x3Q", fd, *where, 0), _SIZE)
        self._flags = ctypes.c_uint64.from_buffer(self._attributes, 24)

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key``; None without one. Raises ``OSError``."""
        self._set(key)
        self._flags.value = ANY
        result = raw(LOOKUP, self._attributes, _SIZE)
        if result == 0:
            return self._value.raw
        if result == -errno.ENOENT:
            return None
        raise OSError(-result, os.strerror(-result))

    def insert(self, key: bytes, value: bytes) -> int:
        """Add ``key``, which must not exist; returns 0, or the error number (EEXIST, E2BIG, …)."""
        return -self._update(key, value, NOEXIST)

    def put(self, key: bytes, value: bytes) -> None:
        """Add or replace ``key``; raises ``OSError``."""
        result = self._update(key, value, ANY)
        if result:
            raise OSError(-result, os.strerror(-result))

    def delete(self, key: bytes) -> bool:
        """Remove ``key``; False if it does not exist. Raises ``OSError``."""
        self._set(key)
        result = raw(DELETE, self._attributes, _DELETE_SIZE)
        if result not in (0, -errno.ENOENT):
            raise OSError(-result, os.strerror(-result))
        return result == 0

    def delete_each(self, keys: Sequence[bytes]) -> None:
        """Remove ``keys`` in few calls, and ignore those that do not exist. Raises
        ``OSError``.
        """
        for key in keys:
            self._check(key)
        joined = ctypes.create_string_buffer(b"".join(keys))
        done = 0
        while done < len(keys):
            at = ctypes.addressof(joined) + done * self.key_size
            request = _BATCH.pack(0, 0, at, 0, len(keys) - done, self.fd, 0, 0)
            attributes = ctypes.create_string_buffer(request, len(request))
            result = raw(DELETE_BATCH, attributes, len(request))
            if result not in (0, -errno.ENOENT):
                raise OSError(-result, os.strerror(-result))
            # The kernel stops at a key that does not exist.
            done += _BATCH.unpack(attributes.raw)[4] + (result != 0)

    def _update(self, key: bytes, value: bytes, flags: int) -> int:
        self._set(key)
        if len(value) != self.value_size:
            raise ValueError(f"a value has {self.value_size} bytes, not {len(value)}")
        self._value.raw = value
        self._flags.value = flags
        return raw(UPDATE, self._attributes, _SIZE)

    def _set(self, key: bytes) -> None:
        self._check(key)
        self._key.raw = key

    def _check(self, key: bytes) -> None:
        if len(key) != self.key_size:
            raise ValueError(f"a key has {self.key_size} bytes, not {len(key)}")
