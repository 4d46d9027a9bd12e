"""Control: the processes of a running Paraglider.

supervisor   the parent: starts workers, replaces the dead, ends all    (``supervisor``)
worker       one process on one core that reads one queue               (``worker``)
log          structured log on standard error                           (``log``)
"""
