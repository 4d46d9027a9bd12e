"""Bytes, ends, resets and idleness between two real sockets."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import select
import socket
import struct
import threading
from typing import Any

import pytest
from waiting import TIMEOUT

from paraglider.forward.proxy.relay import BUFFER, Relay

MEGABYTE = 1 << 20


def pattern(size: int, seed: bytes = b"relay") -> bytes:
    """Bytes that are not the same anywhere."""
    return hashlib.shake_128(seed).digest(size)


def receive(end: socket.socket, size: int = 1 << 62) -> bytes:
    """``size`` bytes, or all to the end."""
    data = bytearray()
    while len(data) < size:
        chunk = end.recv(min(size - len(data), 1 << 18))
        if not chunk:
            break
        data += chunk
    return bytes(data)


def break_off(end: socket.socket) -> None:
    """Close with a reset."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()


def relays(running: Any) -> list[Relay]:
    """The live relays, of which there is at least one."""
    running.until(lambda: running.proxy._relays)
    return running.call(lambda: list(running.proxy._relays))  # type: ignore[no-any-return]


def test_bytes_go_both_ways(pair: Any) -> None:
    """The bytes of each end arrive at the other in order, and are counted."""
    running, client, backend = pair()
    client.sendall(b"question")
    assert receive(backend, 8) == b"question"
    backend.sendall(b"the answer")
    assert receive(client, 10) == b"the answer"
    running.until(lambda: (running.tally.sent, running.tally.received) == (8, 10))


def test_a_backend_that_speaks_first(pair: Any) -> None:
    """Nothing waits for the client's first byte."""
    _, client, backend = pair()
    backend.sendall(b"220 ready")
    assert receive(client, 9) == b"220 ready"


def test_the_client_finishes_first(pair: Any) -> None:
    """It sends, shuts down, and then reads an answer."""
    running, client, backend = pair()
    client.sendall(b"all of it")
    client.shutdown(socket.SHUT_WR)
    assert receive(backend) == b"all of it"
    backend.sendall(b"heard")
    assert receive(client, 5) == b"heard"
    backend.close()
    assert receive(client) == b""
    running.until(lambda: running.proxy.live == 0)
    assert running.tally.resets == 0


def test_the_backend_finishes_first(pair: Any) -> None:
    """The client reads the end of the stream, and can still send."""
    running, client, backend = pair()
    backend.sendall(b"bye")
    backend.shutdown(socket.SHUT_WR)
    assert receive(client) == b"bye"
    client.sendall(b"one more")
    client.close()
    assert receive(backend) == b"one more"
    running.until(lambda: running.proxy.live == 0)
    assert running.tally.resets == 0


def test_long_transfers_both_ways_at_once(pair: Any) -> None:
    """Eight megabytes each way at the same time arrive whole, with the ends after them."""
    _, client, backend = pair()
    up, down = pattern(8 * MEGABYTE, b"up"), pattern(8 * MEGABYTE, b"down")

    def send(end: socket.socket, data: bytes) -> None:
        end.sendall(data)
        end.shutdown(socket.SHUT_WR)

    heard: dict[str, bytes] = {}
    threads = [
        threading.Thread(target=send, args=(client, up)),
        threading.Thread(target=send, args=(backend, down)),
        threading.Thread(target=lambda: heard.update(up=receive(backend))),
        threading.Thread(target=lambda: heard.update(down=receive(client))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == {"up": up, "down": down}


@pytest.mark.parametrize("slow", ["client", "backend"])
def test_a_slow_reader_holds_the_other_back(pair: Any, slow: str) -> None:
    """While one end does not read, the other cannot send more than buffers hold, and the relay
    holds one of them; afterwards all bytes arrive.
    """
    running, client, backend = pair()
    reader, sender = (client, backend) if slow == "client" else (backend, client)
    data = pattern(32 * MEGABYTE)
    sent = threading.Thread(target=lambda: (sender.sendall(data), sender.close()))
    sent.start()
    (relay,) = relays(running)
    running.until(lambda: any(end.held for end in relay._ends))
    held = running.call(lambda: [len(end.held) for end in relay._ends])
    assert 0 < sum(held) <= BUFFER
    assert sent.is_alive()  # 32 MB fit nowhere
    assert receive(reader) == data
    sent.join()


def test_the_other_way_goes_on_while_one_is_held_up(pair: Any) -> None:
    """A client that does not read can still send."""
    running, client, backend = pair()
    data = pattern(32 * MEGABYTE)
    sent = threading.Thread(target=lambda: (backend.sendall(data), backend.close()))
    sent.start()
    (relay,) = relays(running)
    running.until(lambda: any(end.held for end in relay._ends))
    client.sendall(b"slowly, please")
    assert receive(backend, 14) == b"slowly, please"
    assert receive(client) == data
    sent.join()


def test_the_end_comes_after_what_is_held(pair: Any) -> None:
    """A sender that has finished and gone leaves the rest to the relay."""
    running, client, backend = pair()
    backend.settimeout(0.2)
    data, at = pattern(32 * MEGABYTE), 0
    (relay,) = relays(running)
    while not running.call(lambda: any(end.held for end in relay._ends)):
        with contextlib.suppress(TimeoutError):
            at += backend.send(data[at : at + (1 << 18)])
    assert at < len(data)
    backend.close()
    assert receive(client) == data[:at]


@pytest.mark.parametrize("first", ["client", "backend"])
def test_a_reset_is_passed_on(pair: Any, first: str) -> None:
    """An end that is broken off breaks the other off, and is counted."""
    running, client, backend = pair()
    client.sendall(b"x")
    assert receive(backend, 1) == b"x"
    one, other = (client, backend) if first == "client" else (backend, client)
    break_off(one)
    with pytest.raises(ConnectionResetError):
        other.recv(1)
    running.until(lambda: running.proxy.live == 0)
    assert running.tally.resets == 1


def test_what_was_said_before_a_reset_is_heard(pair: Any) -> None:
    """A backend answers early and breaks off while the client is still sending: the client has
    the answer before the reset.
    """
    running, client, backend = pair()
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.sendall(pattern(32 * MEGABYTE))  # nobody reads it
    client.settimeout(TIMEOUT)
    assert select.select([backend], [], [], TIMEOUT)[0]
    backend.sendall(b"413 too much")
    backend.close()  # with bytes unread, so the kernel sends a reset
    assert receive(client, 12) == b"413 too much"
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    running.until(lambda: running.proxy.live == 0)


def test_an_idle_connection_is_ended(pair: Any) -> None:
    """With both directions open, after `established`: both ends are reset, and it is counted."""
    running, client, backend = pair(established=0.1)
    for end in (client, backend):
        with pytest.raises(ConnectionResetError):
            end.recv(1)
    running.until(lambda: running.proxy.live == 0)
    assert (running.tally.idle, running.tally.resets) == (1, 0)


def test_a_connection_with_one_way_left_is_ended_sooner(pair: Any) -> None:
    """With one direction ended, after `closing`."""
    running, client, backend = pair(closing=0.1)
    client.shutdown(socket.SHUT_WR)
    assert receive(backend) == b""
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    running.until(lambda: running.proxy.live == 0)
    assert running.tally.idle == 1


def test_a_connection_at_work_is_not_idle(pair: Any) -> None:
    """Each byte in either direction restarts the timeout."""
    running, client, backend = pair()
    (relay,) = relays(running)
    for one, other in [(client, backend), (backend, client)]:
        before = running.call(lambda: relay.last_active)
        running.until(lambda before=before: running.loop.time() > before)
        one.sendall(b".")
        assert receive(other, 1) == b"."
        running.until(lambda before=before: relay.last_active > before)


def test_what_comes_first(pair: Any) -> None:
    """A PROXY protocol header is sent before the client's first byte."""
    _, client, backend = pair(versions={"web": "v1"})
    port = client.getsockname()[1]
    line = f"PROXY TCP4 127.0.0.1 127.0.0.1 {port} {client.getpeername()[1]}\r\n".encode()
    assert receive(backend, len(line)) == line
    client.sendall(b"now")
    assert receive(backend, 3) == b"now"


def test_nothing_is_left_of_a_closed_relay(pair: Any) -> None:
    """It is freed without the cyclic collector, which is off in a worker."""
    gc.collect()
    gc.disable()
    try:
        running, client, backend = pair()
        client.close()
        backend.close()
        running.until(lambda: running.proxy.live == 0)
        running.until(lambda: not any(type(thing) is Relay for thing in gc.get_objects()))
    finally:
        gc.enable()
