"""`paraglider start`: the kernel balances alone, and no daemon runs.

    checks   what of a file the kernel cannot do, or does otherwise; the file as it sees it
    rules    its nft table and iptables rules

Not a value of ``forward``: the command has an entry point of its own in ``cli`` and ``host.plan``.
"""
