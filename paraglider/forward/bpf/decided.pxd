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
    cdef dict _early
    cdef dict _early_before

    @cython.locals(translation=Translation)
    cpdef bint handle_earlier(self, int protocol, bytes key, int slot) except -1
    @cython.locals(translation=Translation, flow=Flow)
    cpdef bint handle_opening(
        self, int protocol, bytes key, int slot, unsigned int flags, double now
    ) except -1
    cpdef added(self, Flow flow, entry)
    @cython.locals(table=FlowTable, flows=CarriedFlows, before=Flow, was_carried=int)
    cpdef bint end_closed(self, int protocol, bytes reverse_key, double now) except -1
    cpdef bint forget_replaced(self, Flow flow, entry, double now) except -1
    @cython.locals(translation=Translation)
    cpdef bint keeps_entry(
        self, int protocol, bytes key, entry, double now, bint counted
    ) except -1
    @cython.locals(translation=Translation)
    cpdef bint keeps_alias(self, int protocol, bytes reverse_key, entry) except -1
    cpdef ring_was_read(self)
    @cython.locals(key=bytes, translation=Translation)
    cpdef sync(self, double now)
    @cython.locals(early=dict)
    cdef bint _was_counted(self, int protocol, bytes key, int slot) except -1
    @cython.locals(table=FlowTable, flows=CarriedFlows, before=Flow)
    cdef _forget_before(self, int protocol, bytes key, double now)
    @cython.locals(table=FlowTable, flows=CarriedFlows, flow=Flow, reverse_key=bytes)
    cdef _open(self, int protocol, bytes key, Translation translation, unsigned int flags, double now)
    cdef _count(self, int protocol, bytes key, Translation translation)
    cdef _report(self, int protocol, bytes key, Translation translation)
    @cython.locals(flow=Flow, reverse_key=bytes)
    cdef _remove(self, int protocol, bytes key, Translation translation)


cdef bint _goes_to_vip(bytes key, Translation translation) except -1
