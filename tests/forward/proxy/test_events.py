"""The worker's own epoll set, watched by its loop."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import uvloop

from paraglider.forward.proxy.events import READ, WRITE, SocketEvents


@pytest.fixture
def loop() -> Iterator[uvloop.Loop]:
    """A loop for the test; exceptions of handlers are collected in ``faults``."""
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
    """Let the loop handle events once or twice."""
    loop.call_later(0.01, loop.stop)
    loop.run_forever()


def test_awaited_events_are_reported(loop: uvloop.Loop, ends: tuple[socket.socket, ...]) -> None:
    """The present handler is called, for awaited events only."""
    events, heard = SocketEvents(loop), []
    near, far = ends
    events.watch(near.fileno(), WRITE, lambda mask: heard.append(("first", mask)))
    far.send(b"x")
    turn(loop)
    assert set(heard) == {("first", WRITE)}
    events.set_handler(near.fileno(), lambda mask: heard.append(("second", mask)))
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
    """Of two ready descriptors, the first handler closes the other: that one's handler is not
    called, nor is one for a new socket with the same number.
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
    """The loop's exception handler is called, and the other handlers of the round are."""
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
