"""Tests of ``paraglider.config.advice``: what is valid and yet worth a word."""

from __future__ import annotations

import pytest

from paraglider.config.advice import warnings
from paraglider.config.load import parse

SERVICE = "services: [{name: a, vip: 192.168.0.11/24, protocol: tcp, backends: [10.0.0.1]}]\n"


def lines_of(text: str) -> list[str]:
    """The warnings about a valid file."""
    loaded = parse(text, "f")
    return loaded.lines(warnings(loaded.config))


@pytest.mark.parametrize(
    ("key", "seconds", "least", "source"),
    [
        ("syn", 239, 240, "RFC 5382"),
        ("established", 7439, 7440, "RFC 5382"),
        ("udp", 119, 120, "RFC 4787"),
        ("icmp", 59, 60, "RFC 5508"),
    ],
)
def test_timeout_below_the_standard(key: str, seconds: int, least: int, source: str) -> None:
    """A timeout below what its standard asks for says so, and at the minimum it does not."""
    (line,) = lines_of(f"timeouts: {{{key}: {seconds}}}\n{SERVICE}")
    assert line.startswith(f"f:1:{13 + len(key) + 1}: `{key}` of {seconds} s")
    assert f"write {least} or more ({source}" in line
    assert lines_of(f"timeouts: {{{key}: {least}}}\n{SERVICE}") == []


def test_the_old_name_of_closed() -> None:
    """It still counts, and `check` says what to write."""
    (line,) = lines_of(f"timeouts: {{closing: 240}}\n{SERVICE}")
    assert line.startswith("f:1:12: `closing` is an old name")
    assert "write closed: {rst: 10, fin: 60}" in line


@pytest.mark.parametrize(
    ("failover", "mentioned"),
    [
        ("{enabled: true}", True),
        ("{enabled: true, discover: false}", False),
        ("{rise: 2, discover: true}", False),
    ],
)
def test_discovery_is_not_served_yet(failover: str, mentioned: bool) -> None:
    """Who turns failover on reads that hosts which newly answer do not join."""
    lines = lines_of(f"failover: {failover}\n{SERVICE}")
    assert any("`discover` is not served yet" in line for line in lines) is mentioned


def test_check_that_may_take_longer_than_its_interval() -> None:
    """A check that overruns its own interval is mentioned; by default none does."""
    slow = "check: {interval: 0.5, timeout: 2}"
    lines = lines_of(SERVICE.replace("name: a,", f"name: a, ports: 80, {slow},"))
    assert any("f:1:65: a check may take 2 s, and the next is due after 0.5 s" in x for x in lines)
    quick = slow.replace(", timeout: 2", "")
    lines = lines_of(SERVICE.replace("name: a,", f"name: a, ports: 80, {quick},"))
    assert not any("a check may take" in line for line in lines)


@pytest.mark.parametrize(("strategy", "effect"), [("rr", False), ("wrr", True)])
def test_slow_start_wants_weights(strategy: str, effect: bool) -> None:
    """A strategy without weights cannot lead a backend in slowly."""
    keys = f"name: a, strategy: {strategy}, slow_start: 10,"
    lines = lines_of(SERVICE.replace("name: a,", keys))
    assert any("`slow_start` has no effect" in line for line in lines) is not effect


def test_down_without_anything_that_looks() -> None:
    """What is to happen when a backend is down is idle talk where nothing finds that out."""
    keys = "name: a, on_down: keep,"
    lines = lines_of(SERVICE.replace("name: a,", keys))
    assert any("`on_down` is for backends that go down, and nothing looks" in x for x in lines)
    lines = lines_of(SERVICE.replace("name: a,", f"{keys} check: {{type: icmp}},"))
    assert not any("nothing looks" in line for line in lines)


def test_empty_stats_section_is_left_out() -> None:
    """`stats:` with nothing below it means none, and neither is worth a word."""
    assert lines_of(f"stats:\n{SERVICE}") == lines_of(f"stats: {{}}\n{SERVICE}") == []


def test_weight_zero() -> None:
    """A backend that takes no new flows is mentioned."""
    text = SERVICE.replace("[10.0.0.1]", "[10.0.0.1, {address: 10.0.0.2, weight: 0}]")
    (line,) = lines_of(text)
    assert "backend 10.0.0.2 has weight 0 and takes no new flows; write 1 or more" in line


def test_weight_without_effect() -> None:
    """A weight under `rr` does nothing, under `wrr` it does."""
    text = SERVICE.replace("[10.0.0.1]", "[{address: 10.0.0.2, weight: 3}]")
    (line,) = lines_of(text)
    assert "`weight: 3` has no effect with `strategy: rr`; use `strategy: maglev`, " in line
    assert lines_of(text.replace("name: a,", "name: a, strategy: wrr,")) == []


def test_gateway_of_a_family_without_service() -> None:
    """A gateway that no service needs is mentioned, at its item."""
    head = "network: {private: {interface: e, gateway: [10.0.0.254/8, 'fd00:10::fe/64']}}\n"
    (line,) = lines_of(head + SERVICE)
    assert line.startswith("f:1:59: gateway fd00:10::fe/64 serves no service: none is IPv6; ")


def test_plain_file_has_no_warnings() -> None:
    """A file of services alone is worth no word."""
    assert lines_of(SERVICE) == []
