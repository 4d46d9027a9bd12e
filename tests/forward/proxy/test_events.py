"""The worker's own epoll set, watched by its loop."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import uvloop

from paraglider.forward.proxy.events import READ, WRITE, SocketEvents


@pytest.fixture
def loop() -> Iterator[uvloop.Loop]:
    """A loop of the test's own; what its handlers raise is in ``loop.faults``."""
    made = uvloop.new_event_loop()
    yield made
    made.close()


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets."""
    pair = socket.socketpair()
    yield pair
    for end in pair:
        end.close()


def turn(loop: uvloop.Loop) -> None:
    """Let the loop look at its events once or twice."""
    loop.call_later(0.01, loop.stop)
    loop.run_forever()


def test_what_is_waited_for_is_told(loop: uvloop.Loop, ends: tuple[socket.socket, ...]) -> None:
    """Only it, only while it is waited for, and to whoever waits by then."""
    events, heard = SocketEvents(loop), []
    near, far = ends
    events.watch(near.fileno(), WRITE, lambda mask: heard.append(("first", mask)))
    far.send(b"x")
    turn(loop)
    assert set(heard) == {("first", WRITE)}
    events.hand_over(near.fileno(), lambda mask: heard.append(("second", mask)))
    events.change(near.fileno(), READ)
    heard.clear()
    turn(loop)
    assert set(heard) == {("second", READ)}
    events.forget(near.fileno())
    assert len(events) == 0
    heard.clear()
    turn(loop)
    assert heard == []
    events.close()


def test_forgotten_in_the_same_round(loop: uvloop.Loop, ends: tuple[socket.socket, ...]) -> None:
    """Of two that are ready at once, the first to be told closes the other: it hears nothing, and
    nor does the socket that has its number next.
    """
    events, heard = SocketEvents(loop), []
    near, far = ends
    numbers = {near.fileno(), far.fileno()}

    def first(_mask: int) -> None:
        if heard:
            return
        heard.append("first")
        for end in ends:
            events.forget(end.fileno(), closing=True)
            end.close()
        again = socket.socketpair()
        assert {end.fileno() for end in again} == numbers
        for end in again:
            events.watch(end.fileno(), READ, lambda _mask: heard.append("stale"))
        heard.append("watching")
        kept.extend(again)

    kept: list[socket.socket] = []
    for end in ends:
        events.watch(end.fileno(), WRITE, first)
    turn(loop)
    assert heard == ["first", "watching"]
    for end in kept:
        end.close()
    events.close()


def test_a_handler_that_raises(loop: uvloop.Loop, ends: tuple[socket.socket, ...]) -> None:
    """The loop is told, and the others of the round are called."""
    events, heard, faults = SocketEvents(loop), [], []
    loop.set_exception_handler(lambda _loop, context: faults.append(context["exception"]))

    def bad(_mask: int) -> None:
        events.forget(ends[0].fileno())
        raise RuntimeError("bad")

    def good(_mask: int) -> None:
        events.forget(ends[1].fileno())
        heard.append("good")

    events.watch(ends[0].fileno(), WRITE, bad)
    events.watch(ends[1].fileno(), WRITE, good)
    turn(loop)
    assert heard == ["good"]
    assert [str(fault) for fault in faults] == ["bad"]
    events.close()
