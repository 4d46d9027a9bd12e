# Types of _batch.pyx.
cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<sys/socket.h>" nogil:
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len

cdef enum:
    _ROUND = 64
    _SLOT = 69632
    _FLUSH = 196608
    _BARE = 40


cdef class Batch:
    cdef readonly bytearray arena
    cdef readonly Py_ssize_t payload
    cdef readonly Py_ssize_t length
    cdef readonly int checksum
    cdef readonly long long refused
    cdef int _fd
    cdef int _index
    cdef int _count
    cdef Py_ssize_t _bytes
    cdef unsigned char *_base
    cdef unsigned int _sizes[_ROUND]
    cdef iovec _slots[_ROUND]
    cdef mmsghdr _messages[_ROUND]
    cdef iovec _out[_ROUND]
    cdef unsigned char _accept[24]
    cdef unsigned char _drop[24]
    cdef unsigned char _bare[_ROUND][_BARE]

    cpdef int receive(self, int limit) except -1
    cpdef load(self, bytes message)
    cpdef bint open(self, int index) except -1
    cpdef rewritten(self)
    cpdef marked(self, unsigned int mark)
    cpdef dropped(self)
    cpdef flush(self)
    cdef _add(self, void *base, size_t size)
