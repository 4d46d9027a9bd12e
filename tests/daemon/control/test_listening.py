"""The control socket: ownership, leftovers, and sockets of other processes."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from paraglider.daemon.control.listening import ControlSocket
from paraglider.errors import OperatorError


@pytest.fixture
def place() -> Iterator[Path]:
    """A path that is short enough for a socket, in a directory that is not there yet."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        yield Path(directory, "run", "control.sock")


def test_it_is_the_owners_and_goes_at_the_end(place: Path) -> None:
    """Its directory is readable by all; the process that created it removes it."""
    made = ControlSocket(str(place))
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o755
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))
    made.close()
    assert not place.exists()
    made.close()


@pytest.mark.root
def test_a_group_may_connect(place: Path) -> None:
    """That of the user that announces VIPs."""
    made = ControlSocket(str(place), 65534)
    found = place.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o660, 0, 65534)
    made.close()


def test_the_umask_is_left_as_it_was(place: Path) -> None:
    """Files created later have the usual permissions."""
    before = os.umask(0o022)
    try:
        ControlSocket(str(place)).close()
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_what_a_dead_daemon_left_is_taken_over(place: Path) -> None:
    """A socket without a listener is replaced."""
    place.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place))
    made = ControlSocket(str(place))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))
    made.close()


def test_a_second_daemon_is_refused(place: Path) -> None:
    """The second daemon is refused, also while the first is too busy to
    answer; the socket stays.
    """
    first = ControlSocket(str(place))
    with pytest.raises(OperatorError, match="another paraglider answers at"):
        ControlSocket(str(place))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))
    first.close()


def test_a_file_that_is_no_socket_is_left_alone(place: Path) -> None:
    """A file that is no socket is not removed."""
    place.parent.mkdir()
    place.write_text("precious")
    with pytest.raises(OperatorError, match="cannot be made: Address already in use"):
        ControlSocket(str(place))
    assert place.read_text() == "precious"


def test_a_path_that_cannot_be(place: Path) -> None:
    """Too long, or below a file: the error has the reason and the name of the option."""
    with pytest.raises(OperatorError, match="cannot be made: AF_UNIX path too long; name another"):
        ControlSocket(str(place.parent / ("x" * 120)))
    place.parent.rmdir()
    place.parent.write_text("a file")
    with pytest.raises(OperatorError, match="name another path as `socket` under `control`"):
        ControlSocket(str(place))
