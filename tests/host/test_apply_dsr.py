"""The set-up for dsr, and its undo, on a fake host."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.errors import OperatorError, PlatformError
from paraglider.forward.host_needs import Route
from paraglider.host import apply
from paraglider.host.changes.replaced_table import OptionalTableChange
from paraglider.host.plan_filter import lacking
from paraglider.host.state import StateFile

BOTH = frozenset({4, 6})


@pytest.fixture
def state(tmp_path: Path) -> StateFile:
    """A state of the test's own."""
    return StateFile(tmp_path / "run", 7)


def set_up(air: Any, state: StateFile, wanted: Config) -> None:
    """Prepare and carry out."""
    apply.set_up(apply.prepare(wanted, BOTH, air.host, state), air.host, state, air.say)


def directed(**changes: Any) -> Config:
    """One service of dsr."""
    network = {
        "public": {"interface": "eth0"},
        "private": {"interface": "eth1", "gateway": ["10.0.0.254/8"]},
    }
    service = {"name": "web", "vip": "192.168.0.11/24", "protocol": "tcp", "forward": "dsr"}
    services = [{**service, "backends": ["10.0.0.1"], **changes}]
    content = {"chroot": "/tmp", "user": "root", "network": network, "services": services}
    return Config.model_validate(content)


def test_dsr_is_undone_like_the_rest(air: Any, state: StateFile) -> None:
    """Leases, routes, policy rules and proxies go; a second run changes nothing."""
    before = air.snapshot()
    set_up(air, state, directed())
    assert len(air.routing.routes) == 2
    air.said.clear()
    set_up(air, state, directed())
    assert [line for line in air.said if not line.startswith("unchanged")] == []
    apply.undo(BOTH, air.host, state, air.say)
    assert air.snapshot() == before
    assert not state.path.exists()


def test_from_nat_to_dsr_and_back(air: Any, state: StateFile) -> None:
    """The VIP stops being an address of this host, and becomes one again."""
    nat = directed(forward="nat")
    set_up(air, state, nat)
    as_nat, rules = air.snapshot(), air.netfilter.ours(4)
    set_up(air, state, directed())
    assert not any("192.168.0.11" in str(held) for held in air.netlink.held["eth0"])
    set_up(air, state, nat)
    again = air.snapshot()
    assert air.netfilter.ours(4) == rules
    assert {**again, "rules": None} == {**as_nat, "rules": None}


def test_a_failure_takes_the_ways_back(air: Any, state: StateFile) -> None:
    """A route of another program to the VIP prevents it: all changes of the run are reverted."""
    air.routing.add_route(Route("eth0", ipaddress.ip_address("192.168.0.11")))
    before = air.snapshot()
    with pytest.raises(PlatformError, match="File exists"):
        set_up(air, state, directed())
    assert air.snapshot() == before
    assert not state.path.exists()


@pytest.mark.parametrize("without_nft", [False, True])
def test_without_leases_every_packet_is_asked_about(
    air: Any, state: StateFile, monkeypatch: pytest.MonkeyPatch, without_nft: bool
) -> None:
    """A kernel or nft without support, or no nft: reported before the run, and no failure."""
    assert lacking(directed(), 1, apply.prepare(directed(), BOTH, air.host, state)) == []
    air.nft.refuse = "leases"
    if without_nft:

        def missing(_text: str) -> str:
            raise OperatorError("the program nft is missing", "install it")

        monkeypatch.setattr(air.nft, "trial", missing)
    steps = apply.prepare(directed(), BOTH, air.host, state)
    (line,) = lacking(directed(), 1, steps)
    assert "cannot lease flows: every packet of the IPv4 dsr services passes a worker" in line
    apply.set_up(steps, air.host, state, air.say)
    assert air.nft.tables == {}
    assert len(air.routing.routes) == 2


def test_one_table_that_the_kernel_cannot_do_takes_no_other_with_it(
    air: Any, state: StateFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are tried together, and where that fails each by itself."""

    def tables() -> set[str]:
        steps = apply.prepare(directed(), BOTH, air.host, state)
        return {s.change.table for s in steps if isinstance(s.change, OptionalTableChange)}

    every = tables()
    assert len(every) > 1
    for name in every:
        monkeypatch.setattr(air.nft, "trial", lambda text, name=name: name if name in text else "")
        assert tables() == every - {name}


def test_what_dsr_cannot_work_with_is_refused_first(air: Any, state: StateFile) -> None:
    """Before anything is changed."""
    air.netlink.add_address("lo", ipaddress.ip_interface("192.168.0.11/32"))
    before = air.snapshot()
    with pytest.raises(OperatorError, match="is an address of this host"):
        set_up(air, state, directed())
    assert air.snapshot() == before


@pytest.mark.parametrize("count", [1, 4])
def test_the_kernel_is_asked_once_for_all_ways(air: Any, state: StateFile, count: int) -> None:
    """One query per set-up for any number of backends."""
    wanted = directed(backends=[f"10.0.0.{number + 1}" for number in range(count)])
    for lists in (1, 2):
        set_up(air, state, wanted)
        assert air.routing.lists == lists
    assert len(air.routing.routes) == count + 1
