"""The backend of a connection when some backends do not accept."""

from __future__ import annotations

import select
import socket
from typing import Any

import pytest
from waiting import TIMEOUT

from paraglider.core.pool import Event


def accepted(listening: socket.socket) -> socket.socket:
    """The next connection of a backend."""
    end, _ = listening.accept()
    end.settimeout(TIMEOUT)
    return end


def flows(running: Any) -> list[int]:
    """The live flows of every backend."""
    return running.call(lambda: [b.flows for b in running.pool.backends])  # type: ignore[no-any-return]


def test_a_backend_that_refuses_is_passed_over(run: Any, server: Any, closed_port: Any) -> None:
    """The client is connected to the next one without noticing; both backends have their counts."""
    listening = server()
    running = run(closed_port, listening)
    with running.connect() as client:
        client.sendall(b"hello")
        end = accepted(listening)
        assert end.recv(5) == b"hello"
        first, second = running.pool.backends
        tallies = running.proxy.tallies["web"]
        assert (tallies[first].refused, tallies[first].retried) == (1, 1)
        assert (tallies[second].refused, tallies[second].retried) == (0, 0)
        assert flows(running) == [0, 1]
    end.close()
    running.until(lambda: running.proxy.live == 0)
    assert flows(running) == [0, 0]


def test_a_backend_that_does_not_answer_is_passed_over(run: Any, server: Any, silent: Any) -> None:
    """After the time to connect the next one is tried."""
    listening = server()
    running = run(silent(), listening, connect=0.2)
    with running.connect() as client:
        client.sendall(b"hello")
        assert accepted(listening).recv(5) == b"hello"
        assert (running.tally.timeouts, running.tally.retried) == (1, 1)


def test_every_backend_is_tried_once(run: Any, closed_port: Any, silent: Any) -> None:
    """If none accepts, the client is reset, and no flow stays counted."""
    running = run(closed_port, silent(), closed_port, connect=0.2)
    with running.connect() as client, pytest.raises(ConnectionResetError):
        client.recv(1)
    running.until(lambda: running.proxy.live == 0)
    tallies = running.proxy.tallies["web"].values()
    assert [(t.refused, t.timeouts) for t in tallies] == [(1, 0), (0, 1), (1, 0)]
    assert sum(t.retried for t in tallies) == 2
    assert running.proxy.unserved == 1
    assert flows(running) == [0, 0, 0]


def test_no_backend_is_ready(run: Any, server: Any) -> None:
    """The client is reset at once."""
    running = run(server())
    running.call(lambda: running.pool.apply(running.pool.backends[0], Event.SET_MAINT))
    # The RST may be there before connect has returned.
    with pytest.raises(ConnectionResetError), running.connect() as client:
        client.recv(1)
    running.until(lambda: running.proxy.unserved == 1)


def test_affinity_keeps_a_client_at_its_backend(run: Any, server: Any) -> None:
    """The second connection, and one after all have ended, goes where the first went."""
    first, second = server(), server()
    running = run(first, second, affinity=True)
    for _ in range(2):
        clients = [running.connect() for _ in range(2)]
        ends = [accepted(first) for _ in range(2)]
        assert flows(running) == [2, 0]
        for end in [*clients, *ends]:
            end.close()
        running.until(lambda: running.proxy.live == 0)


def test_affinity_moves_on_from_a_backend_that_refuses(
    run: Any, server: Any, closed_port: Any
) -> None:
    """The client is bound to the one that accepted."""
    listening = server()
    running = run(closed_port, listening, affinity=True)
    clients = [running.connect()]
    accepted(listening)
    clients.append(running.connect())
    accepted(listening)
    assert running.tally.refused == 1
    assert flows(running) == [0, 2]


def test_weighted_counts_live_connections(run: Any, server: Any) -> None:
    """The backend with fewer of them gets the next; one that has ended counts no more."""
    first, second = server(), server()
    running = run(first, second, strategy="weighted")
    clients = [running.connect() for _ in range(4)]
    ends = [accepted(first), accepted(first), accepted(second), accepted(second)]
    assert flows(running) == [2, 2]
    ends[2].close()
    ends[3].close()
    ended: set[socket.socket] = set()
    while len(ended) < 2:
        ended.update(select.select(set(clients) - ended, [], [], TIMEOUT)[0])
    for client in ended:
        assert client.recv(1) == b""
        client.close()
    running.until(lambda: running.pool.backends[1].flows == 0)
    clients += [running.connect() for _ in range(2)]
    accepted(second)
    accepted(second)
    assert flows(running) == [2, 2]


def test_states_and_weights_change_at_run_time(run: Any, server: Any) -> None:
    """A draining backend keeps its connection and gets no new one; nor does one without weight."""
    first, second = server(), server()
    running = run(first, second)
    kept = running.connect()
    end = accepted(first)
    backends = running.pool.backends
    running.call(lambda: running.pool.apply(backends[0], Event.SET_DRAIN))
    clients = [running.connect() for _ in range(2)]
    for _ in clients:
        accepted(second)
    running.call(lambda: running.pool.apply(backends[0], Event.SET_READY))
    running.call(lambda: running.pool.set_weight(backends[1], 0))
    clients.append(running.connect())
    accepted(first)
    kept.sendall(b"still here")
    assert end.recv(10) == b"still here"
