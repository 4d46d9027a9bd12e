"""Tests of ``paraglider.forward.one_sided_method``: what its methods have in common."""

from __future__ import annotations

import pytest

from paraglider.config.model import Service
from paraglider.forward.one_sided_method import OneSidedMethod
from paraglider.forward.registry import methods


@pytest.mark.parametrize("method", [m for m in methods() if isinstance(m, OneSidedMethod)])
def test_only_the_clients_packets_pass(method: OneSidedMethod) -> None:
    """They are queued, and flows are journalled; the backends have the VIP and answer directly."""
    document = {"name": "a", "vip": "192.168.0.11", "protocol": "tcp", "ports": 80}
    service = Service.model_validate({**document, "forward": method.name, "backends": ["10.0.0.1"]})
    assert (method.queued, method.journalled, method.owns_vip) == (True, True, False)
    assert method.answers(service) == "direct"


def test_which_methods_are_one_sided() -> None:
    """Those whose backends have the VIP."""
    found = {method.name for method in methods() if isinstance(method, OneSidedMethod)}
    assert found == {"dsr", "tunnel"}
