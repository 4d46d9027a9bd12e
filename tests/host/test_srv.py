"""Tests of ``paraglider.host.srv``: from DNS records to backends, with dnspython."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraglider.host import srv
from paraglider.host.dns_records import (
    MOST_TARGETS,
    NoAnswerError,
    NoRecordsError,
    Query,
    Reply,
    ResolvedBackends,
    Srv,
)
from paraglider.host.srv import DnsQuery, look_up

NAME = "_web._tcp.example."


def zone(
    targets: list[Srv], addresses: Mapping[str, list[str]], ttls: tuple[float, float] = (60, 30)
) -> Query:
    """A DNS with these records; the query of a target without addresses in it fails."""

    async def query(name: str, kind: str) -> Reply:
        if kind == "SRV":
            assert name == NAME
            return Reply(tuple(targets), ttls[0])
        if name not in addresses:
            raise NoAnswerError(f"{name}: timed out")
        found = [a for a in addresses[name] if (":" in a) == (kind == "AAAA")]
        if not found:
            raise NoRecordsError(f"{name}: nothing there")
        return Reply(tuple(found), ttls[1])

    return query


def asked(query: Query, family: int = 4) -> ResolvedBackends:
    """The result of the look-up."""
    return asyncio.run(look_up(NAME, family, query))


def shown(answer: ResolvedBackends) -> list[str]:
    """The records, short."""
    return [f"{r.address}:{r.port} {r.weight}" for r in answer.records]


def test_targets_become_backends() -> None:
    """Every address of every target, with the port and weight of its record."""
    query = zone(
        [Srv(0, 5, 8081, "b."), Srv(0, 10, 8080, "a.")],
        {"a.": ["10.0.0.1", "fd00::1"], "b.": ["10.0.0.3", "10.0.0.2"]},
    )
    answer = asked(query)
    assert shown(answer) == ["10.0.0.1:8080 10", "10.0.0.2:8081 5", "10.0.0.3:8081 5"]
    assert answer.ttl == 30
    assert shown(asked(query, 6)) == ["fd00::1:8080 10"]


def test_the_lowest_priority_is_used() -> None:
    """Targets of a higher number are used only if none of a lower one has an address."""
    targets = [Srv(20, 1, 80, "spare."), Srv(10, 1, 80, "main.")]
    both = {"main.": ["10.0.0.1"], "spare.": ["10.0.0.9"]}
    assert shown(asked(zone(targets, both))) == ["10.0.0.1:80 1"]
    assert shown(asked(zone(targets, {**both, "main.": []}))) == ["10.0.0.9:80 1"]


def test_a_target_without_an_address_is_left_out() -> None:
    """The other targets are used."""
    query = zone([Srv(0, 1, 80, "a."), Srv(0, 1, 80, "b.")], {"a.": ["10.0.0.1"], "b.": []})
    assert shown(asked(query)) == ["10.0.0.1:80 1"]


def test_a_target_that_cannot_be_asked_about_fails_the_whole() -> None:
    """A name server's trouble takes no backend out."""
    with pytest.raises(NoAnswerError, match="b.: timed out"):
        asked(zone([Srv(0, 1, 80, "a."), Srv(0, 1, 80, "b.")], {"a.": ["10.0.0.1"]}))


@pytest.mark.parametrize(
    ("targets", "why"),
    [
        ([Srv(0, 0, 0, ".")], "not available there"),
        ([], "not available there"),
        ([Srv(0, 1, 80, "none.")], "no target has an IPv4 address"),
        ([Srv(0, 1, 80, "a.")] * (MOST_TARGETS + 1), "more than"),
    ],
)
def test_no_backends(targets: list[Srv], why: str) -> None:
    """An answer that names no backend, or too many, is none."""
    with pytest.raises(NoAnswerError, match=why):
        asked(zone(targets, {"none.": [], "a.": ["10.0.0.1"]}))


targets_of = st.lists(
    st.builds(
        Srv,
        priority=st.integers(0, 3),
        weight=st.integers(0, 65535),
        port=st.integers(1, 65535),
        target=st.sampled_from(["a.", "b.", "c.", "."]),
    ),
    max_size=8,
)
addresses_of = st.fixed_dictionaries(
    {
        name: st.lists(st.ip_addresses(v=4).map(str), max_size=3, unique=True)
        for name in ("a.", "b.", "c.")
    }
)


@given(targets_of, addresses_of, st.randoms(use_true_random=False))
def test_any_answer(targets: list[Srv], addresses: dict[str, list[str]], chance: object) -> None:
    """The order of an answer does not matter, no endpoint is repeated, and every backend has a
    weight.
    """
    try:
        answer = asked(zone(targets, addresses))
    except NoRecordsError:
        assert not any(addresses.get(record.target) for record in targets)
        return
    chance.shuffle(targets)  # type: ignore[attr-defined]
    assert asked(zone(targets, addresses)) == answer
    ends = [(record.address, record.port) for record in answer.records]
    assert len(set(ends)) == len(ends)
    assert all(1 <= record.weight <= 65535 for record in answer.records)
    usable = [record for record in targets if addresses.get(record.target)]
    lowest = min(record.priority for record in usable)
    assert set(ends) == {
        (ipaddress.ip_address(address), record.port)
        for record in usable
        if record.priority == lowest
        for address in addresses[record.target]
    }


class NameServer:
    """A name server on its own port; ``records`` as in a zone file, by name and kind."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], list[str]] = {}
        self.rcode = dns.rcode.NXDOMAIN
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.end = (ipaddress.ip_address("127.0.0.1"), self._socket.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Answer no more."""
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                data, client = self._socket.recvfrom(4096)
            except OSError:
                return
            question = dns.message.from_wire(data)
            reply = dns.message.make_response(question)
            reply.flags |= dns.flags.RA
            name, kind = question.question[0].name, question.question[0].rdtype.name
            found = self.records.get((name.to_text(), kind))
            if found:
                reply.answer.append(dns.rrset.from_text(name, 17, "IN", kind, *found))
            elif not any(known == name.to_text() for known, _ in self.records):
                reply.set_rcode(self.rcode)
            self._socket.sendto(reply.to_wire(), client)


@pytest.fixture
def server() -> Iterator[NameServer]:
    """A name server."""
    made = NameServer()
    yield made
    made.close()


def test_dnspython_asks(server: NameServer) -> None:
    """Records and TTL come as they are in a real answer."""
    server.records[NAME, "SRV"] = ["1 2 8080 a.example.", "1 3 8080 b.example."]
    server.records["a.example.", "A"] = ["10.0.0.1"]
    server.records["b.example.", "AAAA"] = ["fd00::2"]
    answer = asked(DnsQuery(server.end))
    assert (shown(answer), answer.ttl) == (["10.0.0.1:8080 2"], 17)
    assert shown(asked(DnsQuery(server.end), 6)) == ["fd00::2:8080 3"]


def test_the_servers_of_the_host(monkeypatch: pytest.MonkeyPatch, server: NameServer) -> None:
    """They are read from the text of resolv.conf; without any there is no answer, and no guess."""
    server.records[NAME, "SRV"] = ["1 2 8080 a.example."]
    server.records["a.example.", "A"] = ["10.0.0.1"]
    reset = dns.resolver.BaseResolver.reset

    def reset_to_port(resolver: Any) -> None:
        reset(resolver)
        resolver.port = server.end[1]

    monkeypatch.setattr(dns.resolver.BaseResolver, "reset", reset_to_port)
    text = "# a comment\nsearch example\nnameserver 127.0.0.1\n"
    assert shown(asked(DnsQuery(None, text))) == ["10.0.0.1:8080 2"]
    with pytest.raises(NoAnswerError, match="no nameservers"):
        asked(DnsQuery(None, "search example\n"))


def test_a_name_that_is_not_there(server: NameServer) -> None:
    """The error is one line."""
    with pytest.raises(NoRecordsError, match="does not exist: _web._tcp.example"):
        asked(DnsQuery(server.end))


def test_a_server_that_refuses(server: NameServer) -> None:
    """A refusal is an error, not an empty answer."""
    server.rcode = dns.rcode.SERVFAIL
    with pytest.raises(NoAnswerError) as caught:
        asked(DnsQuery(server.end))
    assert not isinstance(caught.value, NoRecordsError)
    assert "\n" not in str(caught.value)


def test_no_server_answers(server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is silent is given up in time."""
    monkeypatch.setattr(srv, "LIFETIME", 0.3)
    monkeypatch.setattr(srv, "TRY", 0.2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        end = (ipaddress.ip_address("127.0.0.1"), silent.getsockname()[1])
        with pytest.raises(NoAnswerError, match="lifetime expired"):
            asked(DnsQuery(end))
