"""The needs of a backend's host: nft tables in ``golden/backend/SERVICE.nft``, tc in ``….tc``.

After a deliberate change, ``UPDATE_GOLDEN=1 pytest tests/forward`` rewrites the files; read the
difference before committing.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from paraglider.config.model import Config, Network, Service
from paraglider.config.types import PortRange
from paraglider.netfilter.rules.backend import (
    answers_table,
    spared,
    tc_script,
    tc_unfit,
    tracked,
)

GOLDEN = Path(__file__).parents[2] / "forward" / "golden" / "backend"
LOCAL = PortRange(32768, 60999)
CONFIG = Config.model_validate(
    yaml.safe_load((GOLDEN / "backend.yaml").read_text(encoding="utf-8"))
)
NAMES = [service.name for service in CONFIG.services]


def named(name: str) -> Service:
    """A service of the golden configuration."""
    (found,) = [service for service in CONFIG.services if service.name == name]
    return found


def compare(file: Path, text: str) -> None:
    """``text`` is what ``file`` has, or becomes it."""
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


def golden_table(service: Service) -> str:
    """The table for the first backend's host."""
    first = service.backends[0].address
    backends = [backend for backend in service.backends if backend.address == first]
    return answers_table(service, backends, spared(CONFIG.network, service, None), LOCAL)


@pytest.mark.parametrize("name", NAMES)
def test_the_table_is_the_golden_one(name: str) -> None:
    """The text equals the reviewed file, byte for byte."""
    compare(GOLDEN / f"{name}.nft", golden_table(named(name)))


def test_the_tc_form_is_the_golden_one() -> None:
    """Convey's filters, with all that is spared in place of the balancer's address."""
    service = named("mail").model_copy(update={"ports": (PortRange(25, 25), PortRange(465, 465))})
    assert tc_unfit(service, LOCAL) is None
    sparing = spared(CONFIG.network, service, None)
    compare(GOLDEN / "mail.tc", tc_script(service, service.backends, sparing, "eth1"))


@pytest.mark.parametrize(
    ("name", "changes", "why"),
    [
        ("all6", {}, "IPv4 alone"),
        ("web", {}, "maps no ports"),
        ("mail", {}, "not ranges"),
        ("onearm", {"ports": (PortRange(50000, 50000),)}, "a connection of the host's own"),
    ],
)
def test_what_tc_cannot_do(name: str, changes: dict[str, Any], why: str) -> None:
    """It is refused with the reason, and not done in part."""
    said = tc_unfit(named(name).model_copy(update=changes), LOCAL)
    assert said is not None
    assert why in said


def test_which_network_is_exempt_without_a_gateway() -> None:
    """The network that the host has the backend's address in, unless the VIP is in it too."""
    own = ipaddress.ip_interface("10.0.0.1/8")
    assert spared(Network(), named("web"), own).networks == (own.network,)
    assert spared(Network(), named("web"), None).networks == ()
    assert spared(Network(), named("onearm"), own).networks == ()


@pytest.mark.parametrize(
    ("ports", "wanted"),
    [
        ((PortRange(80, 80),), False),
        ((PortRange(80, 80), PortRange(60999, 61000)), True),
        ((PortRange(32767, 32767), PortRange(61000, 65535)), False),
        ((PortRange(1, 65535),), True),
    ],
)
def test_when_the_direction_is_asked_for(ports: tuple[PortRange, ...], wanted: bool) -> None:
    """If a port of the service is in the host's local port range."""
    assert tracked(named("mail").model_copy(update={"ports": ports}), LOCAL) == wanted
