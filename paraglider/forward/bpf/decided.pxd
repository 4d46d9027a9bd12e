# Types of decided.py where it is compiled; the meaning is documented there.
import cython

from paraglider.core.flow cimport Flow
from paraglider.core.flow_table cimport FlowTable
from paraglider.core.translation cimport Translation
from paraglider.forward.bpf.closed cimport ClosedEntries
from paraglider.forward.bpf.flows cimport CarriedFlows

# Constants that decided.py imports: C numbers here, so that comparing them costs nothing.
cdef int ALIAS, CLOSED, DECIDED, TCP, UDP
cdef int ALIASED, NOT_CARRIED, PLAIN


cdef class DecidedFlows:
    cdef public object datapath
    cdef object _maps
    cdef CarriedFlows _flows
    cdef object _slots
    cdef ClosedEntries _closed
    cdef set _early
    cdef set _early_before

    @cython.locals(translation=Translation, flow=Flow, over=bint)
    cpdef bint handle_openings(
        self, int protocol, bytes key, Py_ssize_t openings, unsigned int flags, int slot, double now
    ) except -1
    cpdef added(self, Flow flow, entry)
    @cython.locals(translation=Translation)
    cpdef bint keeps_entry(
        self, int protocol, bytes key, entry, double now, bint counted
    ) except -1
    @cython.locals(translation=Translation)
    cpdef bint keeps_alias(self, int protocol, bytes reverse_key, entry) except -1
    cpdef ring_was_read(self)
    cpdef sync(self, double now)
    @cython.locals(table=FlowTable, flows=CarriedFlows, before=Flow, flow=Flow, reverse_key=bytes)
    cdef _open(self, int protocol, bytes key, Translation translation, unsigned int flags, double now)
    cdef _count(self, int protocol, bytes key, Translation translation)
    cdef _report(self, int protocol, bytes key, Translation translation)
    @cython.locals(flow=Flow)
    cdef _remove(self, int protocol, bytes key, Translation translation)


cpdef bytes forward_key(bytes reverse_key, Translation translation)
cdef bint _goes_to_vip(bytes key, Translation translation) except -1
