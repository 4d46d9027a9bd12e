"""The chaos of ``scripts/soak``, short: every process is killed or stopped, and no flow is lost."""

from __future__ import annotations

import random

import pytest

from bench.soak import Soak, table
from paraglider.lab import namespace

pytestmark = pytest.mark.root

#: seconds of blows; a full run of ``scripts/soak 5`` is for people and for the night
SECONDS = 6.0


def test_no_established_flow_is_lost() -> None:
    """Under `nat`, where the workers alone know the flows; nothing is left behind."""
    with Soak("nat", 10, random.Random(4)) as running:
        assert running.opened > 10
        outcome = running.run(SECONDS)
        said = "\n".join((*table({"nat": outcome}), running.log()))
        made = {one.name for one in running.network.namespaces}
        assert made <= set(namespace.names())
    assert outcome.lost == 0, said
    assert outcome.blows, said
    assert not made & set(namespace.names())
    assert not running.directory.exists()
