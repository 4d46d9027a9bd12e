"""Tests of ``paraglider.forward.offload.method``: what it says of itself and of a service."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.config.model import Service
from paraglider.forward.offload.method import OffloadMethod

METHOD = OffloadMethod()


def service(**changes: Any) -> Service:
    """A service of the method with these keys."""
    base = {"name": "a", "vip": "192.168.0.11/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
    return Service.model_validate({**base, "forward": "offload", **changes})


def test_it_is_the_method_of_its_services() -> None:
    """With the facts that the configuration, the host and the workers go by."""
    assert type(service().method) is OffloadMethod
    facts = (METHOD.queued, METHOD.listens, METHOD.conntracked, METHOD.journalled)
    assert facts == (True, False, True, False)
    assert (METHOD.owns_vip, METHOD.neighbours, METHOD.loopback) == (True, False, False)
    assert METHOD.options == {"snat"}


@pytest.mark.parametrize(
    ("keys", "wanted", "absent"),
    [
        ({}, "the kernel carries the rest at its own speed", "events"),
        ({}, "needs NFQUEUE, nf_conntrack and nft", "last new connection"),
        ({}, "see the client's address", "10.0.0.9"),
        ({"snat": "10.0.0.9"}, "see 10.0.0.9", "the client's address"),
        ({"strategy": "weighted"}, "counted by conntrack's events", "kept"),
        ({"strategy": "a.b:C"}, "counted by conntrack's events", "kept"),
        ({"affinity": "client"}, "from its last new connection", "events"),
    ],
)
def test_what_a_service_is_told(keys: dict[str, Any], wanted: str, absent: str) -> None:
    """It follows from the service's own keys, and leaves out what does not concern it."""
    said = METHOD.describe(service(**keys))
    assert wanted in said
    assert absent not in said


@pytest.mark.parametrize(
    ("keys", "needed", "why"),
    [
        ({}, "route", "have to pass the balancer"),
        ({"snat": "10.0.0.9"}, "nothing", "the balancer's 10.0.0.9"),
    ],
)
def test_what_a_backends_host_needs(keys: dict[str, Any], needed: str, why: str) -> None:
    """It follows from the service's own keys."""
    found, said = METHOD.backend_need(service(**keys))
    assert found == needed
    assert why in said


@pytest.mark.parametrize(
    ("keys", "way", "passes"), [({}, "via", True), ({"snat": "10.0.0.9"}, "via", True)]
)
def test_the_way_of_the_answers(keys: dict[str, Any], way: str, passes: bool) -> None:
    """And whether this host forwards their packets."""
    one = service(**keys)
    assert (METHOD.answers(one), METHOD.answers_pass(one)) == (way, passes)
