"""What carries decided flows of ``forward: dsr``: leases, which the kernel holds in nft sets.

Lives here: ``end_leases``.
"""

from __future__ import annotations

from paraglider.forward.dsr.leases import TABLE, lease_set
from paraglider.forward.dsr.marks import way_family
from paraglider.netfilter.nfnetlink import empty_set


def end_leases(mark: int) -> None:
    """End the leases of all flows to the backend with ``mark``: each of their packets is queued
    again. Nothing happens where the kernel has no table of leases.
    """
    empty_set(way_family(mark), TABLE, lease_set(mark))
