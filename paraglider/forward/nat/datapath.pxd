# Types of nat.py where it is compiled; the meaning is documented there.
import cython

from paraglider.core.flow cimport Flow
from paraglider.core.tcp_events cimport is_replaced
from paraglider.core.translation cimport Translation
from paraglider.forward.nat.flows cimport NatFlows

# Constants that nat.py imports or sets: C numbers here, so that comparing them costs nothing.
cdef int TCP, UDP, ICMP6
cdef int ESTABLISHED, UDP_ANSWERED, UDP_NEW, UDP_OPEN
cdef int FIN, SYN, RST, ACK
cdef int REWRITTEN
cdef int COMPLETE, KERNELS
cdef int ECHO_REPLY, ICMP_ERROR
cdef int COPY, LONGEST
cdef bint COMPILED


cdef class NatDatapath(NatFlows):
    @cython.locals(
        data="unsigned char *",
        first="unsigned char",
        kind=int,
        plain=bint,
        size=Py_ssize_t,
        end=Py_ssize_t,
        protocol="unsigned char",
        transport=Py_ssize_t,
        data_at=Py_ssize_t,
        speaks=bint,
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
