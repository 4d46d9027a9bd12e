"""Pings between namespaces, for tests of networks."""

from __future__ import annotations

from paraglider.lab.namespace import Namespace


def reachable(source: Namespace, address: str, *options: str) -> bool:
    """True when a ping from ``source`` comes back, at the fourth try at the latest: the kernel's
    answers to pings share one small buffer a core, over all network namespaces (net/ipv4/icmp.c).
    """
    command = ["ping", "-c", "1", "-W", "5", *options, address]
    return any(source.run(command, check=False).returncode == 0 for _ in range(4))
