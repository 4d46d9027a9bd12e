# Types of restore.py where it is compiled; the meaning is documented there.
import cython

from paraglider.core.flow cimport Flow
from paraglider.core.flow_index cimport FlowIndex
from paraglider.core.flow_table cimport FlowTable
from paraglider.core.journal cimport Journal
from paraglider.core.translation cimport Translation


cdef class Translations:
    cdef object _services
    cdef dict _rewrites
    cdef dict _sizes
    cdef dict _found

    @cython.locals(size=Py_ssize_t, end=Py_ssize_t, vip=bytes, port=bytes)
    cpdef tuple of(self, unsigned char state, bytes identity, bytes content)
    cpdef Py_ssize_t size_of(self, bytes identity) except -1


cdef class Adding:
    cdef FlowTable _table
    cdef Journal _journal
    cdef Translations _translations
    cdef list _over
    cdef double _seen
    cdef double _now
    cdef bint _in_place
    cdef public long long kept
    cdef public long long unknown
    cdef public long long expired

    @cython.locals(
        protocol="unsigned char", translation=Translation, key=bytes, reverse_key=bytes, flow=Flow
    )
    cpdef add(self, unsigned int number, unsigned char state, bytes identity, bytes content)


@cython.locals(
    adding=Adding, flows="long long", number="unsigned int", state="unsigned char", identity=bytes,
    content=bytes,
)
cdef _restore(
    FlowTable table, Journal journal, Translations translations, double now, restored, beat
)
@cython.locals(translation=Translation, forward=FlowIndex, reverse=FlowIndex)
cdef bint _fits(FlowTable table, Flow flow) except -1
