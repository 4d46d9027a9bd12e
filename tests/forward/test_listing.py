"""Tests of ``paraglider.forward.listing``: valid and invalid listings of a daemon."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paraglider.core.flow import TCP
from paraglider.core.pool import State
from paraglider.errors import OperatorError
from paraglider.forward.listing import LiveState, backends_in, deciding_in, flows_in

FLOW = {
    "service": "web",
    "protocol": "tcp",
    "client": "192.0.2.1",
    "client_port": 40000,
    "vip": "192.168.0.11",
    "port": 80,
    "backend": "10.0.0.1:8080",
    "state": "established",
    "idle": 0.1,
}
BACKEND = {"service": "web", "backend": "fd00::1", "state": "drain", "weight": 3, "check": None}


def test_flows() -> None:
    """A flow has its key, its service, its backend by address and mapped port."""
    (found,) = flows_in(json.dumps({"flows": [FLOW], "more": False}), "f")
    assert (found.flow.protocol, str(found.flow.client_address)) == (TCP, "192.0.2.1")
    assert (found.flow.client_port, str(found.flow.vip_address), found.flow.port) == (
        40000,
        "192.168.0.11",
        80,
    )
    assert found.service == "web"
    assert (found.backend.name, found.backend.port) == ("10.0.0.1:8080", 8080)
    assert flows_in(json.dumps([FLOW]), "f")[0].flow.key == found.flow.key


def test_backends() -> None:
    """A backend has its state and weight; for another file only the state is used."""
    (found,) = backends_in(json.dumps([BACKEND]), "f")
    assert (found.service, found.state, found.weight) == ("web", State.DRAIN, 3)
    assert len(found.backend.address) == 16
    (after,) = LiveState((), (found,)).after_a_change().backends
    assert (after.state, after.weight) == (State.DRAIN, None)


def test_what_decides() -> None:
    """By service, where the daemon says it and the method leaves a choice."""
    rows = [
        {"service": "a", "decided_by": "python", "why_python": "it has affinity"},
        {"service": "b", "decided_by": "kernel", "why_python": ""},
        {"service": "c", "decided_by": None, "why_python": None},
        {"service": "d"},
    ]
    assert deciding_in(json.dumps(rows), "f") == {"a": "it has affinity", "b": ""}
    with pytest.raises(OperatorError, match="`why_python` is 3, no text; give what `paraglider sh"):
        deciding_in(json.dumps([{"service": "a", "why_python": 3}]), "f")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"client": None}, "f: item 1: `client` is an empty value, no text; give what `parag"),
        ({"client": "x"}, "f: item 1: 'x' is no IP address"),
        ({"client": "::1"}, "f: item 1: `client` and `vip` are of two families"),
        ({"port": 65536}, "f: item 1: `port` is 65536, no number from 0 to 65535"),
        ({"port": True}, "f: item 1: `port` is the truth value true, no number"),
        ({"protocol": "sctp"}, "f: item 1: `protocol` 'sctp' is not known"),
        ({"backend": "web1"}, "f: item 1: 'web1' is no ADDRESS:PORT"),
    ],
)
def test_wrong_item(change: dict[str, Any], what: str) -> None:
    """An invalid item is named, with the mistake."""
    with pytest.raises(OperatorError) as caught:
        flows_in(json.dumps([FLOW, {**FLOW, **change}]), "f")
    assert str(caught.value).startswith(what)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "f is no JSON"),
        ("{", "f is no JSON"),
        ("[" * 200_000, "f is nested too deep"),
        ("5", "f has no list; give what `paraglider flows --json` prints"),
        ('{"flows": 5}', "f has no list"),
        ("[5]", "f: item 0: there is no `protocol`"),
        ("[{}]", "f: item 0: there is no `protocol`"),
    ],
)
def test_what_is_no_listing(text: str, what: str) -> None:
    """Another text is refused by name."""
    with pytest.raises(OperatorError) as caught:
        flows_in(text, "f")
    assert str(caught.value).startswith(what)


def test_state_that_there_is_not() -> None:
    """A state is one of the lifecycle."""
    with pytest.raises(OperatorError, match="f: item 0: `state` 'asleep' is not known"):
        backends_in(json.dumps([{**BACKEND, "state": "asleep"}]), "f")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("10.0.0.1:80"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*FLOW, "flows", "weight"]), inner, max_size=4)
    ),
    max_leaves=4,
)


@settings(max_examples=50)
@given(JSON | st.lists(st.fixed_dictionaries(dict.fromkeys(FLOW, JSON)), max_size=2))
def test_no_data_raises_anything_else(data: Any) -> None:
    """All JSON gives a listing or OperatorError."""
    for reader in (flows_in, backends_in):
        with contextlib.suppress(OperatorError):
            reader(json.dumps(data), "f")
