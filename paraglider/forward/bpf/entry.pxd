# Types of entry.py where it is compiled; the meaning is documented there.
import cython

from paraglider.core.flow cimport Flow
from paraglider.core.translation cimport Translation

# Constants that entry.py imports: C numbers here, so that comparing them costs nothing.
cdef int TCP, TICK_SHIFT
cdef int CLOSED, DECIDED, DIRECT, FIN_BACK, FIN_OUT, GROWN, PROVEN, REPLIED
cdef int ESTABLISHED, FIN_BACKEND, FIN_CLIENT, SYN_RECEIVED, SYN_SENT, TIME_WAIT
cdef int OPENING
cdef bytes GROUP_OF
cdef int CLIENT_DONE, UNCONFIRMED, UDP_ANSWERED, UDP_NEW, UDP_OPEN
cdef double _NANOSECONDS


@cython.locals(nanoseconds="long long")
cpdef unsigned int ticks_of(double seconds)
@cython.locals(translation=Translation)
cpdef int flags_of(Flow flow) except? -2
cpdef int evidence_of(Flow flow) except? -2
cpdef bint is_later(bytes value, int slot) except -1
cpdef set_numbers(Flow flow, entry)
cpdef int one_sided_state(int protocol, unsigned int flags, packets_out) except? -2
@cython.locals(state=int, last=int)
cpdef list seen_states(Flow flow, unsigned int flags, packets_out, packets_back)
