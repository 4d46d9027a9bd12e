"""The health of backends: who looks, what is asked, what follows from the answers.

machine     results in a row → up or down, when to look next, flapping   (pure)
messages    what crosses between the hub and the checker, as plain data              (pure)
probes      one look at a backend: tcp, http, https, icmp, exec
checker     looks at every target when it is due, and tells what came of it
echo        ICMP echo requests and who answers them, for probes and for discovery
discovery   failover mode (`-f`): who answers a ping of the whole network, and serves

A *target* is a backend of a service with its check; a *probe* is one look at it; a *report* says
how one went; a *verdict* says that a backend went up or down. A *round* is one look of failover
at the whole network. All of it runs on one asyncio loop in one process without rights; times are
monotonic seconds.
"""
