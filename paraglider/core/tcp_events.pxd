# Types of tcp_events.py where it is compiled; the meaning is documented there.
import cython

from paraglider.core.flow cimport Flow
from paraglider.core.flow_table cimport FlowTable

# Constants that tcp_events.py imports: C numbers here, so that comparing them costs nothing.
cdef int B_ACK, B_FIN, B_RST, B_SYN_ACK, C_ACK, C_FIN, C_PROOF, C_RST, C_SYN, GROWTHS
cdef int CLIENT_DONE, CLIENT_RESET, GONE, RESET, SYN_RECEIVED, SYN_SENT, UNCONFIRMED
cdef int ACK, FIN, RST, SYN, TCP
cdef unsigned int _NUMBERS, _HALF, UNSEEN_WINDOW, WINDOW


cpdef bint is_replaced(FlowTable table, Flow flow, bytes key, int kind, double now) except -1


@cython.locals(before="unsigned int", known="unsigned int", unseen=bint, event=int)
cpdef int segment_event(
    FlowTable table,
    Flow flow,
    bytearray buf,
    Py_ssize_t transport,
    bint direct,
    bint leased,
    double now,
) except -2


@cython.locals(
    kind=int, near=bint, sequence="unsigned int", acknowledged="unsigned int", window="unsigned int"
)
cpdef int client_event(
    Flow flow,
    bytearray buf,
    Py_ssize_t transport,
    bint direct,
    bint unseen,
    double now,
    unsigned int before=*,
) except -2


@cython.locals(state=int, total="unsigned int", grown="unsigned int")
cdef int _one_sided(
    Flow flow, int kind, unsigned int sequence, unsigned int acknowledged, bint near, double now
) except -2


@cython.locals(kind=int)
cpdef int backend_event(Flow flow, bytearray buf, Py_ssize_t transport) except -2


cdef unsigned int _number(bytearray buf, Py_ssize_t at) except? 0


cdef bint _near(unsigned int one, unsigned int other, unsigned int window) noexcept
