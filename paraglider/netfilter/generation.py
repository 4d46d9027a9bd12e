"""What was read of nf_tables, for as long as nothing has been changed there.

Every transaction of a network namespace gives its nf_tables another generation, whoever made it
(linux/netfilter/nf_tables.h: NFT_MSG_GETGEN). A list of thousands of rules takes a program a
second, the number of the generation some microseconds.

Lives here: ``generation``, ``Memo``.
Rules: what packets put into sets is no other generation, and must be no part of what is read.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Hashable
from typing import Final

from paraglider.netfilter.nfnetlink import ask, attributes, message

_NFTABLES: Final = 10  # NFNL_SUBSYS_NFTABLES
_GETGEN: Final = 16  # NFT_MSG_GETGEN
_GEN_ID: Final = 1  # NFTA_GEN_ID


def generation() -> int | None:
    """The generation of the nf_tables of this network namespace; None where the kernel does not
    say.
    """
    try:
        (answer,) = ask(message(_NFTABLES, _GETGEN, 0, b"", 0))
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT):
            return None
        raise
    found = dict(attributes(answer)).get(_GEN_ID)
    return None if found is None else int.from_bytes(found, "big")


class Memo:
    """Remembers what was read last, by a key."""

    def __init__(self, generation: Callable[[], int | None] = generation) -> None:
        self._generation = generation
        self._known: dict[Hashable, tuple[int, str]] = {}

    def get(self, key: Hashable, read: Callable[[], str]) -> str:
        """What ``read`` gives, or gave while the tables were as they are now."""
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
