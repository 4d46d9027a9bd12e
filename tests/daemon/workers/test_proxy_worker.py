"""A proxy worker without a network: its log, its counts, its warm-up.

The process is tested in tests/net/test_proxy.py.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop

from paraglider.config.load import parse
from paraglider.core.pool import State
from paraglider.daemon.ipc import IpcEndpoint
from paraglider.daemon.messages import FROM_ROLE, TO_ROLE, SetStates
from paraglider.daemon.shared_memory.counters import Counters, CounterWriter
from paraglider.daemon.workers import proxy_worker as control
from paraglider.daemon.workers.proxy_worker import (
    AGAIN,
    CommandReader,
    ProxyCounts,
    ProxyMonitor,
    ProxySpec,
    ProxySubject,
    counts,
    room,
)
from paraglider.forward.proxy.events import SocketEvents
from paraglider.forward.proxy.server import Proxy, build

TEXT = """
timeouts: {drain: 30}
services:
  - {name: a, vip: 192.168.0.11/24, protocol: tcp, ports: 80, forward: proxy,
     strategy: STRATEGY, backends: [10.0.0.1, 10.0.0.2]}
  - {name: b, vip: "2001:db8::11/64", protocol: tcp, ports: 80, forward: proxy,
     proxy_protocol: v1, backends: ["fd00::1"]}
"""


class Heard:
    """A logger that remembers."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def warning(self, event: str, **values: Any) -> None:
        """A warning."""
        self.lines.append(("warning", event, values))

    def error(self, event: str, **values: Any) -> None:
        """An error."""
        self.lines.append(("error", event, values))


@pytest.fixture
def loop() -> Iterator[uvloop.Loop]:
    """A loop that runs only if the test runs it."""
    made = uvloop.new_event_loop()
    yield made
    made.close()


@pytest.fixture
def proxy(loop: uvloop.Loop) -> Proxy:
    """A proxy of two services that listens nowhere."""
    config = parse(TEXT.replace("STRATEGY", "rr"), "f").config
    return build(config, 0, loop, SocketEvents(loop), (), 100)


def spec(strategy: str = "rr") -> ProxySpec:
    """The worker's spec."""
    config = parse(TEXT.replace("STRATEGY", strategy), "f").config
    return ProxySpec(5, 1, 3, config, (), uid=0, gid=0)


def test_what_it_is_called() -> None:
    """Its number and its core, for messages and for the log; it may take its time to end."""
    assert spec().name == "proxy worker 1 on core 3"
    assert spec().labels() == {"worker": 1, "core": 3}
    assert spec().exit_timeout > 30


def test_backends_that_do_not_accept(loop: uvloop.Loop, proxy: Proxy) -> None:
    """A warning for each, at once, and again after a minute if there are more."""
    heard = Heard()
    watch = ProxyMonitor(loop, proxy, heard)
    one, two = proxy.services[0].pool.backends
    tallies = proxy.tallies["a"]
    watch.poll(100.0)
    assert heard.lines == []
    tallies[one].refused = 2
    tallies[two].timeouts = 1
    watch.poll(100.0)
    told = "backend does not accept connections"
    assert heard.lines == [
        ("warning", told, {"service": "a", "backend": "10.0.0.1", "refused": 2}),
        ("warning", told, {"service": "a", "backend": "10.0.0.2", "timeouts": 1}),
    ]
    heard.lines.clear()
    tallies[one].refused = 9
    watch.poll(100.0 + AGAIN - 1)
    assert heard.lines == []
    watch.poll(100.0 + AGAIN)
    assert heard.lines == [("warning", told, {"service": "a", "backend": "10.0.0.1", "refused": 9})]


def test_faults_are_in_the_log(loop: uvloop.Loop, proxy: Proxy) -> None:
    """An exception of a callback is an error with its traceback; a lack of descriptors is an error
    too.
    """
    heard = Heard()
    watch = ProxyMonitor(loop, proxy, heard)
    error = RuntimeError("bad")

    def bad() -> None:
        raise error

    loop.call_soon(bad)
    loop.call_soon(loop.stop)
    loop.run_forever()
    (line,) = heard.lines
    assert line[:2] == ("error", "fault")
    assert line[2]["exc_info"] is error
    heard.lines.clear()
    proxy.exhausted = 3
    watch.poll(1.0)
    assert heard.lines == [("error", "no socket left to accept with", {"times": 3})]


def test_counts_over_all_backends(proxy: Proxy) -> None:
    """The sums, without zeros."""
    assert counts(proxy) == {}
    for service in proxy.services:
        for backend in service.pool.backends:
            backend.conns += 2
            proxy.tallies[service.name][backend].sent += 10
    proxy.unserved = 1
    assert counts(proxy) == {"conns": 6, "sent": 30, "unserved": 1}


def test_counters(loop: uvloop.Loop, proxy: Proxy) -> None:
    """The worker's own numbers and those of each backend, in shared memory."""
    counters = Counters()
    watch = ProxyMonitor(loop, proxy, Heard(), CounterWriter(counters, ProxyCounts(proxy)))
    proxy.unserved, proxy.exhausted = 2, 1
    backend = proxy.services[0].pool.backends[0]
    backend.conns, backend.flows = 4, 3
    tally = proxy.tallies["a"][backend]
    tally.sent, tally.received, tally.refused = 10, 20, 1
    watch.poll(1.0)
    sample = counters.read()
    wanted = {"bound": 100, "conns": 4, "unserved": 2, "exhausted": 1, "refused": 0}
    assert {name: sample.head[name] for name in wanted} == wanted
    zeros = dict.fromkeys(("timeouts", "retried", "idle", "resets"), 0)
    assert sample.backend("a", "10.0.0.1") == {
        "flows": 3,
        "conns": 4,
        "bytes_out": 10,
        "bytes_back": 20,
        "refused": 1,
        **zeros,
    }
    counters.close()


def test_messages_come_before_the_first_connection(loop: uvloop.Loop, proxy: Proxy) -> None:
    """What came while the process started is applied when it opens its endpoint."""
    role = ProxySpec.role
    ours, theirs = IpcEndpoint.pair(FROM_ROLE[role], TO_ROLE[role])
    ours.send(SetStates(states={"a": {"10.0.0.1": (State.DOWN.value, 100)}}, version=7))
    life = spec().heartbeat
    CommandReader(loop, theirs, ProxySubject(spec(), proxy), life, Heard()).open()
    assert life.applied == 7
    assert [backend.name for backend in proxy.services[0].pool.ready] == ["10.0.0.2"]


def test_room_for_connections() -> None:
    """Two descriptors each, of all that the process may have."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        most = min(before[1], 4096)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most // 2, before[1]))
        found = room(8)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
        assert 0 < before[1] - 2 * found < 8 + 100
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("strategy", ["rr", "wrr", "weighted", "source", "maglev"])
def test_warming_up(loop: uvloop.Loop, strategy: str) -> None:
    """Some bytes are relayed completely, with every strategy, and no socket stays open."""
    control._warm_up(spec(strategy), loop)
