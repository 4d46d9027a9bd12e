"""Fixtures of the health tests: targets, servers with various behaviours, and one check."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import pytest

from paraglider.config.health import Check
from paraglider.health.probes.base import CheckResult, Probe, run_check
from paraglider.health.targets import Target

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def target() -> Callable[..., Target]:
    """A function that makes a target; its further keys are those of the check."""

    def make(port: int = 0, address: str = "127.0.0.1", **check: Any) -> Target:
        checked = Check.model_validate(check)
        return Target("web", address, ipaddress.ip_address(address), port, checked)

    return make


@pytest.fixture
def probing(target: Callable[..., Target]) -> Callable[..., CheckResult]:
    """A function that checks a server that behaves like ``handler`` with a probe. Without a handler
    nothing listens. ``started`` is entered before the check and left after it.
    """

    @contextlib.asynccontextmanager
    async def nothing() -> AsyncIterator[None]:
        yield

    def run(
        probe: Probe,
        handler: Handler | None = None,
        *,
        address: str = "127.0.0.1",
        port: int | None = None,
        tls: Any = None,
        started: Callable[[], Any] = nothing,
        **check: Any,
    ) -> CheckResult:
        async def body() -> CheckResult:
            async with contextlib.AsyncExitStack() as stack:
                await stack.enter_async_context(started())
                served = port
                if handler is not None:
                    server = await asyncio.start_server(handler, address, 0, ssl=tls)
                    stack.callback(server.close)
                    served = server.sockets[0].getsockname()[1]
                return await run_check(probe, target(served or 1, address, **check))

        return asyncio.run(body())

    return run


class _Answering(asyncio.DatagramProtocol):
    """Answers each datagram on ``sock`` by what ``answer`` makes of it. asyncio sends no empty
    datagram, so the socket does; what it has no room for is lost.
    """

    def __init__(self, sock: socket.socket, answer: Callable[[bytes], Iterable[bytes]]) -> None:
        self._sock = sock
        self._answer = answer

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answer."""
        for datagram in self._answer(data):
            with contextlib.suppress(BlockingIOError):
                self._sock.sendto(datagram, addr)


@pytest.fixture
def probing_udp(probing: Callable[..., CheckResult]) -> Callable[..., CheckResult]:
    """A function that checks a server with a probe, which answers a datagram by those that
    ``answer`` makes of it.
    """

    def run(
        probe: Probe,
        answer: Callable[[bytes], Iterable[bytes]],
        *,
        address: str = "127.0.0.1",
        **check: Any,
    ) -> CheckResult:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.bind((address, 0))

        @contextlib.asynccontextmanager
        async def started() -> AsyncIterator[None]:
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(
                lambda: _Answering(sock, answer), sock=sock
            )
            yield
            transport.close()

        port = sock.getsockname()[1]
        return probing(probe, address=address, port=port, started=started, **check)

    return run
