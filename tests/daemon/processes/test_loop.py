"""Waiting: signals come where ``wait`` is called, descriptors when they are ready, time passes."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from paraglider.daemon.processes.loop import Loop

USR = (signal.SIGUSR1, signal.SIGUSR2)


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A loop for two signals."""
    with Loop(USR) as made:
        yield made


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends that are joined."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


def test_signals_are_reported_once_in_the_loop(loop: Loop) -> None:
    """A repeated signal is reported once; it interrupts nothing."""
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR2)
    assert loop.wait(30) == set(USR)
    assert loop.wait(0) == set()


def test_a_signal_during_a_callback_is_reported_with_it(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Else the supervisor would look after processes that the same signal has ended."""
    ours, theirs = pair
    loop.watch(ours, lambda: signal.raise_signal(signal.SIGUSR1))
    theirs.send(b"hello")
    assert loop.wait(30) == {signal.SIGUSR1}
    loop.forget(ours)
    assert loop.wait(0) == set()


def test_a_flood_of_signals_does_not_block(loop: Loop) -> None:
    """More than the wake-up socket holds."""
    for _ in range(20_000):
        signal.raise_signal(signal.SIGUSR1)
    assert loop.wait(30) == {signal.SIGUSR1}
    assert loop.wait(0) == set()


def test_what_is_ready_is_called(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    """While it is watched, with its latest callback."""
    ours, theirs = pair
    heard: list[bytes] = []
    loop.watch(ours, lambda: heard.append(b"first"))
    loop.watch(ours, lambda: heard.append(ours.recv(10)))
    loop.wait(0)
    theirs.send(b"hello")
    loop.wait(30)
    assert heard == [b"hello"]
    loop.forget(ours)
    theirs.send(b"again")
    loop.wait(0)
    assert heard == [b"hello"]


def test_writable_is_reported_only_on_request(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Otherwise the loop would spin on every writable socket."""
    ours, _ = pair
    calls: list[int] = []
    loop.watch(ours, lambda: calls.append(1), writing=True)
    loop.wait(0)
    loop.watch(ours, lambda: calls.append(2))
    loop.wait(0)
    assert calls == [1]


def test_one_that_is_ready_may_forget_another(loop: Loop) -> None:
    """A forgotten descriptor is not called, although it was ready too."""
    one, other = socket.socketpair()
    with one, other:
        calls: list[str] = []

        def first() -> None:
            calls.append("one")
            loop.forget(other)

        def second() -> None:
            calls.append("other")
            loop.forget(one)

        loop.watch(one, first, writing=True)
        loop.watch(other, second, writing=True)
        loop.wait(30)
        assert len(calls) == 1


def test_forgetting_what_is_not_watched(loop: Loop) -> None:
    """Or a closed one: nothing happens."""
    gone, other = socket.socketpair()
    loop.watch(gone, list)
    gone.close()
    loop.forget(gone)
    loop.forget(other)
    other.close()
    loop.forget(-1)


def test_handlers_are_put_back() -> None:
    """The previous handlers of signals are restored."""
    before = signal.getsignal(signal.SIGUSR1)
    with Loop(USR):
        assert signal.getsignal(signal.SIGUSR1) != before
    assert signal.getsignal(signal.SIGUSR1) == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_forked_child_leaves() -> None:
    """A signal to the child has its default effect, and is not seen by the parent's loop."""
    with Loop(USR) as loop:
        pid = os.fork()
        if pid == 0:
            loop.leave()
            signal.raise_signal(signal.SIGUSR1)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        assert os.WTERMSIG(status) == signal.SIGUSR1
        assert loop.wait(0) == set()
