"""Whether the kernel has room for all neighbours: backends and clients on links of this host.

Rules: only reads, and needs no rights. The table is the whole machine's, so its limits are told in
the first network namespace alone; elsewhere nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from paraglider.config.model import Config
from paraglider.host.changes.base import Host
from paraglider.host.plan_links import on_link_backends
from paraglider.host.sysctl import dotted, neigh


def crowded(config: Config, families: Iterable[int], host: Host) -> Iterator[str]:
    """A line for each of ``families`` (4, 6) whose neighbours are more than the kernel keeps.

    Counted are the backends of ``config`` on a link, and who else is a neighbour now. From
    gc_thresh3 on no entry is made any more (Linux, net/core/neighbour.c: neigh_alloc).
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
