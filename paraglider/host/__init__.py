"""Everything that reads or changes the host, apart from the packet filter (``netfilter``).

Glossary
- checks     preconditions of the set-up and the daemon: user, chroot (``checks``)
- trust      whether only root can write code in a directory (``trust``)
- cores      the cores that have a worker (``cores``)
- change     one object that the set-up alters, with its previous value (``changes``)
- plan       the changes that a configuration needs, as data (``plan``)
- backend    the changes that a backend's host needs for its services (``backend_plan``)
- set-up     applies a plan, rolls it back when a step fails, undoes it later (``apply``)
- state      the changes of a set-up, stored in a file for the undo (``state``)
- journal    the files in which workers record their flows (``journal_files``)
- srv        backends from DNS (``srv``)
- file watch detects changes of files by stat (``file_watch``)
- capture    packets in a capture file of tcpdump or Wireshark (``capture``)
- streams    standard input, output and error, and non-blocking outputs (``streams``)

Rules: an edge of the platform is a small class that tests can replace. An operator's mistake raises
``OperatorError``, a refusal of the kernel raises ``PlatformError``.
"""
