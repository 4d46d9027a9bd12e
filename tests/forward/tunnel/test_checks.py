"""Files with `forward: tunnel` that contradict themselves: each at its place, with a remedy."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.config.check import check
from paraglider.config.model import Config

WEB = {"name": "web", "vip": "192.168.0.11/24", "protocol": "tcp", "ports": 80}
WEB |= {"forward": "tunnel", "backends": ["10.0.0.1"]}


def said(*services: dict[str, Any], public: bool = True) -> list[str]:
    """Place and text of every problem; each service has changes to WEB."""
    wanted = Config.model_validate(
        {
            "network": {"public": {"interface": "eth0"}} if public else {},
            "services": [{**WEB, **changes} for changes in services],
        }
    )
    return [".".join(map(str, p.path)) + ": " + p.what for p in check(wanted)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"encapsulation": {"type": "gue"}},
        {"encapsulation": {"type": "gue", "port": 19523}},
        {"return": "direct"},
        {"vip": "2001:db8::11/64", "backends": ["fd00::1"]},
        {"backends": [{"address": "10.0.0.1", "port": 80}]},
    ],
)
def test_good_files(changes: dict[str, Any]) -> None:
    """No private network is needed: backends are anywhere."""
    assert said(changes) == []


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"return": "via"}, "services.0.return: `return: via` with `forward: tunnel`"),
        (
            {"backends": [{"address": "10.0.0.1", "port": 81}]},
            "services.0.backends.0.port: `port` with `forward: tunnel`",
        ),
        (
            {"encapsulation": {"port": 6080}},
            "services.0.encapsulation.port: `port` with `encapsulation: {type: ipip}`",
        ),
        ({"snat": "10.0.0.9"}, "services.0.snat: `snat` has no meaning with `forward: tunnel`"),
        ({"backends": ["fd00::1"]}, "services.0.backends.0.address: backend fd00::1 is IPv6"),
        (
            {"forward": "nat", "encapsulation": {"type": "gue"}},
            "services.0.encapsulation: `encapsulation` has no meaning with `forward: nat`",
        ),
    ],
)
def test_contradictions(changes: dict[str, Any], wanted: str) -> None:
    """The message is at the key that is wrong."""
    (found,) = said(changes)
    assert found.startswith(wanted)


def test_without_a_public_interface() -> None:
    """Nothing would attract the VIP."""
    (found,) = said({}, public=False)
    assert found == "services.0.forward: `forward: tunnel` without `network: public`"


def test_a_vip_that_dsr_has() -> None:
    """The address determines the method of a packet."""
    dsr = {"name": "dsr", "ports": 81, "forward": "dsr"}
    found = said({}, dsr)
    assert [text for text in found if "vip" in text] == [
        "services.1.vip: VIP 192.168.0.11 is also `web`'s, by `forward: tunnel`"
    ]
    assert said({}, {"name": "more", "ports": 81}) == []
