"""Workers: the processes that have flows.

worker              one process a core, which reads the queues of that core   (``worker``)
proxy_worker        one process a core, with listening sockets of its own     (``proxy_worker``)
conntrack_counter   counts connections that only the kernel knows of (``conntrack_counter``)
commands            the supervisor's messages to such a process               (``commands``)
journals            its flows, restored from the process before it            (``journals``)
flow_log            a line for a new flow, with `-D`                          (``flow_log``)
policy_watch        faults of policies, into the log                          (``policy_watch``)
"""
