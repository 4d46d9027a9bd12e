"""Control: the processes of a running Paraglider.

supervisor   the parent: starts workers, replaces the dead, ends all    (``supervisor``)
worker       one process on one core that reads one queue               (``worker``)
policy watch what policies did wrong, into the log                     (``policy_watch``)
log          structured log on standard error                           (``log``)
"""
