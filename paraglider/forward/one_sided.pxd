# Types of one_sided.py where it is compiled; the meaning is documented there.
import cython

from paraglider.core.flow cimport Flow
from paraglider.core.flow_index cimport FlowIndex
from paraglider.core.flow_table cimport FlowTable
from paraglider.core.tcp_events cimport client_event, is_replaced, segment_event
from paraglider.core.translation cimport Translation

# Constants that one_sided.py imports: C numbers here, so that comparing them costs nothing.
cdef int TCP, UDP
cdef int C_RST, C_SYN, CLIENT_DONE, ESTABLISHED, EVENTS, GROWTHS, OPENING
cdef int SYN_SENT, UDP_ANSWERED, UDP_NEW, UDP_OPEN
cdef bytes GROUP_OF, ONE_SIDED_NEXT
cdef int ACK, FIN, RST, SYN
cdef int ECHO_REPLY, ECHO_REQUEST, ICMP_ERROR


cdef class OneSidedDatapath:
    cdef public object balancer
    cdef public FlowTable flows
    cdef public object carrier
    cdef public list counts
    cdef public object opened
    cdef public object adopter
    cdef long long _bytes
    cdef dict _verdicts
    cdef bint _leased
    cdef long long _refused  # a mark makes it longer than 32 bits
    cdef FlowIndex _tcp
    cdef FlowIndex _udp

    @cython.locals(
        data="unsigned char *",
        first="unsigned char",
        protocol="unsigned char",
        transport=Py_ssize_t,
        key=bytes,
    )
    cpdef long long handle(
        self, bytearray buf, Py_ssize_t offset, Py_ssize_t length, int checksum, double now
    ) except -1
    @cython.locals(flow=Flow, state=int, event=int, after=int)
    cdef long long _segment(
        self, bytes key, bytearray buf, Py_ssize_t transport, double now
    ) except -1
    @cython.locals(flow=Flow, kind=int, event=int)
    cdef long long _first_segment(
        self, bytes key, bytearray buf, Py_ssize_t transport, double now
    ) except -1
    @cython.locals(flow=Flow)
    cdef long long _datagram(self, bytes key, double now) except -1
    @cython.locals(flow=Flow)
    cdef long long _echo(self, unsigned char protocol, bytes key, double now) except -1
    cdef Flow _live(self, Flow flow, double now)
    @cython.locals(translation=Translation)
    cdef long long _marked(self, Flow flow) except -1
    cdef long long _opened(self, Flow flow) except -1
    cdef long long _installed(self, Flow flow) except -1
    @cython.locals(translation=Translation)
    cdef Flow _open(self, unsigned char protocol, bytes key, double now, object before=*)
    cpdef long long refuse(self, int reason) except -1
