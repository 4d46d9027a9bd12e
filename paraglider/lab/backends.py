"""What a backend of ``forward: dsr`` needs of its host, done in its namespace.

Lives here: ``hold_vips``.
Rules: as docs/dsr.md tells an operator to do it.
"""

from __future__ import annotations

from collections.abc import Iterable

from paraglider.lab.namespace import Namespace

SYSCTLS = (
    # Answer ARP for addresses of the asked interface alone, so that nobody hears of the VIP.
    "net.ipv4.conf.all.arp_ignore=1",
    # Ask by ARP with an address of the asking interface, never with the VIP.
    "net.ipv4.conf.all.arp_announce=2",
    # What the balancer sends on comes in by another interface than the answers leave by.
    "net.ipv4.conf.all.rp_filter=0",
    "net.ipv4.conf.eth0.rp_filter=0",
)


def hold_vips(backend: Namespace, vips: Iterable[str]) -> None:
    """Give ``backend`` the ``vips`` on its loopback, and have it tell nobody."""
    backend.sysctl(*SYSCTLS)
    backend.ip(*(f"address add {vip}/{128 if ':' in vip else 32} dev lo" for vip in vips))
