"""Tests of ``paraglider.health.probes.icmp``: this host pings itself."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from paraglider.health.codes import Code
from paraglider.health.pinger import Pinger
from paraglider.health.probes.base import Look
from paraglider.health.probes.icmp import Icmp


@pytest.mark.root
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_answered(probing: Callable[..., Look], address: str) -> None:
    """Who answers passes; under load one ping may be lost, as anywhere."""
    for _ in range(20):
        with Pinger() as echo:
            found = probing(Icmp(echo), address=address, started=started(echo), timeout=1)
        if found.passed:
            break
    assert (found.code, found.detail) == (Code.L4OK, "answered")


@pytest.mark.root
def test_unanswered(probing: Callable[..., Look], monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence runs into the time, however often others answer."""
    monkeypatch.setattr(Pinger, "send", lambda *_: None)
    with Pinger() as echo:
        found = probing(Icmp(echo), started=started(echo), timeout=0.1)
    assert (found.code, found.detail) == (Code.L4TOUT, "ping timed out after 0.1 s")


def test_without_the_right(probing: Callable[..., Look]) -> None:
    """A process without raw sockets says nothing of the backend."""
    found = probing(Icmp(None))
    assert (found.code, found.detail) == (Code.SOCKERR, "could not look: a ping takes CAP_NET_RAW")


def started(echo: Pinger) -> Callable[[], contextlib.AbstractAsyncContextManager[None]]:
    """Puts ``echo`` onto the loop of the look."""

    @contextlib.asynccontextmanager
    async def start() -> AsyncIterator[None]:
        echo.start()
        yield

    return start
