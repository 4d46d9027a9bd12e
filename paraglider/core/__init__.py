"""The pure core: bytes and ``now`` in, a verdict out. Standard library only.

It does no I/O, reads no clock and writes no log.

Glossary
    service     a VIP, a protocol and its ports, balanced over one pool           (``service``)
    backend     one server of a pool: address, optional port, weight, state            (``pool``)
    pool        the backends of a service, and which may take new flows           (``pool``)
    strategy    picks a backend for a new flow                                    (``strategies``)
    affinity    a client keeps its backend                                        (``affinity``)
    flow        one connection: keys, translation, state, last seen               (``flow``)
    adoption    finds the backend of a flow that began elsewhere                  (``adoption``)
    journal     the flows in mapped memory, which outlives the process            (``journal``)
    restore     puts the flows of a journal into a flow table                     (``restore``)
    translation the rewriting of packets between a service and a backend          (``translation``)
    balancer    chooses the backend of a new flow: service, affinity, strategy    (``balancer``)
    explain     the reason for a choice, as text                                  (``explain``)
    impact      the flows that a change of the configuration moves                (``impact``)
    verdict     what happens to a packet, and the reason                          (``verdict``)

The same core serves the workers, `paraglider explain` and the tests. No bytes from the wire raise
an exception: an invalid packet is counted by reason and dropped.
"""
