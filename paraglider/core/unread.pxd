# Types of unread.py where it is compiled; the meaning is documented there.
import cython

from paraglider.core.flow_table cimport FlowTable
from paraglider.core.journal cimport Journal
from paraglider.core.restore cimport Adding, Translations

cdef unsigned long long _64_BITS, _GOLDEN
cdef size_t _WORDS, _IDENTITY, _KEY, _STATE, _PORTS4, _PORTS6
cdef unsigned int _STATE_MASK, _PORT_SHIFT, _PORT_MASK


cdef class _IdentitySet:
    cdef unsigned long long[::1] _slots
    cdef unsigned long long _mask
    cdef bint any

    @cython.locals(wanted="unsigned long long", slot="unsigned long long")
    cdef bint has(self, unsigned long long high, unsigned long long low) except -1


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

    @cython.locals(
        journal=Journal, first="unsigned int[::1]", after="unsigned int[::1]",
        content="unsigned int[::1]", until="long long", left="long long", highest=size_t,
        number=size_t, at=size_t, group=size_t, mixed=bint,
        second="unsigned int", third="unsigned int", fourth="unsigned int", ports="unsigned int",
        mask="unsigned long long", shift=int, factor="unsigned long long",
        port_factor="unsigned long long", total="unsigned long long",
    )
    cpdef _sort(self, _IdentitySet long, beat)
    @cython.locals(total="unsigned long long")
    cdef Py_ssize_t _group(
        self, unsigned long long first, unsigned long long second, unsigned long long third,
        unsigned long long fourth, unsigned long long port,
    ) except -1
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
