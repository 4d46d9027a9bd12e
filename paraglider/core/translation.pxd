# Types of translation.py where it is compiled; the meaning is documented there.
cdef class Translation:
    cdef public object affinity
    cdef public object backend
    cdef public bytes backend_address
    cdef public bytes backend_port
    cdef public bytes identity
    cdef public bytes vip
    cdef public bytes vip_port
    cdef public bint aliased
    cdef public bint datagrams_lost
    cdef public bint direct
    cdef public bint lost
    cdef public bint mapped
    cdef public bint routed
    cdef public bint decided
    cdef public bint special
    cdef public double udp_reply
    cdef public int outer_port
    cdef public long long long_verdict
    cdef public unsigned int address_back
    cdef public unsigned int address_out
    cdef public unsigned int slot
    cdef public unsigned int transport_back
    cdef public unsigned int transport_out
    cdef public unsigned long long bytes_back
    cdef public unsigned long long bytes_out
    cdef public unsigned long long packets_back
    cdef public unsigned long long packets_out
