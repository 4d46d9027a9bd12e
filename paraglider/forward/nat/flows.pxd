# Types of flows.py where it is compiled; the meaning is documented there.
import cython

from paraglider.core.flow cimport Flow
from paraglider.core.flow_index cimport FlowIndex
from paraglider.core.flow_table cimport FlowTable
from paraglider.core.tcp_events cimport backend_event, segment_event
from paraglider.core.translation cimport Translation

# Constants that flows.py imports: C numbers here, so that comparing them costs nothing.
cdef int TCP, UDP
cdef int ADOPTED_BACKEND, ADOPTED_BACKEND_FIN, SYN_SENT, UDP_ANSWERED, UDP_OPEN
cdef int ACK, RST
cdef int B_RST, C_SYN, EVENTS
cdef bytes ONE_SIDED_NEXT, TWO_SIDED_NEXT
cdef int PASS


cdef class NatFlows:
    cdef public object balancer
    cdef public object others
    cdef public object carrier
    cdef public FlowTable flows
    cdef public object adopter
    cdef public list counts
    cdef public object opened
    cdef public unsigned int _sequence
    cdef public long long _refused  # a mark makes it longer than 32 bits
    cdef FlowIndex _tcp_forward
    cdef FlowIndex _tcp_reverse
    cdef FlowIndex _udp_forward
    cdef FlowIndex _udp_reverse

    @cython.locals(event=int, state=int, after=int, direct=bint)
    cdef Flow _client_segment(
        self, Flow flow, bytearray buf, Py_ssize_t transport, bytes key, double now
    )
    @cython.locals(event=int, after=int)
    cdef bint _backend_segment(self, Flow flow, bytearray buf, Py_ssize_t transport, double now) except -1
    cdef bint _goes_on(self, Flow flow, int kind, double now) except -1
    cdef bint _is_own(self, Flow flow, double now) except -1
    cdef _end_own(self, Flow flow, double now)
    @cython.locals(translation=Translation)
    cdef _client_datagram(self, Flow flow, double now)
    cdef Flow _reopen(self, Flow flow, bint opening, double now)
    @cython.locals(flow=Flow)
    cdef Flow _adopt(self, service, int protocol, bytes key, double now, bint speaks=*)
    cdef Flow _first_datagram(self, bytes key, double now)
    cpdef int _refuse(self, int reason) except -1


cdef bint _is_backends(int state) noexcept
