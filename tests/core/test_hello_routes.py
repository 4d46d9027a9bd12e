"""Tests of ``paraglider.core.hello_routes``: which route takes a ClientHello."""

from __future__ import annotations

import pytest

from paraglider.core.client_hello import Hello
from paraglider.core.hello_routes import RouteMatch, RouteTable

ROUTES = {
    "wildcard": RouteMatch("web", ("*.a.example",), ()),
    "deeper": RouteMatch("web", ("*.b.a.example",), ()),
    "exact": RouteMatch("web", ("www.a.example", "a.example"), ()),
    "exact with h2": RouteMatch("web", ("www.a.example",), ("h2",)),
    "only h3": RouteMatch("web", ("h3.a.example",), ("h3",)),
    "mail": RouteMatch("web", (), ("imap", "pop3")),
    "also imap": RouteMatch("web", (), ("managesieve", "imap")),
}


@pytest.mark.parametrize("turned", [False, True], ids=["as written", "turned round"])
@pytest.mark.parametrize(
    ("sni", "alpn", "expected"),
    [
        ("www.a.example", (), "exact"),
        ("www.a.example", ("http/1.1",), "exact"),
        ("www.a.example", ("http/1.1", "h2"), "exact with h2"),
        ("a.example", ("h2",), "exact"),
        ("x.a.example", ("h2",), "wildcard"),
        ("x.b.a.example", (), "deeper"),
        ("b.a.example", (), "wildcard"),
        ("x.y.a.example", (), None),
        (".a.example", (), None),
        ("a.example.org", (), None),
        ("h3.a.example", ("h3",), "only h3"),
        ("h3.a.example", ("h2",), "wildcard"),
        ("h3.a.example", ("pop3",), "wildcard"),
        ("example", (), None),
        ("", (), None),
        ("", ("pop3",), "mail"),
        ("other.example", ("pop3",), "mail"),
        ("", ("POP3",), None),
    ],
)
def test_precedence(sni: str, alpn: tuple[str, ...], expected: str | None, turned: bool) -> None:
    """Exact before wildcard, which is one label, before no name; with ALPN before without. The
    order of the routes does not matter where they take different connections.
    """
    table = RouteTable[str]()
    for name, match in sorted(ROUTES.items(), reverse=turned):
        table.add(match, name)
    assert table.find(Hello(sni, alpn)) == expected


def test_two_protocols() -> None:
    """A client that offers protocols of two routes gets the first route."""
    table = RouteTable[str]()
    table.add(RouteMatch("web", (), ("h2",)), "first")
    table.add(RouteMatch("web", (), ("http/1.1",)), "second")
    assert table.find(Hello("", ("http/1.1", "h2"))) == "first"
    assert table.find(Hello("", ("http/1.1",))) == "second"
