"""Whether the kernel's table of neighbours is large enough."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.host.neighbours import neighbour_table_warnings

CONFIG = Config.model_validate(
    {
        "network": {
            "public": {"interface": "eth0"},
            "private": {"interface": "eth1", "gateway": ["10.0.0.254/8", "fd00:10::fe/64"]},
        },
        "services": [
            {
                "name": "web",
                "vip": "192.168.0.11/24",
                "protocol": "tcp",
                "backends": ["10.0.0.1", "10.0.0.2", "172.16.0.1"],
            }
        ],
    }
)


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (None, []),
        ("3", []),
        (
            "2",
            [
                (
                    "3 neighbours by IPv4 (2 backends, 1 others now), and the kernel keeps 2:"
                    " sysctl -w net.ipv4.neigh.default.gc_thresh3=6"
                )
            ],
        ),
    ],
)
def test_backends_and_others_need_room(air: Any, limit: str | None, said: list[str]) -> None:
    """Each counts once, whether already a neighbour or not; backends behind a router do not count.
    Without the kernel's limit there is no warning.
    """
    if limit is not None:
        place = air.sysctl._root / "net/ipv4/neigh/default"
        place.mkdir(parents=True)
        (place / "gc_thresh3").write_text(f"{limit}\n")
    for interface, address in (("eth0", "192.168.0.100"), ("eth1", "10.0.0.1")):
        air.netlink.manage_neighbour(interface, ipaddress.ip_address(address))
    assert list(neighbour_table_warnings(CONFIG, {4, 6}, air.host)) == said
