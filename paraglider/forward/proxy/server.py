"""The proxy of one worker: accepts connections, chooses backends, and keeps the live connections.

Lives here: ``Proxy``; ``build`` makes one from the configuration.
Rules: gets bound sockets (``proxy.listeners``). Holds at most ``bound`` connections; further ones
wait in the kernel's backlog. ``drain`` stops accepting; established connections then have a number
of seconds to end.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Final

from paraglider.config.model import Config
from paraglider.config.service import Method
from paraglider.core.balancer import Balancer
from paraglider.core.flow import TCP
from paraglider.core.pool import Backend
from paraglider.core.service import ServiceMap, VirtualService
from paraglider.core.strategies import STRATEGIES, NewFlow, Registry
from paraglider.core.tracing import Decision, TracingBalancer
from paraglider.forward.proxy.attempt import Attempt, Front
from paraglider.forward.proxy.counts import Tally
from paraglider.forward.proxy.events import SocketEvents
from paraglider.forward.proxy.header import Version, header
from paraglider.forward.proxy.listeners import ProxyListener
from paraglider.forward.proxy.listing import ProxyView
from paraglider.forward.proxy.preread import Preread
from paraglider.forward.proxy.relay import Relay, Shared, abort
from paraglider.forward.services import Previous, States, apply_states, make_services

#: most connections accepted at one wake-up of a listening socket
BATCH: Final = 64
#: pause, in seconds, after the kernel had no descriptor or memory left for accepting
PAUSE: Final = 0.1


def listens(method: Method) -> bool:
    """Whether a proxy worker accepts the connections to services with ``method``."""
    return method.listens


class Proxy:
    """Serves ``listeners`` for ``services``; nothing is accepted before ``start``.

    ``versions`` has the PROXY protocol version of the services that use it, by name. ``hello`` is
    how many seconds a client of a service with routes has for its ClientHello.
    ``on_connection``, if set, is called with protocol, key and backend of every connection that a
    backend accepted.
    """

    def __init__(
        self,
        shared: Shared,
        services: Iterable[VirtualService],
        listeners: Iterable[ProxyListener],
        *,
        connect: float,
        bound: int,
        versions: dict[str, Version] | None = None,
        hello: float = 5.0,
    ) -> None:
        self.services = tuple(services)
        self.on_connection: Callable[[int, bytes, Backend], None] | None = None
        self.unserved = 0  # clients that were reset, since no backend accepted
        self.exhausted = 0  # times that no descriptor was left for accepting
        self._balancer = Balancer(ServiceMap(self.services))
        choose = self._balancer.choose
        self._fronts = {s.name: Front(s, choose, connect) for s in self.services}
        self._versions = versions or {}
        self._hello = hello
        self._shared = shared
        self._loop = shared.loop
        self._bound = bound
        self._attempts: set[Attempt | Preread] = set()
        self._relays: dict[Relay, Attempt] = {}
        self._listeners = tuple(listeners)
        self._accepting = False
        self._resume_timer: asyncio.TimerHandle | None = None
        self._drained: Callable[[], None] | None = None
        self._drain_timer: asyncio.TimerHandle | None = None
        self._begin = self._beginning()

    def trace(self, on_decision: Callable[[Decision], None]) -> None:
        """Call ``on_decision`` with the reason for every connection that a backend accepted."""
        balancer = TracingBalancer(self._balancer.services)
        self._balancer = balancer
        for front in self._fronts.values():
            front.choose = balancer.choose
        self.on_connection = lambda *flow: on_decision(balancer.decision_on(*flow))

    @property
    def live(self) -> int:
        """The number of established connections and attempts."""
        return len(self._attempts) + len(self._relays)

    @property
    def tallies(self) -> dict[str, dict[Backend, Tally]]:
        """The counters of every backend, by service name."""
        return {name: front.tallies for name, front in self._fronts.items()}

    def apply_config(self, config: Config, before: Config, worker: int, registry: Registry) -> None:
        """Use ``config`` in place of ``before``: connections keep their backends.

        It keeps its listeners, except those of removed services; arguments as of ``build``.
        """
        old = self.services
        previous = Previous.of(before, old)
        self.services = tuple(make_services(config, listens, worker, registry, previous))
        for service in set(old) - set(self.services):
            service.pool.unwatch_all()
        self._balancer.services = ServiceMap(self.services)
        limits = config.timeouts
        self._shared = replace(
            self._shared, established=limits.established, closing=limits.half_closed
        )
        self._versions = _versions(config)
        self._hello = limits.hello
        self._begin = self._beginning()
        fronts, self._fronts = self._fronts, {}
        for service in self.services:
            front = Front(service, self._balancer.choose, limits.connect)
            if service.name in fronts:
                front.tallies.update(
                    (backend, tally)
                    for backend, tally in fronts[service.name].tallies.items()
                    if backend in front.tallies
                )
            self._fronts[service.name] = front
        for listener in self._listeners:
            if listener.service not in self._fronts:
                self._loop.remove_reader(listener.socket.fileno())
                listener.close()
        self._listeners = tuple(one for one in self._listeners if one.service in self._fronts)
        steered, steer = _with_affinity(old), _with_affinity(self.services)
        for listener in self._listeners:
            if listener.service in steered ^ steer:
                self._steer(listener, by_client=listener.service in steer)

    def _steer(self, listener: ProxyListener, *, by_client: bool) -> None:
        """See ``ProxyListener.steer``; the log has what the kernel refuses: connections are served
        all the same.
        """
        try:
            listener.steer(by_client=by_client)
        except OSError as error:
            message = f"connections to {listener.service} are not steered: {error.strerror}"
            # Not at once: what handles it may not be there yet.
            self._loop.call_soon(self._loop.call_exception_handler, {"message": message})

    @property
    def view(self) -> ProxyView:
        """The established connections."""
        return ProxyView(self._relays)

    def apply_states(self, states: States) -> None:
        """Set the states and weights of the backends."""
        apply_states(((s.name, s.pool) for s in self.services), states)

    @property
    def bound(self) -> int:
        """Most connections that it holds."""
        return self._bound

    def traffic(self) -> Iterator[tuple[str, str, dict[str, int]]]:
        """The counters of each service and backend since the start of this worker."""
        for name, tallies in self.tallies.items():
            for backend, tally in tallies.items():
                found = tally.counts()
                found["bytes_out"], found["bytes_back"] = found.pop("sent"), found.pop("received")
                yield name, backend.name, {"flows": backend.flows, "conns": backend.conns} | found

    def start(self) -> None:
        """Listen, and accept from now on."""
        steer = _with_affinity(self.services)
        for listener in self._listeners:
            listener.socket.listen(listener.backlog)
            if listener.service in steer:
                self._steer(listener, by_client=True)
        self._resume_accepting()

    def drain(self, seconds: float, drained: Callable[[], None]) -> None:
        """Accept the backlog and then stop accepting; call ``drained`` when the last connection has
        ended.

        Connections that remain after ``seconds`` are reset. A further call sets a new deadline.
        """
        if self._drained is None:
            self._stop_listening()
        self._drained = drained
        if self._drain_timer is not None:
            self._drain_timer.cancel()
        self._drain_timer = self._loop.call_later(seconds, self._end_drain)
        self._connection_ended()

    def expire(self, now: float, budget: int) -> None:
        """Reset connections to lost backends (``core.pool``), and remove clients whose affinity has
        expired, at most ``budget`` per service.
        """
        lost: set[Backend | None] = set()
        for service in self.services:
            service.pool.tick(now)
            lost.update(backend for backend in service.pool.backends if backend.lost)
            if service.affinity is not None:
                service.affinity.expire(now, budget)
        if lost:
            for relay, attempt in list(self._relays.items()):
                if attempt.backend in lost:
                    relay.reset()

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            while self._accept(listener):
                pass
        self._pause()
        if self._resume_timer is not None:
            self._resume_timer.cancel()
        for listener in self._listeners:
            listener.close()
        self._listeners = ()

    def _end_drain(self) -> None:
        """The deadline of the drain has passed."""
        for attempt in list(self._attempts):
            attempt.give_up()
        for relay in list(self._relays):
            relay.reset()

    def _resume_accepting(self) -> None:
        self._resume_timer = None
        if not self._accepting and self._drained is None:
            self._accepting = True
            for listener in self._listeners:
                accept = partial(self._accept, listener)
                self._loop.add_reader(listener.socket.fileno(), accept)

    def _pause(self) -> None:
        if self._accepting:
            self._accepting = False
            for listener in self._listeners:
                self._loop.remove_reader(listener.socket.fileno())

    def _accept(self, listener: ProxyListener) -> bool:
        """Accept connections from ``listener``, as far as there is room; returns whether more may
        wait.
        """
        for _ in range(BATCH):
            if self.live >= self._bound:
                self._pause()
                return False
            try:
                client, address = listener.socket.accept()
            except BlockingIOError:
                return False
            except ConnectionAbortedError:
                continue  # the client has disconnected already
            except OSError:
                self.exhausted += 1
                self._pause()
                if self._resume_timer is None:
                    self._resume_timer = self._loop.call_later(PAUSE, self._resume_accepting)
                return False
            client.setblocking(False)
            packed = socket.inet_pton(client.family, address[0].partition("%")[0])
            key = packed + listener.vip + address[1].to_bytes(2, "big") + listener.port
            self._begin(listener.service, client, key)
        return True

    def _beginning(self) -> Callable[[str, socket.socket, bytes], None]:
        """What an accepted connection begins with; without routes, with a backend."""
        return self._start_preread if self._balancer.services.routes else self._start_attempt

    def _start_preread(self, service: str, client: socket.socket, key: bytes) -> None:
        if service not in self._balancer.services.routes:
            self._start_attempt(service, client, key)
            return
        preread = Preread(self._shared, service, client, key, self._hello, self._preread_done)
        self._attempts.add(preread)
        preread.start()

    def _preread_done(self, preread: Preread) -> None:
        """A client has said which service it wants, or it says nothing, or it has gone."""
        self._attempts.discard(preread)
        if preread.client is None or preread.service not in self._fronts:
            if preread.client is not None:  # a reload has removed the service
                abort(preread.client)
            self._connection_ended()
            return
        table = self._balancer.services.routes.get(preread.service)
        route = None if table is None or preread.hello is None else table.find(preread.hello)
        service = preread.service if route is None else route.name
        self._start_attempt(service, preread.client, preread.key)

    def _start_attempt(self, service: str, client: socket.socket, key: bytes) -> None:
        front, flow = self._fronts[service], NewFlow(TCP, key, self._loop.time())
        attempt = Attempt(self._shared, front, client, flow, self._attempt_done)
        self._attempts.add(attempt)
        attempt.start()

    def _attempt_done(self, attempt: Attempt) -> None:
        """An attempt has succeeded or failed."""
        self._attempts.discard(attempt)
        backend, end = attempt.backend, attempt.socket
        if backend is None or end is None:
            self.unserved += 1
            self._connection_ended()
            return
        front, key = attempt.front, attempt.flow.key
        version = self._versions.get(front.service.name)
        first = header(version, key) if version is not None else b""
        tally = front.tallies[backend]
        relay = Relay(self._shared, attempt.client, end, tally, self._relay_closed, first)
        self._relays[relay] = attempt
        if self.on_connection is not None:
            self.on_connection(TCP, key, backend)
        relay.start()

    def _relay_closed(self, relay: Relay) -> None:
        """A relay has closed."""
        attempt = self._relays.pop(relay)
        assert attempt.backend is not None  # noqa: S101 - else there were no relay
        attempt.front.release(attempt.backend, attempt.flow.client, self._loop.time())
        self._connection_ended()

    def _connection_ended(self) -> None:
        """A connection has ended."""
        if self._drained is not None:
            if not self.live and self._drain_timer is not None:
                self._drain_timer.cancel()
                self._drain_timer = None
                self._drained()
        elif not self._accepting and self._resume_timer is None and self.live < self._bound:
            self._resume_accepting()


def build(
    config: Config,
    worker: int,
    loop: asyncio.AbstractEventLoop,
    events: SocketEvents,
    listeners: Iterable[ProxyListener],
    bound: int,
    registry: Registry = STRATEGIES,
) -> Proxy:
    """The proxy of worker number ``worker`` (0, 1, …) for the proxy services of ``config``.

    ``bound`` is how many connections it may hold. ``registry`` has the strategies that the
    services name (``policies.load``).
    """
    limits = config.timeouts
    return Proxy(
        Shared(loop, events, limits.established, limits.half_closed),
        make_services(config, listens, worker, registry),
        listeners,
        connect=limits.connect,
        bound=min(bound, config.flows.max),
        versions=_versions(config),
        hello=limits.hello,
    )


def _with_affinity(services: Iterable[VirtualService]) -> frozenset[str]:
    """The services that accept clients with affinity: their own clients, or those of a route."""
    has = (service for service in services if service.affinity is not None)
    return frozenset(s.name if s.route is None else s.route.service for s in has)


def _versions(config: Config) -> dict[str, Version]:
    return {s.name: s.proxy_protocol for s in config.services if s.proxy_protocol}
