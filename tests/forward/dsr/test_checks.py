"""Tests of ``paraglider.forward.dsr.checks``: each contradiction, at its place."""

from __future__ import annotations

import pytest

from paraglider.config.load import ConfigError, parse

NETWORK = "network: {public: {interface: eth0}, private: {interface: eth1%s}}\n"
GATEWAYS = ', gateway: [10.0.0.254/8, "fd00:10::fe/64"]'
BACKENDS = "backends: [10.0.0.1]"


def lines_of(*services: str, network: str = NETWORK % "") -> list[str]:
    """The lines of the error that these services end in: further keys of ones by dsr."""
    text = network + "services:\n"
    for number, keys in enumerate(services):
        vip = "" if "vip:" in keys else "vip: 192.168.0.11/24, "
        backends = "" if "backends:" in keys else f", {BACKENDS}"
        forward = "" if "forward:" in keys else ", forward: dsr"
        text += f"  - {{name: s{number}, {vip}protocol: tcp, {keys}{forward}{backends}}}\n"
    try:
        parse(text, "f")
    except ConfigError as error:
        return list(error.lines)
    return []


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("ports: 80, return: via", "`return: via` with `forward: dsr`"),
        ("ports: 80, snat: 10.0.0.9", "`snat` has no meaning with `forward: dsr`"),
        (
            "ports: 80, decide: hash",
            "`decide: hash` with `strategy: rr`, which is no hash; use `strategy: maglev`",
        ),
        (
            "ports: 80, decide: hash, strategy: maglev, adopt: never",
            "`decide: hash` with `adopt: never`: without flows, any packet goes where it leads",
        ),
        (
            "ports: 80, decide: hash, strategy: source, affinity: client",
            "`decide: hash` with `affinity: client`, which keeps a list of clients",
        ),
        (
            "ports: 80, backends: [{address: 10.0.0.1, port: 8080}]",
            "`port` with `forward: dsr`, which leaves packets as they are; leave `port` out",
        ),
    ],
)
def test_keys_that_do_not_go_with_it(keys: str, words: str) -> None:
    """Keys about rewriting and about replies."""
    (line,) = lines_of(keys)
    assert line.startswith("f:3:")
    assert words in line


@pytest.mark.parametrize(
    "keys",
    [
        "ports: 80",
        "ports: 80, return: direct",
        "ports: 80, backends: [{address: 10.0.0.1, port: 80}]",
        "ports: 80, backends: [172.16.0.1]",
        'ports: 80, vip: "2001:db8::11/64", backends: ["fd00:10::1"]',
    ],
)
def test_what_is_allowed(keys: str) -> None:
    """Valid configurations that resemble a mistake."""
    assert lines_of(keys) == []


@pytest.mark.parametrize("left_out", ["public", "private"])
def test_both_interfaces_are_needed(left_out: str) -> None:
    """One line per missing interface, at the service's `forward`."""
    sides = {"public": "public: {interface: eth0}", "private": "private: {interface: eth1}"}
    del sides[left_out]
    (line,) = lines_of("ports: 80", network=f"network: {{{', '.join(sides.values())}}}\n")
    assert f"`forward: dsr` without `network: {left_out}`; add `network: {{{left_out}" in line
    assert len(lines_of("ports: 80", network="")) == 2
    assert lines_of("ports: 80, forward: nat", network="") == []


def test_a_backend_that_no_gateway_has_for_a_neighbour() -> None:
    """If the file has networks; those of the other family do not count."""
    (line,) = lines_of("backends: [10.0.0.1, 172.16.0.1]", network=NETWORK % GATEWAYS)
    assert "backend 172.16.0.1 is not in 10.0.0.0/8, the network of `gateway`" in line
    assert "use `forward: nat`" in line
    six = ', gateway: ["fd00:10::fe/64"]'
    assert lines_of("backends: [172.16.0.1]", network=NETWORK % six) == []


@pytest.mark.parametrize("forward", ["nat", "offload"])
def test_a_vip_of_another_forward(forward: str) -> None:
    """The other method makes it an address of this host, which dsr excludes."""
    (line,) = lines_of("ports: 80", f"ports: 81, forward: {forward}, backends: [10.0.0.2]")
    assert line.startswith("f:3:")
    assert f"VIP 192.168.0.11 is also `s1`'s, by `forward: {forward}`" in line
    assert lines_of("ports: 80", "ports: 81") == []
    other = f"ports: 80, forward: {forward}, vip: 192.168.0.12/24, backends: [10.0.0.2]"
    assert lines_of("ports: 80", other) == []


def test_a_gateway_of_the_hosts_own() -> None:
    """Its network is known on the balancer only, and checked there."""
    named = NETWORK % ", gateway: [10.9.0.1/24, {interface: eth1}]"
    assert lines_of("ports: 80", network=named) == []
    assert len(lines_of("ports: 80", network=NETWORK % ", gateway: [10.9.0.1/24]")) == 1
