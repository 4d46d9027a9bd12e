"""The bench: Paraglider and its peers under the same load, in the same network, in turn.

- **peer**: one load balancer or forward method (``peers``); kernel DNAT is the reference of all
  ratios.
- **stage**: the network namespaces and servers of one measurement (``network``); each measurement
  has its own, so that peers do not influence each other.
- **load**: the client's traffic and its figures (``loads``, parsed by ``parse``).
- **sample**: the figures of one peer in one round, by the key of their metric (``results``).
- **round**: every peer once, one after the other; figures are medians over the rounds.
- **build**: whether the core's hot modules are compiled or interpreted (``builds``).
- **core**: the flow table driven directly, with no network (``core``, ``core_probe``; with the BPF
  carrier's maps ``carrier_probe``).
- **bar**: a target figure of the project (``bars``).

``run`` runs rounds and peers, ``report`` makes tables, ``picture`` draws, ``docs`` writes tables
into the documentation. ``sudo scripts/bench`` starts it. ``parse``, ``results``, ``bars``,
``report`` and ``docs`` are pure: they read text and figures, and are tested without root.
"""
