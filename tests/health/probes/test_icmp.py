"""Tests of ``paraglider.health.probes.icmp``: this host pings itself."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from paraglider.health.codes import Code
from paraglider.health.pinger import Pinger
from paraglider.health.probes.base import CheckResult
from paraglider.health.probes.icmp import Icmp


@pytest.mark.root
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_answered(probing: Callable[..., CheckResult], address: str) -> None:
    """A host that answers passes; under load a ping may be lost, so it is repeated."""
    for _ in range(20):
        with Pinger() as echo:
            found = probing(Icmp(echo), address=address, started=started(echo), timeout=1)
        if found.passed:
            break
    assert (found.code, found.detail) == (Code.L4OK, "answered")


@pytest.mark.root
def test_unanswered(probing: Callable[..., CheckResult], monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence runs into the time, however often others answer."""
    monkeypatch.setattr(Pinger, "send", lambda *_: None)
    with Pinger() as echo:
        found = probing(Icmp(echo), started=started(echo), timeout=0.1)
    assert (found.code, found.detail) == (Code.L4TOUT, "ping timed out after 0.1 s")


def test_without_the_right(probing: Callable[..., CheckResult]) -> None:
    """Without raw sockets the check cannot be made."""
    found = probing(Icmp(None))
    assert (found.code, found.detail) == (
        Code.SOCKERR,
        "not checked: a ping takes CAP_NET_RAW",
    )


def started(echo: Pinger) -> Callable[[], contextlib.AbstractAsyncContextManager[None]]:
    """Adds ``echo`` to the loop of the check."""

    @contextlib.asynccontextmanager
    async def start() -> AsyncIterator[None]:
        echo.start()
        yield

    return start
