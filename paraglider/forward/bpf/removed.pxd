# Types of removed.py where it is compiled; the meaning is documented there.
cdef class RemovedKeys:
    cdef Py_ssize_t _most
    cdef set _keys
    cdef set _keys_before
    cdef int _all_doubtful

    cpdef add(self, bytes key)
    cpdef bint is_doubtful(self, bytes key) except -1
    cpdef ring_was_read(self)
