"""Health checks of backends.

    rise_and_fall  consecutive results to up and down, the time of the next check, flapping   (pure)
    results        the results of checks, and what the checker reports                        (pure)
    targets        the checker's targets, from the configuration                              (pure)
    probes         one check of a backend; a file each
    checker        runs the checks when they are due, and reports the results
    certificate    when a certificate of TLS ends                        (``certificate``)
    pinger         ICMP echo requests and replies, for probes and failover
    failover       failover mode (`-f`): pings the network, and checks the hosts that answer
    sweep          the results of failover's sweeps                                           (pure)

A *target* is a backend of a service with its check; a *probe* is the code of one type of check; a
*report* is the result of one check; a *change* means that a backend went up or down. A *sweep* is
one check of the whole network by failover. All of it runs on one asyncio loop in one unprivileged
process; times are monotonic seconds.
"""
