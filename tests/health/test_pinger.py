"""Tests of ``paraglider.health.pinger``: whose answer counts."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket

import pytest
from waiting import TIMEOUT

from paraglider.core.checksum import internet_checksum
from paraglider.errors import PlatformError
from paraglider.health import pinger as echo_module
from paraglider.health.pinger import EchoRequest, Pinger

pytestmark = pytest.mark.root

AGAIN = 2.0  # seconds until a request is sent again: a kernel may have no room for the reply
HERE = {4: ipaddress.ip_address("127.0.0.1"), 6: ipaddress.ip_address("::1")}


async def ping(echo: Pinger, request: EchoRequest, family: int) -> None:
    """Have this host reply to ``request``."""
    async with asyncio.timeout(TIMEOUT):
        while not request.replied.is_set():
            echo.send(request, HERE[family])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(request.replied.wait(), AGAIN)


@pytest.mark.parametrize("family", [4, 6])
def test_many_questions_at_a_time(family: int) -> None:
    """Each request gets its own replies over one socket, and none after its end."""

    async def body() -> None:
        with Pinger() as echo:
            echo.start()
            with (
                echo.echo_request() as first,
                echo.echo_request() as second,
                echo.echo_request() as third,
            ):
                await asyncio.gather(ping(echo, first, family), ping(echo, third, family))
                assert list(first.answers) == list(third.answers) == [HERE[family]]
                assert not second.answers
            with echo.echo_request() as again:
                assert again.number != third.number

    asyncio.run(body())


def test_a_forged_answer_is_none() -> None:
    """A reply without the token is ignored."""

    async def body() -> None:
        with Pinger() as echo, socket.socket(socket.AF_INET, socket.SOCK_RAW, 1) as forger:
            echo.start()
            with echo.echo_request() as request, echo.echo_request() as honest:
                numbers = request.number.to_bytes(4)
                for token in (b"", bytes(16)):
                    packet = bytes(4) + numbers + token
                    checksum = internet_checksum(packet)
                    packet = bytes(2) + checksum.to_bytes(2) + numbers + token
                    forger.sendto(packet, ("127.0.0.1", 0))
                await ping(echo, honest, 4)
                assert not request.answers

    asyncio.run(body())


def test_without_the_right_to_raw_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of the kernel is reported with the remedy."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(echo_module.socket, "socket", refuse)
    with pytest.raises(PlatformError, match="it takes CAP_NET_RAW"):
        Pinger()


def test_no_way_there() -> None:
    """An error of sending is raised."""
    with Pinger() as echo, echo.echo_request() as request, pytest.raises(OSError, match=r"."):
        echo.send(request, ipaddress.ip_address("ff02::1"), interface="nowhere0")
