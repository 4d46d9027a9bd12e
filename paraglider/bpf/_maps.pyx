# cython: language_level=3, boundscheck=False, wraparound=False
"""The compiled twins of ``elements.Elements``, ``elements.publish`` and ``ring.Ring``, which document
them.
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport ENOENT, errno
from libc.stdint cimport uint32_t, uint64_t, uint8_t, uintptr_t
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap
from posix.unistd cimport _SC_PAGESIZE, sysconf

import os

cdef extern from "<unistd.h>" nogil:
    long syscall(long number, ...)

cdef extern from "<sys/syscall.h>" nogil:
    const int __NR_bpf

cdef extern from * nogil:
    """
    #define load_acquire(at) __atomic_load_n((at), __ATOMIC_ACQUIRE)
    #define store_release(at, value) __atomic_store_n((at), (value), __ATOMIC_RELEASE)
    """
    uint64_t load_acquire_64 "load_acquire"(uint64_t *at)
    uint32_t load_acquire_32 "load_acquire"(uint32_t *at)
    void store_release(uint64_t *at, uint64_t value)

cdef struct batch:
    uint64_t first
    uint64_t next
    uint64_t keys
    uint64_t values
    uint32_t count
    uint32_t fd
    uint64_t element_flags
    uint64_t flags

cdef enum:
    _LOOKUP = 1
    _UPDATE = 2
    _DELETE = 3
    _DELETE_SIZE = 16
    _DELETE_BATCH = 27
    _ANY = 0
    _NOEXIST = 1
    _HEAD = 8

cdef uint32_t _BUSY = 0x80000000
cdef uint32_t _DISCARDED = 0x40000000


def publish(object words, Py_ssize_t at, uint64_t value):
    """See ``elements.publish``."""
    cdef Py_buffer memory
    PyObject_GetBuffer(words, &memory, PyBUF_WRITABLE)
    try:
        if not 0 <= at < memory.len // 8:
            raise IndexError(at)
        store_release(<uint64_t *>memory.buf + at, value)
    finally:
        PyBuffer_Release(&memory)


cdef inline int _call(int command, void *what, uint32_t size) noexcept nogil:
    """0, or the error number."""
    return 0 if syscall(__NR_bpf, command, what, size) == 0 else errno


cdef object _refusal(int error):
    return OSError(error, os.strerror(error))


cdef class Elements:
    """See ``elements.Elements``."""

    def __init__(self, int fd, Py_ssize_t key_size, Py_ssize_t value_size):
        self.fd = fd
        self.key_size = key_size
        self.value_size = value_size

    cdef int _check(self, bytes key) except -1:
        if key is None or PyBytes_GET_SIZE(key) != self.key_size:
            raise ValueError(f"a key has {self.key_size} bytes, not {len(key)}")
        return 0

    cdef int _begin(self, element *what, bytes key) except -1:
        self._check(key)
        what.fd = self.fd
        what.pad = 0
        what.key = <uint64_t><uintptr_t>PyBytes_AS_STRING(key)
        what.value = 0
        what.flags = _ANY
        return 0

    cpdef get(self, bytes key):
        """See ``elements.Elements``."""
        cdef element what
        cdef int error
        cdef bytes value
        self._begin(&what, key)
        value = PyBytes_FromStringAndSize(NULL, self.value_size)
        what.value = <uint64_t><uintptr_t>PyBytes_AS_STRING(value)
        error = _call(_LOOKUP, &what, sizeof(what))
        if error == 0:
            return value
        if error == ENOENT:
            return None
        raise _refusal(error)

    cpdef int insert(self, bytes key, bytes value) except -1:
        """See ``elements.Elements``."""
        return self._update(key, value, _NOEXIST)

    cpdef put(self, bytes key, bytes value):
        """See ``elements.Elements``."""
        cdef int error = self._update(key, value, _ANY)
        if error:
            raise _refusal(error)

    cpdef delete(self, bytes key):
        """See ``elements.Elements``."""
        cdef element what
        cdef int error
        self._begin(&what, key)
        error = _call(_DELETE, &what, _DELETE_SIZE)
        if error and error != ENOENT:
            raise _refusal(error)
        return error == 0

    cpdef delete_each(self, list keys):
        """See ``elements.Elements``."""
        cdef batch what
        cdef int error
        cdef bytes key, joined
        cdef uint32_t done = 0, count = len(keys)
        for key in keys:
            self._check(key)
        joined = b"".join(keys)
        while done < count:
            what.first = what.next = what.values = what.element_flags = what.flags = 0
            what.keys = <uint64_t><uintptr_t>PyBytes_AS_STRING(joined) + done * self.key_size
            what.count = count - done
            what.fd = self.fd
            error = _call(_DELETE_BATCH, &what, sizeof(what))
            if error and error != ENOENT:
                raise _refusal(error)
            done += what.count + (error != 0)

    cdef int _update(self, bytes key, bytes value, uint64_t flags) except -1:
        cdef element what
        self._begin(&what, key)
        if value is None or PyBytes_GET_SIZE(value) != self.value_size:
            raise ValueError(f"a value has {self.value_size} bytes, not {len(value)}")
        what.value = <uint64_t><uintptr_t>PyBytes_AS_STRING(value)
        what.flags = flags
        return _call(_UPDATE, &what, sizeof(what))


cdef class Ring:
    """See ``ring.Ring``."""

    def __init__(self, int fd, uint64_t size):
        cdef void *at
        self._mask = size - 1
        self._page = sysconf(_SC_PAGESIZE)
        self._length = self._page + 2 * size
        at = mmap(NULL, self._page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
        if at == MAP_FAILED:
            raise _refusal(errno)
        self._consumer = <uint64_t *>at
        at = mmap(NULL, self._length, PROT_READ, MAP_SHARED, fd, <long>self._page)
        if at == MAP_FAILED:
            error = errno
            self.close()
            raise _refusal(error)
        self._producer = <uint64_t *>at
        self._data = <uint8_t *>at + self._page

    cpdef list read(self, Py_ssize_t most):
        """See ``ring.Ring``."""
        cdef uint64_t position, end
        cdef uint32_t head, size
        cdef uint8_t *at
        cdef list found = []
        if self._producer == NULL:
            raise ValueError("the ring is closed")
        position = self._consumer[0]
        end = load_acquire_64(self._producer)
        while position < end and len(found) < most:
            at = self._data + (position & self._mask)
            head = load_acquire_32(<uint32_t *>at)
            if head & _BUSY:
                break
            size = head & ~_DISCARDED
            if not head & _DISCARDED:
                found.append(PyBytes_FromStringAndSize(<char *>at + _HEAD, size))
            position += (<uint64_t>size + _HEAD + 7) & ~<uint64_t>7
        store_release(self._consumer, position)
        return found

    def close(self):
        """See ``ring.Ring``."""
        if self._consumer != NULL:
            munmap(self._consumer, self._page)
            self._consumer = NULL
        if self._producer != NULL:
            munmap(self._producer, self._length)
            self._producer = NULL
            self._data = NULL

    def __dealloc__(self):
        if self._consumer != NULL:
            munmap(self._consumer, self._page)
        if self._producer != NULL:
            munmap(self._producer, self._length)
