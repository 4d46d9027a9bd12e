"""Tests of ``paraglider.health.targets``: which port, which networks, which addresses never."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.config.load import parse
from paraglider.config.model import Config
from paraglider.health.targets import scope, target

NETWORK = """\
network:
  private: {interface: eth1, gateway: [10.0.0.254/8, "fd00:10::fe/64"]}
  exempt: ["192.168.0.1:53/udp"]
"""


def config(head: str = "", **keys: Any) -> Config:
    """A configuration of one service with two backends, one of them mapped."""
    ports = keys.get("ports", "80")
    tail = f", check: {keys['check']}" if "check" in keys else ""
    backends = keys.get("backends", "[10.0.0.1, {address: 10.0.0.2, port: 8080}]")
    service = f"name: web, vip: 192.168.0.11/24, protocol: tcp, ports: {ports}"
    text = f"{head}services:\n  - {{{service}, backends: {backends}{tail}}}\n"
    return parse(text, "f").config


@pytest.mark.parametrize(
    ("keys", "ports"),
    [
        ({}, [80, 8080]),
        ({"check": "{}"}, [80, 8080]),
        ({"check": "{port: 9}"}, [9, 9]),
        ({"ports": "[80, 81]", "backends": "[10.0.0.1]", "check": "{type: icmp}"}, [0]),
    ],
)
def test_port(keys: dict[str, Any], ports: list[int]) -> None:
    """The check's own port, else the backend's, else the service's only one, else 0."""
    (service,) = config(**keys).services
    found = [target(service, backend, "x") for backend in service.backends]
    assert [one.port for one in found] == ports
    assert all(one.check is service.check for one in found)
    assert [str(one.address) for one in found] == ["10.0.0.1", "10.0.0.2"][: len(found)]


def test_scope_is_the_private_side() -> None:
    """The broadcast address of the gateway's network, its interface, and no address of ours."""
    looked = scope(config(NETWORK))
    assert [str(address) for address in looked.broadcasts] == ["10.255.255.255"]
    assert looked.interface == "eth1"
    assert [str(address) for address in looked.sources] == ["fd00:10::fe"]
    never = {str(address) for address in looked.never}
    assert never == {"10.0.0.254", "fd00:10::fe", "192.168.0.11", "192.168.0.1"}


def test_broadcast_of_the_file() -> None:
    """A broadcast address in the file replaces all others."""
    looked = scope(config(f"failover: {{broadcast: 10.1.255.255}}\n{NETWORK}"))
    assert [str(address) for address in looked.broadcasts] == ["10.1.255.255"]


def test_scope_without_network() -> None:
    """Without a private side only listed hosts are pinged."""
    looked = scope(config())
    assert (looked.broadcasts, looked.interface) == ((), "")
