"""A stage with a peer that answers on it, for the duration of a block.

Rules: Ctrl-C does not interrupt building and removing; the stage is removed at the end of the
block.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.network import Stage
from bench.peers.base import Peer
from paraglider.lab import topology
from paraglider.lab.interrupts import Interrupts


def _as_built(_stage: Stage) -> None:
    """Nothing is added to the stage."""


@contextlib.contextmanager
def staged(
    peer: Peer, interrupts: Interrupts, prepare: Callable[[Stage], None] = _as_built
) -> Iterator[Stage]:
    """A stage of its own, ``prepare``\\ d, on which ``peer`` answers.

    Raises ``ParagliderError`` if the peer does not start or answer.
    """
    prefix = topology.new_prefix()
    with tempfile.TemporaryDirectory(prefix=f"paraglider-bench-{prefix}-") as name:
        stage = Stage(prefix, Path(name) / "stage", direct=peer.direct, far=peer.far)
        try:
            with interrupts.deferred():
                stage.build()
                prepare(stage)
                peer.start(stage)
            stage.await_answers(peer.address, peer.backends)
            yield stage
        finally:
            with interrupts.deferred():
                stage.close()
