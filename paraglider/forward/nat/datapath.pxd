# Types of nat.py where it is compiled; the meaning is documented there.
import cython

from paraglider.core.flow cimport Flow
from paraglider.core.flow_index cimport FlowIndex
from paraglider.core.flow_table cimport FlowTable
from paraglider.core.translation cimport Translation
from paraglider.core.tcp_events cimport backend_event, segment_event

# Constants that nat.py imports or sets: C numbers here, so that comparing them costs nothing.
cdef int TCP, UDP, ICMP6
cdef int ESTABLISHED, SYN_SENT, UDP_ANSWERED, UDP_NEW, UDP_OPEN
cdef int B_RST, C_SYN, EVENTS
cdef bytes ONE_SIDED_NEXT, TWO_SIDED_NEXT
cdef int FIN, SYN, RST, ACK
cdef int PASS, REWRITTEN
cdef int COMPLETE, KERNELS
cdef int ECHO_REPLY, ICMP_ERROR
cdef int COPY, LONGEST
cdef bint COMPILED


cdef class NatDatapath:
    cdef public object balancer
    cdef public object others
    cdef public object carrier
    cdef public FlowTable flows
    cdef public list counts
    cdef public object opened
    cdef public unsigned int _sequence
    cdef public long long _refused  # a mark makes it longer than 32 bits
    cdef FlowIndex _tcp_forward
    cdef FlowIndex _tcp_reverse
    cdef FlowIndex _udp_forward
    cdef FlowIndex _udp_reverse

    @cython.locals(
        data="unsigned char *",
        first="unsigned char",
        kind=int,
        plain=bint,
        size=Py_ssize_t,
        end=Py_ssize_t,
        protocol="unsigned char",
        transport=Py_ssize_t,
        four=bint,
        cut=bint,
        key=bytes,
        flow=Flow,
        back=Flow,
        flags="unsigned char",
        opening=bint,
        translation=Translation,
        change="long long",
        transport_change="long long",
        value="long long",
        at=Py_ssize_t,
        address=bytes,
        index=Py_ssize_t,
    )
    cpdef long long handle(
        self, bytearray buf, Py_ssize_t offset, Py_ssize_t length, int checksum, double now
    ) except -1
    @cython.locals(event=int, state=int, after=int, direct=bint)
    cdef Flow _client_segment(
        self, Flow flow, bytearray buf, Py_ssize_t transport, bytes key, double now
    )
    @cython.locals(event=int, after=int)
    cdef _backend_segment(self, Flow flow, bytearray buf, Py_ssize_t transport, double now)
    @cython.locals(translation=Translation)
    cdef _client_datagram(self, Flow flow, double now)
    cdef Flow _reopen(self, Flow flow, bint opening, double now)
    cpdef int _refuse(self, int reason) except -1


@cython.locals(total="long long", value="long long")
cdef long long _full_checksum(
    bytearray buf,
    Py_ssize_t source,
    Py_ssize_t size,
    Py_ssize_t transport,
    Py_ssize_t end,
    Py_ssize_t at,
    int protocol,
) except -1
