# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The compiled twin of ``unread.sort_records``, which documents it.

Fetching the records ahead and C constants take a third of its time: the processor fetches ahead by
itself up to the end of a page only, and a page has 85 records.
"""

from paraglider.core.journal cimport Journal

cdef extern from *:
    void __builtin_prefetch(const void *where) nogil

# Places as in ``unread``, in words of four bytes.
cdef enum:
    WORDS = 12
    STATE = 4
    IDENTITY = 5
    KEY = 7
    PORTS4 = 9
    PORTS6 = 15
    AHEAD = 40  # records: half a page

cdef enum:
    GOLDEN_HIGH = 0x9E3779B9
    GOLDEN_LOW = 0x7F4A7C15


cdef inline bint has(
    const unsigned long long[::1] slots, unsigned long long high, unsigned long long low
) noexcept:
    """See ``unread.IdentitySet.has``."""
    cdef unsigned long long mask = slots.shape[0] - 1, slot = low & mask, wanted = high << 32 | low
    while slots[slot]:
        if slots[slot] == wanted:
            return True
        slot = slot + 1 & mask
    return False


def sort_records(
    Journal journal,
    unsigned int[::1] first,
    unsigned int[::1] after,
    slots,
    const unsigned long long[::1] factors,
    bint by_client,
    int shift,
    size_t highest,
    size_t lowest,
):
    """Sort the records from ``highest`` down to ``lowest``; returns how many have a flow."""
    cdef const unsigned int[::1] content = journal.words
    cdef const unsigned long long[::1] long_slots = slots.slots
    cdef bint mixed = slots.any
    cdef unsigned long long golden = <unsigned long long>GOLDEN_HIGH << 32 | GOLDEN_LOW
    cdef unsigned long long mask = first.shape[0] - 1, total, port_factor, factor
    cdef const unsigned int *record
    cdef size_t number, group, left = 0
    cdef unsigned int byte_order = 1
    cdef bint little = (<unsigned char *>&byte_order)[0] == 1
    cdef unsigned int state_mask = 0xFF if little else 0xFF000000
    cdef int port_shift = 0 if little else 16
    if highest < lowest:
        return 0
    if not 0 < lowest or (highest + 1) * WORDS + STATE > <size_t>content.shape[0]:
        raise IndexError("the records to sort are not all in the journal")
    if highest >= <size_t>after.shape[0] or mask & (mask + 1):
        raise IndexError("there is no room for the records to sort")
    factor = factors[0]
    port_factor = 0 if by_client else factors[4]
    for number in range(highest, lowest - 1, -1):
        record = &content[number * WORDS]
        __builtin_prefetch(record - AHEAD * WORDS)  # no fault where there is no memory
        if not record[STATE] & state_mask:
            journal.erase(number)
            continue
        if mixed and has(long_slots, record[IDENTITY], record[IDENTITY + 1]):
            total = factor * record[KEY] + factors[1] * record[KEY + 1]
            total += factors[2] * record[KEY + 2] + factors[3] * record[KEY + 3]
            total += port_factor * (record[PORTS6] >> port_shift & 0xFFFF)
        else:
            total = factor * record[KEY] + port_factor * (record[PORTS4] >> port_shift & 0xFFFF)
        group = ((total ^ total >> 32) * golden) >> shift & mask
        after[number] = first[group]
        first[group] = number
        left += 1
    return left
