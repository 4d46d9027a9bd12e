"""Checks that the kernel's neighbour table has room for the backends and clients on local links.

Rules: only reads, and needs no privileges. The table belongs to the machine, so its limits are
visible in the initial network namespace only; elsewhere there is no warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from paraglider.config.model import Config
from paraglider.host.changes.base import Host
from paraglider.host.plan_links import on_link_backends
from paraglider.host.sysctl import dotted, neigh


def neighbour_table_warnings(config: Config, families: Iterable[int], host: Host) -> Iterator[str]:
    """A warning for each of ``families`` (4, 6) that has more neighbours than the kernel keeps.

    Counts the on-link backends of ``config`` and the other present neighbours. At gc_thresh3 the
    kernel refuses new entries (Linux, net/core/neighbour.c: neigh_alloc).
    """
    for family in sorted(families):
        key = neigh(family, "default", "gc_thresh3")
        limit = host.sysctl.read(key)
        if limit is None:
            continue
        backends = set(on_link_backends(config, family, host))
        others = {
            address
            for interface in sorted(host.netlink.interfaces())
            for address in host.netlink.neighbours(interface, family)
        } - backends
        count = len(backends) + len(others)
        if count > int(limit):
            yield (
                f"{count} neighbours by IPv{family} ({len(backends)} backends, {len(others)} others"
                f" now), and the kernel keeps {limit}: sysctl -w {dotted(key)}={2 * count}"
            )
