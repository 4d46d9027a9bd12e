"""Applying a plan, rolling it back, and undoing it, on a fake host."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.errors import OperatorError, PlatformError
from paraglider.host import apply
from paraglider.host.changes.base import Change
from paraglider.host.changes.ruleset import RulesChange
from paraglider.host.ownership import SET_UP, STARTED
from paraglider.host.state import StateFile
from paraglider.netfilter.rules.nft import TABLE

BOTH = frozenset({4, 6})


def config(**changes: Any) -> Config:
    """A service a family; ``changes`` replace top-level keys."""
    network = {
        "public": {"interface": "eth0"},
        "private": {"interface": "eth1", "gateway": ["10.0.0.254/8", "fd00:10::fe/64"]},
    }
    services = [
        {"name": "web", "vip": "192.168.0.11/24", "protocol": "tcp", "backends": ["10.0.0.1"]},
        {"name": "six", "vip": "2001:db8::11/64", "protocol": "tcp", "backends": ["fd00:10::1"]},
    ]
    content = {"chroot": "/tmp", "user": "root", "network": network, "services": services}
    return Config.model_validate({**content, **changes})


@pytest.fixture
def state(tmp_path: Path) -> StateFile:
    """A state of the test's own."""
    return StateFile(tmp_path / "run", 7)


def set_up(air: Any, state: StateFile, wanted: Config | None = None) -> None:
    """Prepare and carry out."""
    steps = apply.prepare(wanted or config(), BOTH, air.host, state)
    apply.set_up(steps, air.host, state, air.say)


def test_undo_leaves_everything_as_it_was(air: Any, state: StateFile) -> None:
    """Rules, tables, addresses, neighbours and every sysctl, and no state is left."""
    before = air.snapshot()
    set_up(air, state)
    assert air.snapshot() != before
    apply.undo(BOTH, air.host, state, air.say)
    assert air.snapshot() == before
    assert not state.path.exists()


def test_what_was_there_survives_set_up_and_undo(air: Any, state: StateFile) -> None:
    """Foreign rules, addresses and odd sysctl values are the operator's."""
    rules = ("-I INPUT 1 -i lo -j ACCEPT", "-I FORWARD 1 -j DROP", "-I OUTPUT 1 -j ACCEPT")
    air.netfilter.restore(4, "\n".join(["*filter", *rules, "COMMIT\n"]))
    air.netlink.add_address("eth1", ipaddress.ip_interface("10.0.0.254/8"))
    air.sysctl.write("net/ipv4/conf/eth0/forwarding", "1")
    air.sysctl.write("net/ipv4/conf/all/accept_redirects", "0")
    before = air.snapshot()
    set_up(air, state)
    assert "-A FORWARD -j DROP" in air.netfilter.saved(4)
    apply.undo(BOTH, air.host, state, air.say)
    assert air.snapshot() == before


def test_a_second_run_touches_nothing(air: Any, state: StateFile) -> None:
    """All steps are unchanged, iptables-restore does not run, and the state is not written."""
    set_up(air, state)
    before, stored, written = air.snapshot(), state.load(), state.path.stat().st_ino
    air.said.clear()
    air.netfilter.runs.clear()
    set_up(air, state)
    assert {line.split()[0] for line in air.said} == {"unchanged"}
    assert air.netfilter.runs == []
    assert (air.snapshot(), state.load()) == (before, stored)
    assert state.path.stat().st_ino == written


def test_changed_rules_are_set_again(air: Any, state: StateFile) -> None:
    """The comparison is with the kernel's rules, not with the text of the last run."""
    set_up(air, state)
    before = air.snapshot()
    air.netfilter.chains[4]["mangle"]["PARAGLIDER-PRE"].pop()
    air.netfilter.chains[4]["mangle"]["FORWARD"].clear()
    set_up(air, state)
    assert air.snapshot() == before


def test_a_changed_file_replaces_the_rules_in_one_run(air: Any, state: StateFile) -> None:
    """No chain is removed on the way, because that would drop packets in the queues."""
    set_up(air, state)
    air.netfilter.runs.clear()
    services = [{**s.model_dump(mode="json"), "ports": 81} for s in config().services]
    for service in services:
        service["return"] = service.pop("return_")
    set_up(air, state, config(services=services))
    assert len(air.netfilter.runs) == 2
    assert not any("-X " in text or "-D " in text or "-I " in text for text in air.netfilter.runs)
    assert "--dport 81" in air.netfilter.saved(4)


def test_a_changed_file_takes_the_old_addresses_back(air: Any, state: StateFile) -> None:
    """The undo afterwards still restores the original host."""
    before = air.snapshot()
    set_up(air, state)
    set_up(air, state, config(network={"public": {"interface": "eth1"}}))
    held = {name: [str(a) for a in found] for name, found in air.netlink.held.items()}
    assert held == {"lo": [], "eth0": [], "eth1": ["192.168.0.11/24", "2001:db8::11/64"]}
    apply.undo(BOTH, air.host, state, air.say)
    assert air.snapshot() == before


def test_a_service_that_goes_takes_its_family_along(air: Any, state: StateFile) -> None:
    """Without an IPv6 service all changes for IPv6 are reverted."""
    before = air.snapshot()
    set_up(air, state)
    set_up(
        air, state, config(services=[config().services[0].model_dump(mode="json", by_alias=True)])
    )
    assert air.netfilter.saved(6) == before["rules"][1]
    assert air.sysctl.snapshot("net/ipv6/**/*") == {
        key: value for key, value in before["sysctls"].items() if key.startswith("net/ipv6/")
    }
    assert "PARAGLIDER" in air.netfilter.saved(4)


STEPS = ["restore", "2001:db8::11/64", "10.0.0.254/8"]


@pytest.mark.parametrize("refused", STEPS)
def test_a_failed_step_rolls_all_back(air: Any, state: StateFile, refused: str) -> None:
    """Whichever step fails, also half-way in itself, the host is as before, and no state stays."""
    before = air.snapshot()
    air.netfilter.refuse = air.netlink.refuse = refused
    with pytest.raises(PlatformError, match=r"step \d+ of \d+ failed .*rolled back"):
        set_up(air, state)
    assert air.snapshot() == before
    assert state.load() == []
    assert any(line.startswith("failed ") for line in air.said)


def test_a_failed_change_rolls_back_to_the_earlier_set_up(air: Any, state: StateFile) -> None:
    """A second file that fails leaves the first one in force, and undoable."""
    untouched = air.snapshot()
    set_up(air, state)
    before, stored = air.snapshot(), state.load()
    air.netlink.refuse = "fd00:10::ff/64"
    network = {
        "public": {"interface": "eth1"},
        "private": {"interface": "eth1", "gateway": ["fd00:10::ff/64"]},
    }
    with pytest.raises(PlatformError, match=r"cannot add fd00:10::ff/64"):
        set_up(air, state, config(network=network, workers={"first_core": 0, "last_core": 0}))
    after = air.snapshot()
    for held in (before["addresses"], after["addresses"]):
        for addresses in held.values():
            addresses.sort(key=str)
    assert after == before
    assert sorted(c.identity for c in state.load()) == sorted(c.identity for c in stored)
    apply.undo(BOTH, air.host, state, air.say)
    assert air.snapshot() == untouched


def test_an_interruption_rolls_back_too(
    air: Any, state: StateFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle is reported as what it is, and stays an interruption."""
    before = air.snapshot()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    steps = apply.prepare(config(), BOTH, air.host, state)
    monkeypatch.setattr(air.netlink, "manage_neighbour", interrupt)
    monkeypatch.setattr(air.netlink, "forget_neighbour", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        apply.set_up(steps, air.host, state, air.say)
    assert air.snapshot() == before
    (interrupted,) = [line for line in air.said if line.startswith("interrupted ")]
    assert "neighbour" in interrupted
    assert not [line for line in air.said if line.startswith("failed ")]


def test_a_set_up_that_died_can_be_undone(
    air: Any, state: StateFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every change is stored before it is made, so no change is ever lost."""
    before = air.snapshot()
    seen: list[tuple[list[Change], Any]] = []
    note = state.note

    def remember(change: Change) -> None:
        note(change)
        seen.append((state.load(), air.snapshot()))

    monkeypatch.setattr(state, "note", remember)
    set_up(air, state)
    assert len(seen) > 10
    for stored, snapshot in seen:
        # At the moment of storing, all that differs from the beginning is in the state.
        changed = {a for name, held in snapshot["addresses"].items() for a in held} - {
            a for held in before["addresses"].values() for a in held
        }
        recorded = {getattr(change, "address", "") for change in stored}
        assert {str(address) for address in changed} <= recorded
        if snapshot["rules"][0]:
            assert any(isinstance(change, RulesChange) for change in stored)


def test_undo_goes_on_after_a_failure(
    air: Any, state: StateFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that cannot be reverted stays in the state for the next undo."""
    before = air.snapshot()
    set_up(air, state)
    remove = air.netlink.remove_address

    def refuse(interface: str, address: Any) -> None:
        if interface == "eth1":
            raise PlatformError("busy")
        remove(interface, address)

    monkeypatch.setattr(air.netlink, "remove_address", refuse)
    with pytest.raises(PlatformError, match="run this again"):
        apply.undo(BOTH, air.host, state, air.say)
    assert [change.identity for change in state.load()] == [
        ("address", "eth1", "10.0.0.254/8"),
        ("address", "eth1", "fd00:10::fe/64"),
    ]
    monkeypatch.undo()
    apply.undo(BOTH, air.host, state, air.say)
    assert air.snapshot() == before


def test_undo_of_one_family_leaves_the_other(air: Any, state: StateFile) -> None:
    """--undo -6 keeps IPv4 balancing."""
    set_up(air, state)
    apply.undo(frozenset({6}), air.host, state, air.say)
    assert "PARAGLIDER" in air.netfilter.saved(4)
    assert "PARAGLIDER" not in air.netfilter.saved(6)
    assert {change.family for change in state.load()} == {4}


def test_undo_without_a_state_removes_stray_chains(air: Any, state: StateFile) -> None:
    """Without stray chains it does nothing; a second undo finds nothing."""
    assert apply.undo(BOTH, air.host, state, air.say) == 0
    set_up(air, state)
    state.path.unlink()
    assert apply.undo(BOTH, air.host, state, air.say) == 2
    assert "PARAGLIDER" not in air.netfilter.saved(4) + air.netfilter.saved(6)
    assert apply.undo(BOTH, air.host, state, air.say) == 0


def test_the_scripts_have_every_command(air: Any, state: StateFile) -> None:
    """Every command, with the whole input of iptables-restore; and nothing is changed."""
    before = air.snapshot()
    steps = apply.prepare(config(), BOTH, air.host, state)
    script = apply.script(steps, air.host)
    assert air.snapshot() == before
    assert "restore4 <<'END'\n*raw\n" in script
    assert "-j NFQUEUE --queue-num 0\n" in script
    assert "sysctl -w net.ipv4.ip_forward=1\n" in script
    assert "ip address add 2001:db8::11/64 dev eth0 nodad preferred_lft 0\n" in script
    assert "ip neighbour replace 10.0.0.1 dev eth1 managed\n" in script
    set_up(air, state)
    assert apply.script(apply.prepare(config(), BOTH, air.host, state), air.host) == ""
    undo = apply.undo_script(BOTH, air.host, state)
    assert "ip address del 2001:db8::11/64 dev eth0\n" in undo
    assert "-X PARAGLIDER-QUEUE\n" in undo
    assert "sysctl -w net.ipv6.conf.all.forwarding=0\n" in undo
    assert "delete mangle\n" in undo


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"user": "nosuchuser"}, "no user"),
        ({"chroot": "/nonexistent"}, "chroot directory /nonexistent"),
        ({"workers": {"first_core": 4000}}, "may not run on core 4000"),
    ],
)
def test_mistakes_are_found_before_anything_changes(
    air: Any, state: StateFile, changes: dict[str, Any], told: str
) -> None:
    """User, chroot and cores are checked first."""
    before = air.snapshot()
    with pytest.raises(OperatorError, match=told):
        set_up(air, state, config(**changes))
    assert air.snapshot() == before
    assert not state.path.exists()


def test_a_kernel_without_nfqueue_is_found_before_anything_changes(
    air: Any, state: StateFile
) -> None:
    """The rules are tried elsewhere first."""
    before = air.snapshot()
    air.netfilter.refuse = "rehearse"
    with pytest.raises(PlatformError, match="no NFQUEUE here"):
        set_up(air, state)
    assert air.snapshot() == before


def test_a_kernel_without_ipv6_is_found_before_anything_changes(
    air: Any, state: StateFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel booted with ipv6.disable=1 has no parameters of IPv6; IPv4 alone still works."""
    read = air.sysctl.read
    monkeypatch.setattr(air.sysctl, "read", lambda key: None if "ipv6" in key else read(key))
    with pytest.raises(PlatformError, match="the kernel has no IPv6"):
        set_up(air, state)
    assert apply.prepare(config(), frozenset({4}), air.host, state)


def test_backends_that_do_not_answer_are_named(
    air: Any, state: StateFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warning, no failure: a backend may come up later."""
    monkeypatch.setattr(apply, "_RESOLVE_SECONDS", 0.0)
    air.netlink.deaf.add("fd00:10::1")
    set_up(air, state)
    assert apply.unresolved(config(), BOTH, air.host) == ["fd00:10::1"]


def offloaded(*backends: str, vip: str = "192.168.0.11/24") -> Config:
    """A service of offload and one of nat."""
    service = {"name": "web", "vip": vip, "protocol": "tcp", "forward": "offload"}
    six = {"name": "six", "vip": "2001:db8::11/64", "protocol": "tcp", "backends": ["fd00:10::1"]}
    return config(services=[{**service, "backends": list(backends)}, six])


def test_offload_is_undone_like_the_rest(air: Any, state: StateFile) -> None:
    """The table goes, and the connections to its backends are forgotten."""
    before = air.snapshot()
    set_up(air, state, offloaded("10.0.0.1", "10.0.0.2"))
    limits = {(family, "paraglider-openings") for family in (4, 6)}
    assert set(air.nft.tables) == {(4, TABLE), (6, "paraglider-long"), *limits}
    apply.undo(BOTH, air.host, state, air.say)
    assert air.snapshot() == before
    assert len(air.conntrack.forgotten) == 2


def test_offload_twice_changes_nothing(air: Any, state: StateFile) -> None:
    """Every step of a second run is unchanged."""
    set_up(air, state, offloaded("10.0.0.1"))
    air.said.clear()
    set_up(air, state, offloaded("10.0.0.1"))
    assert {line.partition(" ")[0] for line in air.said} == {"unchanged"}


def test_a_table_that_the_kernel_refuses(air: Any, state: StateFile) -> None:
    """Known before anything is changed, or rolled back with the rest."""
    before = air.snapshot()
    air.nft.refuse = "rehearse"
    with pytest.raises(PlatformError, match="no nat here"):
        set_up(air, state, offloaded("10.0.0.1"))
    air.nft.refuse = "load"
    with pytest.raises(PlatformError, match="was refused"):
        set_up(air, state, offloaded("10.0.0.1"))
    assert air.snapshot() == before
    assert not state.path.exists()


def test_a_failure_brings_the_earlier_table_back(air: Any, state: StateFile) -> None:
    """An address is refused after the table was replaced: the old one is there again."""
    set_up(air, state, offloaded("10.0.0.1"))
    before = air.snapshot()
    air.netlink.refuse = "192.168.0.12/24"
    with pytest.raises(PlatformError, match=r"cannot add 192\.168\.0\.12/24"):
        set_up(air, state, offloaded("10.0.0.2", vip="192.168.0.12/24"))
    after = air.snapshot()
    assert after["rules"] == before["rules"]
    for which, text in before["tables"].items():
        # Besides, the counters go that the other table had.
        assert after["tables"][which].startswith(text)
        rest = after["tables"][which][len(text) :].splitlines()
        assert {line.split()[1] for line in rest} <= {"counter"}


def test_a_stray_table_is_removed(air: Any, state: StateFile) -> None:
    """A table without a state is removed, as rules are."""
    air.nft.tables[4, TABLE] = "add table ip paraglider\n"
    script = apply.undo_script(BOTH, air.host, state)
    assert "delete table ip paraglider" in script
    assert apply.undo(BOTH, air.host, state, air.say) == 1
    assert air.nft.tables == {}


def test_sources_that_are_not_the_hosts(air: Any) -> None:
    """A `snat` address that no interface has is reported once; one that the set-up adds is not."""
    base = {"protocol": "tcp", "forward": "offload", "backends": ["10.0.0.1"]}
    services = [
        {"name": f"s{i}", "vip": f"192.168.0.{i}/24", "snat": snat, **base}
        for i, snat in enumerate(("10.0.0.254", "10.0.0.9", "10.0.0.9"), 11)
    ]
    air.netlink.add_address("eth1", ipaddress.ip_interface("10.0.0.254/8"))
    assert apply.foreign_sources(config(services=services), BOTH, air.host) == ["10.0.0.9"]
    assert apply.foreign_sources(config(services=services), frozenset({6}), air.host) == []


def start(air: Any, state: StateFile, wanted: Config) -> None:
    """Prepare and apply for the kernel alone."""
    apply.set_up(apply.prepare_start(wanted, BOTH, air.host, state), air.host, state, air.say)


def test_start_asks_for_no_workers(air: Any, tmp_path: Path) -> None:
    """A missing user, directory or core matters only to the daemon."""
    state = StateFile(tmp_path / "run", 7, STARTED)
    before = air.snapshot()
    first = max(os.sched_getaffinity(0)) + 1
    workers = {"first_core": first, "last_core": first}
    start(air, state, config(user="no-such-user", chroot="/no/such/place", workers=workers))
    assert "numgen" in air.nft.held(4)
    assert "NFQUEUE" not in air.netfilter.saved(4)
    apply.undo(BOTH, air.host, state, air.say)
    assert air.snapshot() == before


def test_start_and_set_up_exclude_each_other(air: Any, tmp_path: Path) -> None:
    """The second command is refused with the remedy, and changes nothing; so
    is the other's undo.
    """
    states = {owner: StateFile(tmp_path / "run", 7, owner) for owner in (SET_UP, STARTED)}
    prepares = {SET_UP: set_up, STARTED: start}
    for first, second in ((SET_UP, STARTED), (STARTED, SET_UP)):
        prepares[first](air, states[first], config())
        held = air.snapshot()
        with pytest.raises(OperatorError, match="undo that first"):
            prepares[second](air, states[second], config())
        with pytest.raises(OperatorError, match="undo that first"):
            apply.undo(BOTH, air.host, states[second], air.say)
        assert air.snapshot() == held
        apply.undo(BOTH, air.host, states[first], air.say)
