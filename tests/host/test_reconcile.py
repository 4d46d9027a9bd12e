"""What is missing on the host is found and put back, on a host made of air."""

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
from paraglider.host.reconcile import Reconciler, SetUpAtWorkError
from paraglider.host.state import StateFile, only_one
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
    """The lock of set-ups, of this test alone."""
    mine = partial(only_one, tmp_path / "locks")
    monkeypatch.setattr(module, "only_one", mine)
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
        """What a look finds missing, and has put back."""
        look = self.reconciler.look(part)
        assert look.failed == {}
        assert look.restored == look.absent
        return [absence.name for absence in look.absent]


@pytest.fixture
def place(air: Any, tmp_path: Path) -> Callable[[str], Place]:
    """A function that sets a host up for a way of forwarding."""
    return lambda forward="nat": Place(air, tmp_path, config(forward))


@pytest.mark.parametrize("forward", ["nat", "offload", "dsr", "proxy"])
def test_a_host_as_it_was_set_up(place: Any, forward: str) -> None:
    """Has nothing missing, however often one looks."""
    it = place(forward)
    assert [it.names(part) for part in ("links", "filter") * 2] == [[]] * 4


def test_a_link_that_went_down_and_up(place: Any) -> None:
    """Its IPv6 addresses, neighbours, routes and proxy entries are put back; nothing else is
    touched.
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


def test_what_somebody_put_back(place: Any) -> None:
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
    """Is wanted all the same: ip_forward of a host that routed before, put to 0 by others."""
    air.sysctl.write("net/ipv4/ip_forward", "1")
    it = Place(air, tmp_path, config())
    assert it.names("links") == []
    air.sysctl.write("net/ipv4/ip_forward", "0")
    look = it.reconciler.look("links")
    (forwarding,) = [a for a in look.absent if "ip_forward" in a.name]
    assert forwarding.vital
    assert not forwarding.new
    assert air.sysctl.read("net/ipv4/ip_forward") == "1"


def test_a_flushed_firewall(place: Any) -> None:
    """Chains and tables of both families are as the set-up left them; offloaded flows' table is
    told of, for its hash has to be told anew.
    """
    it = place("offload")
    it.air.nft.tables.clear()
    for family in (4, 6):
        it.air.netfilter.remove_ours(family)
    look = it.reconciler.look("filter")
    assert {absence.name for absence in look.restored} == {
        "rules for IPv4", "rules for IPv6",
        *(f"table {ip} {table}" for ip in ("ip", "ip6") for table in (TABLE, OPENINGS)),
    }  # fmt: skip
    assert look.renewed == (4, 6)
    assert it.names("filter") == []
    assert it.air.snapshot()["tables"] == it.whole["tables"]


def test_leases(place: Any) -> None:
    """The table of leases alone: the service goes on without, with less than it should have."""
    it = place("dsr")
    del it.air.nft.tables[4, LEASES]
    (absence,) = it.reconciler.look("filter").restored
    assert (absence.name, absence.vital) == (f"table ip {LEASES}", False)


def test_the_hash_follows_states(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the daemon has written into the hash is nothing missing; another rule is."""
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
    """Is told of, with the remedy; what is on it waits for it."""
    it = place("nat")
    it.links["eth1"] = state
    it.air.netlink.held["eth1"].clear()
    it.air.netlink.entries.clear()
    look = it.reconciler.look("links")
    ((name, step),) = [(absence.name, absence.step) for absence in look.absent]
    assert (name, step) == ("interface eth1", None)
    assert look.absent[0].vital
    assert look.absent[0].remedy
    del it.links["eth1"]
    assert "address fd00:10::fe/64 on eth1" in it.names("links")


def test_what_cannot_be_put_back(place: Any) -> None:
    """Is named with the reason; everything else is put back all the same, and it again later."""
    it = place("nat")
    it.air.netlink.held = {name: [] for name in it.air.netlink.held}
    it.air.netlink.refuse = "192.168.0.11/24"
    look = it.reconciler.look("links")
    assert look.failed == {"address 192.168.0.11/24 on eth0": "cannot add 192.168.0.11/24"}
    assert "address 2001:db8::11/64 on eth0" in {absence.name for absence in look.restored}
    it.air.netlink.refuse = None
    assert it.names("links") == ["address 192.168.0.11/24 on eth0"]
    held = it.air.snapshot()["addresses"]
    assert {name: set(there) for name, there in held.items()} == {
        name: set(there) for name, there in it.whole["addresses"].items()
    }


def test_only_what_is_chosen_is_put_back(place: Any) -> None:
    """What waits for its time stays missing, and is found again."""
    it = place("nat")
    it.air.netlink.held["eth0"].clear()
    look = it.reconciler.look("links", lambda absent: absent[:1])
    assert len(look.absent) == 2
    assert len(look.restored) == 1
    assert look.failed == {}
    assert len(it.names("links")) == 1


def test_a_new_interface(place: Any) -> None:
    """Gets what every interface has; it is nothing that was missing."""
    it = place("nat")
    assert it.names("links") == []
    root = it.air.sysctl._root
    (root / "net/ipv4/conf/veth7").mkdir()
    for name in ("send_redirects", "forwarding"):
        (root / "net/ipv4/conf/veth7" / name).write_text("1")
    (absence,) = it.reconciler.look("links").restored
    assert absence.new
    assert "veth7" in absence.name


def test_nothing_is_put_back_after_an_undo(place: Any) -> None:
    """Nor where nothing was ever set up."""
    it = place("offload")
    it.file.drop(BOTH)
    apply.undo(BOTH, it.air.host, it.state, it.air.say)
    bare = it.air.snapshot()
    assert it.names("links") == it.names("filter") == []
    assert it.air.snapshot() == bare
    assert it.reconciler.families() == frozenset()


def test_one_family_alone(place: Any) -> None:
    """What is undone of one family is missing no more, the other goes on."""
    it = place("nat")
    it.file.drop((6,))
    apply.undo(frozenset({6}), it.air.host, it.state, it.air.say)
    assert it.names("links") == it.names("filter") == []
    it.air.netfilter.remove_ours(4)
    assert it.names("filter") == ["rules for IPv4"]


def test_while_a_set_up_is_at_work(place: Any, lock: Callable[[], Any]) -> None:
    """Nothing is touched, and it is said to look again."""
    it = place("nat")
    it.air.netlink.held["eth0"].clear()
    with lock(), pytest.raises(SetUpAtWorkError):
        it.reconciler.look("links")
    assert it.air.netlink.held["eth0"] == []
    assert len(it.names("links")) == 2


def test_a_host_that_cannot_be_looked_at(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is an error, not a host that is whole."""
    it = place("nat")

    def fail(_family: int) -> str:
        raise PlatformError("iptables-save did not end within 60 s")

    monkeypatch.setattr(it.air.netfilter, "ours", fail)
    with pytest.raises(PlatformError, match="iptables-save"):
        it.reconciler.look("filter")
