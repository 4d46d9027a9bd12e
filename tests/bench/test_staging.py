"""A stage for as long as a block lasts."""

from __future__ import annotations

import pytest

from bench.network import Stage
from bench.peers.base import Peer
from bench.staging import staged
from paraglider.errors import PlatformError
from paraglider.lab import namespace
from paraglider.lab.interrupts import Interrupts

pytestmark = pytest.mark.root


class Refusing(Peer):
    """A peer that does not start."""

    name = title = "refusing"

    def start(self, stage: Stage) -> None:
        """Record the start."""
        raise PlatformError("it does not start")


def test_a_peer_that_does_not_start_leaves_nothing() -> None:
    """Namespaces and files go with the block, then what was held; the peer's error comes out."""
    built: list[Stage] = []
    left: list[list[str]] = []  # namespaces when what is held may be released

    def names(stage: Stage) -> list[str]:
        return [name for name in namespace.names() if name.startswith(f"{stage.prefix}-")]

    def prepare(stage: Stage) -> None:
        built.append(stage)
        assert names(stage)
        stage.after.callback(lambda: left.append(names(stage)))

    with (
        Interrupts() as interrupts,
        pytest.raises(PlatformError, match="does not start"),
        staged(Refusing(), interrupts, prepare),
    ):
        pytest.fail("it has not started")
    (stage,) = built
    assert not stage.directory.exists()
    assert left == [[]]
