# Types of flows.py where it is compiled; the meaning is documented there.
import cython

from paraglider.bpf._maps cimport Elements
from paraglider.core.flow cimport Flow
from paraglider.core.flow_table cimport FlowTable
from paraglider.core.translation cimport Translation
from paraglider.forward.bpf.entry cimport (
    evidence_of, flags_of, is_later, seen_states, set_numbers, ticks_of,
)
from paraglider.forward.bpf.removed cimport RemovedKeys

# Constants that flows.py imports or sets: C numbers here, so that comparing them costs nothing.
cdef int ALIASED, NOT_CARRIED, PLAIN, UNKNOWN
cdef int ALIAS, CLOSED, DECIDED, DIRECT, EEXIST, NONE, PROVEN, REPLIED, TCP
cdef int SYN_SENT
cdef Py_ssize_t _KEY4
cdef bytes COMPACTED


cdef class CarriedFlows:
    cdef public bint on
    cdef public long long count
    cdef public list lasting
    cdef public long long expanded
    cdef public bint handling
    cdef public long long refused
    cdef public object refusals
    cdef public list replaced
    cdef double _report_at
    cdef dict _maps4
    cdef dict _maps6
    cdef object _slots
    cdef public FlowTable table
    cdef RemovedKeys _removed
    cdef int _worker
    cdef int _workers
    cdef unsigned int _entry_flags
    cdef bint _deferring
    cdef list _closed
    cdef long long _ticks
    cdef dict _new_values

    @cython.locals(
        flags=int, ticks="unsigned int", slot="unsigned int", expected="unsigned int",
        progress="unsigned int", value=bytes,
    )
    cpdef install(self, Flow flow)
    @cython.locals(flags=int)
    cpdef moved(self, Flow flow)
    @cython.locals(value=bytes)
    cpdef object read(self, Flow flow)
    @cython.locals(seen=double, state=int)
    cpdef bint update(self, Flow flow, entry) except -1
    cpdef handle_event(self, Flow flow, unsigned int flags, double now)
    @cython.locals(
        closed=list, flows=Elements, keys=list, key=bytes, alias=bytes, translation=Translation,
    )
    cpdef flush(self)
    @cython.locals(flows=Elements)
    cpdef remove(self, Flow flow)
    @cython.locals(flags="unsigned int")
    cpdef bint is_replaced(self, Flow flow, entry) except -1
    cdef Elements _map_of(self, Flow flow)
    @cython.locals(after=int)
    cdef _apply_flags(self, Flow flow, unsigned int flags, packets_out, packets_back)
    @cython.locals(translation=Translation, flows=Elements, key=bytes, error=int)
    cdef _insert(self, Flow flow, bytes value)
    @cython.locals(error=int)
    cdef int _insert_alias(self, Flow flow, Elements flows) except? -1
    @cython.locals(key=bytes)
    cpdef discard_each(self, entries, list keys)
    cpdef set_carried(self, Flow flow, int carried)
