"""Messages of the supervisor: targets as rows that share their checks, bounded fields."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from paraglider.config.health import AgentCheck, Check, Failover
from paraglider.daemon.ipc import encode
from paraglider.daemon.messages import MOST_LISTED, TO_ROLE
from paraglider.daemon.messages.to_processes import SetStates, SetTargets, TargetRow
from paraglider.health.targets import Scope, Target

FOUR, SIX = ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("fd00:10::1")
CHECK, EQUAL = (Check(type="tcp", timeout=0.5) for _ in range(2))
AGENT, SAME = (AgentCheck(port=9999, send="web") for _ in range(2))
SCOPE = Scope(Failover(check_cycle=0.5), (FOUR,), "eth1", (SIX,), frozenset((FOUR, SIX)))
TARGETS = (
    Target("web", "10.0.0.1:80", FOUR, 80, CHECK),
    Target("web", "fd00:10::1", SIX, 0, None, False, True),
    Target("web", "10.0.0.1:81", FOUR, 81, CHECK),
)


def test_checks_are_sent_once() -> None:
    """Targets of one service share theirs, and are the same at the other end."""
    said = SetTargets.of(TARGETS, SCOPE)
    assert said.checks == (CHECK,)
    assert TO_ROLE["monitor"].validate_json(encode(said)).targets() == TARGETS


@settings(max_examples=30)
@given(
    st.lists(
        st.builds(
            Target,
            st.text(max_size=9),
            st.text(max_size=9),
            st.ip_addresses(),
            st.integers(0, 65535),
            st.sampled_from((None, CHECK, EQUAL)),
            st.booleans(),
            st.booleans(),
            st.sampled_from((None, AGENT, SAME)),
        ),
        max_size=6,
    ),
    st.booleans(),
)
def test_targets_survive_the_wire(targets: list[Target], whole: bool) -> None:
    """In order, with any sharing of checks; a check is sent once per object."""
    said = SetTargets.of(targets, gone=[("web", "b")], whole=whole)
    assert len(said.checks) == len({id(t.check) for t in targets if t.check is not None})
    assert len(said.agents) == len({id(t.agent) for t in targets if t.agent is not None})
    found = TO_ROLE["monitor"].validate_json(encode(said))
    assert found == said
    assert found.targets() == tuple(targets)


def test_a_row_without_its_check() -> None:
    """IndexError, and no target without its check or agent."""
    for places in ((1, True, False), (0, True, False, 0)):
        row = TargetRow("web", "10.0.0.1", FOUR, 80, *places)
        with pytest.raises(IndexError):
            SetTargets(checks=(CHECK,), rows=(row,)).targets()


@settings(max_examples=30)
@given(
    st.dictionaries(
        st.text(max_size=9),
        st.dictionaries(
            st.text(max_size=9), st.tuples(st.sampled_from(("ready", "down")), st.integers(0, 256))
        ),
        max_size=3,
    ),
    st.integers(0, 2**63 - 1),
)
def test_states_survive_the_wire(states: Any, version: int) -> None:
    """Of every backend, with their version."""
    said = SetStates(states=states, version=version)
    assert TO_ROLE["worker"].validate_json(encode(said)) == said


@pytest.mark.parametrize(
    ("role", "body"),
    [
        ("worker", {"type": "set-states", "states": {"web": {"b": ["ready"]}}}),
        ("worker", {"type": "set-states", "states": {"web": {"b": ["ready", "1"]}}}),
        ("worker", {"type": "set-states", "states": {}, "version": -1}),
        ("worker", {"type": "list-flows", "match": {}, "limit": 0}),
        ("worker", {"type": "list-flows", "match": {}, "limit": MOST_LISTED + 1}),
        ("worker", {"type": "kill-flows"}),
        ("worker", {"type": "apply-config", "config": {"services": 7}, "states": {}}),
        ("worker", {"type": "suspend-policies", "services": "web"}),
        ("monitor", {"type": "set-targets", "checks": [], "rows": [["web", "b"]]}),
        (
            "monitor",
            {
                "type": "set-targets",
                "checks": [],
                "rows": [["web", "b", "10.0.0.1", 65536, -1, True, False]],
            },
        ),
        ("monitor", {"type": "check-sooner", "backends": [["web"]]}),
        ("host helper", {"type": "forget-connections", "marks": [2**32]}),
        ("host helper", {"type": "forget-connections", "datagrams": [["192.0.2.1", 1, 65536]]}),
        ("host helper", {"type": "load-rules", "text": ["nft"]}),
        ("host helper", {"type": "run-program", "text": "x"}),
        ("http", {"type": "result"}),
    ],
    ids=str,
)
def test_what_no_process_takes(role: str, body: dict[str, Any]) -> None:
    """Missing fields, other types, numbers out of bounds, an unknown kind."""
    with pytest.raises(ValidationError):
        TO_ROLE[role].validate_json(json.dumps(body))
