# Types of compact_index.py where it is compiled; the meaning is documented there.
import cython

from paraglider.core.journal cimport Journal

cdef unsigned long long _MASK
cdef unsigned short _DAMAGED


cdef class CompactIndex:
    cdef public Py_ssize_t count
    cdef public tuple memory
    cdef Py_ssize_t _damaged
    cdef Journal _journal
    cdef int _shift
    cdef unsigned int[::1] _first
    cdef unsigned int[::1] _after
    cdef unsigned short[::1] _numbers
    cdef unsigned long long[::1] _factors

    @cython.locals(group=Py_ssize_t)
    cpdef add(self, unsigned int record, bytes key, unsigned short number)
    cpdef bint may_add(self, unsigned int record) except -1
    @cython.locals(number="unsigned short")
    cpdef unsigned short number(self, unsigned int record) except? 0
    @cython.locals(record="unsigned int")
    cpdef unsigned int find(self, bytes key, bint reverse) except? 0
    cpdef remove(self, unsigned int record, bytes key)
    @cython.locals(highest="unsigned int", following="unsigned int")
    cpdef unsigned int next(self, unsigned int record) except? 0
    @cython.locals(before="unsigned int", found="unsigned int")
    cdef bint _unlink(self, Py_ssize_t group, unsigned int record) except -1
    @cython.locals(
        size=Py_ssize_t, at=Py_ssize_t, port=Py_ssize_t, word=Py_ssize_t,
        total="unsigned long long", number="unsigned long long", _=int,
    )
    cdef Py_ssize_t _group(self, bytes key, bint reverse) except -1
