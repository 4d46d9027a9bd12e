"""Tests of ``paraglider.forward.proxy.checks``: TCP only, and a limited number of ports."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.config.model import Service
from paraglider.forward.proxy.checks import MOST_PORTS, check_service

PATH = ("services", 0)


def service(**changes: Any) -> Service:
    """A proxy's service; a key that is None is left out."""
    keys = {"name": "a", "vip": "192.168.0.11/24", "protocol": "tcp", "ports": 80}
    keys |= {"backends": ["10.0.0.1"], "forward": "proxy", **changes}
    return Service.model_validate({k: v for k, v in keys.items() if v is not None})


@pytest.mark.parametrize(
    "ports", [80, f"1000-{999 + MOST_PORTS}", [80, f"1001-{999 + MOST_PORTS}"]]
)
def test_what_is_right(ports: Any) -> None:
    """TCP, on as many ports as are allowed, in one range or several."""
    assert list(check_service(PATH, service(ports=ports))) == []


@pytest.mark.parametrize("protocol", ["udp", "any"])
def test_another_protocol_is_refused(protocol: str) -> None:
    """The error is at `forward`, and names the protocol."""
    problem, *_ = check_service(PATH, service(protocol=protocol, ports=None))
    assert problem.path == (*PATH, "forward")
    assert problem.needs == ((*PATH, "protocol"),)
    assert f"carries TCP alone, the service is `{protocol}`" in problem.what
    assert "`protocol: tcp`" in problem.remedy


@pytest.mark.parametrize(
    ("ports", "said"),
    [
        (f"1000-{1000 + MOST_PORTS}", f"the service has {MOST_PORTS + 1} ports"),
        ([80, f"1000-{999 + MOST_PORTS}"], f"the service has {MOST_PORTS + 1} ports"),
        (None, "the service has all ports"),
    ],
)
def test_too_many_ports_are_refused(ports: Any, said: str) -> None:
    """A socket each; the remedy has the bound."""
    (problem,) = check_service(PATH, service(ports=ports))
    assert (problem.path, problem.needs) == ((*PATH, "forward"), ((*PATH, "ports"),))
    assert said in problem.what
    assert f"at most {MOST_PORTS} ports" in problem.remedy


def test_both_mistakes_are_reported_together() -> None:
    """The operator mends the file once."""
    assert len(list(check_service(PATH, service(protocol="udp", ports=None)))) == 2
