"""The flows that are steered to a worker are those that the rules of their method steer there."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.core.hmark import worker_of
from paraglider.forward.flow_share import flows_of, method_steered_by_client
from paraglider.forward.registry import methods
from paraglider.forward.rule_parts import RuleScope, shares_chains
from paraglider.netfilter.rules.steering import Steering

BY_NAME = {method.name: method for method in methods()}
V4 = {"protocol": "tcp", "ports": 80, "vip": "192.168.0.11/24", "backends": ["10.0.0.1"]}
V6 = V4 | {"vip": "2001:db8::11/64", "backends": ["2001:db8:1::1"]}
KEEPS = {"affinity": "client"}


def config(*services: dict[str, Any]) -> Config:
    """These services, on VIPs of their own."""
    made = []
    for number, service in enumerate(services):
        vip = service["vip"].replace("11/", f"{11 + number}/")
        made.append({**service, "name": f"s{number}", "vip": vip})
    return Config.model_validate({"services": made})


@pytest.mark.parametrize(
    "services",
    [
        [V4],
        [V4 | KEEPS, V6],
        [V4, V6 | KEEPS],
        [V4, V4 | KEEPS | {"forward": "offload"}],
        [V4, V4 | KEEPS | {"forward": "dsr"}],
        [V4 | KEEPS, V4 | {"forward": "dsr"}, V4 | {"forward": "tunnel"}],
        [V4 | {"forward": "dsr"}, V4 | KEEPS | {"forward": "tunnel"}],
    ],
)
def test_it_is_what_the_rules_do(services: list[dict[str, Any]]) -> None:
    """Each method's flows by the options that the rules of its chains have."""
    wanted = config(*services)
    for service in wanted.services:
        scope = RuleScope(wanted, service.family, (0, 1, 2), 7, methods(), ())
        shared = shares_chains(service.method)
        steering = scope.steering(
            shares_chains if shared else lambda other, method=service.method: other is method
        )
        by_client = method_steered_by_client(wanted, service.method, service.family)
        assert steering == Steering((0, 1, 2), 7, by_client)
        assert ("sport" in steering.by_source()) != by_client
        client = service.vip.ip.packed
        share = [flows_of(wanted, worker, 3, 7, service.forward) for worker in range(3)]
        for port in range(20):
            owner = worker_of(client, 0 if by_client else port, 7, 3)
            assert [one.has(client, port) for one in share] == [n == owner for n in range(3)]
