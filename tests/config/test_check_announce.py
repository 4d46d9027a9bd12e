"""Tests of ``paraglider.config.check_announce``: what contradicts, and what has no effect."""

from __future__ import annotations

import pytest

from paraglider.config.advice import warnings
from paraglider.config.load import ConfigError, parse

FILE = """\
network: {public: {interface: eth0}, private: {interface: eth1}}
announce: ANNOUNCE
services:
  - {name: a, vip: 203.0.113.11, protocol: tcp, ports: 80, forward: dsr, strategy: maglev,
     seed: 7, backends: [10.0.0.1]}
  - {name: b, vip: "2001:db8::11", protocol: tcp, ports: 80, forward: dsr, strategy: maglev,
     seed: 7, backends: ["fd00::1"]}
"""
NAT = "{name: n, vip: 203.0.113.12, protocol: tcp, ports: 80, strategy: maglev, seed: 7, MORE"
BOTH = "protocols: {4: p4, 6: p6}"


def errors(section: str, service: str = "") -> list[str]:
    """The errors of the file with that section, and one service more; without their places."""
    text = FILE.replace("ANNOUNCE", section)
    text += f"  - {service} backends: [10.0.0.3]}}\n" if service else ""
    try:
        parse(text, "f")
    except ConfigError as error:
        return [line.split(": ", 1)[1] for line in error.lines]
    return []


@pytest.mark.parametrize(
    "section",
    [
        "{}",
        '{neighbors: [192.0.2.1, "2001:db8::1"]}',
        "{neighbors: [192.0.2.1], next_hop: {interface: eth0}}",
        '{neighbors: ["2001:db8::1"]}',
        "{vips: [203.0.113.11], next_hop: 192.0.2.9}",
        f"{{via: bird, ill: withdraw, bird: {{{BOTH}}}}}",
        f"{{bird: {{{BOTH}, worse: {{4: q4, 6: q6}}}}}}",
        '{ill: withdraw, bird: {protocols: {203.0.113.11: a, "2001:db8::11": b}}}',
        "{via: exec, exec: [/bin/true]}",
    ],
)
def test_what_is_valid(section: str) -> None:
    """Neither an error nor a warning."""
    assert errors(section) == []
    assert warnings(parse(FILE.replace("ANNOUNCE", section), "f").config) == []


@pytest.mark.parametrize(
    ("section", "error"),
    [
        ("{vips: [203.0.113.9]}", "`vips`: no service has the VIP 203.0.113.9; there are: 2001:"),
        ("{neighbors: [192.0.2.1]}", "`next_hop: self` of the VIP 2001:db8::11, and no neighbor i"),
        (
            "{neighbors: [192.0.2.1, 192.0.2.1], next_hop: {interface: e}}",
            "neighbor 192.0.2.1 is l",
        ),
        ("{next_hop: 192.0.2.9}", "`next_hop` is IPv4, the VIP 2001:db8::11 is IPv6; write `next_"),
        ("{next_hop: {interface: e, network: 10.0.0.0/8}}", "`next_hop` is IPv4, the VIP 2001:db8"),
        ("{via: exec}", "`via: exec` without `exec`; add exec: [/etc/paraglider/announce], or use"),
        ("{via: bird}", "`via: bird` without `bird`; add bird: {protocols: {4: paraglider4, 6: pa"),
        ("{exec: [announce]}", "`exec`: 'announce' is no absolute path; write it in full, from /"),
        ("{bird: {protocols: {4: p}}, ill: withdraw}", "`protocols` has none for the VIP 2001:db8"),
        (f"{{bird: {{{BOTH}}}}}", "`ill: prefer_not`, and `bird.worse` has no protocol for the VI"),
        (f"{{bird: {{{BOTH}}}, ill: withdraw, gone: prefer_not}}", "`gone: prefer_not`, and `bird"),
        ("{bird: {protocols: {4: p, 6: p}}, ill: withdraw}", "protocol `p` is used twice (first "),
        (
            "{bird: {protocols: {4: p, 6: q, 192.0.2.7: r}}, ill: withdraw}",
            "`protocols`: 192.0.2.7 is no VIP that is announced; those are: 203.0.113.11, 2001:db8",
        ),
    ],
)
def test_what_contradicts(section: str, error: str) -> None:
    """Each mistake with its remedy."""
    assert [line[: len(error)] for line in errors(section)] == [error]


def test_nothing_to_announce() -> None:
    """A section that means no VIP is a mistake."""
    text = FILE.replace("203.0.113.11", "203.0.113.11/24").replace("8::11", "8::11/64")
    with pytest.raises(ConfigError, match="no VIP is announced: none is a /32 or /128; write `vi"):
        parse(text.replace("ANNOUNCE", "{}"), "f")
    assert parse(text.replace("ANNOUNCE", "{vips: all}"), "f").config.announced
    local = "services:\n - {name: a, vip: 127.0.0.1, protocol: tcp, ports: 80, forward: proxy,"
    local += " backends: [10.0.0.1]}\n"
    for section, what in (
        ("{vips: all}", "all are loopback addresses; write `vips: all`, or list those"),
        ("{vips: [127.0.0.1]}", "`vips`: 127.0.0.1 is a loopback address, to which no router"),
    ):
        with pytest.raises(ConfigError, match=what):
            parse(f"announce: {section}\n{local}", "f")


@pytest.mark.parametrize(
    ("more", "refused"),
    [
        ("", True),
        ("return: direct,", False),
        ("return: via,", False),
        ("forward: offload,", False),
        ("forward: proxy,", False),
    ],
)
def test_answers_that_go_to_one_of_several_balancers(more: str, refused: bool) -> None:
    """Refused, unless the file says that they are meant to."""
    found = errors("{}", NAT.replace("MORE", more))
    assert bool(found) is refused
    for line in found:
        assert line.startswith("`n` is announced, so that several balancers get its packets, but")
        assert "write `return: direct`, or use `forward: dsr`; for a pair" in line
    assert errors("{vips: [203.0.113.11]}", NAT.replace("MORE", more)) == []


@pytest.mark.parametrize(
    ("section", "warning"),
    [
        ("{ill: withdraw, prepend: [65001]}", "`prepend` has no effect with `ill: withdraw`: no"),
        (
            f"{{ill: withdraw, bird: {{{BOTH}}}}}",
            "`p4` has the routes of 2 VIPs, and is enabled while one of them is well",
        ),
    ],
)
def test_what_has_no_effect_or_an_unexpected_one(section: str, warning: str) -> None:
    """A warning each."""
    third = "  - {name: c, vip: 203.0.113.13, protocol: tcp, ports: 80, forward: dsr,"
    third += " strategy: maglev, seed: 7, backends: [10.0.0.1]}\n"
    found = warnings(parse(FILE.replace("ANNOUNCE", section) + third, "f").config)
    assert [problem.what[: len(warning)] for problem in found] == [warning]


def test_a_file_with_announce_is_for_several_balancers() -> None:
    """So it is told what they cannot have alike."""
    text = FILE.replace("ANNOUNCE", "{}").replace("strategy: maglev,", "strategy: rr,")
    text = text.replace("seed: 7, ", "")
    what = "`strategy: rr` is no hash, so balancers do not agree"
    found = [problem.what for problem in warnings(parse(text, "f").config)]
    assert len(found) == 2
    assert all(one.startswith(what) for one in found)
    without = text.replace("announce: {}\n", "")
    assert not any(one.what.startswith(what) for one in warnings(parse(without, "f").config))


@pytest.mark.parametrize(
    ("more", "warned"),
    [
        ("", True),
        ("snat: {interface: eth1},", False),
        ("return: via,", False),
    ],
)
def test_connections_that_only_one_balancer_knows(more: str, warned: bool) -> None:
    """conntrackd may tell the others, so this is a warning, which the file can end."""
    service = NAT.replace("MORE", f"forward: offload, {more}") + " backends: [10.0.0.3]}\n"
    text = f"{FILE.replace('ANNOUNCE', '{}')}  - {service}"
    loaded = parse(text, "f")
    found = [line for line in loaded.lines(warnings(loaded.config)) if "conntrackd" in line]
    assert bool(found) is warned
    for line in found:
        assert "`n` is announced, so that several balancers get its packets" in line
        assert "write `snat: {interface: eth1}`, or use `forward: dsr`" in line
