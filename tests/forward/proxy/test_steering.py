"""Which of two sockets that share an address gets a client's connections."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from waiting import TIMEOUT

from paraglider.forward.proxy.steering import program, steer, unsteer

KEY = 0x9E3779B1
#: an address of this process alone, for ports that others may have: other runs share the host
OWN = os.getpid() & 0xFFFF
HERE = {socket.AF_INET: f"127.22.{OWN >> 8}.{OWN & 255}", socket.AF_INET6: "::1"}
Ends = list[socket.socket]


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["4", "6"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    """Two sockets that share an address, of which none listens yet."""
    family, made, port = request.param, Ends(), 0
    for _ in range(2):
        end = socket.socket(family)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        end.bind((HERE[family], port))
        end.setblocking(False)
        port = end.getsockname()[1]
        made.append(end)
    yield made
    for end in made:
        end.close()


def met(ends: Ends, source: str, count: int = 8) -> set[int]:
    """The numbers of the sockets that get ``count`` connections from ``source``."""
    clients = [socket.socket(ends[0].family) for _ in range(count)]
    for client in clients:
        client.settimeout(TIMEOUT)
        client.bind((source, 0))
        client.connect(ends[0].getsockname()[:2])
    found = set()
    for number, end in enumerate(ends):
        if not end.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            continue
        try:
            while True:
                end.accept()[0].close()
                found.add(number)
        except BlockingIOError:
            pass
    for client in clients:
        client.close()
    return found


def expected(family: int, source: str, key: int) -> int:
    """What the program returns for a client."""
    packed = socket.inet_pton(family, source)
    mixed = 0
    for at in range(0, len(packed), 4):
        mixed ^= int.from_bytes(packed[at : at + 4], "big")
    return (mixed * key & 0xFFFF_FFFF) >> 16 & 1


def test_a_client_meets_one_socket(ends: Ends) -> None:
    """Whatever the client's port; and both have clients."""
    family = ends[0].family
    for end in ends:
        end.listen(64)
        steer(end, 2, KEY)
    if family == socket.AF_INET:
        sources = [f"127.22.0.{number}" for number in range(1, 13)]
        places = [met(ends, source) for source in sources]
        assert places == [{expected(family, source, KEY)} for source in sources]
        assert {place for found in places for place in found} == {0, 1}
        return
    places = []  # one source, and several keys in its place
    for key in (number << 16 | 1 for number in range(1, 13)):
        steer(ends[1], 2, key)
        places.append(met(ends, "::1"))
        assert places[-1] == {expected(family, "::1", key)}
    assert {0} in places
    assert {1} in places


def test_without_a_program(ends: Ends) -> None:
    """A client meets both again; it is no error that nothing is to be removed, or no more."""
    for end in ends:
        end.listen(64)
    steer(ends[0], 2, KEY)
    assert len(met(ends, HERE[ends[0].family])) == 1
    for _ in range(2):
        unsteer(ends[1])
    assert met(ends, HERE[ends[0].family], 32) == {0, 1}  # but once in 2 to the 31


def test_a_number_without_a_socket(ends: Ends) -> None:
    """While fewer listen than are to: the one that does has all connections."""
    ends[0].listen(64)
    steer(ends[0], 2, KEY)
    assert met(ends, HERE[ends[0].family]) == {0}


@pytest.mark.parametrize(("family", "lines"), [(socket.AF_INET, 5), (socket.AF_INET6, 14)])
def test_the_program_is_short(family: int, lines: int) -> None:
    """Eight bytes an instruction: it runs for each connection."""
    assert len(program(family, 2, KEY)) == 8 * lines
