"""Tests of ``paraglider.config.support``: what this version refuses, and what it takes."""

from __future__ import annotations

import pytest

from paraglider.config.load import parse
from paraglider.config.support import unsupported
from paraglider.config.validate import STRATEGIES

SERVICE = "services: [{name: a, vip: 192.168.0.11/24, protocol: tcp, backends: [10.0.0.1]%s}]\n"


def refused(text: str, failover: bool = False) -> list[str]:
    """The lines that refuse what ``text`` asks for."""
    loaded = parse(text, "f")
    return loaded.lines(unsupported(loaded.config, failover=failover))


@pytest.mark.parametrize(
    ("head", "tail", "expected"),
    [
        (
            "failover: {enabled: true}\n",
            "",
            "`failover` is not in this version; use false, or leave `failover` out",
        ),
        ("watch: true\n", "", "`watch` is not in this version; use false, or leave `watch` out"),
    ],
)
def test_refused_with_what_to_use(head: str, tail: str, expected: str) -> None:
    """Each way that this version lacks is refused at its place, with one that it has."""
    text = head + SERVICE % tail
    column = text.splitlines()[0].index((tail or head).split(": ")[-1].rstrip("}\n")) + 1
    (line,) = refused(text)
    assert line.startswith(f"f:1:{column}: {expected}")


@pytest.mark.parametrize("source", ["file: /etc/b", "dns: _http._tcp.example.com"])
def test_sources_of_backends(source: str) -> None:
    """Backends that are listed elsewhere are refused, at the place where that is said."""
    text = SERVICE.replace("[10.0.0.1]", f"{{{source}}}") % ", ports: 80"
    (line,) = refused(text)
    kind = source.partition(":")[0]
    column = text.index(f"{{{kind}") + 1
    assert (
        line == f"f:1:{column}: `backends: {kind}` is not in this version; list the backends here"
    )


@pytest.mark.parametrize("strategy", [*STRATEGIES, "'a.b:C'"])
@pytest.mark.parametrize("io", ["auto", "netfilterqueue"])
def test_taken(strategy: str, io: str) -> None:
    """What this version does is not refused."""
    text = f"queue: {{io: {io}}}\nfailover: {{enabled: false}}\n"
    assert refused(text + SERVICE % f", forward: nat, strategy: {strategy}") == []


def test_failover_option() -> None:
    """The option `-f` is refused as the key is."""
    (line,) = refused(SERVICE % "", failover=True)
    assert "failover (-f) is not in this version; leave -f out" in line
