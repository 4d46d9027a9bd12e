"""Failover mode (`-f`), as in loaded, for IPv4 and IPv6: the I/O of one sweep.

* One ping to the broadcast address of the backends' network; for IPv6 to all nodes (ff02::1) on the
  private interface. Its source is the balancer's global address there, so that hosts answer from
  their global addresses, not from link-local ones (RFC 6724, rule 2). Known hosts that have not
  answered after half the time are pinged individually, because most hosts ignore broadcast pings.
* A TCP connection to ``port_alive`` of every host that answered.

The balancer's own addresses are never backends: those in the file, and all others of this host,
which are their own source address.

Lives here: ``sweep_hosts``, ``is_ours``.
Rules: ``sweep`` evaluates the results. A sweep opens at most ``sweep.MOST`` connections to unknown
hosts.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Collection, Iterable
from typing import Final

from paraglider.config.types import IPAddress
from paraglider.health.pinger import EchoRequest, Pinger
from paraglider.health.probes.base import phrase
from paraglider.health.probes.exchange import connected
from paraglider.health.sweep import MOST, SweepResult
from paraglider.health.targets import Scope

ALL_NODES: Final = ipaddress.IPv6Address("ff02::1")  # RFC 4291, section 2.7.1
#: concurrent connections
_AT_ONCE: Final = 64
#: any port: connecting a datagram socket makes the kernel choose a source and sends nothing
_DISCARD: Final = 9


async def sweep_hosts(
    echo: Pinger, scope: Scope, known: Collection[IPAddress]
) -> dict[IPAddress, SweepResult]:
    """One sweep: a result for each of ``known``, and for every other candidate."""
    answers = {address: SweepResult(alive=False, detail="no answer to ping") for address in known}
    with echo.echo_request() as request:
        half = scope.failover.timeout / 2
        _ask_all(echo, request, scope, known)
        if scope.failover.discover:
            await asyncio.sleep(half)  # the number of hosts is unknown
        else:
            await _until(request, known, half)
        for address in set(known) - request.answers.keys():
            try:
                echo.send(request, address)
            except OSError as error:
                answers[address] = SweepResult(alive=False, detail=f"ping: {phrase(error)}")
        await _until(request, known, half)
        replied = list(request.answers)
    present = [address for address in replied if address in answers]
    if scope.failover.discover:
        others = (address for address in replied if _is_candidate(address, scope, known))
        present += [address for address, _ in zip(others, range(MOST), strict=False)]
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def check(address: IPAddress) -> SweepResult:
        async with at_once:
            return await _check_port(address, scope)

    checked = await asyncio.gather(*(check(address) for address in present))
    answers.update(zip(present, checked, strict=True))
    return answers


def is_ours(address: IPAddress) -> bool:
    """Whether ``address`` is an address of this host."""
    return _source_towards(address) == address


def _ask_all(echo: Pinger, request: EchoRequest, scope: Scope, known: Iterable[IPAddress]) -> None:
    """Ping the networks; errors, such as an interface that is down, mean that no host answers."""
    for address in scope.broadcasts:
        # Known hosts are also pinged individually, and those errors are reported.
        with contextlib.suppress(OSError):
            echo.send(request, address)
    if not scope.interface:
        return
    towards = (_source_towards(address) for address in known if address.version == 6)
    for source in (*scope.sources, *(address for address in towards if address is not None)):
        try:
            echo.send(request, ALL_NODES, source=source, interface=scope.interface)
        except OSError:
            continue  # not an address of that interface at present: try the next one
        return


async def _until(request: EchoRequest, known: Collection[IPAddress], seconds: float) -> None:
    """Wait until all of ``known`` have answered, at most ``seconds``."""
    try:
        async with asyncio.timeout(seconds):
            while not request.answers.keys() >= set(known):
                request.replied.clear()
                await request.replied.wait()
    except TimeoutError:
        return


def _is_candidate(address: IPAddress, scope: Scope, known: Collection[IPAddress]) -> bool:
    if address in known or address in scope.never:
        return False
    return not address.is_link_local and not address.is_loopback and not is_ours(address)


async def _check_port(address: IPAddress, scope: Scope) -> SweepResult:
    """Whether ``address`` accepts a connection to ``port_alive``."""
    port = scope.failover.port_alive
    try:
        async with asyncio.timeout(scope.failover.timeout):
            await connected(address, port)
    except TimeoutError:
        detail = f"port {port}: connect timed out after {scope.failover.timeout:g} s"
        return SweepResult(alive=False, detail=detail)
    except OSError as error:
        return SweepResult(alive=False, detail=f"port {port}: {phrase(error)}")
    return SweepResult(alive=True, detail=f"answers a ping, and port {port}")


def _source_towards(address: IPAddress) -> IPAddress | None:
    """The source address of the kernel's route to ``address``; None without a route."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.connect((str(address), _DISCARD))
            return ipaddress.ip_address(sock.getsockname()[0].partition("%")[0])
    except OSError:
        return None
