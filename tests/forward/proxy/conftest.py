"""A proxy on loopback: its loop in a thread, real sockets at both of its ends, no root."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
import uvloop
from waiting import TIMEOUT, wait_until

from paraglider.core.affinity import Affinity
from paraglider.core.flow import TCP
from paraglider.core.hello_routes import RouteMatch
from paraglider.core.pool import Backend, Pool
from paraglider.core.service import VirtualService
from paraglider.core.strategies import STRATEGIES, Context, create
from paraglider.forward.proxy.events import SocketEvents
from paraglider.forward.proxy.listeners import ProxyListener
from paraglider.forward.proxy.relay import Shared
from paraglider.forward.proxy.server import Proxy

T = TypeVar("T")


class Threaded:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self.faults: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _loop, context: self.faults.append(context))
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def call(self, function: Callable[[], T]) -> T:
        """Call ``function`` in the loop; returns its result."""
        done = threading.Event()
        result: list[T] = []

        def run() -> None:
            try:
                result.append(function())
            finally:
                done.set()

        self.loop.call_soon_threadsafe(run)
        assert done.wait(TIMEOUT)
        return result[0]

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until ``condition`` holds, as the loop sees it."""
        wait_until(lambda: self.call(condition))

    def stop(self) -> None:
        """End the thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(TIMEOUT)
        self.loop.close()


class Running(Threaded):
    """A running proxy; ``ends`` are the addresses of its backends. ``routes``, if given, has what
    each route matches and its backends, by name.
    """

    def __init__(self, ends: list[tuple[str, int]], **options: Any) -> None:
        super().__init__()
        family = socket.AF_INET6 if ":" in ends[0][0] else socket.AF_INET
        host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        self.listening = socket.create_server((host, 0), family=family)
        self.listening.setblocking(False)
        self.address = self.listening.getsockname()[:2]
        strategy, affinity = options.pop("strategy", "rr"), options.pop("affinity", False)

        def service(
            name: str, ends: list[tuple[str, int]], route: RouteMatch | None = None
        ) -> VirtualService:
            backends = [
                Backend(f"backend{number}", socket.inet_pton(family, end[0]), end[1])
                for number, end in enumerate(ends, 1)
            ]
            return VirtualService(
                name,
                socket.inet_pton(family, host),
                (TCP,),
                ((self.address[1], self.address[1]),),
                Pool(backends),
                create(strategy, Context(name, 0, 0), STRATEGIES),
                affinity=Affinity(60.0, 1000) if affinity else None,
                route=route,
            )

        self.service = service("web", ends)
        self.pool = self.service.pool
        self.routes = {
            name: service(name, its, RouteMatch("web", *match))
            for name, (match, its) in options.pop("routes", {}).items()
        }
        listener = options.pop("listener", None) or self.listening
        port = self.address[1].to_bytes(2, "big")
        listeners = [ProxyListener("web", self.service.vip, port, listener)]
        idle = options.pop("established", 60.0), options.pop("closing", 60.0)
        options = {"connect": 10.0, "bound": 1000, **options}

        def make() -> Proxy:
            shared = Shared(self.loop, SocketEvents(self.loop), *idle)
            services = [self.service, *self.routes.values()]
            proxy = Proxy(shared, services, listeners, **options)
            proxy.start()
            return proxy

        self.proxy = self.call(make)

    @property
    def tally(self) -> Any:
        """The counts of the first backend."""
        return self.proxy.tallies["web"][self.pool.backends[0]]

    def connect(self) -> socket.socket:
        """A client's connection."""
        return socket.create_connection(self.address, TIMEOUT)

    def close(self) -> None:
        """Close all connections, and end the thread."""
        ended = threading.Event()
        self.loop.call_soon_threadsafe(self.proxy.drain, 0.0, ended.set)
        assert ended.wait(TIMEOUT)
        self.stop()
        assert self.faults == []


@pytest.fixture
def server() -> Iterator[Callable[..., socket.socket]]:
    """A factory of listening sockets for backends."""
    made: list[socket.socket] = []

    def make(host: str = "127.0.0.1", **options: Any) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        end = socket.create_server((host, 0), family=family, **options)
        end.settimeout(TIMEOUT)
        made.append(end)
        return end

    yield make
    for end in made:
        end.close()


@pytest.fixture
def run() -> Iterator[Callable[..., Running]]:
    """A factory of running proxies, from the listening sockets or the addresses of backends."""
    made: list[Running] = []

    def make(*backends: socket.socket | tuple[str, int], **options: Any) -> Running:
        ends = [b if isinstance(b, tuple) else b.getsockname()[:2] for b in backends]
        made.append(Running(ends, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def pair(run: Any, server: Any) -> Callable[..., tuple[Running, socket.socket, socket.socket]]:
    """A function that makes a proxy and one connection through it: the client's and the backend's
    sockets.
    """

    def make(**options: Any) -> tuple[Running, socket.socket, socket.socket]:
        listening = server()
        running: Running = run(listening, **options)
        client = running.connect()
        backend, _ = listening.accept()
        backend.settimeout(TIMEOUT)
        return running, client, backend

    return make


@pytest.fixture
def closed_port() -> Iterator[tuple[str, int]]:
    """An address without a listener, which nobody else on this host can get."""
    with socket.socket() as end:
        end.bind(("127.0.0.1", 0))
        yield end.getsockname()


@pytest.fixture
def silent() -> Iterator[Callable[[], tuple[str, int]]]:
    """A function that gives an address that drops every further connection: its queue is full."""
    held: list[socket.socket] = []

    def make() -> tuple[str, int]:
        end = socket.create_server(("127.0.0.1", 0), backlog=0)
        held.append(end)
        address: tuple[str, int] = end.getsockname()
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(address)
            held.append(filler)
        return address

    yield make
    for end in held:
        end.close()
