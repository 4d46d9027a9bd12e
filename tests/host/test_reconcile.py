"""Missing objects of the host are found and restored; the host is a fake."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.errors import PlatformError
from paraglider.forward.dsr.leases import TABLE as LEASES
from paraglider.forward.openings import TABLE as OPENINGS
from paraglider.host import apply
from paraglider.host import reconcile as module
from paraglider.host.link_state import LinkState
from paraglider.host.ownership import SET_UP
from paraglider.host.reconcile import Reconciler, SetupRunningError
from paraglider.host.state import StateFile, setup_lock
from paraglider.host.step import Step
from paraglider.host.wanted import WantedFile
from paraglider.netfilter.rules.nft import TABLE, UNANSWERED

BOTH = frozenset({4, 6})


def config(forward: str = "nat") -> Config:
    """A service a family."""
    network = {
        "public": {"interface": "eth0"},
        "private": {"interface": "eth1", "gateway": ["10.0.0.254/8", "fd00:10::fe/64"]},
    }
    services = [
        {"name": "web", "vip": "192.168.0.11/24", "backends": ["10.0.0.1"]},
        {"name": "six", "vip": "2001:db8::11/64", "backends": ["fd00:10::1"]},
    ]
    every = [{**s, "protocol": "tcp", "ports": 80, "forward": forward} for s in services]
    content = {"chroot": "/tmp", "user": "root", "network": network, "services": every}
    return Config.model_validate(content)


@pytest.fixture(autouse=True)
def lock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], Any]:
    """The lock of set-ups, for this test only."""
    mine = partial(setup_lock, tmp_path / "locks")
    monkeypatch.setattr(module, "setup_lock", mine)
    return mine


class Place:
    """A host that is set up, and the reconciler of it."""

    def __init__(self, air: Any, directory: Path, wanted: Config) -> None:
        self.air = air
        self.state = StateFile(directory, 7)
        self.file = WantedFile(directory, 7)
        self.links: dict[str, LinkState] = {}
        steps = apply.prepare(wanted, BOTH, air.host, self.state)
        apply.set_up(steps, air.host, self.state, air.say)
        self.file.set(wanted, BOTH, (0,), SET_UP)
        self.reconciler = Reconciler(
            air.host,
            self.file,
            state=partial(StateFile, directory, 7),
            interface=lambda name: self.links.get(name, "up"),
        )
        self.whole = air.snapshot()

    def names(self, part: Any) -> list[str]:
        """Run once; returns the names of the missing objects, which all were restored."""
        result = self.reconciler.reconcile(part)
        assert result.failed == {}
        assert result.restored == result.missing
        return [item.name for item in result.missing]


@pytest.fixture
def place(air: Any, tmp_path: Path) -> Callable[[str], Place]:
    """A function that sets a host up for a way of forwarding."""
    return lambda forward="nat": Place(air, tmp_path, config(forward))


@pytest.mark.parametrize("forward", ["nat", "offload", "dsr", "proxy"])
def test_a_host_as_it_was_set_up(place: Any, forward: str) -> None:
    """Nothing is missing, however often the reconciler runs."""
    it = place(forward)
    assert [it.names(part) for part in ("links", "filter") * 2] == [[]] * 4


def test_a_link_that_went_down_and_up(place: Any) -> None:
    """Its IPv6 addresses, neighbours, routes and proxy entries are restored; nothing else is
    changed.
    """
    it = place("dsr")
    for name, held in it.air.netlink.held.items():
        it.air.netlink.held[name] = [address for address in held if address.version == 4]
    it.air.netlink.entries.clear()
    it.air.routing.routes.clear()
    it.air.routing.proxies.clear()
    found = it.names("links")
    assert "address fd00:10::fe/64 on eth1" in found
    assert "neighbour 10.0.0.1 on eth1 kept resolved" in found
    assert "route 192.168.0.11 dev eth1" in found
    assert "proxy: eth0 answers for 2001:db8::11" in found
    assert it.names("links") == []
    assert it.air.snapshot() == it.whole


def test_which_reverted_settings_are_named(place: Any) -> None:
    """Forwarding, another sysctl, a policy rule: each by its name."""
    it = place("dsr")
    it.air.sysctl.write("net/ipv4/ip_forward", "0")
    it.air.sysctl.write("net/ipv6/conf/eth0/proxy_ndp", "0")
    it.air.routing.rules.clear()
    found = it.names("links")
    assert "sysctl net.ipv4.ip_forward = 1" in found
    assert "sysctl net.ipv6.conf.eth0.proxy_ndp = 1" in found
    assert sum(name.startswith("policy rule") for name in found) == 2
    assert it.names("links") == []
    assert it.air.sysctl.read("net/ipv4/ip_forward") == "1"


def test_what_was_so_before_the_set_up(air: Any, tmp_path: Path) -> None:
    """ip_forward of a host that routed before is restored if others set it to 0."""
    air.sysctl.write("net/ipv4/ip_forward", "1")
    it = Place(air, tmp_path, config())
    assert it.names("links") == []
    air.sysctl.write("net/ipv4/ip_forward", "0")
    result = it.reconciler.reconcile("links")
    (forwarding,) = [a for a in result.missing if "ip_forward" in a.name]
    assert forwarding.vital
    assert not forwarding.new
    assert air.sysctl.read("net/ipv4/ip_forward") == "1"


def test_a_flushed_firewall(place: Any) -> None:
    """Chains and tables of both families are restored; the offload tables are reported, because
    their hash must be loaded.
    """
    it = place("offload")
    it.air.nft.tables.clear()
    for family in (4, 6):
        it.air.netfilter.remove_ours(family)
    result = it.reconciler.reconcile("filter")
    assert {item.name for item in result.restored} == {
        "rules for IPv4", "rules for IPv6",
        *(f"table {ip} {table}" for ip in ("ip", "ip6") for table in (TABLE, OPENINGS)),
    }  # fmt: skip
    assert result.recreated == (4, 6)
    assert it.names("filter") == []
    assert it.air.snapshot()["tables"] == it.whole["tables"]


def test_leases(place: Any) -> None:
    """Only the table of leases is missing: the condition is degraded."""
    it = place("dsr")
    del it.air.nft.tables[4, LEASES]
    (item,) = it.reconciler.reconcile("filter").restored
    assert (item.name, item.vital) == (f"table ip {LEASES}", False)


def test_the_hash_follows_states(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes of the hash by the daemon are ignored; another rule is not."""
    it = place("offload")
    rule = '{{"chain": "{}", "expr": [{}]}}'
    held = {"hash": "1", "mark": "2"}

    others = it.air.nft.held

    def listing(family: int, table: str = TABLE, *, terse: bool = False) -> str:
        if table != TABLE:
            return str(others(family, table))
        lines = [rule.format(UNANSWERED, held["hash"]), rule.format("answered", held["mark"])]
        return "".join(f"rule {line}\n" for line in lines)

    monkeypatch.setattr(it.air.nft, "held", listing)
    for change in it.state.load():
        if change.kind == "table":
            apply.repair([Step("apply", change, change)], it.air.host, it.state)
    assert it.names("filter") == []
    held["hash"] = "3"
    assert it.names("filter") == []
    held["mark"] = "4"
    assert it.names("filter") == [f"table ip {TABLE}", f"table ip6 {TABLE}"]


@pytest.mark.parametrize("state", ["down", "no carrier", "gone"])
def test_an_interface_that_is_down(place: Any, state: LinkState) -> None:
    """It is reported with the remedy; its addresses are not restored meanwhile."""
    it = place("nat")
    it.links["eth1"] = state
    it.air.netlink.held["eth1"].clear()
    it.air.netlink.entries.clear()
    result = it.reconciler.reconcile("links")
    ((name, step),) = [(item.name, item.step) for item in result.missing]
    assert (name, step) == ("interface eth1", None)
    assert result.missing[0].vital
    assert result.missing[0].remedy
    del it.links["eth1"]
    assert "address fd00:10::fe/64 on eth1" in it.names("links")


def test_what_cannot_be_put_back(place: Any) -> None:
    """The reason is reported; everything else is restored, and it again at the next run."""
    it = place("nat")
    it.air.netlink.held = {name: [] for name in it.air.netlink.held}
    it.air.netlink.refuse = "192.168.0.11/24"
    result = it.reconciler.reconcile("links")
    assert result.failed == {"address 192.168.0.11/24 on eth0": "cannot add 192.168.0.11/24"}
    assert "address 2001:db8::11/64 on eth0" in {item.name for item in result.restored}
    it.air.netlink.refuse = None
    assert it.names("links") == ["address 192.168.0.11/24 on eth0"]
    held = it.air.snapshot()["addresses"]
    assert {name: set(there) for name, there in held.items()} == {
        name: set(there) for name, there in it.whole["addresses"].items()
    }


def test_only_what_is_chosen_is_put_back(place: Any) -> None:
    """Objects that were not chosen stay missing, and are found again."""
    it = place("nat")
    it.air.netlink.held["eth0"].clear()
    result = it.reconciler.reconcile("links", lambda missing: missing[:1])
    assert len(result.missing) == 2
    assert len(result.restored) == 1
    assert result.failed == {}
    assert len(it.names("links")) == 1


def test_a_new_interface(place: Any) -> None:
    """It gets the sysctls of every interface, and is not reported as missing."""
    it = place("nat")
    assert it.names("links") == []
    root = it.air.sysctl._root
    (root / "net/ipv4/conf/veth7").mkdir()
    for name in ("send_redirects", "forwarding"):
        (root / "net/ipv4/conf/veth7" / name).write_text("1")
    (item,) = it.reconciler.reconcile("links").restored
    assert item.new
    assert "veth7" in item.name


def test_nothing_is_put_back_after_an_undo(place: Any) -> None:
    """Also on a host that was never set up."""
    it = place("offload")
    it.file.drop(BOTH)
    apply.undo(BOTH, it.air.host, it.state, it.air.say)
    bare = it.air.snapshot()
    assert it.names("links") == it.names("filter") == []
    assert it.air.snapshot() == bare
    assert it.reconciler.families() == frozenset()


def test_one_family_alone(place: Any) -> None:
    """After the undo of one family its objects are not missing; the other family is compared."""
    it = place("nat")
    it.file.drop((6,))
    apply.undo(frozenset({6}), it.air.host, it.state, it.air.say)
    assert it.names("links") == it.names("filter") == []
    it.air.netfilter.remove_ours(4)
    assert it.names("filter") == ["rules for IPv4"]


def test_while_a_set_up_is_at_work(place: Any, lock: Callable[[], Any]) -> None:
    """Nothing is changed, and the caller is told to try again."""
    it = place("nat")
    it.air.netlink.held["eth0"].clear()
    with lock(), pytest.raises(SetupRunningError):
        it.reconciler.reconcile("links")
    assert it.air.netlink.held["eth0"] == []
    assert len(it.names("links")) == 2


def test_a_host_that_cannot_be_read(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error is raised."""
    it = place("nat")

    def fail(_family: int) -> str:
        raise PlatformError("iptables-save did not end within 60 s")

    monkeypatch.setattr(it.air.netfilter, "ours", fail)
    with pytest.raises(PlatformError, match="iptables-save"):
        it.reconciler.reconcile("filter")
