"""``forward: proxy``: TCP terminated here, and carried on to a backend by an event loop.

    proxy    listens, accepts, and has a backend chosen for every connection  (``server``)
    attempt  from an accepted client to a backend that accepts, or to none    (``attempt``)
    relay    two connected sockets, and the bytes between them                (``relay``)
    header   what the PROXY protocol says ahead of the client's bytes         (``header``)
    tally    what is counted of a backend                                     (``tally``)

Rules: one event loop a worker, no threads, and no socket that may block it. Workers share nothing
but the address they listen on. A connection that ends leaves no reference cycle behind, so that
the cyclic collector may be off.
"""
