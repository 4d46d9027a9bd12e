"""``source``: a hash of the client's address, so that a client keeps its backend without a table of
clients.

The backends have the table of ``maglev``: shares are exact, a pick costs the same for any number of
backends, and when a backend leaves or joins, few clients of the others move.
"""

from __future__ import annotations

from paraglider.core.siphash import siphash13
from paraglider.core.strategies.base import NewFlow
from paraglider.core.strategies.maglev import Maglev


class SourceHash(Maglev):
    """Clients by weight, all ports of a client alike."""

    name = "source"
    aliases = ("sh", "ip_hash")
    summary = "a backend by a hash of the client's address, the same for all its ports"
    kernel_pick = "client"
    in_kernel = "source"
    hashed = "the client's address"

    def entry(self, flow: NewFlow) -> int:
        """The index of the client's entry; it does not depend on the backends."""
        return siphash13(*self._key, flow.client) % self.size
