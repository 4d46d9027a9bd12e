"""Forwarding: a folder for each method, and code that all methods share.

    nat, offload, dsr, proxy   the methods, values of ``forward``; each has a ``method.py``, and of
                               the following what it needs: ``checks`` (what it refuses), ``rules``
                               and tables (pure text), ``host`` (what it asks of the host),
                               ``datapath`` (pure), ``carrier`` (what carries decided flows)
    static                     `paraglider start`, the kernel alone
    base, registry             ``ForwardMethod``, and the only list of the methods
    load, schema               files and their schema, with the methods known
    rule_parts, queue_rules, openings, optional_tables, host_needs
                               from the methods' parts to the rules and tables of a family
    carrier, datapath          what carries decided flows, and a packet path: the interfaces
    services, worker_datapath  the services as the core has them, the packet path of a worker
    explain, flows, listing    a configuration asked about flows; what a daemon has listed

Only a method's own folder and the registry use a method's name: other code uses ``service.method``.
"""
