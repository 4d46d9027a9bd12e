"""Control: the processes of a running Paraglider.

supervisor   the parent: starts workers, replaces the dead, ends all    (``supervisor``)
worker       one process on one core that reads one queue               (``worker``)
tracker      counts the live flows that only the kernel knows of        (``tracker``)
ledgers      a worker's flows, carried on from the process before it     (``ledgers``)
live         where it counts them, for the workers to read              (``live``)
watch        what the supervisor looks at where flows are offloaded     (``watch``)
policy watch what policies did wrong, into the log                     (``policy_watch``)
log          structured log on standard error                           (``log``)
"""
