"""Addresses and neighbours, in a network namespace with a veth pair."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface

import pytest
from waiting import await_connected, wait_until

from paraglider.config.types import IPAddress, IPInterface
from paraglider.errors import PlatformError
from paraglider.host import netlink as module
from paraglider.host.netlink import Neighbour, Netlink, RouteTowards
from paraglider.lab.namespace import Namespace

pytestmark = pytest.mark.root


def entry(netlink: Netlink, address: IPAddress) -> Neighbour:
    """The neighbour entry on eth0 once it is resolved."""

    def resolved() -> Neighbour | None:
        found = netlink.neighbour("eth0", address)
        return found if found is not None and found.resolved else None

    found = wait_until(resolved)
    assert found is not None
    return found


@pytest.fixture
def peer(inside: Namespace) -> Iterator[Namespace]:
    """The other end of eth0, in a namespace where 10.0.0.1 and fd00::1 live."""
    with Namespace(inside.name.replace("-host", "-peer")) as other:
        inside.ip(f"link set eth1 netns {other.name}")
        other.ip("addr add 10.0.0.1/8 dev eth1", "addr add fd00::1/64 dev eth1 nodad")
        other.ip("link set eth1 up")
        inside.ip("addr add 10.0.0.254/8 dev eth0", "addr add fd00::fe/64 dev eth0 nodad")
        await_connected(inside, "eth0")
        await_connected(other, "eth1")
        yield other


def test_interfaces_are_those_of_the_namespace(inside: Namespace) -> None:
    """Not those of the host."""
    assert Netlink().interfaces() == {"lo", "eth0", "eth1"}


@pytest.mark.parametrize("text", ["192.168.0.11/24", "192.168.0.12/32", "2001:db8::11/64"])
def test_addresses_come_and_go(inside: Namespace, text: str) -> None:
    """Adding twice and removing twice are no errors."""
    netlink, address = Netlink(), ip_interface(text)

    def there() -> set[IPInterface]:
        """The addresses except the kernel's own, which is added when the link is up."""
        return {one for one in netlink.addresses("eth0") if not one.ip.is_link_local}

    before = there()
    netlink.add_address("eth0", address)
    netlink.add_address("eth0", address)
    assert there() == {*before, address}
    netlink.remove_address("eth0", address)
    netlink.remove_address("eth0", address)
    assert there() == before


def test_a_vip_of_ipv6_is_usable_at_once(inside: Namespace) -> None:
    """No duplicate address detection, even where the kernel would do it."""
    inside.sysctl("net.ipv6.conf.eth0.accept_dad=1")
    Netlink().add_address("eth0", ip_interface("2001:db8::11/64"))
    shown = inside.run(["ip", "-6", "address", "show", "dev", "eth0", "to", "2001:db8::11"]).stdout
    assert "nodad" in shown
    assert "tentative" not in shown


def test_a_missing_interface_is_an_error(inside: Namespace) -> None:
    """Adding fails; there is nothing to remove, list or forget."""
    netlink, address = Netlink(), ip_interface("10.1.0.1/8")
    with pytest.raises(PlatformError, match="the interface eth7 is gone"):
        netlink.add_address("eth7", address)
    netlink.remove_address("eth7", address)
    netlink.forget_neighbour("eth7", address.ip, None)
    assert netlink.addresses("eth7") == ()
    assert netlink.neighbour("eth7", address.ip) is None


def test_a_refusal_has_its_reason(inside: Namespace) -> None:
    """IPv6 may be off on an interface."""
    inside.sysctl("net.ipv6.conf.eth0.disable_ipv6=1")
    with pytest.raises(
        PlatformError, match="cannot add 2001:db8::11/64 to eth0: Permission denied"
    ):
        Netlink().add_address("eth0", ip_interface("2001:db8::11/64"))


@pytest.mark.parametrize("text", ["10.0.0.1", "fd00::1"])
def test_a_neighbour_is_resolved_and_kept(inside: Namespace, peer: Namespace, text: str) -> None:
    """No hardware address is configured; forgetting removes the entry."""
    netlink, address = Netlink(), ip_address(text)
    assert netlink.neighbour("eth0", address) is None
    netlink.manage_neighbour("eth0", address)
    found = entry(netlink, address)
    assert found.managed
    assert not found.fixed
    netlink.forget_neighbour("eth0", address, None)
    assert netlink.neighbour("eth0", address) is None


def test_a_learnt_neighbour_becomes_ordinary_again(inside: Namespace, peer: Namespace) -> None:
    """An entry that the kernel had before stays afterwards."""
    netlink, address = Netlink(), ip_address("10.0.0.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.sendto(b"", ("10.0.0.1", 9))
    before = entry(netlink, address)
    netlink.manage_neighbour("eth0", address)
    assert entry(netlink, address).managed
    netlink.forget_neighbour("eth0", address, before.hardware)
    after = entry(netlink, address)
    assert after.hardware == before.hardware
    assert not after.managed


def test_a_static_neighbour_is_not_forgotten(inside: Namespace) -> None:
    """An administrator's entry is not removed."""
    netlink, address = Netlink(), ip_address("10.0.0.7")
    inside.ip("neigh add 10.0.0.7 lladdr 02:00:00:00:00:07 dev eth0 nud permanent")
    netlink.forget_neighbour("eth0", address, None)
    found = netlink.neighbour("eth0", address)
    assert found == Neighbour("02:00:00:00:00:07", resolved=True, fixed=True, managed=False)


@pytest.mark.parametrize("text", ["10.0.0.1", "fd00::1"])
def test_a_kernel_that_does_not_manage_is_made_to_resolve(
    inside: Namespace, peer: Namespace, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Linux 5.16 the flag is ignored: a datagram makes the kernel resolve the address."""
    monkeypatch.setattr(module, "_MANAGED", 0)
    netlink, address = Netlink(), ip_address(text)
    netlink.manage_neighbour("eth0", address)
    assert not entry(netlink, address).managed


def test_the_route_towards_an_address(peer: Namespace, inside: Namespace) -> None:
    """By the kernel's routes, on the link or behind a router; None without a route."""
    netlink = Netlink()
    assert netlink.route_towards(ip_address("10.0.0.1")) == RouteTowards("eth0")
    assert netlink.route_towards(ip_address("fd00::1")) == RouteTowards("eth0")
    assert netlink.route_towards(ip_address("127.0.0.1")) == RouteTowards("lo")
    for address in (ip_address("192.0.2.1"), ip_address("2001:db8::1")):
        assert netlink.route_towards(address) is None
    inside.ip("route add 192.0.2.0/24 via 10.0.0.1", "route add unreachable 198.51.100.0/24")
    inside.ip("route add 2001:db8::/64 via fd00::1")
    for address, via in (("192.0.2.1", "10.0.0.1"), ("2001:db8::1", "fd00::1")):
        assert netlink.route_towards(ip_address(address)) == RouteTowards("eth0", ip_address(via))
    assert netlink.route_towards(ip_address("198.51.100.1")) is None


def test_the_hosts_own_addresses(inside: Namespace) -> None:
    """In the order in which they were added, of all interfaces; without those that other hosts do
    not know it by, or not for long.
    """
    inside.ip(
        "addr add 10.0.0.7/8 dev eth0",
        "addr add 10.0.0.5/8 dev eth0",
        "addr add 10.0.0.1/32 dev eth0",
        "addr add fd00::7/64 dev eth0 nodad",
        "addr add fd00::5/64 dev eth0 nodad",
        "addr add fd00::9/64 dev eth0 nodad preferred_lft 0",
        "addr add 127.0.0.2/8 dev lo",
    )
    found = Netlink().own_addresses()
    assert found.keys() == {"lo", "eth0", "eth1"}
    assert list(map(str, found["eth0"])) == [
        *("10.0.0.7/8", "10.0.0.1/32", "10.0.0.5/8"),
        *("fd00::7/64", "fd00::5/64"),
    ]
    assert (found["eth1"], found["lo"]) == ((), ())
