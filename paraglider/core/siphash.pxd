# Types of siphash.py where it is compiled; the meaning is documented there.
import cython
from libc.stdint cimport uint64_t

cdef uint64_t _WORD


@cython.locals(
    v0=uint64_t, v1=uint64_t, v2=uint64_t, v3=uint64_t, word=uint64_t, byte=uint64_t,
    size=Py_ssize_t, blocks=Py_ssize_t, block=Py_ssize_t, at=Py_ssize_t, _=int,
)
cpdef uint64_t siphash13(uint64_t first, uint64_t second, bytes data) except? 0
