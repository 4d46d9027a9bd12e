# Types of hmark.py where it is compiled; the meaning is documented there.
import cython
from libc.stdint cimport uint32_t, uint64_t

cdef uint32_t _WORD, _SEED


@cython.locals(
    a=uint32_t, b=uint32_t, c=uint32_t, word=uint32_t, byte=uint32_t, at=Py_ssize_t
)
cpdef uint32_t worker_of(bytes client, uint32_t port, uint32_t seed, uint64_t workers) except? 0


cdef class WorkerShare:
    cdef uint32_t _worker
    cdef uint32_t _workers
    cdef uint32_t _seed
    cdef bint _by_client4
    cdef bint _by_client6

    @cython.locals(by_client=bint, found=uint32_t)
    cpdef bint has(self, bytes client, uint32_t port) except -1
