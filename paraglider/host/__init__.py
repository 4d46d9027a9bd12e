"""The platform's edge: all that reads or changes the host.

Glossary
- programs   the host's own programs, found and run as argument lists (``programs``)
- checks     what must hold before anything is changed or started: user, chroot (``checks``)
- trust      whether code in a directory is root's alone (``trust``)
- cores      which cores carry a worker (``cores``)
- change     one thing that the set-up alters, with what was there before (``changes``)
- plan       the changes that a configuration asks for, as data (``plan``)
- backend    what a backend's own host has to change for its services (``backend_plan``)
- set-up     carries a plan out, rolls it back when a step fails, undoes it later (``setup``)
- state      what a set-up changed, kept in a file so that it can be undone (``state``)
- journal     the files in which workers write their flows down (``journal``)
- netfilter  the host's packet filter by iptables' programs (``netfilter``)
- nft        the table of ours that carries offloaded flows (``nft``)
- conntrack  the kernel's table of connections: forgetting some, how full it is (``conntrack``),
             which there are, as they begin and end (``connections``)
- nfnetlink  requests to netfilter over a bare netlink socket (``nfnetlink``)
- srv        backends from the DNS (``srv``)
- file watch which files have changed (``file_watch``)
- capture    packets in a file of tcpdump's or Wireshark's (``capture``)
- streams    standard input, output and error, and outlets that never wait (``streams``)
- queue      where packets come from and verdicts go (the ``queue*`` modules)

Rules of the house: an edge is a small class that the tests can replace; what the operator got
wrong raises ``OperatorError``, what the kernel refuses raises ``PlatformError``.
"""
