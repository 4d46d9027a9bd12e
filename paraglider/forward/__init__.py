"""Forwarding: a folder for each method, and code that all methods share.

    nat, offload, dsr, tunnel, proxy
                               the methods, values of ``forward``; each has a ``method.py``, and if
                               needed ``checks`` (what it refuses), ``rules`` and tables (pure
                               text), ``host`` (its needs of the host), ``datapath`` (pure),
                               ``carrier`` (carries decided flows)
    static                     `paraglider start`, balancing by the kernel alone
    base, registry             ``ForwardMethod``, and the only list of the methods
    load, schema               files and their schema, with the methods registered
    rule_parts, queue_rules, openings, optional_tables, host_needs
                               combine the methods' parts to the rules and tables of a family
    carrier, datapath          interfaces: carrier of decided flows, packet path
    one_sided, one_sided_rules, vip_attraction
                               packet path, rules and needs of methods whose answers bypass us
    services, worker_datapath  the services as core objects, the packet path of a worker
    explain, flows, listing    a configuration's decision about flows; listings of a daemon

Only a method's own folder and the registry use a method's name: other code uses ``service.method``.
"""
