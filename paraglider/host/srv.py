"""Backends from DNS: the SRV records of a name (RFC 2782), and the addresses of their targets.

Lives here: ``look_up``, which resolves a name through a ``Query``; ``DnsQuery``, which uses
dnspython; and ``preload``. Queries and answers are defined in ``dns_records``.
Rules: the backends are the targets with the lowest priority number that have an address of the
family. A target without such an address is skipped. If the query of a target fails, the look-up
fails, because a failing name server must not remove a backend. Answers are bounded here and
validated again by the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
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
    NoAnswerError,
    NoRecordsError,
    Query,
    Reply,
    ResolvedBackends,
    Srv,
    records_of,
)

#: timeout of one query, over all servers and tries, in seconds
LIFETIME: Final = 5.0
#: seconds until the query is repeated, or sent to the next server
TRY: Final = 1.5
#: concurrent queries of one name
_AT_ONCE: Final = 16


async def look_up(name: str, family: int, query: Query) -> ResolvedBackends:
    """The backends of ``family`` (4 or 6) at ``name``; raises ``NoAnswerError``."""
    reply = await query(name, "SRV")
    named: list[Srv] = sorted(
        (record for record in reply.records if record.target != "."),
        key=lambda record: record.priority,
    )
    if not named:
        raise NoRecordsError(f"{name}: the service is not available there (target `.`)")
    if len(named) > MOST_TARGETS:
        raise NoAnswerError(f"{name} has {len(named)} targets, more than {MOST_TARGETS}")
    ttl = reply.ttl
    places = asyncio.Semaphore(_AT_ONCE)
    for _, group in groupby(named, key=lambda record: record.priority):
        records = list(group)
        addresses = await _addresses({record.target for record in records}, family, query, places)
        ttl = min([ttl, *(found.ttl for found in addresses.values())])
        if listed := records_of(records, addresses):
            return ResolvedBackends(listed, ttl)
    raise NoRecordsError(f"{name}: no target has an IPv{family} address")


async def _addresses(
    targets: Iterable[str], family: int, query: Query, places: asyncio.Semaphore
) -> dict[str, Reply]:
    kind = "A" if family == 4 else "AAAA"

    async def one(target: str) -> Reply:
        async with places:
            try:
                return await query(target, kind)
            except NoRecordsError:
                return Reply((), float("inf"))

    ordered = sorted(targets)
    return dict(zip(ordered, await asyncio.gather(*map(one, ordered)), strict=True))


class DnsQuery:
    """Queries ``server``, or the servers of ``resolv_conf``, the text of /etc/resolv.conf."""

    def __init__(self, server: tuple[IPAddress, int] | None = None, resolv_conf: str = "") -> None:
        self._server = server
        self._resolv_conf = resolv_conf

    async def __call__(self, name: str, kind: str) -> Reply:
        """See ``Query``."""
        try:
            resolver = dns.asyncresolver.Resolver(configure=False)
            if self._server is None:
                resolver.read_resolv_conf(io.StringIO(self._resolv_conf))
            else:
                resolver.nameservers = [str(self._server[0])]
                resolver.port = self._server[1]
            resolver.lifetime, resolver.timeout = LIFETIME, TRY
            answer = await resolver.resolve(dns.name.from_text(name), kind, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer) as error:
            raise NoRecordsError(f"{name}: {_one_line(error)}") from None
        except (dns.exception.DNSException, OSError, ValueError) as error:
            raise NoAnswerError(f"{name}: {_one_line(error)}") from None
        ttl = float(answer.chaining_result.minimum_ttl)
        if kind == "SRV":
            rows = [Srv(r.priority, r.weight, r.port, r.target.to_text()) for r in answer]
            return Reply(tuple(rows), ttl)
        return Reply(tuple(row.address for row in answer), ttl)


def preload() -> None:
    """Import the modules that dnspython imports lazily: at the first query and answer of a type."""
    dns.asyncbackend.get_backend("asyncio")
    with contextlib.suppress(dns.asyncbackend.AsyncLibraryNotFoundError):  # no loop runs
        dns.asyncbackend.sniff()
    dns.rdata.load_all_types()  # type: ignore[no-untyped-call]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
