# Types of journal.py where it is compiled; the meaning is documented there.
import cython

# Constants of journal.py, C numbers here: as wide as a place in the largest journal is far.
cdef Py_ssize_t _SIZE, _FIRST, _WORDS, _LINK, _IDENTITY, _KEY, _RECORDS, _HIGH, _COMPLETE, _ALIVE

cdef class Journal:
    cdef object _bytes
    cdef unsigned char[::1] view
    cdef unsigned int[::1] words
    cdef double[::1] _clock
    cdef object _reserve
    cdef bint _refused
    cdef unsigned int _reserved
    cdef unsigned int _high
    cdef unsigned int _free
    cdef public unsigned int records
    cdef public unsigned long long unwritten

    cpdef tick(self, double now)
    @cython.locals(number="unsigned int")
    cpdef unsigned int write(self, bytes identity, bytes key, unsigned char state) except? 0
    cpdef move(self, unsigned int number, unsigned char state)
    cpdef erase(self, unsigned int number)
    @cython.locals(
        size=Py_ssize_t, at=Py_ssize_t, ports=Py_ssize_t, other=Py_ssize_t, port=Py_ssize_t,
        byte=Py_ssize_t,
    )
    cpdef bint has_client(self, unsigned int number, bytes key, bint reverse) except -1
    @cython.locals(number="long long")
    cpdef reclaim(self)
    cpdef trim(self)
    @cython.locals(at=Py_ssize_t)
    cdef _fill(self, unsigned int number, bytes identity, bytes key, unsigned char state)
    cdef bint _more(self) except -1
