"""Addresses and neighbours as changes, against the real kernel."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import replace

import pytest
from waiting import TIMEOUT

from paraglider.errors import PlatformError
from paraglider.host.changes.base import Host
from paraglider.host.changes.links import AddressChange, NeighbourChange
from paraglider.lab.namespace import Namespace


@pytest.mark.root
def test_the_secondary_addresses_of_others_stay(inside: Namespace) -> None:
    """Removing our primary address of a subnet does not remove a secondary one of others."""
    change, host = AddressChange(4, "eth0", "192.168.0.11/24"), Host()
    change.apply(host)
    inside.ip("addr add 192.168.0.99/24 dev eth0 label eth0:theirs")
    change.revert(host)
    shown = inside.run(["ip", "-4", "address", "show", "dev", "eth0"]).stdout
    assert "192.168.0.11" not in shown
    assert "192.168.0.99/24" in shown
    assert "eth0:theirs" in shown
    assert host.sysctl.read("net/ipv4/conf/eth0/promote_secondaries") == "0"


@pytest.mark.root
def test_the_secondary_addresses_stay_where_parameters_are_read_only(
    inside: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are added again with all their attributes."""
    change, host = AddressChange(4, "eth0", "192.168.0.11/24"), Host()
    inside.ip("addr add 192.168.0.99/16 dev eth0", "addr add 10.0.0.1/8 dev eth1")
    change.apply(host)
    inside.ip(
        "addr add 192.168.0.98/24 brd + dev eth0 label eth0:theirs",
        "addr add 192.168.0.97/24 dev eth0 valid_lft 1000 preferred_lft 900",
    )
    shown = inside.run(["ip", "-4", "address", "show"]).stdout

    def refuse(key: str, value: str) -> None:
        raise PlatformError("Read-only file system")

    monkeypatch.setattr(host.sysctl, "write", refuse)
    change.revert(host)
    left = inside.run(["ip", "-4", "address", "show"]).stdout.replace(" secondary", "")
    wanted = [line for line in shown.replace(" secondary", "").splitlines() if ".11/" not in line]
    assert [line for line in left.splitlines() if "_lft" not in line] == [
        line for line in wanted if "_lft" not in line
    ]
    assert left.count("valid_lft") == shown.count("valid_lft") - 1
    (seconds,) = re.findall(r"valid_lft (\d+)sec", left)
    assert 1000 - TIMEOUT < int(seconds) <= 1000


@pytest.mark.root
def test_an_address_becomes_deprecated_in_place(inside: Namespace) -> None:
    """It is preferred again after a roll-back, and removed by the undo."""
    host, plain = Host(), AddressChange(6, "eth0", "2001:db8::11/64")

    def shown() -> str:
        return inside.run(
            ["ip", "-6", "address", "show", "dev", "eth0", "to", "2001:db8::/64"]
        ).stdout

    plain.apply(host)
    first = shown()
    assert "deprecated" not in first
    change = AddressChange(6, "eth0", "2001:db8::11/64", deprecated=True, previous=False)
    change.apply(host)
    assert "deprecated" in shown()
    change.revert(host)
    assert shown() == first
    inside.run(["sh", "-e"], text=change.script(host))
    assert "deprecated" in shown()
    AddressChange(6, "eth0", "2001:db8::11/64", deprecated=True).revert(host)
    assert shown() == ""


def source(inside: Namespace) -> str:
    """Whom a datagram to a neighbour comes from, as it arrives."""
    inside.ip("neigh replace 192.168.0.50 lladdr 02:00:00:00:00:50 dev eth0")
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)) as tap,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        tap.bind(("eth1", 0x0800))
        tap.settimeout(TIMEOUT)
        sender.sendto(b"", ("192.168.0.50", 9))
        while (packet := tap.recv(2048))[16:20] != bytes([192, 168, 0, 50]):
            pass
    return str(ipaddress.ip_address(packet[12:16]))


@pytest.mark.root
@pytest.mark.parametrize("how", ["apply", "script", "read-only"])
def test_an_address_goes_behind_the_hosts_own(
    inside: Namespace, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The host's own address is added again with all its attributes, and becomes the source."""
    change, host = AddressChange(4, "eth0", "192.168.0.11/24"), Host()
    change.apply(host)
    inside.ip("addr add 192.168.0.1/24 dev eth0 label eth0:own")
    assert source(inside) == "192.168.0.11"
    behind = replace(change, ahead=True)

    def refuse(key: str, value: str) -> None:
        raise PlatformError("Read-only file system")

    if how == "script":
        inside.run(["sh", "-e"], text=behind.script(host))
    else:
        if how == "read-only":
            monkeypatch.setattr(host.sysctl, "write", refuse)
        behind.apply(host)
    assert source(inside) == "192.168.0.1"
    addresses = [str(address) for address in host.netlink.addresses("eth0")]
    assert [a for a in addresses if ":" not in a] == ["192.168.0.1/24", "192.168.0.11/24"]
    assert "eth0:own" in inside.run(["ip", "-4", "address", "show", "dev", "eth0"]).stdout
    behind.revert(host)
    assert behind.revert_script(host) == ""
    assert source(inside) == "192.168.0.1"


@pytest.mark.root
def test_the_script_of_an_address_can_be_pasted(inside: Namespace) -> None:
    """The dry run's script has the same effect as the change, and its undo too."""
    before = inside.run(["ip", "address"]).stdout
    for change in (
        AddressChange(4, "eth0", "192.168.0.11/24"),
        AddressChange(6, "eth0", "2001:db8::11/64"),
        NeighbourChange(4, "eth0", "192.168.0.1"),
    ):
        inside.run(["sh", "-e"], text=change.script(Host()))
        inside.run(["sh", "-e"], text=change.revert_script(Host()))
    assert inside.run(["ip", "address"]).stdout == before


def test_a_learnt_neighbour_is_released_by_the_script() -> None:
    """Its hardware address is kept."""
    change = NeighbourChange(4, "eth1", "10.0.0.1", "02:00:00:00:00:01")
    assert change.revert_script(Host()) == (
        "ip neighbour replace 10.0.0.1 dev eth1 lladdr 02:00:00:00:00:01 nud stale\n"
    )


@pytest.mark.root
def test_a_deprecated_address_is_no_source(inside: Namespace) -> None:
    """The host has it and begins no connection from it, by the change and by its script."""
    before = inside.run(["ip", "address"]).stdout
    change = AddressChange(6, "lo", "2001:db8::11/128", deprecated=True)
    change.apply(Host())
    shown = inside.run(["ip", "-6", "address", "show", "dev", "lo"]).stdout
    assert "2001:db8::11/128" in shown
    assert "preferred_lft 0sec" in shown
    change.revert(Host())
    assert inside.run(["ip", "address"]).stdout == before
    inside.run(["sh", "-e"], text=change.script(Host()))
    assert inside.run(["ip", "-6", "address", "show", "dev", "lo"]).stdout == shown
