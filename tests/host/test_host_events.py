"""The kernel's events about the host, in a network namespace."""

from __future__ import annotations

import selectors
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from waiting import wait_until

from paraglider.host import host_events
from paraglider.host.host_events import EVERYTHING, HostEvents
from paraglider.lab.namespace import Namespace
from paraglider.netfilter.iptables import legacy_tables

pytestmark = pytest.mark.root


@pytest.fixture
def events(inside: Namespace) -> Iterator[HostEvents]:
    """The events of the namespace that the test runs in. Its links send none later: they get no
    addresses of their own, and the kernel has seen that they are connected.
    """
    for name in ("eth0", "eth1"):
        inside.ip(f"link set {name} down")
        inside.sysctl(f"net.ipv6.conf.{name}.addr_gen_mode=1")
    inside.ip("link set eth0 up", "link set eth1 up")
    wait_until(lambda: inside.run(["ip", "link", "show", "up"]).stdout.count("state UP") == 2)
    inside.ip("link set lo up")  # waits until the kernel has told about the two (rtnl_lock)
    it = HostEvents()
    it.collect()
    yield it
    it.close()


def until(events: HostEvents, done: Callable[[set[str]], bool]) -> set[str]:
    """All events until ``done`` is among them."""
    found: set[str] = set()
    with selectors.DefaultSelector() as selector:
        events.register(selector)

        def collected() -> bool:
            nonlocal found
            found |= events.collect()
            return done(found) or not selector.select(0.1)

        wait_until(lambda: collected() and done(found), lambda: found)
    return found


def firewalls(events: HostEvents) -> set[str]:
    """The events of tables, once there is one. The kernel may also drop a neighbour: the room for
    them is that of all namespaces.
    """
    return until(events, lambda found: bool(found - {"links"})) - {"links"}


@pytest.mark.parametrize(
    "command",
    [
        "link set eth0 down",
        "address add 192.0.2.1/24 dev eth0",
        "address add 2001:db8::1/64 dev eth0",
        "rule add fwmark 7 lookup 7",
        "-6 rule add fwmark 7 lookup 7",
        "route add 192.0.2.9/32 dev eth0",
        "-6 route add default dev eth0 table 82",
    ],
)
def test_links(inside: Namespace, events: HostEvents, command: str) -> None:
    """Any change of links, addresses, rules and routes of ours."""
    inside.run(["ip", *command.split()])
    assert until(events, bool) == {"links"}


def test_routes_of_others_are_no_news(
    inside: Namespace, events: HostEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A routing daemon may change thousands of prefixes."""
    # The room for neighbours is that of all namespaces: the kernel may drop one at any time.
    of_links = host_events._of_links

    def of_others(message: bytes) -> host_events.News | None:
        (kind,) = struct.unpack_from("=H", message, 4)
        return None if kind == host_events._DELNEIGH else of_links(message)

    monkeypatch.setattr(host_events, "_of_links", of_others)
    inside.run(["ip", "route", "add", "198.51.100.0/24", "dev", "eth0"])
    inside.run(["ip", "route", "add", "2001:db8:7::/48", "dev", "eth0"])
    inside.run(["nft", "add", "table", "inet", "last"])
    assert "links" not in until(events, lambda found: "foreign" in found)


@pytest.mark.parametrize(
    ("text", "news"),
    [
        ("add table ip paraglider", "filter"),
        ("add table ip6 paraglider-dsr", "filter"),
        ("add table ip mangle", "filter"),
        ("add table inet mangle", "foreign"),
        ("add table inet hostfw\nadd chain inet hostfw forward", "foreign"),
    ],
)
def test_tables(inside: Namespace, events: HostEvents, text: str, news: str) -> None:
    """Our tables and those of iptables-nft are distinguished from others."""
    inside.run(["nft", "-f", "-"], text=text)
    assert firewalls(events) == {news}


def test_elements_of_others_are_no_news(inside: Namespace, events: HostEvents) -> None:
    """Some firewalls change sets all the time; of ours, an element that goes is news."""
    inside.run(["nft", "-f", "-"], text="add table ip a\nadd set ip a s { type mark; }\n")
    inside.run(["nft", "-f", "-"], text="add table ip paraglider\n")
    inside.run(["nft", "-f", "-"], text="add set ip paraglider s { type mark; }\n")
    until(events, lambda found: {"filter", "foreign"} <= found)
    events.collect()
    inside.run(["nft", "add", "element", "ip", "a", "s", "{ 1 }"])
    inside.run(["nft", "add", "element", "ip", "paraglider", "s", "{ 1 }"])
    assert firewalls(events) == {"filter"}


def test_legacy_tables_are_read(inside: Namespace, events: HostEvents) -> None:
    """They send no events: a new table, a new rule and a flush are found by polling."""
    assert events.poll() == set()
    assert legacy_tables(4) == ()
    for command in (
        ["iptables-legacy", "-P", "FORWARD", "ACCEPT"],
        ["iptables-legacy", "-A", "FORWARD", "-s", "192.0.2.1", "-j", "DROP"],
        ["iptables-legacy", "-F"],
        ["ip6tables-legacy", "-A", "FORWARD", "-j", "DROP"],
    ):
        inside.run(command)
        assert events.poll() == {"filter", "foreign"}, command
        assert events.poll() == set()
    assert legacy_tables(4) == ("filter",)


def test_lost_news_mean_everything(
    inside: Namespace, events: HostEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an overflow of the kernel's buffer."""
    monkeypatch.setattr(host_events, "_RECEIVE_BUFFER", 1)
    small = HostEvents()
    lines = "".join(f"address add 192.0.{i}.1/32 dev eth0\n" for i in range(250))
    inside.run(["ip", "-batch", "-"], text=lines)
    assert small.collect() == EVERYTHING
    small.close()


def test_no_proc(tmp_path: Path) -> None:
    """Without iptables-legacy in the kernel these files do not exist."""
    assert legacy_tables(6, tmp_path) == ()
