"""The plan: which addresses are no source of the host's own, and what is somebody else's to set."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.errors import PlatformError
from paraglider.host import apply
from paraglider.host.changes.base import Change
from paraglider.host.changes.links import AddressChange
from paraglider.host.changes.sysctls import SysctlChange
from paraglider.host.plan import make_plan
from paraglider.host.state import StateFile
from paraglider.host.step import Step, refuse_read_only

BOTH = frozenset({4, 6})
WEB = {"name": "web", "vip": "192.168.0.11/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
SIX = {"name": "six", "vip": "2001:db8::11/64", "protocol": "tcp", "backends": ["fd00:10::1"]}
REDIRECTS = "net/ipv4/conf/eth0/send_redirects"


def config(*services: dict[str, Any], private: str = "eth1", **changes: Any) -> Config:
    """Services of both families, with gateways on ``private``."""
    sides = {
        "public": {"interface": "eth0"},
        "private": {"interface": private, "gateway": ["10.0.0.254/8", "fd00:10::fe/64"]},
    }
    every = [{**service, **changes} for service in services or (WEB, SIX)]
    return Config.model_validate({"chroot": "/tmp", "network": sides, "services": every})


def plan(air: Any, wanted: Config, earlier: Iterable[Change] = ()) -> list[Step]:
    """The plan for both families with one worker."""
    return make_plan(wanted, BOTH, (0,), 1, air.host, earlier)


def addresses(steps: Iterable[Step]) -> dict[str, tuple[str, bool]]:
    """Of the addresses: what is to be done, and whether they are deprecated."""
    return {
        step.change.address: (step.action, step.change.deprecated)
        for step in steps
        if isinstance(step.change, AddressChange)
    }


@pytest.mark.parametrize("forward", ["nat", "offload", "proxy"])
def test_a_vip_of_ipv6_is_no_source(air: Any, forward: str) -> None:
    """Whatever carries the packets; an address to the backends is one, where it is the only one."""
    assert addresses(plan(air, config(forward=forward))) == {
        "192.168.0.11/24": ("apply", False),
        "10.0.0.254/8": ("apply", False),
        "2001:db8::11/64": ("apply", True),
        "fd00:10::fe/64": ("apply", False),
    }


def test_a_gateway_beside_the_hosts_own_address_is_no_source(air: Any) -> None:
    """The host's own goes on being its source; an earlier set-up's is none of its own."""
    air.netlink.add_address("eth1", ipaddress.ip_interface("fd00:10::5/64"))
    assert addresses(plan(air, config()))["fd00:10::fe/64"] == ("apply", True)
    earlier = [AddressChange(6, "eth1", "fd00:10::5/64")]
    assert addresses(plan(air, config(), earlier))["fd00:10::fe/64"] == ("apply", False)


def test_an_earlier_set_ups_vip_becomes_deprecated(air: Any, tmp_path: Path) -> None:
    """In place; a failure makes it what it was, and the operator's own is left alone."""
    state, address = StateFile(tmp_path, 7), ipaddress.ip_interface("2001:db8::11/64")
    air.netlink.add_address("eth0", address)
    assert addresses(plan(air, config()))["2001:db8::11/64"] == ("keep", True)
    (earlier,) = [AddressChange(6, "eth0", "2001:db8::11/64")]
    steps = [s for s in plan(air, config(), [earlier]) if isinstance(s.change, AddressChange)]
    (step,) = (step for step in steps if step.change.address == "2001:db8::11/64")
    step.do(air.host)
    assert air.netlink.deprecated == {("eth0", address)}
    step.roll_back(air.host)
    assert air.netlink.deprecated == set()
    assert address in air.netlink.held["eth0"]
    state.store([earlier])
    apply.set_up([step], air.host, state, air.say)
    assert state.load() == [AddressChange(6, "eth0", "2001:db8::11/64", deprecated=True)]
    assert addresses(plan(air, config(), state.load()))["2001:db8::11/64"] == ("keep", True)


def behind(air: Any, wanted: Config, earlier: Iterable[Change]) -> list[str]:
    """The addresses that are put behind the host's own; the plan is carried out."""
    steps = plan(air, wanted, earlier)
    for step in steps:
        step.do(air.host)
    changes = (step.change for step in steps if isinstance(step.change, AddressChange))
    return [change.address for change in changes if change.ahead]


def test_a_vip_of_ipv4_stands_behind_the_hosts_own_address(air: Any) -> None:
    """Whichever came first, so that it is no source; so does a gateway, but nobody else's."""
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
    """Else it would be the first address of a network of its own, and the source there."""
    air.netlink.add_address("eth0", ipaddress.ip_interface("192.168.5.1/16"))
    steps = plan(air, config())
    assert addresses(steps)["192.168.0.11/32"] == ("apply", False)
    assert "192.168.0.11/24" not in addresses(steps)


@pytest.mark.parametrize(("now", "before"), [("5", "5"), ("1", "1")])
def test_the_value_before_is_the_last_that_is_not_ours(air: Any, now: str, before: str) -> None:
    """One that came back is set again; one that the operator set since is what undo leads to."""
    air.sysctl.write(REDIRECTS, now)
    earlier = SysctlChange(4, REDIRECTS, "5", "0")
    (step,) = (s for s in plan(air, config(), [earlier]) if s.change.identity[1] == REDIRECTS)
    assert step.action == "apply"
    assert step.record == SysctlChange(4, REDIRECTS, before, "0")


@pytest.fixture
def fixed(air: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The host of a container: its parameters are read-only, forwarding is on."""
    for key in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
        air.sysctl.write(key, "1")
    monkeypatch.setattr(air.sysctl, "writable", lambda _: False)
    write = air.sysctl.write

    def refuse(key: str, value: str) -> None:
        raise PlatformError(f"cannot set {key} to {value}")

    monkeypatch.setattr(air.sysctl, "write", refuse)
    air.unlocked = write
    return air


@pytest.mark.parametrize("forward", ["nat", "offload", "dsr"])
def test_read_only_parameters_that_are_right_are_accepted(
    fixed: Any, tmp_path: Path, forward: str
) -> None:
    """Set up and undone; what only saves a packet or a moment is not asked for."""
    fixed.unlocked("net/ipv6/conf/eth0/proxy_ndp", "1")
    state, before = StateFile(tmp_path, 7), fixed.snapshot()
    for _ in range(2):
        steps = apply.prepare(config(forward=forward, **_plain(forward)), BOTH, fixed.host, state)
        apply.set_up(steps, fixed.host, state, fixed.say)
    assert not any(isinstance(change, SysctlChange) for change in state.load())
    apply.undo(BOTH, fixed.host, state, fixed.say)
    assert fixed.snapshot() == before


def test_read_only_parameters_that_are_wrong_are_all_named(fixed: Any) -> None:
    """With what to write on the container's command line; nothing has been changed."""
    fixed.unlocked("net/ipv4/ip_forward", "0")
    fixed.unlocked("net/ipv6/conf/eth1/forwarding", "0")
    before = fixed.snapshot()
    with pytest.raises(PlatformError) as told:
        refuse_read_only(plan(fixed, config()), fixed.host)
    assert str(told.value) == (
        "kernel parameters are not as balancing needs them, and /proc/sys is read-only:"
        " net.ipv4.ip_forward is 0, not 1, net.ipv6.conf.eth1.forwarding is 0, not 1;"
        " set them from outside, in a container by: docker run --sysctl net.ipv4.ip_forward=1"
        " --sysctl net.ipv6.conf.eth1.forwarding=1"
    )
    assert fixed.snapshot() == before


def test_the_parameter_of_all_interfaces_is_enough(air: Any) -> None:
    """Where it has neighbours answered for everywhere, the interface's own is left as it is."""
    wanted = config(SIX, forward="dsr")
    key = ("sysctl", "net/ipv6/conf/eth0/proxy_ndp")
    assert key in {step.change.identity for step in plan(air, wanted)}
    (air.sysctl._root / "net/ipv6/conf/all/proxy_ndp").write_text("1\n")
    assert key not in {step.change.identity for step in plan(air, wanted)}


def _plain(forward: str) -> dict[str, Any]:
    return {"ports": 80} if forward == "dsr" else {}
