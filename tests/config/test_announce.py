"""Tests of ``paraglider.config.announce``: the section `announce`, and the VIPs that it means."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from paraglider.config.announce import protocol_of
from paraglider.config.load import ConfigError, parse
from paraglider.config.model import Config
from paraglider.config.own_address import OwnAddress

FILE = """\
announce: ANNOUNCE
services:
  - {name: a, vip: 203.0.113.11, protocol: tcp, ports: 80, forward: proxy, backends: [10.0.0.1]}
  - {name: b, vip: "2001:db8::11/128", protocol: tcp, ports: 80, forward: proxy, backends: ["f::1"]}
  - {name: c, vip: 192.168.0.11/24, protocol: tcp, ports: 80, forward: proxy, backends: [10.0.0.2]}
  - {name: d, vip: 203.0.113.11, protocol: tcp, ports: 81, forward: proxy, backends: [10.0.0.1]}
  - {name: e, vip: 127.0.0.9, protocol: tcp, ports: 81, forward: proxy, backends: [10.0.0.1]}
"""


def config(section: str) -> Config:
    """The configuration with that section."""
    return parse(FILE.replace("ANNOUNCE", section), "f").config


@pytest.mark.parametrize(
    ("section", "vips"),
    [
        ("{}", ["203.0.113.11", "2001:db8::11"]),
        ("{vips: all}", ["203.0.113.11", "2001:db8::11", "192.168.0.11"]),
        ("{vips: [192.168.0.11]}", ["192.168.0.11"]),
        ("null", []),
    ],
)
def test_the_vips_that_are_announced(section: str, vips: list[str]) -> None:
    """By default those that stand alone; each once, and none of loopback."""
    assert [str(vip) for vip in config(section).announced] == vips


def test_what_the_file_may_say_and_its_form_on_the_wire() -> None:
    """All keys; the daemon's processes get the same configuration by JSON."""
    text = (
        '{via: bird, vips: all, next_hop: {interface: eth0}, neighbors: [192.0.2.1, "2001:db8::1"],'
        " when: all, ill: withdraw, med: 5, worse_med: 4294967295, prepend: [65001, 4200000000],"
        " gone: 2500ms, rise: 0, exec: [/bin/x, -v],"
        ' bird: {socket: /run/b, protocols: {4: p4, "2001:db8::11": web6, 6: p6}, worse: {4: q4}}}'
    )
    found = config(text)
    announce = found.announce
    assert announce is not None
    assert announce.bird is not None
    assert isinstance(announce.next_hop, OwnAddress)
    assert announce.gone == 2.5
    names = {4: "p4", 6: "p6", ip_address("2001:db8::11"): "web6"}
    assert announce.bird.protocols == names
    assert protocol_of(names, ip_address("2001:db8::11")) == "web6"
    assert protocol_of(names, ip_address("2001:db8::12")) == "p6"
    assert protocol_of(announce.bird.worse, ip_address("2001:db8::12")) is None
    assert Config.model_validate(found.model_dump(mode="json", by_alias=True)) == found


@pytest.mark.parametrize(
    ("section", "error"),
    [
        ("{vips: 203.0.113.11}", "`vips`: '203.0.113.11' is neither `all` nor a list; write [203"),
        ("{vips: [x]}", "`vips`: 'x' is no IP address; write an IPv4 or IPv6 address such as"),
        ("{next_hop: eth0}", "`next_hop`: 'eth0' is no next hop; write self, an address, or {inte"),
        (
            "{gone: never}",
            "`gone`: 'never' is neither a word nor a number of seconds; write withdr",
        ),
        ("{gone: true}", "`gone`: the truth value true is neither a word nor a number of seconds;"),
        (
            "{gone: -1}",
            "`gone`: -1 is neither a word nor a number of seconds; write withdraw, pref",
        ),
        ("{via: frr}", "`via`: 'frr' is not known; write one of: exabgp, bird, exec"),
        ("{prepend: [0]}", "`prepend[0]`: 0 is out of range; write a number"),
        ("{bird: {protocols: p4}}", "`protocols`: 'p4' where a section belongs; write the names"),
        ("{bird: {protocols: {5: p4}}}", "`protocols`: `5` is no family and no VIP; write 4, 6 or"),
        (
            "{bird: {protocols: {4: a b}}}",
            "`protocols`: 'a b' is no name of a protocol of BIRD; us",
        ),
        (
            "{bird: {}}",
            "`bird` has no `protocols`; add `protocols: ...` (Protocols with the routes",
        ),
        ("{rise: 2h}", "`rise`: '2h' is out of range; write seconds from 0 to 3600"),
        ("{rise: soon}", "`rise`: 'soon' is no duration; write seconds, or a number with ms, s, m"),
        ("{gone: 25h}", "`gone`: '25h' is neither a word nor a number of seconds; write withdraw"),
    ],
)
def test_what_it_may_not_say(section: str, error: str) -> None:
    """Each mistake with its remedy."""
    with pytest.raises(ConfigError) as caught:
        config(section)
    assert [line.split(": ", 1)[1][: len(error)] for line in caught.value.lines] == [error]


@pytest.mark.parametrize(
    ("section", "control", "user"),
    [
        ("null", "{}", None),
        ("{}", "{}", "nobody"),
        ("{}", "{announcer: exabgp}", "exabgp"),
        ("null", "{announcer: exabgp}", "exabgp"),
    ],
)
def test_the_user_that_may_ask_what_to_announce(
    section: str, control: str, user: str | None
) -> None:
    """The file's `user` if anything is announced, or the one that it names."""
    text = FILE.replace("ANNOUNCE", section) + f"control: {control}\n"
    assert parse(text, "f").config.announcer == user
