"""Tests of ``paraglider.health.probes.dns``: servers that answer in all ways, by dnspython."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable, Iterable

import dns.message
import dns.rrset
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paraglider.config.diagnostics import ConfigError
from paraglider.forward.load import parse
from paraglider.health.codes import Code
from paraglider.health.probes.base import CheckResult
from paraglider.health.probes.dns import Dns

ANSWERS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
NAME = "www.example.com"
ADDRESS = dns.rrset.from_text(f"{NAME}.", 60, "IN", "A", "192.0.2.1", "192.0.2.2")
ALIAS = dns.rrset.from_text(f"{NAME}.", 60, "IN", "CNAME", "web.example.com.")
START = dns.rrset.from_text(f"{NAME}.", 60, "IN", "SOA", "ns.example.com. a.example.com. 7 1 1 1 1")


def answering(
    *records: dns.rrset.RRset, code: int = 0, truncated: bool = False
) -> Callable[[bytes], list[bytes]]:
    """A server that answers a query with ``records``."""

    def answer(wire: bytes) -> list[bytes]:
        query = dns.message.from_wire(wire)
        assert query.question[0].name.to_text() == f"{NAME}."
        response = dns.message.make_response(query)
        response.answer = list(records)
        response.set_rcode(code)
        response.flags |= 0x0200 if truncated else 0
        return [response.to_wire(want_shuffle=False)]

    return answer


def over_tcp(answer: Callable[[bytes], Iterable[bytes]]) -> Handler:
    """The same server, over TCP, with the length in a piece of its own."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            size = int.from_bytes(await reader.readexactly(2), "big")
            for wire in answer(await reader.readexactly(size)):
                writer.write(struct.pack(">H", len(wire)))
                await writer.drain()
                await asyncio.sleep(0)
                writer.write(wire)
        writer.close()

    return handler


@pytest.mark.parametrize(
    ("answer", "parameters", "code", "detail"),
    [
        (answering(ADDRESS), {}, Code.L7OK, "NOERROR, 2 records"),
        (answering(), {}, Code.L7OK, "NOERROR, 0 records"),
        (answering(ADDRESS), {"answer": r"^192\.0\.2\.2$"}, Code.L7OK, "NOERROR: 192.0.2.2"),
        (answering(ALIAS, ADDRESS), {"answer": "2$"}, Code.L7OK, "NOERROR: 192.0.2.2"),
        (
            answering(START),
            {"query": "SOA", "answer": " 7 "},
            Code.L7OK,
            "NOERROR: ns.example.com. a.example.com. 7 1 1 1 1",
        ),
        (
            answering(ADDRESS),
            {"answer": "^10"},
            Code.L7RSP,
            "NOERROR, 192.0.2.1, 192.0.2.2: does not match '^10'",
        ),
        (answering(), {"answer": "."}, Code.L7RSP, "NOERROR, no record: does not match '.'"),
        (answering(code=2), {}, Code.L7STS, "SERVFAIL, expected NOERROR"),
        (answering(code=3), {"rcode": "NXDOMAIN"}, Code.L7OK, "NXDOMAIN, 0 records"),
        (answering(code=9), {}, Code.L7STS, "RCODE9, expected NOERROR"),
    ],
)
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_answers(
    probing_udp: Callable[..., CheckResult],
    probing: Callable[..., CheckResult],
    answer: Callable[[bytes], list[bytes]],
    parameters: dict[str, str],
    code: Code,
    detail: str,
    transport: str,
) -> None:
    """Code and records decide, over UDP and TCP alike."""
    check = {"type": "dns", "timeout": 30}
    parameters = {"name": NAME, "transport": transport, **parameters}
    if transport == "udp":
        found = probing_udp(Dns(), answer, parameters=parameters, **check)
    else:
        found = probing(Dns(), over_tcp(answer), parameters=parameters, **check)
    assert (found.code, found.detail) == (code, detail)


def asked(
    probing_udp: Callable[..., CheckResult],
    server: Callable[[bytes], Iterable[bytes]],
    timeout: float = 60,
    **parameters: str,
) -> CheckResult:
    """The check of a server over UDP."""
    given = {"name": NAME, **parameters}
    return probing_udp(Dns(), server, type="dns", timeout=timeout, parameters=given)


def test_truncated(probing_udp: Callable[..., CheckResult]) -> None:
    """A truncated answer has its code; a record that it lacks is said to be missing for that."""
    assert asked(probing_udp, answering(truncated=True)).code is Code.L7OK
    found = asked(probing_udp, answering(truncated=True), answer="1")
    assert (found.code, found.detail) == (
        Code.L7RSP,
        "the answer is truncated; write `transport: tcp`",
    )


def test_answers_to_other_queries_are_ignored(probing_udp: Callable[..., CheckResult]) -> None:
    """Another id, the query itself, another question: the answer may still come. A flood of such
    answers ends the check.
    """

    def others(wire: bytes) -> list[bytes]:
        (right,) = answering(ADDRESS)(wire)
        other = bytes([right[0] ^ 1]) + right[1:]
        return [other, wire, right.replace(b"\3www", b"\3wwx"), b"", right[:5], right]

    assert asked(probing_udp, others).code is Code.L7OK
    found = asked(probing_udp, lambda wire: [wire] * 50)
    assert found.code is Code.L7RSP
    assert found.detail.startswith("what came is no answer to the query: '")


def test_a_question_may_be_missing_or_in_capitals(probing_udp: Callable[..., CheckResult]) -> None:
    """A server that refuses may leave the question out, and letters have no case."""

    def bare(wire: bytes) -> list[bytes]:
        return [wire[:2] + b"\x80\x05" + bytes(8)]

    found = asked(probing_udp, bare, rcode="REFUSED")
    assert (found.code, found.detail) == (Code.L7OK, "REFUSED, 0 records")

    def loud(wire: bytes) -> list[bytes]:
        return [wire[:2] + b"\x80\x00" + wire[4:].upper()]

    assert asked(probing_udp, loud).code is Code.L7OK


def test_silence(probing_udp: Callable[..., CheckResult]) -> None:
    """A server that does not answer runs into the time."""
    found = asked(probing_udp, lambda _: [], timeout=0.3)
    assert (found.code, found.detail) == (Code.L7TOUT, "answer timed out after 0.3 s")


def test_tcp_of_other_servers(probing: Callable[..., CheckResult]) -> None:
    """A length that is not kept, an answer that is too long, a closed connection."""
    check = {"type": "dns", "timeout": 30, "parameters": {"name": NAME, "transport": "tcp"}}
    found = probing(Dns(), over_tcp(lambda _: []), **check)
    assert (found.code, found.detail) == (
        Code.L7RSP,
        "closed the connection without an answer",
    )
    found = probing(Dns(), over_tcp(lambda _: [b"x" * 60000]), **check)
    assert (found.code, found.detail[:10]) == (Code.L7RSP, "more than ")
    found = probing(Dns(), over_tcp(lambda wire: [wire]), **check)
    assert (found.code, found.detail[:12]) == (Code.L7RSP, "what came is")


@ANSWERS
@given(flags=st.integers(0, 0xFFFF), counts=st.binary(min_size=8, max_size=8), rest=st.binary())
def test_any_answer(
    probing_udp: Callable[..., CheckResult], flags: int, counts: bytes, rest: bytes
) -> None:
    """Any flags, counts and records behind the right id: a code of layer 7, nothing else."""

    def answer(wire: bytes) -> list[bytes]:
        return [wire[:2] + struct.pack(">H", flags | 0x8000) + counts + wire[12:] + rest] * 20

    found = asked(probing_udp, answer, answer="x")
    assert found.code in (Code.L7OK, Code.L7STS, Code.L7RSP)
    assert found.detail.isprintable()


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ("{}", "`type: dns` without the name that is queried; add `parameters: {name: www."),
        ("{name: a..b}", "'a..b' is no name; write one such as"),
        ("{name: 'a b'}", "'a b' is no name"),
        ("{name: a, query: ANY}", "'ANY' is none of them; write one of: A, AAAA, SOA"),
        ("{name: a, rcode: noerror}", "'noerror' is none of them; write one of: NOERROR, "),
        ("{name: a, transport: tls}", "'tls' is none of them; write one of: udp, tcp"),
        ("{name: a, answer: '('}", "is no regular expression"),
        ("{name: a, ttl: 3}", "`type: dns` has no parameter `ttl`; its parameters are: name,"),
    ],
)
def test_mistakes(parameters: str, words: str) -> None:
    """Each mistake has its place and a remedy."""
    text = "services: [{name: a, vip: 192.0.2.1, protocol: udp, ports: 53, backends: [10.0.0.1],"
    with pytest.raises(ConfigError) as refused:
        parse(f"{text} check: {{type: dns, parameters: {parameters}}}}}]", "f")
    (line,) = refused.value.lines
    assert words in line
