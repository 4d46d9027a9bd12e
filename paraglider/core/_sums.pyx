# cython: language_level=3, boundscheck=False, wraparound=False
"""The compiled twin of ``checksum.sum_of``, which documents it."""

from libc.stdint cimport uint64_t


def sum_of(bytearray buf, Py_ssize_t start, Py_ssize_t stop):
    """One's-complement sum of ``buf[start:stop]`` as big-endian 16-bit words, modulo 65,535."""
    cdef const unsigned char *data = buf
    cdef uint64_t total = 0
    cdef Py_ssize_t at
    if start < 0 or stop > len(buf) or start > stop:
        raise IndexError("the bytes to sum are not all in the buffer")
    for at in range(start, stop - 1, 2):
        total += <uint64_t>data[at] << 8 | data[at + 1]
    if (stop - start) & 1:
        total += <uint64_t>data[stop - 1] << 8
    return total % 65535
