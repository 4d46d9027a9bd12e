"""Tests of ``paraglider.daemon.web.bound``: the socket of the stats page."""

from __future__ import annotations

import os
import socket

import pytest

from paraglider.daemon.web.bound import StatsSocket
from paraglider.errors import OperatorError


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_listens(family: socket.AddressFamily) -> None:
    """The socket is bound to the address, in both families, until it is closed."""
    own = os.getpid() & 0xFFFF  # nobody else on this host gets a port there in between
    host = f"127.22.{own >> 8}.{own & 255}" if family == socket.AF_INET else "::1"
    with socket.create_server((host, 0), family=family) as taken:
        port = taken.getsockname()[1]
    bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    bound = StatsSocket(bind)
    socket.create_connection((host, port), 10).close()
    with pytest.raises(OperatorError, match=f"in use by process {os.getpid()} "):
        StatsSocket(bind)
    bound.close()
    StatsSocket(bind).close()


def test_not_ours() -> None:
    """An address that this host has not is refused with a remedy."""
    with pytest.raises(OperatorError, match="cannot be listened on.*name an address that this"):
        StatsSocket("192.0.2.1:9777")
