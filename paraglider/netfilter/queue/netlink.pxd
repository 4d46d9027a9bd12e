# Types of netlink.py where it is compiled; the meaning is documented there.
import cython

from paraglider.netfilter.queue._batch cimport Batch

cdef int DROP, PASS, REWRITTEN


cdef class NetlinkQueueIO:
    cdef public int number
    cdef public long long packets
    cdef public long long batches
    cdef public long long faults
    cdef public object first_fault
    cdef public object drops
    cdef int _flags
    cdef object _socket
    cdef list _early
    cdef Batch _batch

    @cython.locals(batch=Batch, arena=bytearray, index=int, verdict="long long")
    cpdef _round(self, object handle, int count, double now)
