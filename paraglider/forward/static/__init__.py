"""`paraglider start`: the kernel balances without a daemon.

    checks   what the kernel cannot do or does differently; the file as it applies it
    rules    its nft table and iptables rules

Not a value of ``forward``: the command has an entry point of its own in ``cli`` and ``host.plan``.
"""
