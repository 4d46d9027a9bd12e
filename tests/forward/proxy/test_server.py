"""Accepting: whom it counts, how many at a time, and until when."""

from __future__ import annotations

import errno
import os
import socket
import threading
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from waiting import TIMEOUT

from paraglider.config.load import parse
from paraglider.config.model import Config
from paraglider.core.flow import TCP
from paraglider.core.strategies import STRATEGIES
from paraglider.forward.proxy.events import SocketEvents
from paraglider.forward.proxy.listeners import ProxyListener
from paraglider.forward.proxy.server import PAUSE, build

FEW = 3


def accepted(listening: socket.socket) -> socket.socket:
    """The next connection of a backend."""
    end, _ = listening.accept()
    end.settimeout(TIMEOUT)
    return end


def test_backends_in_turn(run: Any, server: Any) -> None:
    """Connections go to the backends by the strategy, also over IPv6."""
    for host in ("127.0.0.1", "::1"):
        backends = [server(host) for _ in range(3)]
        running = run(*backends)
        clients = [running.connect() for _ in range(6)]
        for backend in backends * 2:
            accepted(backend)
        assert [b.conns for b in running.pool.backends] == [2, 2, 2]
        assert running.proxy.live == len(clients)


def test_the_arguments_of_on_connection(run: Any, server: Any) -> None:
    """`on_connection` gets the protocol, the flow key and the backend."""
    listening = server()
    running = run(listening)
    heard: list[Any] = []
    running.proxy.on_connection = lambda *told: heard.append(told)
    client = running.connect()
    accepted(listening)
    running.until(lambda: heard)
    host = socket.inet_aton("127.0.0.1")
    ports = [end[1].to_bytes(2, "big") for end in (client.getsockname(), running.address)]
    assert heard == [(TCP, host + host + ports[0] + ports[1], running.pool.backends[0])]


def test_a_port_that_is_not_mapped(run: Any) -> None:
    """A backend without a port is connected at the client's destination port."""
    running = run(("127.0.0.9", 0))
    listening = socket.create_server(("127.0.0.9", running.address[1]))
    listening.settimeout(TIMEOUT)
    with listening, running.connect() as client:
        client.sendall(b"same")
        assert accepted(listening).recv(4) == b"same"


def test_no_more_than_the_bound(run: Any, server: Any) -> None:
    """The connection that is one too many waits in the kernel until another has ended."""
    listening = server()
    running = run(listening, bound=FEW)
    clients = [running.connect() for _ in range(FEW + 1)]  # the kernel accepts it at once
    ends = [accepted(listening) for _ in range(FEW)]
    clients[FEW].sendall(b"last")
    running.until(lambda: running.proxy.live == FEW and not running.proxy._accepting)
    clients[0].close()
    ends[0].close()
    assert accepted(listening).recv(4) == b"last"


class Poor(socket.socket):
    """A listening socket in a process that has no descriptor left, the first time."""

    asked = 0

    def accept(self) -> tuple[socket.socket, Any]:
        """Fail once."""
        self.asked += 1
        if self.asked == 1:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


def test_no_descriptor_left(run: Any, server: Any) -> None:
    """Accepting pauses instead of spinning, is counted, and goes on."""
    listening = server()
    poor = Poor()
    poor.bind(("127.0.0.1", 0))
    poor.setblocking(False)
    running = run(listening, listener=poor)
    with socket.create_connection(poor.getsockname(), TIMEOUT):
        accepted(listening)
        assert running.proxy.exhausted == 1
        assert poor.asked < 10 * TIMEOUT / PAUSE


@pytest.mark.parametrize("on_down", ["reset", "keep"])
def test_a_backend_that_is_lost(run: Any, server: Any, on_down: Any) -> None:
    """Connections of a backend that goes down are reset, or kept if the
    service is configured so.
    """
    backends = [server(), server()]
    running = run(*backends)
    running.pool.on_down = on_down
    clients = [running.connect() for _ in backends]
    ends = [accepted(backend) for backend in backends]
    running.until(lambda: len(running.proxy._relays) == 2)
    states = {"web": {"backend1": ("down", 1)}}

    def fall() -> None:
        running.proxy.apply_states(states)
        running.proxy.expire(running.loop.time(), 10)

    running.call(fall)
    if on_down == "reset":
        with pytest.raises(ConnectionResetError):
            clients[0].recv(1)
        running.until(lambda: running.proxy.live == 1)
    else:
        clients[0].sendall(b"going on")
        assert ends[0].recv(8) == b"going on"
    clients[1].sendall(b"as before")
    assert ends[1].recv(9) == b"as before"


def test_draining_lets_connections_end(run: Any, server: Any) -> None:
    """No new connection is accepted, the live one continues, and the drain ends with it."""
    listening = server()
    running = run(listening)
    client = running.connect()
    end = accepted(listening)
    drained = threading.Event()
    running.call(lambda: running.proxy.drain(TIMEOUT, drained.set))
    with pytest.raises(ConnectionRefusedError):
        running.connect()
    client.sendall(b"going on")
    assert end.recv(8) == b"going on"
    assert not drained.is_set()
    client.close()
    end.close()
    assert drained.wait(TIMEOUT)


def test_draining_takes_what_waits(run: Any, server: Any) -> None:
    """A connection that the kernel has accepted by then is served."""
    listening = server()
    running = run(listening)
    running.call(running.proxy._pause)
    client = running.connect()
    drained = threading.Event()
    running.call(lambda: running.proxy.drain(TIMEOUT, drained.set))
    client.sendall(b"me too")
    assert accepted(listening).recv(6) == b"me too"


def test_draining_has_an_end(run: Any, server: Any, silent: Any) -> None:
    """Remaining connections and attempts are reset."""
    listening = server()
    running = run(listening, silent(), connect=TIMEOUT)
    carried, tried = running.connect(), running.connect()
    end = accepted(listening)
    running.until(lambda: running.proxy.live == 2)
    drained = threading.Event()
    running.call(lambda: running.proxy.drain(0.05, drained.set))
    assert drained.wait(TIMEOUT)
    for one in (carried, tried, end):
        one.settimeout(TIMEOUT)
        with pytest.raises(ConnectionResetError):
            one.recv(1)


def test_built_from_the_configuration(run: Any, server: Any) -> None:
    """Only the proxy services of a file, with the smaller bound."""
    text = """
flows: {max: 500}
timeouts: {connect: 7, established: 70, closing: 30}
services:
  - {name: a, vip: 192.168.0.11/24, protocol: tcp, ports: 80, forward: proxy,
     proxy_protocol: v2, backends: [10.0.0.1]}
  - {name: b, vip: 192.168.0.11/24, protocol: tcp, ports: 81, backends: [10.0.0.1]}
"""
    running = run(server())  # for its loop
    loop = running.loop
    config = parse(text, "f").config
    proxy = running.call(lambda: build(config, 0, loop, SocketEvents(loop), (), 1000))
    assert [service.name for service in proxy.services] == ["a"]
    assert list(proxy.tallies) == ["a"]
    assert (proxy._bound, proxy._versions) == (500, {"a": "v2"})
    assert (proxy._shared.established, proxy._shared.closing) == (70, 30)
    assert proxy._fronts["a"].connect == 7


def test_another_configuration(run: Any, server: Any) -> None:
    """Connections stay where they are, counted as before; new ones go by the new configuration,
    and a service that is gone listens no more.
    """
    first, second, third = (server() for _ in range(3))
    ports = [end.getsockname()[1] for end in (first, second, third)]
    running = run(first, second)

    def config(strategy: str, *backends: int) -> Config:
        service = {
            "name": "web",
            "vip": "127.0.0.1/8",
            "protocol": "tcp",
            "forward": "proxy",
            "ports": running.address[1],
            "strategy": strategy,
            "backends": [{"address": "127.0.0.1", "port": port} for port in backends],
        }
        return Config.model_validate({"services": [service]})

    def become(old: Config, new: Config) -> None:
        running.call(lambda: running.proxy.apply_config(new, old, 0, STRATEGIES))

    def carried() -> dict[str, int]:
        rows = running.call(lambda: list(running.proxy.traffic()))
        return {name: numbers["flows"] for _, name, numbers in rows}

    begin, changed = config("rr", *ports[:2]), config("wrr", *ports[1:])
    become(begin, begin)  # from here on backends have the names of the file
    client = running.connect()
    end = accepted(first)
    become(begin, changed)
    client.sendall(b"still")
    assert end.recv(5) == b"still"
    others = [running.connect(), running.connect()]
    ends = [accepted(second), accepted(third)]
    assert carried() == {f"127.0.0.1:{port}": 1 for port in ports[1:]}
    gone = changed.model_copy(update={"services": ()})
    become(changed, gone)
    with pytest.raises(ConnectionRefusedError):
        running.connect()
    for other in others:
        other.sendall(b"still")
    assert [each.recv(5) for each in ends] == [b"still"] * 2


def test_clients_with_affinity_are_steered(
    run: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it listens, and when a new configuration changes that; no other change touches it. A
    route with affinity needs it as its service does, which accepts the connections.
    """
    steered: list[bool] = []

    def steer(listener: ProxyListener, *, by_client: bool) -> None:
        steered.append(by_client)

    monkeypatch.setattr(ProxyListener, "steer", steer)
    port = server().getsockname()[1]
    run(("127.0.0.1", port))
    assert steered == []
    running = run(("127.0.0.1", port), affinity=True)
    assert steered == [True]

    def config(affinity: str, strategy: str = "rr", route: str = "") -> Config:
        service: dict[str, Any] = {
            "name": "web",
            "vip": "127.0.0.1/8",
            "protocol": "tcp",
            "forward": "proxy",
            "ports": running.address[1],
            "strategy": strategy,
            "affinity": affinity,
            "backends": [{"address": "127.0.0.1", "port": port}],
        }
        taking = {"name": "r", "route": {"service": "web", "sni": ["a"]}, "affinity": route}
        routes = [{**service, **taking}] if route else []
        return Config.model_validate({"services": [service, *routes]})

    steps = [config("client"), config("client", "wrr"), config("flow"), config("flow", "wrr")]
    steps += [config("client"), config("flow", route="client"), config("flow", route="flow")]
    for old, new in pairwise(steps):
        running.call(lambda o=old, n=new: running.proxy.apply_config(n, o, 0, STRATEGIES))
    assert steered == [True, False, True, False]


def test_a_kernel_that_steers_no_clients(
    run: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy serves them all the same, and says so once the loop can tell."""

    def refuse(_: ProxyListener, *, by_client: bool) -> None:
        raise OSError(errno.ENOPROTOOPT, f"Protocol not available: {by_client}")

    monkeypatch.setattr(ProxyListener, "steer", refuse)
    backend = server()
    running = run(backend, affinity=True)
    client = running.connect()
    accepted(backend)
    client.close()
    said = "connections to web are not steered: Protocol not available: True"
    running.until(lambda: running.faults)
    assert running.faults == [{"message": said}]
    running.faults.clear()


def test_another_configuration_while_it_drains(run: Any, server: Any) -> None:
    """It was sent before the signal: nothing is steered, or closed, that is closed already."""
    backend = server()
    running = run(backend)
    running.proxy._listeners = tuple(replace(one, sockets=2) for one in running.proxy._listeners)
    client = running.connect()
    end = accepted(backend)
    service: dict[str, Any] = {"name": "web", "vip": "127.0.0.1/8", "protocol": "tcp"}
    service |= {"forward": "proxy", "ports": running.address[1], "affinity": "client"}
    service |= {"backends": ["127.0.0.1"]}
    steered = Config.model_validate({"services": [service]})
    gone = steered.model_copy(update={"services": ()})
    running.call(lambda: running.proxy.drain(TIMEOUT, lambda: None))
    for old, new in ((gone, steered), (steered, gone)):
        running.call(lambda o=old, n=new: running.proxy.apply_config(n, o, 0, STRATEGIES))
    assert running.proxy.services == ()
    client.sendall(b"still")
    assert end.recv(5) == b"still"
