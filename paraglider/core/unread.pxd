# Types of unread.py where it is compiled; the meaning is documented there.
import cython

from paraglider.core.flow_table cimport FlowTable
from paraglider.core.journal cimport Journal
from paraglider.core.restore cimport Adding, Translations

cdef unsigned long long _64_BITS, _GOLDEN

@cython.locals(total="unsigned long long")
cdef unsigned long long group_of(
    unsigned long long first, unsigned long long second, unsigned long long third,
    unsigned long long fourth, unsigned long long port, unsigned long long[::1] factors, int shift,
) except? 0


cdef class Unread:
    cdef FlowTable _table
    cdef Journal _journal
    cdef Adding _adding
    cdef int _shift
    cdef Py_ssize_t _mask
    cdef bint _by_client
    cdef Py_ssize_t _at
    cdef unsigned int[::1] _first
    cdef unsigned int[::1] _after
    cdef unsigned long long[::1] _factors
    cdef public long long left
    cdef public long long read

    @cython.locals(size=Py_ssize_t)
    cpdef fetch(self, bytes key)
    @cython.locals(size=Py_ssize_t)
    cpdef fetch_reverse(self, bytes key)
    @cython.locals(before="long long")
    cpdef long long step(self, long long flows=*) except -1
    cpdef finish(self)
    cpdef _fetch(self, bytes client, bytes port)
    @cython.locals(
        number="unsigned int", record=tuple, state="unsigned char", identity=bytes, content=bytes
    )
    cpdef _read(self, Py_ssize_t group)
    cpdef _detach(self)
