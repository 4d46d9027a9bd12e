# Types of timer_wheel.py where it is compiled; the meaning is documented there.
import cython

from paraglider.core.flow cimport Flow


cdef class TimerWheel:
    cdef public dict _buckets
    cdef public list _seconds
    cdef public long long _hand
    cdef public Py_ssize_t _at
    cdef public long long _of

    @cython.locals(due="long long", bucket=list)
    cpdef add(self, Flow flow, double deadline)
    cpdef list due(self, double now)
    cpdef object first(self)
    @cython.locals(bucket=list, flow=Flow)
    cpdef Flow candidate(self, long long second)
    cpdef continue_at(self, unsigned int slot)
