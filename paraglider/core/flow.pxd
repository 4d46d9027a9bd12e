# Types of flow.py where it is compiled; the meaning is documented there.
from paraglider.core.translation cimport Translation

# Constants that flow.py imports: C numbers here, so that comparing them costs nothing.
cdef int OPENING, GROWTHS
cdef bytes GROUP_OF


cdef class Flow:
    cdef public list bucket
    cdef public bytes forward_key
    cdef public bytes reverse_key
    cdef public Translation translation
    cdef public double seen
    cdef public unsigned int slot
    cdef public unsigned int record
    cdef public unsigned int expected
    cdef public unsigned int progress
    cdef public unsigned char protocol
    cdef public unsigned char state
    cdef public unsigned char proof
    cdef public unsigned char carried
