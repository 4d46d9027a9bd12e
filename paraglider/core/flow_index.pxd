# Types of flow_index.py where it is compiled; the meaning is documented there.
import cython

from paraglider.core.compact_index cimport CompactIndex
from paraglider.core.flow cimport Flow

cdef int _MASK, _SHIFT
cdef Py_ssize_t _LOOSE, _LARGE


cdef class FlowIndex:
    cdef public object missing
    cdef public CompactIndex compact
    cdef public object expand
    cdef bint _reverse
    cdef int _trimmed
    cdef list _shards

    @cython.locals(shard=dict, flow=Flow, record="unsigned int")
    cpdef Flow get(self, bytes key)
    @cython.locals(shard=dict)
    cpdef bint has(self, bytes key) except -1
    @cython.locals(shard=dict)
    cpdef add(self, bytes key, Flow flow)
    @cython.locals(shard=dict)
    cpdef remove(self, bytes key)
