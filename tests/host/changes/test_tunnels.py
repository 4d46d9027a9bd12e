"""The changes of a tunnel's end: what they are called, and that they come back from the state."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from paraglider.host.changes.records import from_record, is_stored, to_record
from paraglider.host.changes.tunnels import (
    TunnelDeviceChange,
    TunnelEndChange,
    TunnelPortChange,
)
from paraglider.host.decapsulation import TunnelEnd
from paraglider.host.tunnel_devices import TunnelDevice, TunnelPort

CHANGE = TunnelEndChange(4, "eth0", "10.0.0.1", "192.168.0.11", 6080)


def test_applied_and_reverted(air: Any) -> None:
    """By the edge of the platform; without a program of the system there is only a remark."""
    host, ends = air.host, air.decapsulation.ends
    CHANGE.apply(host)
    wanted = TunnelEnd(ip_address("10.0.0.1"), ip_address("192.168.0.11"), 6080)
    assert ends == {(wanted, "eth0")}
    CHANGE.revert(host)
    assert ends == set()
    assert all(line.startswith("# ") for line in CHANGE.script(host).splitlines())
    assert CHANGE.revert_script(host).startswith("# ")


def test_stored() -> None:
    """Its record is the change again; ends of two services at one backend are two."""
    assert is_stored(CHANGE)
    assert from_record(to_record(CHANGE)) == CHANGE
    other = TunnelEndChange(4, "eth0", "10.0.0.1", "192.168.0.11", 0)
    assert other.identity != CHANGE.identity
    assert "IP in IP" in other.describe("apply")
    assert "no longer decapsulates" in CHANGE.describe("revert")


def test_a_device(air: Any) -> None:
    """It has a loose rp_filter, which goes with it; the script does the same."""
    change = TunnelDeviceChange(4, "10.0.0.1")
    assert change.script(air.host).splitlines() == [
        "ip link add name ipip-0a000001 type ipip mode ipip local 10.0.0.1",
        "sysctl -w net.ipv4.conf.ipip-0a000001.rp_filter=2",
        "ip address add 192.0.0.8/32 dev ipip-0a000001 scope host",
        "ip link set dev ipip-0a000001 up",
    ]
    assert change.revert_script(air.host) == "ip link del dev ipip-0a000001\n"
    change.apply(air.host)
    assert air.tunnel_devices.held == {TunnelDevice(ip_address("10.0.0.1"))}
    assert air.sysctl.read("net/ipv4/conf/ipip-0a000001/rp_filter") == "2"
    change.revert(air.host)
    assert air.tunnel_devices.held == set()
    assert "no longer decapsulates packets to 10.0.0.1" in change.describe("revert")
    assert from_record(to_record(change)) == change


def test_an_ipv6_device(air: Any) -> None:
    """The kernel has no rp_filter for IPv6."""
    change = TunnelDeviceChange(6, "fd00:10::1")
    name = change.device.name
    assert change.script(air.host).splitlines() == [
        f"ip link add name {name} type ip6tnl mode ip6ip6 local fd00:10::1",
        f"ip link set dev {name} addrgenmode none",
        f"ip link set dev {name} up",
    ]


def test_a_port(air: Any) -> None:
    """The module is loaded before, if it is one."""
    change = TunnelPortChange(4, "10.0.0.1", 6080)
    assert change.script(air.host).splitlines() == [
        "modprobe -q fou || :",
        "ip -4 fou add port 6080 gue local 10.0.0.1",
    ]
    assert change.revert_script(air.host) == "ip -4 fou del port 6080 local 10.0.0.1\n"
    change.apply(air.host)
    assert air.tunnel_devices.held == {TunnelPort(ip_address("10.0.0.1"), 6080)}
    change.revert(air.host)
    assert air.tunnel_devices.held == set()
    assert "no longer accepts GUE" in change.describe("revert")
    assert from_record(to_record(change)) == change
