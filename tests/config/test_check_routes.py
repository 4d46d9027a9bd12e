"""Tests of ``paraglider.config.check_routes``: two routes for the same connections."""

from __future__ import annotations

import pytest

from paraglider.config.load import ConfigError, parse

SERVICE = """\
  - {name: NAME, vip: 192.168.0.11, ports: PORT, protocol: tcp, forward: proxy,
     route: [{name: rPORT, FIRST, backends: [10.0.0.2]},
             {name: sPORT, SECOND, backends: [10.0.0.3]}], backends: [10.0.0.1]}
"""


def found(first: str, second: str) -> list[str]:
    """The mistakes in two services with these routes each."""
    text = "services:\n"
    for name, port in (("web", "443"), ("api", "8443")):
        made = SERVICE.replace("NAME", name).replace("PORT", port)
        text += made.replace("FIRST", first).replace("SECOND", second)
    try:
        parse(text, "f")
    except ConfigError as error:
        return list(error.lines)
    return []


@pytest.mark.parametrize(
    ("first", "second", "taken"),
    [
        ("sni: a.example", "sni: A.example.", "a.example"),
        ('sni: [a.example, "*.b.example"]', 'sni: "*.b.example"', "*.b.example"),
        ("sni: a, alpn: [h2, h3]", "sni: a, alpn: h3", "a with h3"),
        ("alpn: h2", "alpn: [http/1.1, h2]", "h2"),
        ("sni: a, alpn: h2", "sni: a", ""),
        ("sni: a, alpn: h2", "sni: a, alpn: h3", ""),
        ("sni: a, alpn: h2", "alpn: h2", ""),
        ("sni: a.example", 'sni: "*.example"', ""),
    ],
)
def test_two_routes(first: str, second: str, taken: str) -> None:
    """Of one service; two services may have the same."""
    lines = found(first, second)
    assert len(lines) == (2 if taken else 0)
    for line, name, route, number in zip(
        lines, ("web", "api"), ("r443", "r8443"), (4, 7), strict=False
    ):
        assert line.startswith(f"f:{number}:")
        assert f": `{route}` takes {taken} of `{name}` already; leave it out" in line
