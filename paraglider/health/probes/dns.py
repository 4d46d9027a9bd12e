"""dns: a backend passes if it answers a query of the DNS as expected.

Lives here: ``Dns``.
Rules: every check is one query with an id of its own, over UDP or TCP (RFC 1035, §4.2; RFC 7766). A
datagram that answers another query is ignored. The code is read here; dnspython reads the records,
and only if one is expected. It is loaded when the probe is constructed, with all its types, before
the process gives up its privileges.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import socket
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.health import Check
from paraglider.config.types import parse_pattern
from paraglider.core.parameter import Parameter, one_of
from paraglider.health.codes import Code
from paraglider.health.pinger import Pinger
from paraglider.health.probes.base import Passed, Probe, ProbeError, ProbeStep, UnableError
from paraglider.health.probes.exchange import connect, opened, quoted
from paraglider.health.targets import Target

if TYPE_CHECKING:
    import dns.message
    import dns.rdata

# https://www.iana.org/assignments/dns-parameters
_TYPES: Final = {
    "A": 1,
    "AAAA": 28,
    "SOA": 6,
    "NS": 2,
    "CNAME": 5,
    "MX": 15,
    "PTR": 12,
    "SRV": 33,
    "TXT": 16,
}
_LABEL: Final = re.compile(r"[\w-]{1,63}", re.ASCII)
_CODES: Final = ("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED")
_HEADER: Final = struct.Struct(">HHHHHH")
_TRUNCATED, _RECURSION, _CODE = 0x0200, 0x0100, 0x000F
_INTERNET: Final = 1
#: the longest answer over UDP that is read: no resolver sends more (RFC 9715)
_LARGEST: Final = 4096
#: datagrams that may answer another query
_IGNORED: Final = 16
#: records that a line shows
_SHOWN: Final = 3


def _name_error(value: int | str) -> str:
    labels = str(value).removesuffix(".").split(".") if value not in ("", ".") else []
    if len(str(value)) > 253 or not all(map(_LABEL.fullmatch, labels)):
        return f'{value!r} is no name; write one such as "www.example.com", or "."'
    return ""


def _pattern_error(value: int | str) -> str:
    try:
        parse_pattern(value)
    except ValueError as error:
        return str(error)
    return ""


class Dns(Probe):
    """Sends a query to the target's port, and compares code and records."""

    name = "dns"
    summary = "answers a query of the DNS with the expected code and record"
    keys = frozenset({"port"})
    parameters = (
        Parameter("name", "", 0, 253, "Name that is queried; required.", _name_error),
        Parameter("query", "A", 1, 5, f"Type of the query: {', '.join(_TYPES)}.", one_of(*_TYPES)),
        Parameter("rcode", "NOERROR", 1, 8, f"Code: {', '.join(_CODES)}.", one_of(*_CODES)),
        Parameter(
            "answer", "", 0, 1000, "Regular expression found in a record's data.", _pattern_error
        ),
        Parameter("transport", "udp", 3, 3, "udp or tcp.", one_of("udp", "tcp")),
    )
    needs_port = True

    def __init__(self, echo: Pinger | None = None) -> None:
        super().__init__(echo)
        _import()

    @classmethod
    def contradictions(cls, path: Path, check: Check) -> Iterator[Problem]:
        """There is no name that every server answers."""
        if not check.parameters.get("name"):
            what = f"`type: {cls.name}` without the name that is queried"
            remedy = "add `parameters: {name: www.example.com}`"
            yield Problem((*path, "type"), what, remedy, needs=((*path, "parameters"),))

    async def __call__(self, target: Target, step: ProbeStep) -> Passed:
        """Query, and compare."""
        check = target.check
        if check is None:
            raise UnableError("there is no query")
        query = _query(check.parameter("name"), _TYPES[check.parameter("query")])
        if check.parameter("transport") == "tcp":
            answer = await _over_tcp(target, step, query)
        else:
            answer = await _over_udp(target, step, query)
        return _evaluate(answer, check.parameter("rcode"), check.parameter("answer"))


def _query(name: str, kind: int) -> bytes:
    """A query with one question, which wants recursion (RFC 1035, §4.1)."""
    header = _HEADER.pack(secrets.randbits(16), _RECURSION, 1, 0, 0, 0)
    labels = [label.encode() for label in name.split(".") if label]
    encoded = b"".join(bytes((len(label),)) + label for label in labels)
    return header + encoded + b"\0" + struct.pack(">HH", kind, _INTERNET)


def _answers(answer: bytes, query: bytes) -> bool:
    """Whether ``answer`` is a response to ``query``; a server that did not understand it may leave
    the question out.
    """
    if len(answer) < _HEADER.size or answer[:2] != query[:2] or not answer[2] & 0x80:
        return False
    _, _, questions, *_ = _HEADER.unpack_from(answer)
    question = query[_HEADER.size :].lower()
    return not questions or answer[_HEADER.size :][: len(question)].lower() == question


async def _over_udp(target: Target, step: ProbeStep, query: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    with await connect(target.address, target.port, socket.SOCK_DGRAM) as sock:
        step.name, step.timeout = "answer", Code.L7TOUT
        await loop.sock_sendall(sock, query)
        for _ in range(_IGNORED):
            answer = await loop.sock_recv(sock, _LARGEST)
            if _answers(answer, query):
                return answer
    raise _no_answer(answer)


async def _over_tcp(target: Target, step: ProbeStep, query: bytes) -> bytes:
    async with opened(target, step) as stream:
        await stream.send(struct.pack(">H", len(query)) + query)
        answer = await stream.exactly(int.from_bytes(await stream.exactly(2), "big"))
    if not _answers(answer, query):
        raise _no_answer(answer)
    return answer


def _evaluate(answer: bytes, wanted: str, expect: str) -> Passed:
    """Compare the code of ``answer`` with ``wanted``, and its records with ``expect``."""
    _, flags, _, records, *_ = _HEADER.unpack_from(answer)
    number = flags & _CODE
    code = _CODES[number] if number < len(_CODES) else f"RCODE{number}"
    if code != wanted:
        raise ProbeError(Code.L7STS, f"{code}, expected {wanted}")
    if not expect:
        return Passed(Code.L7OK, f"{code}, {records} record{'' if records == 1 else 's'}")
    texts = _records(answer)
    for text in texts:
        if re.search(expect, text):
            return Passed(Code.L7OK, f"{code}: {text}")
    if flags & _TRUNCATED:
        raise ProbeError(Code.L7RSP, "the answer is truncated; write `transport: tcp`")
    shown = ", ".join(texts[:_SHOWN]) or "no record"
    raise ProbeError(Code.L7RSP, f"{code}, {shown}: does not match {expect!r}")


def _records(answer: bytes) -> list[str]:
    """The data of the records in the answer section, as text."""
    try:
        message = dns.message.from_wire(answer, ignore_trailing=True, raise_on_truncation=False)
        return [record.to_text() for records in message.answer for record in records]
    except Exception:  # noqa: BLE001 - whatever the parser has against it, it is no answer
        raise _no_answer(answer) from None


def _no_answer(data: bytes) -> ProbeError:
    return ProbeError(Code.L7RSP, f"what came is no answer to the query: {quoted(data)}")


def _import() -> None:
    global dns
    import dns.message
    import dns.rdata

    dns.rdata.load_all_types()  # type: ignore[no-untyped-call]
