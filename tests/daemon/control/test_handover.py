"""Connections go from one end to the other with their numbers, and no end waits."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from paraglider.daemon.control.handover import HandedConnections, Handover


@pytest.fixture
def handover() -> Iterator[Handover]:
    """Both ends."""
    made = Handover()
    yield made
    made.close()


class Transport:
    """What asyncio has of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def get_extra_info(self, name: str) -> object:
        """See ``asyncio``."""
        return {"socket": self._connection}.get(name)


def test_a_connection_arrives_with_its_number(handover: Handover) -> None:
    """It is the same connection: what its client sends is read there."""
    handed = HandedConnections(handover.taking)
    with pytest.raises(BlockingIOError):
        handed.accept()
    client, accepted = socket.socketpair()
    with client, accepted:
        assert handover.give(7, accepted)
    assert handed.fileno() == handover.taking.fileno()
    connection, _ = handed.accept()
    with connection:
        assert handed.number(connection) == 7
        assert handed.number_of(Transport(connection)) == 7  # type: ignore[arg-type]
        assert connection.recv(1) == b""  # both of the others are closed
    assert handed.number_of(None) == 0


def test_a_full_handover(handover: Handover) -> None:
    """Nothing is lost: what was given arrives, in order, and then there is room again."""
    client, accepted = socket.socketpair()
    given = 0
    with client, accepted:
        while handover.give(given, accepted):
            given += 1
        handed = HandedConnections(handover.taking)
        for number in range(given):
            connection, _ = handed.accept()
            with connection:
                assert handed.number(connection) == number
        assert handover.give(given, accepted)


def test_a_message_without_a_connection_is_none(handover: Handover) -> None:
    """The process has only its own end, so this cannot come from a client."""
    handover._giving.send(b"12345678")
    with pytest.raises(ConnectionAbortedError):
        HandedConnections(handover.taking).accept()


def test_an_end_that_was_shut_down_is_replaced(handover: Handover) -> None:
    """By a process that was taken over: its successor has a new one."""
    handover.taking.shutdown(socket.SHUT_RDWR)
    client, accepted = socket.socketpair()
    with client, accepted:
        with pytest.raises(OSError, match="pipe"):
            handover.give(1, accepted)
        handover.renew()
        assert handover.give(1, accepted)
