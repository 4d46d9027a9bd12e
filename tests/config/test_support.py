"""Tests of ``paraglider.config.support``: what this version refuses, and what it takes."""

from __future__ import annotations

import pytest

from paraglider.config import support
from paraglider.config.load import parse
from paraglider.config.support import unsupported
from paraglider.config.validate import STRATEGIES

SERVICE = "services: [{name: a, vip: 192.168.0.11/24, protocol: tcp, backends: [10.0.0.1]%s}]\n"


def refused(text: str) -> list[str]:
    """The lines that refuse what ``text`` asks for."""
    loaded = parse(text, "f")
    return loaded.lines(unsupported(loaded.config))


def test_refused_with_what_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a version lacks is refused at its place, with what it has."""
    monkeypatch.setitem(support.NOT_YET, ("forward", "proxy"), "use nat")
    (line,) = refused(SERVICE % ", ports: 80, forward: proxy")
    assert line.endswith("`forward: proxy` is not in this version; use nat")
    assert line.startswith(f"f:1:{(SERVICE % ', ports: 80, forward: proxy').index('proxy') + 1}: ")


@pytest.mark.parametrize("source", ["file: /etc/b", "dns: _http._tcp.example.com"])
def test_sources_of_backends(source: str) -> None:
    """Backends may be listed elsewhere."""
    text = SERVICE.replace("[10.0.0.1]", f"{{{source}}}") % ", ports: 80"
    assert refused(text) == []


@pytest.mark.parametrize("strategy", [*STRATEGIES, "'a.b:C'"])
@pytest.mark.parametrize("io", ["auto", "netfilterqueue"])
def test_taken(strategy: str, io: str) -> None:
    """What this version does is not refused."""
    text = f"queue: {{io: {io}}}\nfailover: {{enabled: true}}\n"
    assert refused(text + SERVICE % f", forward: nat, strategy: {strategy}") == []
