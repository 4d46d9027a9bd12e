"""Tests of ``paraglider.host.step``: apply, roll back, keep, and the stored records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.errors import PlatformError
from paraglider.host import apply
from paraglider.host.changes.links import AddressChange
from paraglider.host.changes.replaced_table import OptionalTableChange
from paraglider.host.changes.sysctls import SysctlChange
from paraglider.host.plan_links import link_steps
from paraglider.host.state import StateFile
from paraglider.host.step import Step, refuse_read_only, sysctl_step, table_step, undo_plan

BOTH = frozenset({4, 6})
WEB = {"name": "web", "vip": "192.168.0.11/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
SIX = {"name": "six", "vip": "2001:db8::11/64", "protocol": "tcp", "backends": ["fd00:10::1"]}
NETWORK = {
    "public": {"interface": "eth0"},
    "private": {"interface": "eth1", "gateway": ["10.0.0.254/8", "fd00:10::fe/64"]},
}
REDIRECTS = "net/ipv4/conf/eth0/send_redirects"
FIRST, OTHER = (f"add table ip t\n{rest}" for rest in ("", "add set ip t s { type mark; }\n"))
VIP = AddressChange(4, "eth0", "192.168.0.11/24")


def config(**changes: Any) -> Config:
    """Services of both families."""
    services = [{**service, **changes} for service in (WEB, SIX)]
    return Config.model_validate({"chroot": "/tmp", "network": NETWORK, "services": services})


def sysctl(
    air: Any, value: str, earlier: SysctlChange | None = None, **options: bool
) -> list[Step]:
    """The step, if any, that sets ``REDIRECTS`` to ``value``."""
    records = {} if earlier is None else {earlier.identity: earlier}
    return list(sysctl_step(4, REDIRECTS, value, air.host, records, **options))


def test_a_step_is_rolled_back_by_its_opposite(air: Any) -> None:
    """An applied change is reverted, a reverted one applied; a kept one is not touched."""
    before = air.snapshot()
    Step("keep", VIP).do(air.host)
    assert air.snapshot() == before
    step = Step("apply", VIP)
    step.do(air.host)
    held = air.snapshot()
    assert held != before
    Step("keep", VIP).roll_back(air.host)
    assert air.snapshot() == held
    step.roll_back(air.host)
    assert air.snapshot() == before
    step.do(air.host)
    back = Step("revert", VIP)
    back.do(air.host)
    assert air.snapshot() == before
    back.roll_back(air.host)
    assert air.snapshot() == held


def test_the_scripts_are_those_of_what_is_done(air: Any) -> None:
    """A kept change has no script."""
    assert Step("keep", VIP).script(air.host) == ""
    assert Step("apply", VIP).script(air.host) == VIP.script(air.host) != ""
    assert Step("revert", VIP).script(air.host) == VIP.revert_script(air.host) != ""


def test_undoing_starts_with_the_last_change() -> None:
    """No change is stored."""
    changes = [VIP, AddressChange(4, "eth1", "10.0.0.254/8")]
    steps = undo_plan(iter(changes))
    assert [step.change for step in steps] == changes[::-1]
    assert {(step.action, step.record) for step in steps} == {("revert", None)}
    assert undo_plan([]) == []


def test_a_parameter_that_is_right_is_kept(air: Any) -> None:
    """With the record of an earlier set-up, or without one if it is the operator's."""
    assert sysctl(air, "1") == [Step("keep", SysctlChange(4, REDIRECTS, "1", "1"))]
    earlier = SysctlChange(4, REDIRECTS, "0", "1")
    assert sysctl(air, "1", earlier) == [Step("keep", earlier, earlier)]


def test_a_parameter_that_cannot_be_set(air: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parameter that the kernel lacks, or an optional one that is read-only, is skipped."""
    assert list(sysctl_step(4, "net/ipv4/no_such", "1", air.host, {})) == []
    assert len(sysctl(air, "0", optional=True)) == 1
    monkeypatch.setattr(air.sysctl, "writable", lambda _: False)
    assert sysctl(air, "0", optional=True) == []
    assert len(sysctl(air, "1", optional=True)) == 1
    assert len(sysctl(air, "0")) == 1


@pytest.mark.parametrize(("now", "before"), [("5", "5"), ("1", "1")])
def test_the_value_before_is_the_last_that_is_not_ours(air: Any, now: str, before: str) -> None:
    """A value that returned is recorded again; a value that the operator set since is restored by
    the undo.
    """
    air.sysctl.write(REDIRECTS, now)
    (step,) = sysctl(air, "0", SysctlChange(4, REDIRECTS, "5", "0"))
    assert step.action == "apply"
    assert step.record == SysctlChange(4, REDIRECTS, before, "0")


def test_a_table_is_replaced_where_the_text_or_the_kernel_differ(air: Any) -> None:
    """Otherwise it is kept, with the kernel's listing."""
    first = OptionalTableChange(4, "t", FIRST)
    step = table_step(first, air.host, {})
    assert (step.action, step.record) == ("apply", first)
    step.do(air.host)
    held = first.settled(air.host)
    records = {held.identity: held}
    assert table_step(first, air.host, records) == Step("keep", held, held)
    other = OptionalTableChange(4, "t", OTHER)
    changed = table_step(other, air.host, records)
    assert (changed.action, changed.change.previous) == ("apply", first.text)
    air.nft.tables.clear()
    assert table_step(first, air.host, records).action == "apply"


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
    """Set up and undone; optimisations are not required."""
    fixed.unlocked("net/ipv6/conf/eth0/proxy_ndp", "1")
    state, before = StateFile(tmp_path, 7), fixed.snapshot()
    for _ in range(2):
        steps = apply.prepare(config(forward=forward, **_plain(forward)), BOTH, fixed.host, state)
        apply.set_up(steps, fixed.host, state, fixed.say)
    assert not any(isinstance(change, SysctlChange) for change in state.load())
    apply.undo(BOTH, fixed.host, state, fixed.say)
    assert fixed.snapshot() == before


def test_read_only_parameters_that_are_wrong_are_all_named(fixed: Any) -> None:
    """With the options for the container's command line; nothing has been changed."""
    fixed.unlocked("net/ipv4/ip_forward", "0")
    fixed.unlocked("net/ipv6/conf/eth1/forwarding", "0")
    before = fixed.snapshot()
    steps = [s for family in (4, 6) for s in link_steps(config(), family, fixed.host, {})]
    with pytest.raises(PlatformError) as told:
        refuse_read_only(steps, fixed.host)
    assert str(told.value) == (
        "kernel parameters are not as balancing needs them, and /proc/sys is read-only:"
        " net.ipv4.ip_forward is 0, not 1, net.ipv6.conf.eth1.forwarding is 0, not 1;"
        " set them from outside, in a container by: docker run --sysctl net.ipv4.ip_forward=1"
        " --sysctl net.ipv6.conf.eth1.forwarding=1"
    )
    assert fixed.snapshot() == before


def _plain(forward: str) -> dict[str, Any]:
    return {"ports": 80} if forward == "dsr" else {}
