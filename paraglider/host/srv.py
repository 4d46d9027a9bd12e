"""Backends from the DNS: the SRV records of a name (RFC 2782), and the addresses of their targets.

Lives here: ``look_up``, which asks by a ``Query``, ``DnsQuery``, which is dnspython's, and
``preload``. What is asked for and answered is ``dns_records``'s.
Rules: of the targets those of the lowest priority that have an address of the family are taken, all
of them alike for as long as they are listed. A target without such an address is left out; one
whose address cannot be found out just now fails the whole, for a name server's trouble must not
take a backend out. What servers say is bounded here and judged again by the hub.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from itertools import groupby
from typing import Final

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdata
import dns.resolver

from paraglider.config.types import IPAddress
from paraglider.host.dns_records import (
    MOST_TARGETS,
    Answer,
    NoAnswerError,
    NothingThereError,
    Query,
    Reply,
    Srv,
    records_of,
)

#: seconds that one question may take, over all servers and tries
LIFETIME: Final = 5.0
#: seconds until one server is asked again, or the next one
TRY: Final = 1.5
#: questions that one name has open at a time
_AT_ONCE: Final = 16


async def look_up(name: str, family: int, query: Query) -> Answer:
    """The backends of ``family`` (4 or 6) at ``name``; raises ``NoAnswerError``."""
    reply = await query(name, "SRV")
    named: list[Srv] = sorted(
        (record for record in reply.records if record.target != "."),
        key=lambda record: record.priority,
    )
    if not named:
        raise NothingThereError(f"{name}: the service is not to be had there (target `.`)")
    if len(named) > MOST_TARGETS:
        raise NoAnswerError(f"{name} has {len(named)} targets, more than {MOST_TARGETS}")
    ttl = reply.ttl
    places = asyncio.Semaphore(_AT_ONCE)
    for _, group in groupby(named, key=lambda record: record.priority):
        records = list(group)
        addresses = await _addresses({record.target for record in records}, family, query, places)
        ttl = min([ttl, *(found.ttl for found in addresses.values())])
        if listed := records_of(records, addresses):
            return Answer(listed, ttl)
    raise NothingThereError(f"{name}: no target has an IPv{family} address")


async def _addresses(
    targets: Iterable[str], family: int, query: Query, places: asyncio.Semaphore
) -> dict[str, Reply]:
    kind = "A" if family == 4 else "AAAA"

    async def one(target: str) -> Reply:
        async with places:
            try:
                return await query(target, kind)
            except NothingThereError:
                return Reply((), float("inf"))

    ordered = sorted(targets)
    return dict(zip(ordered, await asyncio.gather(*map(one, ordered)), strict=True))


class DnsQuery:
    """Asks ``server``, else those of /etc/resolv.conf, which is read anew for every question."""

    def __init__(self, server: tuple[IPAddress, int] | None = None) -> None:
        self._server = server

    async def __call__(self, name: str, kind: str) -> Reply:
        """See ``Query``."""
        try:
            resolver = dns.asyncresolver.Resolver(configure=self._server is None)
            if self._server is not None:
                resolver.nameservers = [str(self._server[0])]
                resolver.port = self._server[1]
            resolver.lifetime, resolver.timeout = LIFETIME, TRY
            answer = await resolver.resolve(dns.name.from_text(name), kind, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer) as error:
            raise NothingThereError(f"{name}: {_one_line(error)}") from None
        except (dns.exception.DNSException, OSError, ValueError) as error:
            raise NoAnswerError(f"{name}: {_one_line(error)}") from None
        ttl = float(answer.chaining_result.minimum_ttl)
        if kind == "SRV":
            rows = [Srv(r.priority, r.weight, r.port, r.target.to_text()) for r in answer]
            return Reply(tuple(rows), ttl)
        return Reply(tuple(row.address for row in answer), ttl)


def preload() -> None:
    """Import what dnspython imports at the first question and at the first answer of a kind."""
    dns.asyncbackend.get_backend("asyncio")
    with contextlib.suppress(dns.asyncbackend.AsyncLibraryNotFoundError):  # no loop runs
        dns.asyncbackend.sniff()
    dns.rdata.load_all_types()  # type: ignore[no-untyped-call]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
