# Types of flow_table.py where it is compiled; the meaning is documented there.
import cython

from paraglider.core.flow cimport Flow
from paraglider.core.flow_index cimport FlowIndex
from paraglider.core.journal cimport Journal
from paraglider.core.timer_wheel cimport TimerWheel
from paraglider.core.translation cimport Translation

# Constants that flow_table.py imports or sets: C numbers here, so that comparing them costs nothing.
cdef int ACTIVE, OPENING, CLASSES, DONE_CLASS, GONE, GROWTHS, ICMP_OPEN, UDP_ANSWERED
cdef int _MOST_MOVES, _COMPARED
cdef long long _DONE_SHARE, _DONE_LEAST
cdef Py_hash_t _NETWORKS
cdef double _DONE_KEPT
cdef bytes CLASS_OF, GROUP_OF


cdef class FlowTable:
    cdef public object timeouts
    cdef tuple _seconds
    cdef public long long bound
    cdef public dict forward
    cdef public dict reverse
    cdef public long long evicted
    cdef public long long expired
    cdef public long long active
    cdef public long long opening
    cdef public long long closing
    cdef public Journal journal
    cdef public object carrier
    cdef public object unread
    cdef public long long reserved
    cdef public tuple compact
    cdef public int held
    cdef public bint damaged
    cdef public long long _count
    cdef public long long _done
    cdef public tuple _wheels
    cdef unsigned int[::1] _networks
    cdef public int _turn

    @cython.locals(idle=double, kind=int)
    cpdef bint make_room(self, unsigned char protocol, double now)
    @cython.locals(flow=Flow)
    cpdef Flow open(self, unsigned char protocol, bytes key, bytes reverse_key, Translation translation, double now)
    cpdef restore(self, Flow flow)
    @cython.locals(translation=Translation)
    cpdef add(self, Flow flow)
    @cython.locals(forward=FlowIndex, reverse=FlowIndex)
    cpdef attach(self, Flow flow)
    @cython.locals(forward=FlowIndex, reverse=FlowIndex)
    cpdef detach(self, Flow flow)
    cpdef lose(self, Translation translation)
    cpdef move(self, Flow flow, unsigned char state, double now)
    cpdef bint refresh(self, Flow flow) except -1
    cpdef bint fetch(self, unsigned char protocol, bytes key, double now) except -1
    @cython.locals(translation=Translation)
    cpdef _confirm(self, Flow flow)
    @cython.locals(translation=Translation)
    cpdef forget(self, Flow flow, double now)
    @cython.locals(checked="long long", flow=Flow, victim=Flow, bucket=list)
    cpdef long long expire(self, double now, long long budget=*)
    @cython.locals(
        flow=Flow, victim=Flow, most="long long", flows="long long", moves=int, compared=int
    )
    cpdef Flow _victim(self, TimerWheel wheel, double idle, double now)
    @cython.locals(seconds=double)
    cpdef double deadline(self, Flow flow) except? -1
    @cython.locals(kind=int, wheel=TimerWheel)
    cpdef _schedule(self, Flow flow)
    @cython.locals(bucket=list, last=Flow)
    cdef _unschedule(self, Flow flow)
    cdef _tally(self, Translation translation, int group, int change)


cdef Py_hash_t _network(bytes key) except -1
