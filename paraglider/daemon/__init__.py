"""Control: the processes of a running Paraglider.

supervisor   the parent of all others, which is the hub too       (``supervisor``)
roster       which processes a configuration asks for             (``roster``)
keeper       keeps a host that balances without a daemon          (``keeper``)
settings     what a daemon was started with; it reads the file    (``settings``)
log          structured log on standard error                     (``log``)

hub          what is true of services and backends, and who is told       (``hub``)
workers      the processes that have flows, and what they count           (``workers``)
lookouts     the processes that look at backends and where they are listed  (``lookouts``)
api          the process behind the control socket, and its other end     (``api``)
web          the process behind the stats page                            (``web``)
processes    what all of them have: forked, begun, heard, replaced        (``processes``)

Rules: imports point down here too. The hub knows of every process what it is to be told, and no
process knows of the hub.
"""
