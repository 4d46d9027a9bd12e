"""Whether this balancer is drained: the operator wants no router and no pair to send it packets.

    drain    the balancer is not to be announced; flows and new connections are served as before
    ready    the end of that

The operator's drain holds over restarts of the daemon (``host.node_file``). One that is to end with
the daemon, as that of the unit's stop, is not written.

Lives here: ``Node``.
Rules: changes nothing else in the daemon. A file that cannot be written is a warning in the log,
and the state holds until the daemon ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

from paraglider.daemon import log
from paraglider.host.node_file import NodeFile


class Node:
    """The state of this balancer, as ``file`` has it; without a file nothing is kept.

    ``since`` is when it began, in seconds since the epoch by ``clock``; ``kept``: the next daemon
    begins with it.
    """

    def __init__(
        self, file: NodeFile | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._file = file
        self._clock = clock
        drained = None if file is None else file.load()
        self.draining = drained is not None
        self.since = clock() if drained is None else drained
        self.kept = True
        self._log: Any = log.logger()
        if self.draining:
            self._log.warning("balancer is drained, not to be announced", by="an earlier daemon")

    @property
    def state(self) -> Literal["drain", "ready"]:
        """The state in one word."""
        return "drain" if self.draining else "ready"

    def drain(self, *, keep: bool) -> None:
        """Drain; with ``keep`` over restarts of the daemon. A kept drain stays kept."""
        kept = self.draining and self.kept
        if not self.draining:
            self.draining, self.since, self.kept = True, self._clock(), False
            self._log.info("balancer drained", kept=keep)
        if keep and not kept:
            self.kept = self._store(self.since)

    def ready(self) -> None:
        """End the drain."""
        if self.draining:
            self.draining, self.since = False, self._clock()
            self._log.info("balancer ready again")
        self.kept = self._store(None)

    def _store(self, drained_since: float | None) -> bool:
        """Whether the file has the state now."""
        if self._file is None:
            return drained_since is None
        try:
            self._file.store(drained_since)
        except OSError as error:
            self._log.warning(
                "state of the balancer not written", file=str(self._file.path), why=error.strerror
            )
            return False
        return True
