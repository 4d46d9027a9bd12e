"""Sysctls as changes, with the real kernel, which changes more than the written parameter."""

from __future__ import annotations

import pytest

from paraglider.host.changes.base import Host
from paraglider.host.changes.sysctls import FORWARDING, ForwardingChange, SysctlChange
from paraglider.host.sysctl import PROC_SYS, conf
from paraglider.lab.namespace import Namespace

pytestmark = pytest.mark.root


def values() -> dict[str, str]:
    """Every parameter of every interface in both families, and the switch."""
    files = [PROC_SYS / "net/ipv4/ip_forward", *PROC_SYS.glob("net/ipv[46]/conf/*/*")]
    # stable_secret cannot be read until somebody has set it.
    return {str(file): file.read_text() for file in files if file.name != "stable_secret"}


@pytest.mark.parametrize("family", [4, 6])
def test_forwarding_goes_off_without_a_trace(inside: Namespace, family: int) -> None:
    """Values that the kernel would reset on the way, odd ones included, are as before."""
    host = Host()
    host.sysctl.write(conf(family, "eth0", "forwarding"), "1")
    if family == 4:
        host.sysctl.write(conf(4, "all", "accept_redirects"), "0")
    before = values()
    change = ForwardingChange.of(family, host)
    change.apply(host)
    assert host.sysctl.read(conf(family, "eth1", "forwarding")) == "1"
    change.revert(host)
    assert values() == before


@pytest.mark.parametrize("family", [4, 6])
def test_the_script_does_the_same(inside: Namespace, family: int) -> None:
    """The dry run of an undo has the same result as the undo."""
    host, before = Host(), values()
    change = ForwardingChange.of(family, host)
    inside.run(["sh", "-e"], text=change.script(host))
    assert host.sysctl.read(FORWARDING[family]) == "1"
    inside.run(["sh", "-e"], text=change.revert_script(host))
    assert values() == before


def test_an_interface_that_is_gone_needs_no_taking_back(inside: Namespace) -> None:
    """Its parameters went with it."""
    host = Host()
    change = SysctlChange(4, conf(4, "eth1", "send_redirects"), "1", "0")
    change.apply(host)
    forwarding = ForwardingChange.of(4, host)
    forwarding.apply(host)
    inside.ip("link del eth1")
    change.revert(host)
    forwarding.revert(host)
    assert host.sysctl.read(FORWARDING[4]) == "0"


@pytest.mark.parametrize("family", [4, 6])
def test_a_parameter_that_was_changed_since_stays(inside: Namespace, family: int) -> None:
    """A parameter that was changed since stays; if forwarding is off already, nothing else is
    changed.
    """
    host = Host()
    one = SysctlChange(4, conf(4, "eth1", "rp_filter"), "0", "1")
    one.apply(host)
    host.sysctl.write(one.key, "2")
    change = ForwardingChange.of(family, host)
    change.apply(host)
    host.sysctl.write(conf(family, "eth0", "forwarding"), "0")
    one.revert(host)
    change.revert(host)
    assert host.sysctl.read(one.key) == "2"
    host.sysctl.write(conf(family, "eth1", "forwarding"), "1")
    before = values()
    change.revert(host)
    assert values() == before
    assert change.revert_script(host) == ""


def test_a_change_that_never_was_takes_nothing_back(inside: Namespace) -> None:
    """A parameter with another value than ours is not reverted."""
    host = Host()
    change = SysctlChange(4, conf(4, "eth1", "rp_filter"), "1", "2")
    host.sysctl.write(change.key, "0")
    before = values()
    change.revert(host)
    assert values() == before
    assert change.revert_script(host) == ""
