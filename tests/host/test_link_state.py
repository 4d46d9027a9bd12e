"""The state of an interface, as the kernel has it."""

from __future__ import annotations

import pytest

from paraglider.host.link_state import lacks_header, link_state
from paraglider.lab.namespace import Namespace

pytestmark = pytest.mark.root


def test_the_state_of_an_interface(inside: Namespace) -> None:
    """Up, without a carrier when the other end is down, down by an administrator, or not there."""
    assert link_state("eth0") == "up"
    inside.ip("link set eth1 down")
    assert link_state("eth0") == "no carrier"
    inside.ip("link set eth0 down")
    assert link_state("eth0") == "down"
    assert link_state("nowhere0") == "gone"


def test_who_has_no_ethernet_header(inside: Namespace) -> None:
    """tun has none; what is not there lacks nothing."""
    inside.ip("tuntap add tun0 mode tun")
    found = {name: lacks_header(name) for name in ("tun0", "eth0", "lo", "nowhere0")}
    assert found == {"tun0": True, "eth0": False, "lo": False, "nowhere0": False}
