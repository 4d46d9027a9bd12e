# Types of _maps.pyx, for the compiled modules that use them.
from libc.stdint cimport uint32_t, uint64_t, uint8_t


cdef struct element:
    uint32_t fd
    uint32_t pad
    uint64_t key
    uint64_t value
    uint64_t flags


cdef class Elements:
    cdef readonly int fd
    cdef readonly Py_ssize_t key_size
    cdef readonly Py_ssize_t value_size

    cdef int _check(self, bytes key) except -1
    cdef int _begin(self, element *what, bytes key) except -1
    cdef int _update(self, bytes key, bytes value, uint64_t flags) except -1
    cpdef get(self, bytes key)
    cpdef int insert(self, bytes key, bytes value) except -1
    cpdef put(self, bytes key, bytes value)
    cpdef delete(self, bytes key)
    cpdef delete_each(self, list keys)


cdef class Ring:
    cdef uint64_t *_consumer
    cdef uint64_t *_producer
    cdef uint8_t *_data
    cdef uint64_t _mask
    cdef size_t _page
    cdef size_t _length

    cpdef list read(self, Py_ssize_t most)
