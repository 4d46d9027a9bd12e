"""The pure core: bytes and ``now`` in, a verdict out. Standard library only.

It does no I/O, reads no clock and writes no log.

Glossary
    service     a VIP, a protocol and its ports, balanced over one pool           (``service``)
    backend     one real server: address, optional port, weight, state            (``pool``)
    pool        the backends of a service, and which may take new flows           (``pool``)
    strategy    picks a backend for a new flow                                    (``strategies``)
    affinity    a client keeps its backend                                        (``affinity``)
    flow        one connection: keys, translation, state, last seen               (``flow``)
    journal      what of every flow outlives the process, in place in mapped memory (``journal``)
    restore     flows that a journal knows, in a table again                      (``restore``)
    translation one slice replaced by another, and a checksum delta               (``translation``)
    balancer    service look-up, affinity, strategy: which backend for a new flow (``balancer``)
    explain     why a flow gets its backend, in words                             (``explain``)
    impact      what a change of the configuration gives to other backends        (``impact``)
    verdict     what the core says of a packet, and why                           (``verdict``)

The same core serves the workers, `paraglider explain` and the tests. Bytes from the wire never
raise out of it: a packet that cannot be understood is counted by reason and dropped.
"""
