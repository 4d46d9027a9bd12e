"""The chaos of ``scripts/soak``, short: every process is killed or stopped, and no flow is lost."""

from __future__ import annotations

import random

import pytest

from bench.soak import Soak, table
from paraglider.lab import namespace

pytestmark = pytest.mark.root

#: seconds of faults; a full run of ``scripts/soak 5`` is for people and for the night
SECONDS = 6.0


@pytest.mark.parametrize("forward", ["nat", "nat-bpf"])
def test_no_established_flow_is_lost(forward: str) -> None:
    """Under `nat`, where only the workers have the flows, also where BPF carries them; nothing is
    left.
    """
    with Soak(forward, 10, random.Random(4)) as running:
        assert running.opened > 10
        outcome = running.run(SECONDS)
        said = "\n".join((*table({forward: outcome}), running.log()))
        made = {one.name for one in running.network.namespaces}
        assert made <= set(namespace.names())
    assert outcome.lost == 0, said
    assert outcome.faults, said
    assert not made & set(namespace.names())
    assert not running.directory.exists()
