"""Workers: the processes that have flows.

worker        one process on one core that reads one queue                (``worker``)
proxy         one on one core that listens itself                         (``proxy``)
tracker       counts the live flows that only the kernel knows of         (``tracker``)
commands      what such a process does for the hub                        (``commands``)
journals       its flows, carried on from the process before it            (``journals``)
leases        flows of dsr that end by our doing                          (``leases``)
flow log      a line for a new flow, with `-D`                            (``flow_log``)
policy watch  what policies did wrong, into the log                       (``policy_watch``)
"""
