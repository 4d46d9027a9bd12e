"""Tests of ``paraglider.forward.registry``: the methods, found by their names, and described."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.config.method import METHODS
from paraglider.config.model import Service
from paraglider.forward import registry


def service(**changes: Any) -> Service:
    """A service with these keys."""
    base = {"name": "a", "vip": "192.168.0.11/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
    return Service.model_validate({**base, **changes})


@pytest.mark.parametrize(
    ("keys", "wanted", "absent"),
    [
        ({}, "every packet passes a worker and is rewritten, both ways", "needs nf_conntrack"),
        ({"return": "direct"}, "replies go past this host", "both ways"),
        ({"forward": "offload"}, "the kernel carries the rest at its own speed", "events"),
        ({"forward": "offload"}, "needs NFQUEUE, nf_conntrack and nft", "last new connection"),
        ({"forward": "offload"}, "see the client's address", "10.0.0.9"),
        ({"forward": "offload", "snat": "10.0.0.9"}, "see 10.0.0.9", "the client's address"),
        ({"forward": "offload", "strategy": "weighted"}, "counted by conntrack's events", "kept"),
        ({"forward": "offload", "strategy": "a.b:C"}, "counted by conntrack's events", "kept"),
        ({"forward": "proxy"}, "see this host's address", "PROXY protocol"),
        ({"forward": "proxy", "proxy_protocol": "v2"}, "by the PROXY protocol v2", "this host's"),
        ({"forward": "offload", "affinity": "client"}, "from its last new connection", "events"),
    ],
)
def test_what_a_service_is_told(keys: dict[str, Any], wanted: str, absent: str) -> None:
    """It follows from the service's own keys, and leaves out what does not concern it."""
    said = registry.of(service(**keys)).describe(service(**keys))
    assert wanted in said
    assert absent not in said


@pytest.mark.parametrize("name", [method.name for method in registry.methods()])
def test_it_is_one_sentence(name: str) -> None:
    """The description ends with a full stop, and stays on one line."""
    for keys in ({}, {"return": "direct"}):
        one = service(forward=name, **keys)
        said = one.method.describe(one)
        assert said.endswith(".")
        assert said.count(".") == 1
        assert "\n" not in said


def test_a_service_without_a_method_of_forward_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    """``of`` never gives what has no rules or datapath."""
    one = service()
    monkeypatch.setitem(METHODS, one.forward, object())  # type: ignore[misc]
    with pytest.raises(TypeError, match="no ForwardMethod"):
        registry.of(one)


@pytest.mark.parametrize(
    ("keys", "needed", "why"),
    [
        ({}, "route", "have to pass the balancer"),
        ({"return": "direct"}, "rewrite", "straight to the client"),
        ({"forward": "offload"}, "route", "have to pass the balancer"),
        ({"forward": "offload", "snat": "10.0.0.9"}, "nothing", "the balancer's 10.0.0.9"),
        ({"forward": "dsr"}, "loopback", "the VIP as their destination"),
        ({"forward": "dsr", "return": "direct"}, "loopback", "without telling its neighbours"),
        ({"forward": "proxy"}, "nothing", "connects by itself"),
        ({"forward": "proxy", "proxy_protocol": "v2"}, "nothing", "understand PROXY protocol v2"),
    ],
)
def test_what_a_backends_host_needs(keys: dict[str, Any], needed: str, why: str) -> None:
    """It follows from the service's own words."""
    one = service(**keys)
    found, said = registry.of(one).backend_need(one)
    assert found == needed
    assert why in said


def test_what_other_firewalls_see() -> None:
    """Each method says what passes the forward hook; of a proxy's connections nothing does."""
    passing = {method.name: method.passing for method in registry.methods()}
    assert passing["proxy"] == ()
    assert all(found for name, found in passing.items() if name != "proxy")
