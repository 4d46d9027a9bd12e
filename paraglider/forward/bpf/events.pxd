# Types of events.py where it is compiled; the meaning is documented there.
import cython

from paraglider.core.flow cimport Flow
from paraglider.core.flow_index cimport FlowIndex
from paraglider.forward.bpf.decided cimport DecidedFlows
from paraglider.forward.bpf.flows cimport CarriedFlows
from paraglider.forward.bpf.removed cimport RemovedKeys

# Constants that events.py imports or sets: C numbers here, so that comparing them costs nothing.
cdef int ALIASED, CLOSED, EVENT_OPENED, PLAIN, TCP, UDP, UNKNOWN
cdef Py_ssize_t _MOST, _MOST_WHILE_WAITING, _PORTION, _OPENING, _AN_ENTRY, _EXPANSION, _EXPANSIONS, _SLOT, _SLOT_END, _KEY, _KEY_END4, _KEY_END6


cdef class FlowEvents:
    cdef public Py_ssize_t count
    cdef public bint overflowed
    cdef dict _waiting
    cdef dict _left
    cdef Py_ssize_t _expanded
    cdef object _ring
    cdef RemovedKeys _removed
    cdef object _ahead
    cdef list _carried
    cdef list _decided
    cdef list _tables

    cpdef add(self, CarriedFlows flows, DecidedFlows decided)
    @cython.locals(
        records=list, flows=CarriedFlows, most=Py_ssize_t, work=Py_ssize_t, ended=bint, key=bytes,
        portion=Py_ssize_t,
    )
    cpdef list read(self, double now, Py_ssize_t entries=*)
    @cython.locals(
        last=dict, opened=dict, datagrams=dict, some=dict, record=bytes, key=bytes, flags=int,
        slot=int, protocol=int, work=Py_ssize_t, earlier=list, decided=DecidedFlows,
    )
    cdef Py_ssize_t _handle(self, list records, double now) except -1
    @cython.locals(
        left=dict, key=bytes, flow=Flow, flags=int, known=bint, at=Py_ssize_t, table=FlowIndex,
        flows=CarriedFlows, expanded="long long", handled=Py_ssize_t,
    )
    cdef _handle_left(self, double now)
    @cython.locals(decided=DecidedFlows)
    cdef _handle_opening(self, int protocol, bytes key, int slot, int flags, double now)
    cdef _wait(self, bytes key)
