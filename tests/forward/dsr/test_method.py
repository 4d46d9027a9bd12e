"""Tests of ``paraglider.forward.dsr.method``: what it says of itself and of a service."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.config.model import Service
from paraglider.forward.dsr.method import DsrMethod

METHOD = DsrMethod()


def service(**changes: Any) -> Service:
    """A service of the method with these keys."""
    base = {"name": "a", "vip": "192.168.0.11/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
    return Service.model_validate({**base, "forward": "dsr", **changes})


def test_it_is_the_method_of_its_services() -> None:
    """With the facts that the configuration, the host and the workers go by."""
    assert type(service().method) is DsrMethod
    facts = (METHOD.queued, METHOD.listens, METHOD.conntracked, METHOD.journalled)
    assert facts == (True, False, False, True)
    assert (METHOD.owns_vip, METHOD.neighbours, METHOD.loopback) == (False, True, False)
    assert METHOD.options == {"return"}


@pytest.mark.parametrize(
    ("keys", "wanted", "absent"),
    [
        ({}, "policy routing sends what the client sends on unchanged", "rewritten"),
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
        ({}, "loopback", "the VIP as their destination"),
        ({"return": "direct"}, "loopback", "without telling its neighbours"),
    ],
)
def test_what_a_backends_host_needs(keys: dict[str, Any], needed: str, why: str) -> None:
    """It follows from the service's own keys."""
    found, said = METHOD.backend_need(service(**keys))
    assert found == needed
    assert why in said


@pytest.mark.parametrize(
    ("keys", "way", "passes"), [({}, "direct", False), ({"return": "direct"}, "direct", False)]
)
def test_the_way_of_the_answers(keys: dict[str, Any], way: str, passes: bool) -> None:
    """And whether this host forwards their packets."""
    one = service(**keys)
    assert (METHOD.answers(one), METHOD.answers_pass(one)) == (way, passes)
