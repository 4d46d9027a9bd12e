"""The pages of other balancers: who is asked, when, and what comes of answers that are none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
from waiting import TIMEOUT

from paraglider.daemon.web import peers as module
from paraglider.daemon.web.peers import Peers, fetch
from paraglider.host.remote import Unreached

STATUS: dict[str, Any] = {
    "host": "lb1",
    "services": [
        {"service": "web", "ready": 1, "backends": 1, "fingerprint": "aa", "flows_per_second": 2.5}
    ],
    "backends": [{"service": "web", "backend": "10.0.0.1", "state": "ready", "weight": 1}],
    "node": {"state": "ready"},
    "health": {"status": "healthy"},
    "daemon": {"version": "1.0", "started": 5.0},
    "config": {},
}
OTHER = {**STATUS, "host": "lb2", "daemon": {"version": "1.0", "started": 6.0}}

Answer = Callable[[bytes], Awaitable[bytes]]


def http(body: Any, first: str = "HTTP/1.0 200 OK") -> bytes:
    """An answer with a body of JSON."""
    return f"{first}\r\nContent-Type: application/json\r\n\r\n{json.dumps(body)}".encode()


@asynccontextmanager
async def page(answer: bytes | None, host: str = "127.0.0.1") -> AsyncIterator[tuple[str, Any]]:
    """A page that gives ``answer`` to each request; None: it says nothing. The requests."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, host, 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}", asked


def run(work: Callable[[], Awaitable[None]]) -> None:
    """Run ``work`` on a loop of its own."""

    async def limited() -> None:
        async with asyncio.timeout(TIMEOUT):
            await work()

    asyncio.run(limited())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_what_is_asked(host: str) -> None:
    """The status, under the peer's own address, which its guard knows."""

    async def work() -> None:
        async with page(http(STATUS), host) as (url, asked):
            assert await fetch(url) == STATUS
            (request,) = asked
            where = url.removeprefix("http://").encode()
            assert request.startswith(b"GET /api/v1/status HTTP/1.0\r\nHost: %b\r\n" % where)

    run(work)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (None, "no answer within 0.3 s"),
        (http({}, "HTTP/1.1 421 This is not the name of this host"), "421 This is not the name"),
        (http({}, "HTTP/1.1 503 Service Unavailable"), "503 Service Unavailable"),
        (b"", "no answer of HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH-2.0-OpenSSH_9.2"),
        (b"\x00\xff\r\n\r\n", "no answer of HTTP"),
        (http(1).removesuffix(b"1") + b"{", "no paraglider"),
        (http(1).removesuffix(b"1") + b"\xff", "no paraglider"),
        (http(1).removesuffix(b"1") + b"[" * 5000, "no paraglider"),
        (http("x" * 3000), "too long"),
    ],
)
def test_answers_that_are_none(
    answer: bytes | None, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is the reason of one peer."""
    monkeypatch.setattr(module, "DEADLINE", 0.3)
    monkeypatch.setattr(module, "LONGEST", 6000 if answer and b"[" * 9 in answer else 2000)

    async def work() -> None:
        async with page(answer) as (url, _):
            found = await fetch(url)
            assert isinstance(found, Unreached)
            assert why in found.why

    run(work)


def test_nobody_listens() -> None:
    """The reason is the kernel's."""

    async def work() -> None:
        async with page(None) as (url, _):
            pass
        assert await fetch(url) == Unreached("connection refused")

    run(work)


def test_rows() -> None:
    """This balancer first, then its peers by the names of their hosts; one that is silent by its
    address; this one is shown once, though the file lists it too.
    """

    async def work() -> None:
        async with AsyncExitStack() as stack:
            pages = [http(STATUS), http(OTHER), http({**OTHER, "services": []}), http([])]
            urls = [(await stack.enter_async_context(page(each)))[0] for each in pages]
            peers = Peers(urls, interval=0.01)
            running = asyncio.create_task(peers.run())
            rows = peers.rows(STATUS)
            assert rows["nodes"][0]["node"] == "lb1"
            while any(row["error"] == "not asked yet" for row in rows["nodes"]):
                await asyncio.sleep(0.01)
                rows = peers.rows(STATUS)
            running.cancel()
            silent = urls[3].removeprefix("http://")
            second = urls[2].removeprefix("http://")
            assert [row["node"] for row in rows["nodes"]] == ["lb1", "lb2", second, silent]
            assert rows["nodes"][3]["error"] == "its answer is no status of a balancer"
            found = {row["node"]: row["differs"] for row in rows["services"]}
            assert found == {"lb1": [], "lb2": [], second: ["no such service"]}
            assert rows["services"][0]["conns_per_second"] == 2.5

    run(work)


def test_nobody_is_asked_while_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first request, and some time after the last; in between once an interval, however
    many clients there are.
    """
    monkeypatch.setattr(module, "WATCHED", 0.5)

    async def work() -> None:
        async with page(http(OTHER)) as (url, asked):
            peers = Peers([url], interval=0.2)
            running = asyncio.create_task(peers.run())
            for _ in range(10):  # turns of the loop, in which it would ask
                await asyncio.sleep(0)
            assert asked == []
            rows = [peers.rows(STATUS) for _ in range(50)]
            assert all(each is rows[0] for each in rows)
            while peers._wanted.is_set():  # when it is not, no request is under way
                await asyncio.sleep(0.01)
            count = len(asked)
            assert 1 <= count <= 4  # at 0, 0.2 and 0.4 s, or fewer on a slow machine
            for _ in range(10):
                await asyncio.sleep(0)
            assert len(asked) == count
            peers.rows(STATUS)
            while len(asked) == count:
                await asyncio.sleep(0.01)
            running.cancel()

    run(work)


@pytest.mark.parametrize("host", ["", 3, "lb1", "a\x1bb", None])
def test_a_name_that_is_none(host: Any) -> None:
    """Another balancer's name, or none: the address stands for it."""

    async def work() -> None:
        async with page(http({**OTHER, "host": host})) as (url, _):
            peers = Peers([url], interval=0.01)
            running = asyncio.create_task(peers.run())
            while (rows := peers.rows(STATUS)["nodes"])[1]["error"]:
                await asyncio.sleep(0.01)
            running.cancel()
            assert rows[1]["node"] == url.removeprefix("http://")

    run(work)
