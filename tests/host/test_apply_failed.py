"""After a set-up that failed or was killed, the state has exactly its own changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.errors import PlatformError
from paraglider.host import apply
from paraglider.host.changes.base import Change
from paraglider.host.changes.sysctls import ForwardingChange, SysctlChange
from paraglider.host.state import StateFile

BOTH = frozenset({4, 6})


def config() -> Config:
    """A service a family."""
    network = {
        "public": {"interface": "eth0"},
        "private": {"interface": "eth1", "gateway": ["10.0.0.254/8", "fd00:10::fe/64"]},
    }
    services = [
        {"name": "web", "vip": "192.168.0.11/24", "protocol": "tcp", "backends": ["10.0.0.1"]},
        {"name": "six", "vip": "2001:db8::11/64", "protocol": "tcp", "backends": ["fd00:10::1"]},
    ]
    content = {"chroot": "/tmp", "user": "root", "network": network, "services": services}
    return Config.model_validate(content)


@pytest.fixture
def state(tmp_path: Path) -> StateFile:
    """A state of the test's own."""
    return StateFile(tmp_path / "run", 7)


def set_up(air: Any, state: StateFile) -> None:
    """Prepare and carry out."""
    steps = apply.prepare(config(), BOTH, air.host, state)
    apply.set_up(steps, air.host, state, air.say)


@pytest.mark.parametrize("reached", [1, 4, 9])
def test_a_set_up_that_died_takes_back_what_it_reached(
    air: Any, state: StateFile, monkeypatch: pytest.MonkeyPatch, reached: int
) -> None:
    """Changes that the operator made since, to the same values, stay: they are not in the state."""
    steps = apply.prepare(config(), BOTH, air.host, state)
    missed = [step.change for step in steps if step.action == "apply"][reached:]
    monkeypatch.setattr(apply, "_roll_back", lambda *_: None)  # it was killed
    note, count = state.note, 0

    def killed(change: Change) -> None:
        nonlocal count
        count += change.identity in {later.identity for later in missed}
        if count:
            raise KeyboardInterrupt
        note(change)

    monkeypatch.setattr(state, "note", killed)
    before = air.snapshot()
    with pytest.raises(KeyboardInterrupt):
        apply.set_up(steps, air.host, state, air.say)
    theirs = [change for change in missed if isinstance(change, SysctlChange | ForwardingChange)]
    for change in theirs:
        air.sysctl.write(change.key, change.after)
    mine = state.load()
    assert len(mine) == reached
    apply.undo(BOTH, air.host, StateFile(state.path.parent, 7), air.say)
    after = air.snapshot()
    assert [air.sysctl.read(change.key) for change in theirs] == [c.after for c in theirs]
    assert {k: v for k, v in after.items() if k != "sysctls"} == {
        k: v for k, v in before.items() if k != "sysctls"
    }


def test_what_cannot_be_rolled_back_alone_stays_in_the_state(
    air: Any, state: StateFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of a failed set-up is forgotten, and is the operator's from then on."""
    air.netlink.refuse = "2001:db8::11/64"
    write = air.sysctl.write

    def refuse(key: str, value: str) -> None:
        if key == "net/ipv4/conf/eth0/send_redirects" and value == "1":
            raise PlatformError("no")
        write(key, value)

    monkeypatch.setattr(air.sysctl, "write", refuse)
    with pytest.raises(PlatformError, match="rolled back"):
        set_up(air, state)
    assert state.load() == [SysctlChange(4, "net/ipv4/conf/eth0/send_redirects", "1", "0")]
