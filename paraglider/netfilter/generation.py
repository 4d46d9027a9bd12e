"""A cache of nf_tables listings, valid for one generation of the rule set.

Every transaction, by any program, increments the generation of the namespace's nf_tables
(linux/netfilter/nf_tables.h: NFT_MSG_GETGEN). Listing thousands of rules takes a second, reading
the generation some microseconds.

Lives here: ``generation``, ``Memo``.
Rules: elements that packets add to sets do not change the generation, so they must not be cached.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Hashable
from typing import Final

from paraglider.netfilter.nfnetlink import attributes, message, send_request

_NFTABLES: Final = 10  # NFNL_SUBSYS_NFTABLES
_GETGEN: Final = 16  # NFT_MSG_GETGEN
_GEN_ID: Final = 1  # NFTA_GEN_ID


def generation() -> int | None:
    """The generation of the nf_tables of this network namespace; None if the kernel has none."""
    try:
        (answer,) = send_request(message(_NFTABLES, _GETGEN, 0, b"", 0))
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT):
            return None
        raise
    found = dict(attributes(answer)).get(_GEN_ID)
    return None if found is None else int.from_bytes(found, "big")


class Memo:
    """Caches the last result of a read, by key."""

    def __init__(self, generation: Callable[[], int | None] = generation) -> None:
        self._generation = generation
        self._known: dict[Hashable, tuple[int, str]] = {}

    def get(self, key: Hashable, read: Callable[[], str]) -> str:
        """The result of ``read``, cached while the generation stays the same."""
        before = self._generation()
        if before is None:
            return read()
        known = self._known.get(key)
        if known is not None and known[0] == before:
            return known[1]
        found = read()
        if self._generation() == before:
            self._known[key] = (before, found)
        return found
