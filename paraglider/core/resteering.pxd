# Types of resteering.py where it is compiled; the meaning is documented there.
import cython

from paraglider.core.hmark cimport WorkerShare
from paraglider.core.journal cimport Journal
from paraglider.core.restore cimport Translations


@cython.locals(
    copying=_Copying, alive=double, flows="long long", other=Journal, state="unsigned char",
    identity=bytes, content=bytes, size=Py_ssize_t, ported=bint, port="unsigned int",
)
cpdef take_over(
    Journal journal, others, Translations translations, WorkerShare share, beat=*
)


cdef class _Copying:
    cdef Journal _journal
    cdef unsigned int _next
    cdef public long long refused

    cdef bint add(self, unsigned char state, bytes identity, bytes content) except -1
    @cython.locals(number="unsigned int", record=tuple)
    cdef bint _make_room(self) except -1
