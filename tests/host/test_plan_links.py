"""Tests of ``paraglider.host.plan_links``: sysctls, addresses, neighbours and routing of a plan."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from paraglider.config.announce import AnnounceConfig
from paraglider.config.model import Config
from paraglider.config.network import PrivateSide
from paraglider.host import apply
from paraglider.host.changes.base import Change
from paraglider.host.changes.links import AddressChange
from paraglider.host.netlink import Neighbour
from paraglider.host.plan_links import link_steps, needs_kernel, on_link_backends
from paraglider.host.state import StateFile
from paraglider.host.step import Step

WEB = {"name": "web", "vip": "192.168.0.11/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
SIX = {"name": "six", "vip": "2001:db8::11/64", "protocol": "tcp", "backends": ["fd00:10::1"]}
HTTP = {**WEB, "ports": 80, "backends": ["10.0.0.1", "172.16.0.1"]}


def config(*services: dict[str, Any], private: str = "eth1", **changes: Any) -> Config:
    """Services of both families, with gateways on ``private``."""
    sides = {
        "public": {"interface": "eth0"},
        "private": {"interface": private, "gateway": ["10.0.0.254/8", "fd00:10::fe/64"]},
    }
    every = [{**service, **changes} for service in services or (WEB, SIX)]
    return Config.model_validate({"chroot": "/tmp", "network": sides, "services": every})


def links(air: Any, wanted: Config, earlier: Iterable[Change] = ()) -> list[Step]:
    """The steps of both families, given the records of an earlier set-up."""
    records = {change.identity: change for change in earlier}
    families = sorted({service.family for service in wanted.services})
    return [step for family in families for step in link_steps(wanted, family, air.host, records)]


def told(steps: Iterable[Step], action: str = "apply") -> list[str]:
    """The descriptions of the steps with this action."""
    return [step.describe() for step in steps if step.action == action]


def addresses(steps: Iterable[Step]) -> dict[str, tuple[str, bool]]:
    """The addresses: their actions, and whether they are deprecated."""
    return {
        step.change.address: (step.action, step.change.deprecated)
        for step in steps
        if isinstance(step.change, AddressChange)
    }


@pytest.mark.parametrize("forward", ["nat", "offload", "proxy"])
def test_a_vip_of_ipv6_is_no_source(air: Any, forward: str) -> None:
    """With any method; an address towards the backends is, if it is the only one."""
    assert addresses(links(air, config(forward=forward))) == {
        "192.168.0.11/24": ("apply", False),
        "10.0.0.254/8": ("apply", False),
        "2001:db8::11/64": ("apply", True),
        "fd00:10::fe/64": ("apply", False),
    }


def test_a_gateway_beside_the_hosts_own_address_is_no_source(air: Any) -> None:
    """The host's own address stays the source; one of an earlier set-up does not count as own."""
    air.netlink.add_address("eth1", ipaddress.ip_interface("fd00:10::5/64"))
    assert addresses(links(air, config()))["fd00:10::fe/64"] == ("apply", True)
    earlier = [AddressChange(6, "eth1", "fd00:10::5/64")]
    assert addresses(links(air, config(), earlier))["fd00:10::fe/64"] == ("apply", False)


def test_an_earlier_set_ups_vip_becomes_deprecated(air: Any, tmp_path: Path) -> None:
    """In place; a failure restores it, and the operator's address is not changed."""
    state, address = StateFile(tmp_path, 7), ipaddress.ip_interface("2001:db8::11/64")
    air.netlink.add_address("eth0", address)
    assert addresses(links(air, config()))["2001:db8::11/64"] == ("keep", True)
    (earlier,) = [AddressChange(6, "eth0", "2001:db8::11/64")]
    steps = [s for s in links(air, config(), [earlier]) if isinstance(s.change, AddressChange)]
    (step,) = (step for step in steps if step.change.address == "2001:db8::11/64")
    step.do(air.host)
    assert air.netlink.deprecated == {("eth0", address)}
    step.roll_back(air.host)
    assert air.netlink.deprecated == set()
    assert address in air.netlink.held["eth0"]
    state.store([earlier])
    apply.set_up([step], air.host, state, air.say)
    assert state.load() == [AddressChange(6, "eth0", "2001:db8::11/64", deprecated=True)]
    assert addresses(links(air, config(), state.load()))["2001:db8::11/64"] == ("keep", True)


def behind(air: Any, wanted: Config, earlier: Iterable[Change]) -> list[str]:
    """The addresses that are put behind the host's own; the plan is carried out."""
    steps = links(air, wanted, earlier)
    for step in steps:
        step.do(air.host)
    changes = (step.change for step in steps if isinstance(step.change, AddressChange))
    return [change.address for change in changes if change.ahead]


def test_a_vip_of_ipv4_stands_behind_the_hosts_own_address(air: Any) -> None:
    """In any order of addition, so that it is no source; the same for a gateway, but not for
    others.
    """
    second = {**WEB, "name": "second", "vip": "192.168.0.12/24", "ports": 81}
    wanted = config(WEB, second)
    assert behind(air, wanted, []) == []
    earlier = [
        AddressChange(4, "eth0", "192.168.0.11/24"),
        AddressChange(4, "eth1", "10.0.0.254/8"),
    ]
    for interface, own in (("eth0", "192.168.0.1/24"), ("eth1", "10.0.0.5/8")):
        air.netlink.add_address(interface, ipaddress.ip_interface(own))
    assert behind(air, wanted, earlier) == ["192.168.0.11/24", "10.0.0.254/8"]
    assert [str(address) for address in air.netlink.held["eth0"]][:1] == ["192.168.0.12/24"]
    earlier.append(AddressChange(4, "eth0", "192.168.0.12/24"))
    assert behind(air, wanted, earlier) == ["192.168.0.12/24"]
    assert [str(address) for address in air.netlink.held["eth0"] if address.version == 4] == [
        "192.168.0.1/24",
        "192.168.0.11/24",
        "192.168.0.12/24",
    ]
    assert behind(air, wanted, earlier) == []


def test_a_vip_within_a_wider_network_of_the_host_has_none(air: Any) -> None:
    """Otherwise it would be the first address of its own network, and a source there."""
    air.netlink.add_address("eth0", ipaddress.ip_interface("192.168.5.1/16"))
    steps = links(air, config())
    assert addresses(steps)["192.168.0.11/32"] == ("apply", False)
    assert "192.168.0.11/24" not in addresses(steps)


def test_the_parameter_of_all_interfaces_is_enough(air: Any) -> None:
    """If `all` answers for neighbours, the interface's own parameter stays."""
    wanted = config(SIX, forward="dsr")
    key = ("sysctl", "net/ipv6/conf/eth0/proxy_ndp")
    assert key in {step.change.identity for step in links(air, wanted)}
    (air.sysctl._root / "net/ipv6/conf/all/proxy_ndp").write_text("1\n")
    assert key not in {step.change.identity for step in links(air, wanted)}


def test_what_the_host_has_already_is_kept_and_not_recorded(air: Any) -> None:
    """A gateway address that the operator set is the operator's, also when undoing."""
    air.netlink.add_address("eth1", ipaddress.ip_interface("10.0.0.254/8"))
    (step,) = (
        s for s in links(air, config(HTTP)) if s.describe() == "address 10.0.0.254/8 on eth1"
    )
    assert step.action == "keep"
    assert step.record is None


def test_an_address_with_another_prefix_is_there(air: Any) -> None:
    """The VIP as a /32 of the operator's is the VIP."""
    air.netlink.add_address("eth0", ipaddress.ip_interface("192.168.0.11/32"))
    assert "address 192.168.0.11/24 on eth0" in told(links(air, config(HTTP)), "keep")


def test_ipv6_needs_proxy_ndp(air: Any) -> None:
    """IPv4 does so with forwarding."""
    lines = told(links(air, config({**SIX, "ports": 80, "forward": "dsr"})))
    assert "sysctl net.ipv6.conf.eth0.proxy_ndp 0 -> 1" in lines
    assert "sysctl net.ipv6.neigh.eth0.proxy_delay 8 -> 0" in lines
    assert not any("proxy" in line for line in told(links(air, config(SIX))))


def test_a_vip_of_two_services_is_added_once(air: Any) -> None:
    """The services differ in their ports."""
    lines = told(links(air, config(HTTP, {**HTTP, "name": "tls", "ports": 443})))
    assert lines.count("address 192.168.0.11/24 on eth0") == 1


def test_announced_vips_are_on_loopback(air: Any) -> None:
    """Alone, whatever their prefix; others stay on the public interface. A reload follows."""
    wanted = config(HTTP, {**SIX, "vip": "2001:db8::11"}, {**HTTP, "name": "b", "ports": 81})
    other = {**HTTP, "name": "c", "vip": "192.168.0.12/24"}
    services = [*wanted.services, *config(other).services]
    update = {"announce": AnnounceConfig(vips=("192.168.0.11", "2001:db8::11"))}
    wanted = wanted.model_copy(update={"services": tuple(services)})
    before, after = (
        {line for line in told(links(air, one)) if line.startswith("address")}
        for one in (wanted, wanted.model_copy(update=update))
    )
    assert before - after == {"address 192.168.0.11/24 on eth0", "address 2001:db8::11/128 on eth0"}
    assert after - before == {"address 192.168.0.11/32 on lo", "address 2001:db8::11/128 on lo"}
    assert "address 192.168.0.12/24 on eth0" in after


@pytest.mark.parametrize("forward", ["dsr", "tunnel"])
def test_no_host_answers_for_an_announced_vip(air: Any, forward: str) -> None:
    """The route stays, by which packets to it are forwarded."""
    wanted = config({**HTTP, "vip": "192.168.0.11"}, forward=forward)
    announced = wanted.model_copy(update={"announce": AnnounceConfig()})
    before, after = (told(links(air, one)) for one in (wanted, announced))
    (proxy,) = set(before) - set(after)
    assert proxy.startswith("proxy")
    assert any("192.168.0.11" in line for line in after)


def test_loopback_needs_no_address(air: Any) -> None:
    """A proxy's VIP there is this host's already."""
    inner = {**HTTP, "vip": "127.0.0.2/8", "forward": "proxy"}
    assert not [line for line in told(links(air, config(inner))) if "127.0.0.2" in line]


def test_forwarding_is_set_on_the_interface(air: Any) -> None:
    """If the switch is on already, one interface may still be off."""
    air.sysctl.write("net/ipv4/ip_forward", "1")
    air.sysctl.write("net/ipv4/conf/eth1/forwarding", "0")
    lines = told(links(air, config(HTTP)))
    assert "sysctl net.ipv4.conf.eth1.forwarding 0 -> 1" in lines
    assert "sysctl net.ipv4.conf.eth0.forwarding 0 -> 1" not in lines


def test_router_advertisements_are_left_alone_where_forwarding_is_on(air: Any) -> None:
    """accept_ra=1 is void there already: that is the operator's choice."""
    air.sysctl.write("net/ipv6/conf/all/forwarding", "1")
    assert not any("accept_ra" in line for line in told(links(air, config(SIX))))


@pytest.mark.parametrize(
    ("entry", "action"),
    [
        (Neighbour("02:00:00:00:00:09", True, True, False), "keep"),
        (Neighbour("02:00:00:00:00:09", True, False, True), "keep"),
        (Neighbour("02:00:00:00:00:09", True, False, False), "apply"),
        (Neighbour(None, False, False, False), "apply"),
    ],
)
def test_neighbours_of_others_are_respected(air: Any, entry: Neighbour, action: str) -> None:
    """A static or managed entry stays; a learnt one is managed, and remembered."""
    air.netlink.entries["eth1", ipaddress.ip_address("10.0.0.1")] = entry
    (step,) = (s for s in links(air, config(HTTP)) if s.change.kind == "neighbour")
    assert step.action == action
    if action == "apply":
        assert step.record is not None
        assert getattr(step.record, "keep", "") == entry.hardware


def test_backends_behind_a_router_are_no_neighbours(air: Any) -> None:
    """Only addresses in a network of the private interface are."""
    assert [str(a) for a in on_link_backends(config(HTTP), 4, air.host)] == ["10.0.0.1"]


@pytest.mark.parametrize(
    ("strategy", "forward", "wanted"),
    [("weighted", "offload", True), ("rr", "offload", False), ("weighted", "nat", False)],
)
def test_events_are_turned_on_where_flows_are_counted(
    air: Any, tmp_path: Path, strategy: str, forward: str, wanted: bool
) -> None:
    """Once for both families."""
    place = tmp_path / "proc-sys/net/netfilter"
    place.mkdir()
    (place / "nf_conntrack_events").write_text("2\n")
    services = [{**s, "strategy": strategy, "forward": forward} for s in (HTTP, SIX)]
    lines = [line for line in told(links(air, config(*services))) if "events" in line]
    assert lines == ["sysctl net.netfilter.nf_conntrack_events 2 -> 1"] * wanted


@pytest.mark.parametrize(
    ("forward", "needed"), [("nat", True), ("offload", True), ("dsr", True), ("proxy", False)]
)
def test_which_services_need_forwarding(forward: str, needed: bool) -> None:
    """Services whose packets are queued, each family separately."""
    wanted = config({**WEB, "ports": 80, "forward": forward})
    assert needs_kernel(wanted, 4) == needed
    assert not needs_kernel(wanted, 6)


def test_without_a_private_side_there_is_no_neighbour(air: Any) -> None:
    """No network of it, no neighbour."""
    content = {"network": {"public": {"interface": "eth0"}}, "services": [HTTP]}
    assert list(on_link_backends(Config.model_validate(content), 4, air.host)) == []


def test_a_gateway_of_the_hosts_own_is_not_added(air: Any) -> None:
    """Nor is it restored when it is gone; its network is that of the backends all the same."""
    own = {"interface": "eth1", "addresses": ["10.0.0.5/8"]}
    wanted = config(WEB)
    side = PrivateSide.model_validate({"interface": "eth1", "gateway": [own]})
    network = wanted.network.model_copy(update={"private": side})
    steps = links(air, wanted.model_copy(update={"network": network}))
    assert addresses(steps).keys() == {"192.168.0.11/24"}
    assert any("neighbour 10.0.0.1" in line for line in told(steps)), told(steps)
