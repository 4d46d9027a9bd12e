"""Tests of ``paraglider.config.route``: what a route may ask for."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from paraglider.config.route import MOST, RouteConfig
from paraglider.core.hello_routes import RouteMatch


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("www.a.example", "www.a.example"),
        ("*.A.Example.", "*.a.example"),
        ("localhost", "localhost"),
        ("*.local", "*.local"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("_sip.a.example", "_sip.a.example"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
    ],
)
def test_names(given: str, expected: str) -> None:
    """As they are compared: in lower case, without a dot at the end."""
    assert RouteConfig(service="web", sni=(given,)).match == RouteMatch("web", (expected,), ())


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("*", "*.a.example"),
        ("*.", "*.a.example"),
        ("a.*.example", "*.a.example"),
        ("*a.example", "*.a.example"),
        ("*.*.example", "*.a.example"),
        ("", "www.a.example"),
        (".a.example", "www.a.example"),
        ("a..example", "www.a.example"),
        ("-a.example", "www.a.example"),
        ("a.example:443", "www.a.example"),
        ("a" * 64 + ".example", "www.a.example"),
        ("a." * 127 + "a", "www.a.example"),
        ("bücher.example", "xn--"),
        (7, "www.a.example"),
    ],
)
def test_no_names(given: Any, remedy: str) -> None:
    """A wildcard is the whole first label; names are ASCII."""
    with pytest.raises(ValidationError, match="is no name of a server") as caught:
        RouteConfig(service="web", sni=(given,))
    assert remedy in str(caught.value)


@pytest.mark.parametrize("given", ["h2", "http/1.1", "acme-tls/1", "x" * 255])
def test_protocols(given: str) -> None:
    """As they are: ALPN has no case."""
    assert RouteConfig(service="web", alpn=(given,)).match == RouteMatch("web", (), (given,))


@pytest.mark.parametrize("given", ["", "x" * 256, "a b", "é", 2])
def test_no_protocols(given: Any) -> None:
    """One byte to 255, in ASCII."""
    with pytest.raises(ValidationError, match="is no protocol of ALPN; write one such as h2"):
        RouteConfig(service="web", alpn=(given,))


def test_bounds() -> None:
    """At least one item, and not more than a number."""
    for count in (0, MOST + 1):
        with pytest.raises(ValidationError):
            RouteConfig(service="web", sni=tuple(f"a{n}.example" for n in range(count)))


def test_text() -> None:
    """As in messages."""
    route = RouteConfig(service="web", sni=("a.example", "*.b.example"), alpn=("h2", "h3"))
    assert str(route) == "a.example, *.b.example with h2, h3"
    assert str(RouteConfig(service="web", alpn=("h2",))) == "h2"
