"""Fills a worker's journal from other workers' journals, after a change of the steering.

With another number of workers, for example, the kernel steers flows to other workers than those
that have them. Each worker then reads all journals, and copies the records of the flows that are
steered to it (``hmark``) into its own journal, from which they are restored as after any restart.

Lives here: ``take_over``.
Rules: the other journals are not changed. In a journal without room, flows that are active replace
flows that are not. The journal gets the others' last sign of life, so that no flow ends early.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from paraglider.core.flow_states import ACTIVE, GROUP_OF, PROTOCOL_OF, STATES
from paraglider.core.hmark import WorkerShare
from paraglider.core.journal import Journal
from paraglider.core.restore import BEAT, Beat, Translations, ignore

#: by the number of a state: whether its flows are active, and have a port
_ACTIVE: Final = bytes(group == ACTIVE for group in GROUP_OF)
_PORTED: Final = bytes(protocol in ("tcp", "udp") for protocol in PROTOCOL_OF)


def take_over(
    journal: Journal,
    others: Iterable[Journal],
    translations: Translations,
    share: WorkerShare,
    beat: Beat = ignore,
) -> int | None:
    """Copy the flows of ``share`` from the journals ``others`` into ``journal``, whose flows are
    discarded.

    Returns the number of flows for which there was no room, None if there is not enough memory for
    the journal, which is empty then. Journals that are not complete count as empty. ``beat`` is
    called every ``BEAT`` flows.
    """
    journal.clear()
    copying = _Copying(journal)
    alive = 0.0
    flows = 0
    for other in others:
        if not other.complete:
            continue
        alive = max(alive, other.alive)
        for _, state, identity, content in other.read():
            flows += 1
            if not flows % BEAT:
                beat()
            size = translations.size_of(identity)
            ported = state >= STATES or _PORTED[state]
            port = int.from_bytes(content[2 * size : 2 * size + 2], "big") if ported else 0
            if share.has(content[:size], port) and not copying.add(state, identity, content):
                journal.clear()
                return None
    journal.tick(alive)
    return copying.refused


class _Copying:
    """Copies records into the empty ``journal``; ``refused`` counts those without room."""

    __slots__ = ("_journal", "_next", "refused")

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._next = 1  # no record before it has a flow that may be replaced
        self.refused = 0

    def add(self, state: int, identity: bytes, content: bytes) -> bool:
        """Copy a record; returns False if there is no memory for it."""
        journal = self._journal
        if journal.highest >= journal.records:
            self.refused += 1
            if not (state < STATES and _ACTIVE[state]) or not self._make_room():
                return True
        return journal.write(identity, content, state) != 0

    def _make_room(self) -> bool:
        """Erase a flow that is not active; returns False if there is none."""
        journal = self._journal
        while self._next <= journal.highest:
            number = self._next
            self._next += 1
            record = journal.record(number)
            if record is not None and not (record[0] < STATES and _ACTIVE[record[0]]):
                journal.erase(number)
                return True
        return False
