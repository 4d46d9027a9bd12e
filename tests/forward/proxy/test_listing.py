"""Tests of ``paraglider.forward.proxy.listing``: connections are found, described and reset."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from packets import V4, V6, Family, packed, service

from paraglider.core.flow import TCP
from paraglider.core.strategies.base import NewFlow
from paraglider.forward.flows import Match
from paraglider.forward.proxy.listing import ProxyView


class Connection:
    """A relay, as far as the view needs it."""

    def __init__(self) -> None:
        self.last_active = 10.0
        self.closed = False
        self.resets = 0

    def reset(self) -> None:
        """Record a reset of both ends."""
        self.closed = True
        self.resets += 1


def relays(family: Family) -> dict[Any, Any]:
    """Three connections of two services, to a backend each; the last has none yet."""
    found: dict[Any, Any] = {}
    for number, name in enumerate(("web", "web", "tls")):
        one = service(family, name=name)
        ports = (2000 + number).to_bytes(2, "big") + (80).to_bytes(2, "big")
        flow = NewFlow(TCP, packed(family.client) + packed(family.vip) + ports, 0.0)
        backend = one.pool.backends[number] if number < 2 else None
        front = SimpleNamespace(service=one)
        found[Connection()] = SimpleNamespace(front=front, flow=flow, backend=backend)
    return found


@pytest.mark.parametrize("family", [V4, V6])
@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ({}, [0, 1]),
        ({"service": "web"}, [0, 1]),
        ({"service": "tls"}, []),
        ({"backend": 1}, [1]),
        ({"client": "own"}, [0, 1]),
        ({"client": "203.0.113.0/24"}, []),
        ({"service": "web", "backend": 0}, [0]),
    ],
)
def test_a_walk_gives_what_is_meant(
    family: Family, words: dict[str, Any], meant: list[int]
) -> None:
    """Selected connections, and None for each of the others, including those
    without a backend yet.
    """
    given = dict(words)
    if "backend" in given:
        given["backend"] = family.backends[given["backend"]]
    if given.get("client") == "own":
        given["client"] = family.client
    known = relays(family)
    found = list(ProxyView(known).walk(Match.of(given)))
    assert found == [one if n in meant else None for n, one in enumerate(known)]


def test_connections_that_end_meanwhile_are_passed_over() -> None:
    """The walk goes on, and new ones are not in it."""
    known = relays(V4)
    first, second, _ = known
    walk = ProxyView(known).walk(Match())
    assert next(walk) is first
    attempt = known.pop(second)
    known[Connection()] = attempt
    assert list(walk) == [None, None]


@pytest.mark.parametrize("family", [V4, V6])
def test_a_connection_is_described(family: Family) -> None:
    """As a flow of a packet path; an ended one has no description."""
    known = relays(family)
    view = ProxyView(known)
    _, second, third = known
    assert view.describe(second, 12.34) == {
        "service": "web",
        "protocol": "tcp",
        "client": family.client,
        "client_port": 2001,
        "vip": family.vip,
        "port": 80,
        "backend": family.backends[1],
        "state": "established",
        "idle": 2.3,
    }
    assert view.describe(second, 9.0)["idle"] == 0.0
    assert view.describe(third, 12.0) == {}
    del known[second]
    assert view.describe(second, 12.0) == {}


def test_a_connection_is_reset_once() -> None:
    """Both ends; a connection that has ended already is not reset."""
    known = relays(V4)
    view = ProxyView(known)
    one, *_ = known
    assert view.forget(one, 11.0)
    assert not view.forget(one, 11.0)
    assert one.resets == 1
