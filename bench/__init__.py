"""The bench: Paraglider and its peers under the same load, in the same network, in turn.

- **peer**: one way of carrying a client's packets to a backend (``peers``); kernel DNAT is the
  reference of all ratios.
- **stage**: the network namespaces and servers of one measurement (``network``); each measurement
  has its own, so that nothing of one peer is met by the next.
- **load**: what the client does to a peer, and the figures it gives (``loads``, read by ``parse``).
- **sample**: the figures of one peer in one round, by the key of their metric (``results``).
- **round**: every peer once, one after the other; figures are medians over the rounds.
- **build**: whether the core's hot modules are compiled or interpreted (``builds``).
- **core**: the flow table driven directly, with no network (``core``, ``core_probe``).
- **bar**: what the project set itself to reach (``bars``).

``run`` goes through rounds and peers, ``report`` makes tables, ``picture`` draws, ``docs`` writes
tables into the documentation. ``sudo scripts/bench`` is the way in. ``parse``, ``results``,
``bars``, ``report`` and ``docs`` are pure: they read text and figures, and are tested without root.
"""
