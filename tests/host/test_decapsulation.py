"""Ends of tunnels in a namespace: attached with the first, gone with the last, never twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from paraglider.errors import PlatformError
from paraglider.host import bpffs, decapsulation
from paraglider.host.decapsulation import Decapsulation, TunnelEnd

pytestmark = pytest.mark.root

WEB = TunnelEnd(ip_address("10.0.0.1"), ip_address("192.168.0.11"), 0)
GUE = TunnelEnd(ip_address("10.0.0.1"), ip_address("192.168.0.11"), 6080)
SIX = TunnelEnd(ip_address("fd00:10::1"), ip_address("2001:db8::11"), 0)


@pytest.fixture
def place(inside: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A namespace, and a bpffs of its own."""
    path = tmp_path / "bpf"
    monkeypatch.setattr(decapsulation, "PINS", path)
    yield path
    bpffs.unmount(path)


def pinned(place: Path) -> list[str]:
    """What is pinned for this namespace."""
    pins = bpffs.find_pins(place)
    if pins is None:
        return []
    try:
        return bpffs.names(pins)
    finally:
        os.close(pins)


def test_from_the_first_to_the_last(place: Path) -> None:
    """Ends share the program of an interface; the last one leaves nothing, not even a mount."""
    ends = Decapsulation()
    assert not ends.has(WEB, "eth0")
    for end in (WEB, SIX, GUE):
        ends.add(end, "eth0")
        ends.add(end, "eth0")
        assert ends.has(end, "eth0")
    assert pinned(place) == ["decap-ends", "decap-link-eth0"]
    ends.remove(WEB, "eth0")
    assert not ends.has(WEB, "eth0")
    assert ends.has(GUE, "eth0")
    ends.remove(GUE, "eth0")
    ends.remove(SIX, "eth0")
    assert pinned(place) == []
    assert not place.exists()
    ends.remove(SIX, "eth0")


def test_an_interface_that_is_made_anew(place: Path, inside: Any) -> None:
    """Its link is gone with it: the end is not there until it is added again."""
    ends = Decapsulation()
    ends.add(WEB, "eth0")
    inside.ip("link del eth0", "link add eth0 type veth peer name eth1", "link set eth0 up")
    assert not ends.has(WEB, "eth0")
    ends.add(WEB, "eth0")
    assert ends.has(WEB, "eth0")
    inside.ip("link del eth0")
    ends.remove(WEB, "eth0")
    assert not place.exists()


def test_a_refusal_leaves_nothing(place: Path) -> None:
    """An interface that does not exist: the error says what to do instead."""
    with pytest.raises(PlatformError, match=r"does not take the outer header off"):
        Decapsulation().add(WEB, "none")
    assert not place.exists()


def test_the_key_is_the_programs() -> None:
    """Addresses as in packets, the port in network order, then the family (struct end)."""
    four = ip_address("10.0.0.1").packed + bytes(12) + ip_address("192.168.0.11").packed + bytes(12)
    assert GUE.key[:34] == four + (6080).to_bytes(2, "big")
    assert len(GUE.key) == len(SIX.key) == 36
