"""Forwarding: what each way of carrying packets needs to be built from the configuration.

    services what all of them have in common                    (``services``)
    nat      every packet passes the worker and is rewritten    (``nat``)
    offload  first packets are marked, the kernel does the rest (``offload``)
    dsr      packets of the clients are marked and routed       (``dsr``)
    path     the packet path of one worker, with all in it      (``path``)
    explain  a configuration, asked about flows                 (``explain``)
    listing  what a daemon has listed: flows, states            (``listing``)
    policy   a strategy of the user's own, loaded from a file   (``policies``)

The packet paths themselves are pure and live in ``core``.
"""
