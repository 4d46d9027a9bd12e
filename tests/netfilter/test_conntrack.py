"""Connections of the kernel: counted, deleted by mark, events; in a network namespace."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from paraglider.netfilter import nfnetlink
from paraglider.netfilter.connections import (
    ConntrackEvent,
    ConntrackEvents,
    Fill,
    dump,
    event,
    fill,
)
from paraglider.netfilter.conntrack import Conntrack, Entry, _entry, entries
from paraglider.netfilter.nfnetlink import attribute, attributes, message, split, table_counters

FIRST, SECOND, FOREIGN = 0x51000001, 0x51800002, 0x42

# Connections to ports 1, 2 and 3 get the three marks.
RULES = f"""
add table inet t
add chain inet t out {{ type filter hook output priority 0; }}
add rule inet t out udp dport 1 ct mark set {FIRST}
add rule inet t out udp dport 2 ct mark set {SECOND}
add rule inet t out udp dport 3 ct mark set {FOREIGN}
"""


@pytest.fixture
def tracked(inside: Any) -> Any:
    """The namespace, with rules that mark connections."""
    inside.run(["nft", "-f", "-"], text=RULES)
    inside.sysctl("net.netfilter.nf_conntrack_events=1")
    return inside


def connect(port: int, count: int = 1) -> None:
    """Datagrams from as many ports to ``port``; each is a connection, IPv4 and IPv6 by turns."""
    with contextlib.ExitStack() as held:  # all at once, so that no port is taken twice
        for number in range(count):
            family, address = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")][number % 2]
            sock = held.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            sock.sendto(b"x", (address, port))


def marks() -> list[int]:
    """The marks of ours among the connections."""
    return sorted(found.mark for found in dump())


def await_marks(*wanted: int) -> None:
    """Wait until these are the marks of ours. The kernel has one table for all namespaces: a list
    may miss an entry while others change it, but has none that is gone.
    """

    def listed() -> bool:
        found = marks()
        assert not Counter(found) - Counter(wanted), found
        return found == sorted(wanted)

    wait_until(listed, marks)


def await_news(events: ConntrackEvents) -> list[ConntrackEvent]:
    """The next events; those of answers, which the kernel handles by itself, come by and by."""
    found: list[ConntrackEvent] = []

    def came() -> bool:
        news, lost = events.read()
        assert not lost
        found.extend(news)
        return bool(found)

    wait_until(came)
    return found


@pytest.mark.root
def test_only_connections_with_the_mark_are_forgotten(tracked: Any) -> None:
    """Of both families; connections with another mark or none stay."""
    for port, count in ((1, 4), (2, 2), (3, 1), (4, 1)):
        connect(port, count)
    await_marks(*[FIRST] * 4, *[SECOND] * 2)
    Conntrack().forget([FIRST])
    await_marks(SECOND, SECOND)
    found = fill()
    assert found is not None
    assert found.held == 4
    Conntrack().forget([])
    Conntrack().forget([FIRST, SECOND])
    assert marks() == []


@pytest.mark.root
def test_connections_are_forgotten_by_a_part_of_the_mark(tracked: Any) -> None:
    """Connections with these bits under the mask are deleted, no others."""
    connect(1, 2)
    connect(2, 2)
    Conntrack().forget([0x51000000], 0xFF800000)
    await_marks(SECOND, SECOND)


@pytest.mark.root
def test_events_of_beginning_and_end(tracked: Any) -> None:
    """Both events have the same id, and only connections with our marks have events."""
    events = ConntrackEvents()
    connect(1, 2)
    connect(3)
    began, lost = events.read()
    assert not lost
    assert [(told.turn, told.mark) for told in began] == [("began", FIRST)] * 2
    assert {told.identity for told in began} == {told.identity for told in dump()}
    Conntrack().forget([FIRST])
    ended, _ = events.read()
    assert sorted(told.identity for told in ended) == sorted(told.identity for told in began)
    assert {told.turn for told in ended} == {"ended"}
    assert events.read() == ([], False)
    events.close()


@pytest.mark.root
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("reset", [False, True])
def test_a_closed_connection_is_over(tracked: Any, address: str, reset: bool) -> None:
    """A closed connection, which the kernel keeps for a while, has one close event and is in no
    list.
    """
    tracked.run(["nft", f"add rule inet t out tcp dport 1 ct mark set {FIRST}"])
    events = ConntrackEvents()
    client, server, listener = established(address, 1)
    began = await_news(events)
    assert [(told.turn, told.mark) for told in began] == [("began", FIRST)]
    await_marks(FIRST)
    client.shutdown(socket.SHUT_WR)  # half-closed is alive
    assert events.read() == ([], False)
    await_marks(FIRST)
    if reset:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for end in (server, client, listener):
        end.close()
    ended = await_news(events)
    assert ended == [ConntrackEvent("closed", began[0].identity, FIRST)]
    assert marks() == []
    assert len(list(entries({FIRST}))) == 1
    Conntrack().forget([FIRST])
    assert not list(entries({FIRST}))
    assert events.read() == ([ConntrackEvent("forgotten", began[0].identity, FIRST)], False)
    events.close()


@pytest.mark.root
def test_lost_events_are_reported(tracked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the socket overflowed, the remaining events arrive, and the loss is reported once."""
    from paraglider.netfilter import connections

    monkeypatch.setattr(connections, "_RECEIVE_BUFFER", 4096)
    events = ConntrackEvents()
    connect(1, 50)
    found, lost = events.read()
    assert lost
    assert 0 < len(found) < 50
    assert events.read() == ([], False)
    events.close()


@pytest.mark.root
def test_counters_of_a_table_that_is_not_there(inside: Any) -> None:
    """No table is no error, and neither is one without the counters."""
    assert table_counters(4) is None
    inside.run(["nft", "add table ip paraglider"])
    assert table_counters(4) is None
    inside.run(["nft", "add counter ip paraglider unanswered { packets 3 bytes 9 }"])
    assert table_counters(4) is None
    inside.run(["nft", "add counter ip paraglider gone"])
    assert table_counters(4) == {"unanswered": 3, "gone": 0}
    assert table_counters(6) is None


def test_how_full(tmp_path: Path) -> None:
    """Drops are hexadecimal, one row per core; without conntrack the result is None."""
    assert fill(tmp_path) is None
    for name, text in {
        "sys/net/netfilter/nf_conntrack_count": "17\n",
        "sys/net/netfilter/nf_conntrack_max": "100\n",
        "net/stat/nf_conntrack": "entries drop  expect_new\n11 0a  0\n11 10  0\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert fill(tmp_path) == Fill(17, 100, 26)


def test_what_is_no_event_of_ours() -> None:
    """Messages of another subsystem, with another mark, without a mark, or
    truncated give no event.
    """
    mark = attribute(8, struct.pack("!I", FIRST)) + attribute(12, struct.pack("!I", 99))
    assert event(message(1, 0, 2, mark, 0x600)) == ConntrackEvent("began", 99, FIRST)
    assert event(message(1, 2, 2, mark, 0)) == ConntrackEvent("ended", 99, FIRST)
    assert event(message(1, 1, 2, mark, 0)) is None
    assert event(message(3, 0, 2, mark, 0)) is None
    assert event(message(1, 0, 2, attribute(8, struct.pack("!I", FOREIGN)), 0)) is None
    assert event(message(1, 0, 2, b"", 0)) is None
    assert event(b"\0" * 10) is None


def test_garbled_messages_end_the_walk() -> None:
    """Lengths that are impossible are not followed."""
    whole = message(1, 0, 2, attribute(8, b"abcd"), 0)
    assert list(split(whole + whole)) == [whole, whole]
    assert list(split(whole + b"\0" * 16)) == [whole]
    assert list(split(struct.pack("=I", 1000) + whole[4:])) == []
    assert list(attributes(whole)) == [(8, b"abcd")]
    assert list(attributes(whole[:20] + struct.pack("=HH", 2, 8))) == []
    assert list(attributes(whole[:20] + struct.pack("=HH", 90, 8))) == []


@pytest.mark.root
def test_a_refusal_has_the_kernels_reason(inside: Any) -> None:
    """A request that makes no sense raises with its errno."""
    with pytest.raises(OSError, match="."):
        list(nfnetlink.send_request(message(99, 0, 0, b"", 0)))


@pytest.mark.parametrize(("status", "mark"), [(0x10, FIRST), (0x30, FIRST), (0x10, FOREIGN)])
def test_a_connection_that_began_with_the_backends_segment(status: int, mark: int) -> None:
    """Its source is translated, and nothing else: it is listed like any other, and deleted by what
    the kernel finds it by. Others with such a status are as they seem: those with ``snat``, and the
    host's own.
    """
    backend, client, vip = b"\n\0\0\1", b"\xc0\0\2\7", b"\xc0\0\2\1"
    original, reply = part(1, backend, client, 8080, 4000), part(2, client, vip, 4000, 80)
    facts = attribute(3, struct.pack("!I", status)) + attribute(8, struct.pack("!I", mark))
    found = _entry(message(1, 0, 2, original + reply + facts, 0))
    assert found.original == attribute(0x8001, original[4:])
    ends = (found.vip, found.port, found.backend, found.backend_port)
    if (status, mark) == (0x10, FIRST):
        assert ends == (vip, 80, backend, 8080)
    else:
        assert ends == (client, 4000, client, 4000)


def part(kind: int, source: bytes, destination: bytes, sport: int, dport: int) -> bytes:
    """A tuple of a TCP connection."""
    ip = attribute(1, source) + attribute(2, destination)
    ports = attribute(2, struct.pack("!H", sport)) + attribute(3, struct.pack("!H", dport))
    transport = attribute(1, bytes([socket.IPPROTO_TCP])) + ports
    return attribute(kind, attribute(1, ip) + attribute(2, transport))


@pytest.mark.root
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_what_began_before_the_table_is_forgotten(tracked: Any, address: str) -> None:
    """Untranslated UDP to a service's address and ports; translated, other ports, others' stay."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def begin(port: int) -> None:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", (address, port))

    for port in (1, 3, 10, 11, 12):
        begin(port)
    connections = Conntrack()
    before = fill()
    connections.forget_untranslated(address, 1, 10)
    after = fill()
    assert before is not None
    assert after is not None
    assert before.held - after.held == 2
    await_marks(FIRST)
    other = "::2" if family == socket.AF_INET6 else "127.0.0.2"
    connections.forget_untranslated(other, 1, 65535)
    assert fill() == after


def established(address: str, port: int) -> tuple[socket.socket, socket.socket, socket.socket]:
    """Both ends of a TCP connection, and the listener."""
    listener = socket.create_server(
        (address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET
    )
    client = socket.create_connection((address, port))
    return client, listener.accept()[0], listener


@pytest.mark.root
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_datagrams_and_closed_connections_alone_are_forgotten(tracked: Any, address: str) -> None:
    """A live TCP connection with the mark stays, one that was reset does not, nor do datagrams."""
    tracked.run(["nft", f"add rule inet t out tcp dport {{ 1, 2 }} ct mark set {FIRST}"])
    live, reset = established(address, 1), established(address, 2)
    reset[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for end in reset[1:]:
        end.close()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", (address, 1))
        sock.sendto(b"x", (address, 2))
    assert sorted(entry.mark for entry in entries()) == [FIRST] * 3 + [SECOND]
    Conntrack().forget_passing({FIRST})
    assert sorted(entry.mark for entry in entries()) == [FIRST, SECOND]
    (entry,) = entries({FIRST})
    assert (entry.protocol, entry.port, entry.backend_port) == (socket.IPPROTO_TCP, 1, 1)
    assert socket.inet_ntop(family, entry.vip) == socket.inet_ntop(family, entry.backend) == address
    for end in (*live, reset[0]):
        end.close()


@pytest.mark.root
def test_marks_of_connections_are_changed(tracked: Any) -> None:
    """Many at once, of both families, by their ends; others keep their mark, and one that has ended
    meanwhile is no error.
    """
    connect(1, 100)
    connect(2, 2)

    def owner(entry: Entry) -> int | None:
        if len(entry.vip) == 16:
            return None
        if entry.port == 2:
            Conntrack().forget([SECOND])
        return FIRST + 1

    Conntrack().remark({FIRST, SECOND}, owner)
    await_marks(*[FIRST] * 50, *[FIRST + 1] * 50)
