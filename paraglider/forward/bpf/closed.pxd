# Types of closed.py where it is compiled; the meaning is documented there.
import cython

from paraglider.core.flow cimport Flow
from paraglider.core.flow_index cimport FlowIndex
from paraglider.core.translation cimport Translation
from paraglider.forward.bpf.flows cimport CarriedFlows

# Constants that closed.py imports or sets: C numbers here, so that comparing them costs nothing.
cdef int CLOSED, TCP
cdef double _FRESH, _LINGER
cdef Py_ssize_t _KEY4, _MOST_CLOSED, _REMOVALS


cdef class ClosedEntries:
    cdef object _maps4
    cdef object _maps6
    cdef CarriedFlows _flows
    cdef object _slots
    cdef double _added
    cdef dict _batch
    cdef object _batches
    cdef dict _batch_of

    @cython.locals(batch=dict)
    cpdef add(self, bytes key, Translation translation, double now)
    @cython.locals(batch=dict)
    cpdef discard(self, bytes key)
    @cython.locals(
        four=list, six=list, keys=list, batch=dict, key=bytes, translation=Translation, flow=Flow,
        left=Py_ssize_t, due=double, value=bytes, again=list, alias=bytes,
    )
    cpdef sync(self, double now)
