# Types of flow.py where it is compiled; the meaning is documented there.
import cython

from paraglider.core.ledger cimport Ledger
from paraglider.core.rewrite cimport Rewrite


cdef class Flow:
    cdef public list bucket
    cdef public bytes forward_key
    cdef public bytes reverse_key
    cdef public Rewrite rewrite
    cdef public double seen
    cdef public unsigned int slot
    cdef public unsigned int record
    cdef public unsigned char protocol
    cdef public unsigned char state


cdef class Wheel:
    cdef public dict _buckets
    cdef public list _seconds
    cdef public long long _hand

    @cython.locals(due="long long", bucket=list)
    cpdef add(self, Flow flow, double deadline)
    cpdef list due(self, double now)
    cpdef object first(self)


@cython.locals(bucket=list, last=Flow)
cdef _leave(Flow flow)


cdef class FlowTable:
    cdef public object timeouts
    cdef tuple _seconds
    cdef public long long bound
    cdef public dict forward
    cdef public dict reverse
    cdef public long long evicted
    cdef public long long expired
    cdef public Ledger ledger
    cdef public long long _count
    cdef public tuple _wheels
    cdef public int _turn

    cpdef bint make_room(self, double now)
    @cython.locals(flow=Flow)
    cpdef Flow open(self, unsigned char protocol, bytes key, bytes reverse_key, Rewrite rewrite, double now)
    @cython.locals(protocol="unsigned char", rewrite=Rewrite)
    cpdef enter(self, Flow flow)
    cpdef move(self, Flow flow, unsigned char state, double now)
    @cython.locals(rewrite=Rewrite)
    cpdef _confirm(self, Flow flow)
    @cython.locals(rewrite=Rewrite)
    cpdef forget(self, Flow flow, double now)
    @cython.locals(looked="long long", flow=Flow, bucket=list)
    cpdef long long expire(self, double now, long long budget=*)
    @cython.locals(flow=Flow)
    cpdef Flow _nearest(self, Wheel wheel)
    @cython.locals(deadline=double)
    cpdef _schedule(self, Flow flow)
