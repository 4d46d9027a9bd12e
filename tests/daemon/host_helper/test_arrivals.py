"""Addresses that are added to the host while the daemon runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.daemon.host_helper import arrivals as module
from paraglider.daemon.host_helper.arrivals import Arrivals
from paraglider.errors import PlatformError
from paraglider.host.announce import Announcer, Place


def config(*vips: str) -> Config:
    """A service a VIP."""
    backend = {False: "10.0.0.1", True: "fd00::1"}
    services = [
        {
            "name": f"s{n}",
            "vip": vip,
            "protocol": "tcp",
            "backends": [backend[":" in vip]],
        }
        for n, vip in enumerate(vips)
    ]
    return Config.model_validate({"services": services})


class Wire(Announcer):
    """Records the announcements."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def reachable(self, places: Iterable[Place]) -> list[Place]:
        """All links."""
        return list(places)

    def announce(self, places: Iterable[Place]) -> int:
        """Keeps the addresses."""
        self.heard += [str(address) for _, address in places]
        return len(self.heard)


class Log:
    """Records the warnings."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, event: str, **details: Any) -> None:
        """A line of the log."""
        self.lines.append(f"{event}: {details['why']}")


def test_what_comes_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, by a reload, and moved here; addresses of other hosts are not announced."""
    here = {"192.0.2.1", "2001:db8::1"}

    def held(wanted: Iterable[Any]) -> list[Place]:
        return [("eth0", address) for address in sorted(wanted, key=str) if str(address) in here]

    monkeypatch.setattr(module, "held", held)
    wire = Wire()
    arrivals = Arrivals(
        config("192.0.2.1/24", "2001:db8::1/64", "192.0.2.2/24"), Log(), lambda: wire
    )
    arrivals.refresh(0.0)
    assert arrivals.wait(0.0) == 0.0
    arrivals.announce_due(10.0)
    assert sorted(wire.heard) == ["192.0.2.1", "2001:db8::1"]
    here.add("192.0.2.2")
    arrivals.refresh(20.0)
    arrivals.announce_due(30.0)
    assert wire.heard[2:] == ["192.0.2.2"]
    here.add("192.0.2.3")
    arrivals.refresh(40.0)
    assert arrivals.wait(40.0) == float("inf")
    arrivals.apply_config(config("192.0.2.3/24"))
    arrivals.refresh(50.0)
    arrivals.announce_due(60.0)
    assert wire.heard[3:] == ["192.0.2.3"]


def test_a_host_that_cannot_announce_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """One warning, whether no socket can be opened or the addresses cannot be read."""
    log = Log()

    def refuse(*_: object) -> Any:
        raise PlatformError("no")

    arrivals = Arrivals(config("192.0.2.1/24"), log, refuse)
    arrivals.refresh(0.0)
    arrivals.announce_due(0.0)
    assert arrivals.wait(0.0) == float("inf")
    monkeypatch.setattr(module, "held", refuse)
    arrivals = Arrivals(config("192.0.2.1/24"), log, Wire)
    for now in (0.0, 1.0, 2.0):
        arrivals.refresh(now)
    assert log.lines == ["VIPs not announced: no"] * 2
