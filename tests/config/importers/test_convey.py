"""Tests of ``paraglider.config.importers.convey``; whole files are in ``test_formats``."""

from __future__ import annotations

import pytest

from paraglider.config.importers import convey
from paraglider.config.importers.convey import convert
from paraglider.config.load import ConfigError, accepted
from paraglider.config.memory import flows_for_memory
from paraglider.config.model import Config

LEAST = """\
[frontends.web]
listen_addr = "192.0.2.1:80"
backend = "out"
[backends.out.servers.a]
addr = "10.0.0.1:8080"
"""


def config(text: str, mode: convey.Mode | None = None) -> Config:
    """The configuration that a Convey file becomes."""
    return accepted(convert(text, mode), "f").config


def notes(text: str) -> list[str]:
    """`LINE: what; remedy` of everything in a file that has no counterpart."""
    draft = convert(text)
    return [f"{draft.marks.of(n).line}: {n.what}; {n.remedy}" for n in draft.notes]


@pytest.mark.parametrize(
    ("mode", "forward", "return_"),
    [("proxy", "proxy", "via"), ("passthrough", "nat", "via"), ("dsr", "nat", "direct")],
)
def test_mode_is_the_way_of_forwarding(mode: convey.Mode, forward: str, return_: str) -> None:
    """Each of Convey's three modes, an option of its command line, has a forward method."""
    (service,) = config(LEAST, mode).services
    assert (service.forward, service.return_) == (forward, return_)


def test_mode_is_guessed_from_the_section() -> None:
    """Without the option, a file with `passthrough` is in that mode, and the output says so."""
    assert config(LEAST).services[0].forward == "proxy"
    text = LEAST + "[passthrough]\nconnection_tracker_capacity = 5\n"
    assert config(text).services[0].forward == "nat"
    assert "--mode dsr" in convert(text).comments["services", 0]
    assert ("services", 0) not in convert(text, "passthrough").comments


def test_weights() -> None:
    """Weights make it wrr; none, or all 1, is plain round robin."""
    assert config(LEAST).services[0].strategy == "rr"
    assert config(LEAST + "weight = 1\n").services[0].strategy == "rr"
    (service,) = config(LEAST + "weight = 7\n").services
    assert (service.strategy, service.backends[0].weight) == ("wrr", 7)


def test_health_check() -> None:
    """Convey checks whether a server accepts a connection, at the interval of its pool."""
    text = LEAST.replace(
        "[backends.out.", "[backends.out]\nhealth_check_interval = 4\n[backends.out."
    )
    check = config(text).services[0].check
    assert check is not None
    assert (check.type, check.interval) == ("tcp", 4)
    assert config(LEAST).services[0].check is None


def test_passthrough_bounds() -> None:
    """Its capacity is that of a worker's flows, its workers are cores."""
    text = LEAST + "[passthrough]\nconnection_tracker_capacity = 9\nworkers = 3\n"
    made = config(text)
    assert (made.flows.max, made.workers.first_core, made.workers.last_core) == (9, 0, 2)
    assert config(text, "proxy").flows.max == flows_for_memory()


@pytest.mark.parametrize("port", ['"7000"', "7000"])
def test_stats_port(port: str) -> None:
    """The port of the stats page is kept, on every address as Convey has it."""
    made = config(LEAST + f"[stats]\nport = {port}\n")
    assert made.stats is not None
    assert made.stats.bind == "0.0.0.0:7000"


def test_names_that_ours_may_not_have() -> None:
    """A name with other characters is changed, and two never become the same."""
    body = 'listen_addr = "192.0.2.1:{}"\nbackend = "out"\n'
    text = "".join(
        f"[frontends.{name}]\n" + body.format(80 + index)
        for index, name in enumerate(('"a b"', '"a/b"', '"-"', '""'))
    )
    text += '[backends.out.servers.a]\naddr = "10.0.0.1:80"\n'
    names = [service.name for service in config(text, "passthrough").services]
    assert names == ["a-b", "a-b-2", "frontend", "frontend-2"]


@pytest.mark.parametrize(
    ("more", "note"),
    [
        ('[backends.spare.servers.x]\naddr = "10.0.0.9:1"\n', "6: no frontend uses the backends"),
        ("colour = 1\n", "6: `colour` has no counterpart"),
        ("[other]\nx = 1\n", "6: `other` has no counterpart"),
        ("[frontends.web.xdp]\nprogsec_name = 'x'\n", "6: `xdp` has no counterpart"),
    ],
)
def test_what_has_no_counterpart(more: str, note: str) -> None:
    """Settings without a counterpart are noted with their line."""
    (found,) = notes(LEAST + more)
    assert found.startswith(note)


@pytest.mark.parametrize(
    ("before", "after", "error"),
    [
        ("192.0.2.1:80", "192.0.2.1", "f:2:1: `listen_addr`: '192.0.2.1' is no ADDRESS:PORT"),
        ("192.0.2.1:80", "0.0.0.0:80", "f:2:1: VIP 0.0.0.0 is the unspecified address"),
        ('listen_addr = "192.0.2.1:80"\n', "", "f:1:1: `listen_addr`: an empty value is no"),
        ('"out"', '"in"', "f:3:1: `backend`: there are no backends `in`; add [backends.NAME]"),
        ('"out"', "5", "f:3:1: `backend`: there are no backends 5"),
        ("servers.a]", "a]", "f:4:1: the backends `out` have no servers; add"),
        ("10.0.0.1:8080", "host:8080", "f:5:1: `addr`: 'host:8080' is no ADDRESS:PORT"),
        ("10.0.0.1:8080", "224.0.0.1:80", "f:5:1: backend 224.0.0.1 is a multicast address"),
        ('"10.0.0.1:8080"', "[1]", "f:5:1: `addr`: a list is no ADDRESS:PORT"),
        ("\naddr", "\nweight = -1\naddr", "f:5:1: `weight`: -1 is out of range"),
        ("[frontends.web]", "frontends = 5\n[f.web]", "f:1:1: `frontends`: 5 is no table"),
        ("[frontends.web]", "[[frontends.web]]", "f:1:1: `web`: a list is no table"),
        ("[frontends.web]", "[frontend.web]", "f:1:1: there is no frontend; add [frontends.NAME]"),
        ("[frontends.web]", "[frontends.web", "f:1:15: the TOML does not parse (Expected ']'"),
        (
            "[frontends.web]",
            "[stats]\nport = 'x'\n[frontends.web]",
            "f:2:1: `port`: 'x' is no port",
        ),
        ('backend = "out"', "backend = ", "f:3:11: the TOML does not parse (Invalid value)"),
    ],
)
def test_mistake_has_its_place(before: str, after: str, error: str) -> None:
    """A mistake is reported with the line of Convey's file."""
    assert before in LEAST
    with pytest.raises(ConfigError) as caught:
        config(LEAST.replace(before, after, 1))
    assert error in str(caught.value)


@pytest.mark.parametrize("key", ["a" + ".b" * 9, "a" + ' . "b"' * 9, "x = {a" + ".b" * 9])
def test_key_that_would_grow(key: str) -> None:
    """A key of many parts, which costs the parser their square, is refused at its line."""
    with pytest.raises(ConfigError, match="f:6:1: a key of more than 8 parts; is this Convey's"):
        config(f"{LEAST}{key} = 1\n")
    assert config(LEAST + "# ..........\n# 1.2.3.4, 1.2.3.4, 1.2.3.4\n").services


def test_larger_than_any() -> None:
    """The parser is not let loose on megabytes."""
    with pytest.raises(ConfigError, match="f:1:1: this is larger than 1 MB; is it Convey's file"):
        config(LEAST + "#\n" * 500_001)
