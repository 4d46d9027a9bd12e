"""What drivers can do at XDP, as the kernel says."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.host.xdp_devices import XdpUnavailableError, require_xdp, xdp_devices
from paraglider.lab.namespace import Namespace
from tests.xdp import ready_for_xdp

pytestmark = pytest.mark.root


def config(public: str = "", carrier: str = "xdp") -> Config:
    """A service with a carrier."""
    service: dict[str, Any] = {
        "name": "web",
        "vip": "192.0.2.80",
        "protocol": "tcp",
        "ports": 80,
        "carrier": carrier,
        "backends": ["192.0.2.3"],
    }
    network = {"network": {"public": {"interface": public}}} if public else {}
    return Config.model_validate({"services": [service], **network})


def test_veth_has_it_if_it_leaves_tags_in_frames(inside: Namespace) -> None:
    """It takes frames of XDP if its peer has GRO on; the MAC address is the interface's own."""
    ready_for_xdp(inside)
    inside.ip("link set eth0 address 02:00:00:00:00:07")
    found = {one.name: one for one in xdp_devices().values()}
    assert (found["eth0"].lacks, found["eth0"].sends) == ("", True)
    assert found["eth0"].mac == bytes.fromhex("020000000007")
    assert set(xdp_devices()) == {socket.if_nametoindex(name) for name in ("eth0", "eth1")}
    ready_for_xdp(inside, tags=True)
    found = {one.name: one for one in xdp_devices().values()}
    assert "takes VLAN tags out" in found["eth0"].lacks
    assert found["eth0"].remedy == "run `ethtool -K eth0 rxvlan off`"


def test_a_driver_without_it(inside: Namespace) -> None:
    """It is named, and takes no frames of XDP."""
    inside.ip("link add plain type bridge", "link set plain up")
    (found,) = [one for one in xdp_devices().values() if one.name == "plain"]
    assert (found.lacks, found.sends) == ("its driver bridge has no XDP", False)


def test_what_a_configuration_needs(inside: Namespace) -> None:
    """Each interface that it names; if it names none, one of the host."""
    inside.ip("link add plain type bridge", "link set plain up")
    with pytest.raises(XdpUnavailableError, match=r"takes VLAN tags out") as error:
        require_xdp(config("eth0"))
    assert "ethtool -K eth0 rxvlan off" in error.value.remedy
    assert "`carrier: bpf`" in error.value.remedy
    ready_for_xdp(inside)
    require_xdp(config("eth0"))
    require_xdp(config())
    with pytest.raises(XdpUnavailableError, match=r"interface plain: its driver bridge has no"):
        require_xdp(config("plain"))
    inside.ip("link set eth0 down")
    with pytest.raises(XdpUnavailableError, match=r"no interface eth0 is up"):
        require_xdp(config("eth0"))
