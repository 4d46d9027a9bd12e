"""The table for long packets: its text, and that nft takes it."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.forward.nat.long import long_marks, long_table
from paraglider.netfilter.nft import Nft
from paraglider.netfilter.rules.marks import LONG_BASE, MASK

MAPPED = {"address": "10.0.0.2", "port": 8080}
TEXT = """\
add table ip paraglider-long
add map ip paraglider-long backend { type mark : ipv4_addr; }
add map ip paraglider-long backend-port { type mark : inet_service; }
flush map ip paraglider-long backend
flush map ip paraglider-long backend-port
add map ip paraglider-long vip { type mark : ipv4_addr; }
add map ip paraglider-long vip-port { type mark : inet_service; }
flush map ip paraglider-long vip
flush map ip paraglider-long vip-port
add chain ip paraglider-long requests { type filter hook prerouting priority -145; policy accept; }
flush chain ip paraglider-long requests
add chain ip paraglider-long replies { type filter hook forward priority -145; policy accept; }
flush chain ip paraglider-long replies
add element ip paraglider-long backend { ONE : 10.0.0.1 }
add element ip paraglider-long vip { ONE : 192.168.0.11 }
add element ip paraglider-long backend { TWO : 10.0.0.2 }
add element ip paraglider-long backend-port { TWO : 8080 }
add element ip paraglider-long vip { TWO : 192.168.0.11 }
add element ip paraglider-long vip-port { TWO : 80 }
add rule ip paraglider-long requests meta mark & 0xff000000 != 0x53000000 return
add rule ip paraglider-long requests tcp dport set meta mark map @backend-port
add rule ip paraglider-long requests udp dport set meta mark map @backend-port
add rule ip paraglider-long requests ip daddr set meta mark map @backend meta mark set 0x50470000 return
add rule ip paraglider-long requests drop
add rule ip paraglider-long replies meta mark & 0xff000000 != 0x53000000 return
add rule ip paraglider-long replies tcp sport set meta mark map @vip-port
add rule ip paraglider-long replies udp sport set meta mark map @vip-port
add rule ip paraglider-long replies ip saddr set meta mark map @vip meta mark set 0x50470000 return
add rule ip paraglider-long replies drop
"""  # noqa: E501


def config(forward: str = "nat", family: int = 4) -> Config:
    """A service with a backend on the port of the VIP and one on another."""
    service: dict[str, Any] = {
        "name": "web",
        "vip": "192.168.0.11/24",
        "protocol": "tcp",
        "ports": 80,
        "forward": forward,
        "backends": ["10.0.0.1", MAPPED],
    }
    if family == 6:
        mapped = {"address": "fd00::2", "port": 8080}
        service |= {"vip": "2001:db8::11/64", "backends": ["fd00::1", mapped]}
    return Config.model_validate({"services": [service]})


def test_the_text() -> None:
    """Both ends of every backend by its mark, with mapped ports; packets in no map are dropped."""
    one, two = (f"0x{mark:08x}" for mark in long_marks(config())["web"])
    wanted = TEXT.replace("ONE", one).replace("TWO", two)
    assert long_table(config(), 4) == wanted


def test_other_forwards_have_none() -> None:
    """A family without a nat service has no table."""
    assert long_table(config("offload"), 4) is None
    assert long_table(config(), 6) is None


def test_marks_are_nobody_elses() -> None:
    """Different from a worker's and from offload's, and unique."""
    marks = long_marks(config())["web"]
    assert len(set(marks)) == 2
    assert {mark & MASK for mark in marks} == {LONG_BASE}


@pytest.mark.root
@pytest.mark.parametrize("family", [4, 6])
def test_nft_takes_it(family: int) -> None:
    """Also if the table exists already."""
    text = long_table(config(family=family), family)
    assert text is not None
    assert Nft().trial(text + text) == ""
