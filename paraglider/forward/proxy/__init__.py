"""``forward: proxy``: terminates TCP, and relays to a backend in an event loop.

    proxy    listens, accepts, and chooses a backend for every connection     (``server``)
    preread  looks for the ClientHello, where a service has routes            (``preread``)
    attempt  from an accepted client to a backend that accepts, or to none    (``attempt``)
    relay    two connected sockets, and the bytes between them                (``relay``)
    header   the header of the PROXY protocol                                 (``header``)
    counts   the counters of a backend                                        (``counts``)

Rules: one event loop per worker, no threads, no blocking sockets. Workers share only the address
they listen on. A connection leaves no reference cycle, so that the cyclic collector can be off.
"""
