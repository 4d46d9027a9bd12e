"""DNS queries for backends: one name now, or all names before the daemon starts.

Lives here: ``resolve``, ``resolve_once``, and ``dns_query``, which uses dnspython.
Rules: answers from the network are parsed by a process without privileges (the monitor, or a
temporary one), and bounded in time and length.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pydantic import ValidationError

from paraglider.config.types import parse_endpoint
from paraglider.daemon import log
from paraglider.daemon.ipc import encode
from paraglider.daemon.messages import FROM_ROLE, DnsFailure, DnsName, DnsUpdate
from paraglider.daemon.processes.bootstrap import lock_down
from paraglider.host import srv
from paraglider.host.dns_records import NoAnswerError, Query
from paraglider.host.resolv_conf import ResolvConf
from paraglider.host.srv import DnsQuery

#: role of the temporary process, for its seccomp filter
ROLE: Final = "monitor"
#: timeout, in seconds, of all queries for one name
TIMEOUT: Final = 20.0
#: seconds that a start waits for the DNS
FIRST_TIMEOUT: Final = 6.0
_LONGEST: Final = 1 << 22

#: the query of a name, with the text of /etc/resolv.conf
QueryFor = Callable[[DnsName, str], Query]


def dns_query(name: DnsName, resolv_conf: str) -> Query:
    """Query ``name`` at its server, or at those of ``resolv_conf``."""
    return DnsQuery(parse_endpoint(name.server) if name.server else None, resolv_conf)


async def resolve(name: DnsName, query: Query) -> DnsUpdate | DnsFailure:
    """The present DNS answer for ``name``."""
    try:
        async with asyncio.timeout(TIMEOUT):
            answer = await srv.look_up(name.name, name.family, query)
    except NoAnswerError as error:
        return DnsFailure(name=name, why=error.what)
    except TimeoutError:
        return DnsFailure(name=name, why=f"{name.name}: no answer within {TIMEOUT:g} s")
    return DnsUpdate(name=name, records=answer.records, ttl=answer.ttl)


def resolve_once(
    names: Sequence[DnsName],
    user: tuple[int, int],
    chroot: str,
    query_for: QueryFor = dns_query,
) -> list[DnsUpdate | DnsFailure]:
    """The present DNS answers for ``names``, queried by a temporary process without privileges, as
    ``user`` (user and group id) in ``chroot``.

    Answers that take longer than FIRST_TIMEOUT are missing.
    """
    if not names:
        return []
    srv.preload()
    resolv_conf = ResolvConf().text
    reading, writing = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reading)
            lock_down(ROLE, parent, user, chroot)
            asyncio.run(_resolve_all({n: query_for(n, resolv_conf) for n in names}, writing))
            status = 0
        except BaseException as error:  # noqa: BLE001 - nothing of it may go on as the parent
            with contextlib.suppress(BaseException):
                log.logger().error("DNS lookup at start failed", error=repr(error)[:200])
        finally:
            os._exit(status)
    os.close(writing)
    try:
        said = _read(reading, time.monotonic() + FIRST_TIMEOUT)
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return said


async def _resolve_all(queries: Mapping[DnsName, Query], writing: int) -> None:
    async def one(name: DnsName, query: Query) -> None:
        line = encode(await resolve(name, query)) + b"\n"
        while line:
            line = line[os.write(writing, line) :]

    await asyncio.gather(*(one(name, query) for name, query in queries.items()))


def _read(reading: int, deadline: float) -> list[DnsUpdate | DnsFailure]:
    """The complete lines received until the end or the deadline."""
    data = bytearray()
    while len(data) < _LONGEST:
        ready, _, _ = select.select([reading], [], [], max(0.0, deadline - time.monotonic()))
        more = os.read(reading, 65536) if ready else b""
        if not more:
            break
        data += more
    found = []
    for line in data.split(b"\n")[:-1]:
        with contextlib.suppress(ValidationError):
            news = FROM_ROLE[ROLE].validate_json(line)
            if isinstance(news, DnsUpdate | DnsFailure):
                found.append(news)
    return found
