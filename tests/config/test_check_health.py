"""Tests of ``paraglider.config.check_health``: each contradiction, at its place."""

from __future__ import annotations

import pytest

from paraglider.config.load import ConfigError, parse

SERVICE = "services: [{name: a, vip: 192.168.0.11/24, protocol: tcp, ports: 80, %s}]\n"


def lines_of(keys: str, ports: str = "80") -> list[str]:
    """The lines of the error that a service with these further keys ends in."""
    if "backends" not in keys:
        keys += ", backends: [10.0.0.1]"
    try:
        parse(SERVICE.replace("80", ports) % keys, "f")
    except ConfigError as error:
        return list(error.lines)
    return []


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ("path: /a", "`path` has no meaning with `type: tcp`; leave `path` out"),
        ("type: icmp, port: 80", "`port` has no meaning with `type: icmp`"),
        ("type: http, verify: true", "`verify` has no meaning with `type: http`; leave"),
        ("type: exec, command: [/a], host: b", "`host` has no meaning with `type: exec`"),
        ("command: [/a]", "`command` has no meaning with `type: tcp`"),
        ("expect: {status: 200}", "`expect` has no meaning with `type: tcp`"),
        ("type: exec", "`type: exec` without a `command`; add `command: [/usr/"),
        ("type: exec, command: [test]", "`command` does not begin with the absolute path"),
        (
            "type: http, steps: [{expect: a}]",
            "leave `steps` out, or write `tcp` or `udp` as `type`",
        ),
        ("type: udp", "`type: udp` without `steps`: a port of UDP that is open says nothing"),
        ("type: udp, steps: [{expect: a}]", "the first step sends nothing; add `send"),
        ("type: udp, steps: [{send: a}]", "the last step has no `expect`"),
        ("steps: [{expect: a}, {send: b}]", "the last step has no `expect`"),
        ("steps: [{send: 'a\\q', expect: a}]", "is no escape; write"),
        ("type: https, verify: true", "`verify: true` without the name that the certificate"),
    ],
)
def test_key_without_meaning(check: str, words: str) -> None:
    """A key that the type of the check does not have, or a missing one."""
    (line,) = lines_of(f"check: {{{check}}}")
    assert words in line


@pytest.mark.parametrize(
    "check",
    [
        "{}",
        "{type: tcp, port: 81}",
        "{type: http, path: /a, host: b, port: 81, expect: {status: 200}}",
        "{type: https, verify: true, host: a.example}",
        "{type: icmp}",
        "{steps: [{expect: '^220'}, {send: 'QUIT\\r\\n', expect: '^221'}]}",
        "{type: udp, steps: [{send: a, expect: b}], port: 53}",
        "{type: exec, command: [/bin/true, x], port: 80}",
    ],
)
def test_fine_checks(check: str) -> None:
    """Valid combinations."""
    assert lines_of(f"check: {check}") == []


@pytest.mark.parametrize(
    ("check", "fine"),
    [
        ("type: tcp", False),
        ("type: http", False),
        ("type: tcp, port: 80", True),
        ("type: icmp", True),
        ("type: exec, command: [/bin/true]", True),
    ],
)
def test_port_of_a_service_with_several(check: str, fine: bool) -> None:
    """A check that connects needs a port."""
    lines = lines_of(f"check: {{{check}}}", ports="[80, 443]")
    assert bool(lines) is not fine
    if not fine:
        assert "the check needs to know a port: `a` has several; add `port: 80`" in lines[0]


@pytest.mark.parametrize(
    ("source", "ports", "words"),
    [
        ("{}", "80", "neither `file` nor `dns`; write one of the two"),
        ("{file: /a, dns: _x._tcp.b}", "80", "both `file` and `dns`; write one of the two"),
        ("{dns: _x._tcp.b}", "[80, 81]", "SRV records give each backend one port"),
        ("{file: /a, server: '127.0.0.1:53'}", "80", "`server` without `dns`; leave it out"),
        ("{dns: _x._tcp.b, server: ns.b}", "80", "`server`: 'ns.b' is no ADDRESS:PORT"),
        ("{dns: www.example.com}", "80", "no name of SRV records (RFC 2782); write one such as _a"),
    ],
)
def test_sources_that_contradict_themselves(source: str, ports: str, words: str) -> None:
    """One of two sources, and for SRV records no port, which they replace."""
    (line,) = lines_of(f"backends: {source}", ports=ports)
    assert words in line


@pytest.mark.parametrize("source", ["{file: /etc/b}", "{dns: _http._tcp.example.com.}"])
def test_fine_sources(source: str) -> None:
    """A source is no list of backends without weight."""
    assert lines_of(f"backends: {source}") == []
    assert lines_of(f"backends: {source}, check: {{}}") == []
