# cython: language_level=3, boundscheck=False, wraparound=False
"""The compiled twin of ``batch``, which documents the interface and the rules.

One recvmmsg reads a round. Offsets into messages are those of ``messages``; every read stays within
the message that the kernel has sent, and its payload within its slot.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int32_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

from paraglider.netfilter.queue import messages
from paraglider.netfilter.queue.batch import CHECKSUM_STATES, FLUSH, ROUND, SLOT

cdef extern from "<sys/socket.h>" nogil:
    int recvmmsg(int fd, mmsghdr *messages, unsigned int count, int flags, void *timeout)
    ssize_t sendmsg(int fd, const msghdr *message, int flags)
    int MSG_DONTWAIT

cdef extern from "<arpa/inet.h>" nogil:
    uint32_t htonl(uint32_t number)

if (ROUND, SLOT, FLUSH) != (_ROUND, _SLOT, _FLUSH):
    raise ImportError("the compiled batch was built with other sizes than batch.py has")

cdef enum:
    _HEAD = 20
    _VERDICT_HEAD = 36

cdef uint16_t _PACKET_TYPE = messages.NFNL_SUBSYS_QUEUE << 8 | messages.NFQNL_MSG_PACKET
cdef uint16_t _ERROR_TYPE = messages.NLMSG_ERROR
cdef uint16_t _PAYLOAD = messages.NFQA_PAYLOAD
cdef uint16_t _INFO = messages.NFQA_SKB_INFO
cdef uint16_t _MARK = messages.NFQA_MARK
cdef int[4] _STATES = CHECKSUM_STATES


cdef inline uint16_t _u16(const unsigned char *at) noexcept nogil:
    cdef uint16_t number
    memcpy(&number, at, 2)
    return number


cdef class Batch:
    """Rounds of packets of one queue over the socket that reads it; see ``batch.Batch``."""

    def __init__(self, sock, int queue):
        cdef int i
        self._fd = sock.fileno()
        self.arena = bytearray(_ROUND * _SLOT)
        self._base = <unsigned char *>PyByteArray_AS_STRING(self.arena)
        memset(self._messages, 0, sizeof(self._messages))
        for i in range(_ROUND):
            self._slots[i].iov_base = self._base + i * _SLOT
            self._slots[i].iov_len = _SLOT
            self._messages[i].msg_hdr.msg_iov = &self._slots[i]
            self._messages[i].msg_hdr.msg_iovlen = 1
        self.checksum = _STATES[0]
        cdef bytes accept = messages.verdict_constant(queue, messages.NF_ACCEPT)
        cdef bytes drop = messages.verdict_constant(queue, messages.NF_DROP)
        memcpy(self._accept, <char *>accept, 24)
        memcpy(self._drop, <char *>drop, 24)

    cpdef int receive(self, int limit) except -1:
        """Read up to ``limit`` messages without blocking; return how many were read."""
        cdef int got, i
        if limit > _ROUND:
            limit = _ROUND
        got = recvmmsg(self._fd, self._messages, limit, MSG_DONTWAIT, NULL)
        if got < 0:
            if errno == EINTR:
                PyErr_CheckSignals()
            elif errno != EAGAIN:
                PyErr_SetFromErrno(OSError)
            return 0
        for i in range(got):
            self._sizes[i] = self._messages[i].msg_len
        return got

    cpdef load(self, bytes message):
        """Put ``message`` into slot 0, as if it had been received."""
        memcpy(self._base, <char *>message, min(len(message), <Py_ssize_t>_SLOT))
        self._sizes[0] = len(message)

    cpdef bint open(self, int index) except -1:
        """Find the packet in slot ``index``; False when the message there carries none."""
        cdef unsigned char *message = self._base + index * _SLOT
        cdef Py_ssize_t size = self._sizes[index]
        cdef Py_ssize_t at = _HEAD
        cdef uint16_t kind
        cdef int32_t code
        cdef int info = 0
        if size < _HEAD or _u16(message + 4) != _PACKET_TYPE:
            if size >= _HEAD and _u16(message + 4) == _ERROR_TYPE:
                memcpy(&code, message + 16, 4)
                if code != 0:
                    self.refused += 1
            return False
        self.checksum = _STATES[0]
        while at + 4 <= size:
            kind = _u16(message + at + 2)
            if kind == _PAYLOAD:
                at += 4
                break
            if kind == _INFO:
                self.checksum = _STATES[message[at + 7] & 3]
            at += max((_u16(message + at) + 3) & ~3, 4)
        else:
            at = size
        self._index = index
        self.payload = index * _SLOT + at
        self.length = size - at
        return True

    cpdef rewritten(self):
        """Accept the packet as it is in the arena now."""
        cdef unsigned char *start = self._base + self.payload - _VERDICT_HEAD
        cdef uint32_t size = _VERDICT_HEAD + ((self.length + 3) & ~3)
        cdef uint16_t length = 4 + self.length
        cdef uint32_t packet_id
        memcpy(&packet_id, self._base + self._index * _SLOT + 24, 4)
        memcpy(start, &size, 4)
        memcpy(start + 4, self._accept, 24)
        memcpy(start + 28, &packet_id, 4)
        memcpy(start + 32, &length, 2)
        memcpy(start + 34, &_PAYLOAD, 2)
        self._add(start, size)

    cpdef marked(self, unsigned int mark):
        """Accept the packet unchanged, with ``mark``."""
        cdef unsigned char *start = self._bare[self._index]
        cdef uint32_t size = _BARE
        cdef uint16_t length = 8
        mark = htonl(mark)
        memcpy(start, &size, 4)
        memcpy(start + 4, self._accept, 24)
        memcpy(start + 28, self._base + self._index * _SLOT + 24, 4)
        memcpy(start + 32, &length, 2)
        memcpy(start + 34, &_MARK, 2)
        memcpy(start + 36, &mark, 4)
        self._add(start, size)

    cpdef dropped(self):
        """Drop the packet."""
        cdef unsigned char *start = self._bare[self._index]
        cdef uint32_t size = 32
        memcpy(start, &size, 4)
        memcpy(start + 4, self._drop, 24)
        memcpy(start + 28, self._base + self._index * _SLOT + 24, 4)
        self._add(start, size)

    cpdef flush(self):
        """Send the verdicts given, in order, in one system call."""
        cdef msghdr message
        cdef ssize_t sent
        if self._count == 0:
            return
        memset(&message, 0, sizeof(message))
        message.msg_iov = self._out
        message.msg_iovlen = self._count
        self._count = 0
        self._bytes = 0
        with nogil:
            sent = sendmsg(self._fd, &message, 0)
        if sent < 0:
            PyErr_SetFromErrno(OSError)

    cdef _add(self, void *base, size_t size):
        self._out[self._count].iov_base = base
        self._out[self._count].iov_len = size
        self._count += 1
        self._bytes += size
        if self._bytes >= _FLUSH or self._count == _ROUND:
            self.flush()
