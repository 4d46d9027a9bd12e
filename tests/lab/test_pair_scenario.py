"""A pair of balancers: what moves the addresses, and how the router is seen to follow."""

from __future__ import annotations

import json
import socket
import time
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from paraglider.errors import PlatformError
from paraglider.forward.load import parse
from paraglider.lab import pair_scenario as module
from paraglider.lab.pair_scenario import FORWARDS, PairLab, neighbours
from paraglider.lab.scenario import LabOptions
from paraglider.lab.vrrp import FRONT

OPTIONS = {"pair": True, "connections": 60}
FIRST, SECOND = "02:00:00:00:00:01", "02:00:00:00:00:02"


@pytest.mark.parametrize("forward", FORWARDS)
def test_what_moves_the_addresses(forward: str) -> None:
    """keepalived, or the lab; it is said."""
    options = LabOptions(forward, **OPTIONS)
    assert "beside each keepalived" in PairLab(options, Console(), has_keepalived=True).beside
    assert "not installed" in PairLab(options, Console(), has_keepalived=False).beside


@pytest.mark.parametrize("forward", FORWARDS)
def test_the_files(forward: str) -> None:
    """Each is valid, and announces nothing: it is the addresses that move."""
    lab = PairLab(LabOptions(forward, **OPTIONS), Console())
    lab._configuration(frozenset({0}))
    for number in (1, 2):
        config = parse(json.dumps(lab._document(number)), "f").config
        assert config.announce is None
        assert {service.forward for service in config.services} == {forward}


def test_the_routers_neighbours() -> None:
    """Entries without a hardware address are left out."""
    text = (
        '[{"dst":"192.168.0.250","dev":"eth0","lladdr":"02:00:00:00:00:01","state":["STALE"]},'
        '{"dst":"2001:db8::250","dev":"eth0","state":["FAILED"]}]'
    )
    assert neighbours(text) == {"192.168.0.250": FIRST}
    assert neighbours("") == {}


class Router:
    """A router whose neighbours change with every look."""

    def __init__(self, *looks: dict[int, str]) -> None:
        self._looks = list(looks)

    def execute(self, _command: list[str]) -> Any:
        """`ip -json neigh show`."""
        look = self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]
        rows = [{"dst": FRONT[family], "lladdr": each} for family, each in look.items()]
        return SimpleNamespace(stdout=json.dumps(rows))


def awaiting(monkeypatch: pytest.MonkeyPatch, *looks: dict[int, str]) -> PairLab:
    """A pair whose router is seen so."""
    monkeypatch.setattr(module, "execute", Router(*looks).execute)
    lab = PairLab(LabOptions("nat", **OPTIONS), Console())
    lab._hardware = {1: FIRST, 2: SECOND}
    lab._net: Any = SimpleNamespace(router=SimpleNamespace(name="router"))
    return lab


def test_the_addresses_have_moved_when_both_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both families, to the balancer that is to have them."""
    before, half, after = {4: FIRST, 6: FIRST}, {4: SECOND, 6: FIRST}, {4: SECOND, 6: SECOND}
    lab = awaiting(monkeypatch, {}, before, half, after)
    since = time.monotonic() - 5.0
    assert lab._await(since, out=True) >= 5.0
    monkeypatch.setattr(module, "TIMEOUT", 0.0)
    with pytest.raises(PlatformError, match="the addresses have not moved within 0 s"):
        lab._await(since, out=False)


def test_the_end_closes_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """What moves the addresses, and the router's sockets; also twice, and before the begin."""
    lab = PairLab(LabOptions("nat", **OPTIONS), Console())
    lab._close()
    closed: list[str] = []
    lab._mover: Any = SimpleNamespace(close=lambda: closed.append("mover"))
    lab._probes = {4: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)}
    lab._close()
    lab._close()
    assert closed == ["mover", "mover"]
    assert lab._probes[4].fileno() == -1
