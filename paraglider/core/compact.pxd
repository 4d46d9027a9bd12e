# Types of compact.py where it is compiled; the meaning is documented there.
import cython

from paraglider.core.compact_index cimport CompactIndex
from paraglider.core.flow cimport Flow
from paraglider.core.flow_index cimport FlowIndex
from paraglider.core.flow_table cimport FlowTable
from paraglider.core.journal cimport Journal
from paraglider.core.translation cimport Translation

cdef int GONE, _EXPANDED
cdef Py_ssize_t _KEY
cdef unsigned int _END


cdef class CompactFlows:
    cdef public CompactIndex index
    cdef public unsigned char state
    cdef public unsigned char protocol
    cdef FlowTable _table
    cdef Journal _journal
    cdef unsigned int[::1] _later
    cdef dict _lists
    cdef list _seconds
    cdef list _unprepared
    cdef dict _translations
    cdef list _flows
    cdef list _free
    cdef dict _numbers

    @cython.locals(
        number="unsigned short", record="unsigned int", table=FlowTable, found=tuple, wanted=tuple,
    )
    cpdef bint add(self, Flow flow) except -1
    cpdef bint prepare(self, Py_ssize_t most) except -1
    @cython.locals(
        number="unsigned short", translation=Translation, found=tuple, content=bytes, key=bytes,
        identity=bytes, state="unsigned char", size=Py_ssize_t, intact=bint, table=FlowTable,
        flow=Flow, back=bytes, forward=FlowIndex, reverse=FlowIndex,
    )
    cpdef Flow expand(self, unsigned int record)
    @cython.locals(record="unsigned int")
    cpdef object translation_of(self, bytes key)
    @cython.locals(checked="long long", record="unsigned int", flow=Flow)
    cpdef long long expire(self, double now, long long budget) except -1
    @cython.locals(record="unsigned int")
    cpdef expand_idle(self, double now, double idle)
    @cython.locals(record="unsigned int", expanded="long long")
    cpdef long long step(self, long long flows) except -1
    @cython.locals(due="long long", first="unsigned int")
    cpdef _schedule(self, unsigned int record, double deadline)
    @cython.locals(following="unsigned int", record="unsigned int")
    cpdef unsigned int _take(self, double now) except? 0
    @cython.locals(number="unsigned short")
    cpdef unsigned short _number(self, Translation translation) except? 0
    @cython.locals(translation=Translation)
    cpdef _release(self, unsigned short number)
