"""Workers: the processes that carry flows, and the counter of the kernel's connections.

worker              one process a core, which reads the queues of that core   (``worker``)
proxy_worker        one process a core, with listening sockets of its own     (``proxy_worker``)
conntrack_counter   counts connections that only the kernel knows of (``conntrack_counter``)
commands            the supervisor's messages to such a process               (``commands``)
journals            its flows, restored from its predecessor            (``journals``)
flow_log            a log line per new flow, with `-D`                          (``flow_log``)
policy_watch        log lines about faults of policies                          (``policy_watch``)
"""
