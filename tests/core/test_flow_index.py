"""Tests of ``paraglider.core.flow_index``: a dictionary of flows, in parts."""

from __future__ import annotations

import pytest
from packets import bare_flow

from paraglider.core.flow_index import FlowIndex
from paraglider.core.sharded import SHARDS


def test_it_is_a_dictionary() -> None:
    """Flows are found, counted, listed and removed by their keys, many to a part."""
    index, flows = (
        FlowIndex(),
        {each.forward_key: each for each in map(bare_flow, range(10 * SHARDS))},
    )
    for key, each in flows.items():
        assert index.get(key) is None
        assert key not in index
        assert not index.has(key)
        index.add(key, each)
        assert index.has(key)
        assert index[key] is index.get(key) is each
    assert len(index) == len(flows)
    assert {key: index[key] for key in index} == flows
    assert set(index.values()) == set(flows.values())
    for key in list(index)[::2]:
        index.remove(key)
        del flows[key]
        assert key not in index
    assert {key: index[key] for key in index} == flows


def test_a_missing_key_is_asked_for() -> None:
    """What the call adds is found; a key that is there is not asked for."""
    index, flow = FlowIndex(), bare_flow(1)
    asked: list[bytes] = []

    def add(key: bytes) -> None:
        asked.append(key)
        if key == flow.forward_key:
            index.missing = None
            index.add(key, flow)

    index.missing = add
    assert bytes(12) not in index
    assert index.get(flow.forward_key) is flow
    assert flow.forward_key in index
    assert asked == [bytes(12), flow.forward_key]


def test_a_key_that_is_not_there() -> None:
    """Neither found nor removed."""
    index = FlowIndex()
    for call in (index.remove, index.__getitem__):
        with pytest.raises(KeyError):
            call(bytes(12))
    assert (len(index), list(index)) == (0, [])
