"""Tests of ``paraglider.config.check_shared``: a port of a backend that two services have."""

from __future__ import annotations

import pytest

from paraglider.config.load import ConfigError, parse


def lines_of(text: str) -> list[str]:
    """The lines of the error that ``text`` ends in; none for a good file."""
    try:
        parse(text, "f")
    except ConfigError as error:
        return list(error.lines)
    return []


@pytest.mark.parametrize(
    ("left", "right", "what"),
    [
        ("ports: 80", "ports: 80", "port 80"),
        ("ports: 80-90", "ports: [85, 443]", "port 85"),
        ("", "", "on all ports"),
        ("", "ports: 443", "port 443"),
        ("ports: 80", "ports: 81", ""),
        ("ports: 80, protocol: udp", "ports: 80", ""),
        ("ports: 80, protocol: any", "ports: 80", "port 80"),
        ("ports: 80, forward: offload", "ports: 80", ""),
    ],
)
def test_a_backend_of_nat_and_offload(left: str, right: str, what: str) -> None:
    """Replies that a worker awaits are kept from conntrack, which offload lives by: not both."""
    rest = "backends: [10.0.0.2, 10.0.0.1]"
    first = f"{{name: a, vip: 192.168.0.11/24, {_joined(left)}, {rest}}}"
    second = f"{{name: b, vip: 192.168.0.12/24, {_joined(right)}, forward: offload, {rest}}}"
    found = lines_of(f"services:\n  - {first}\n  - {second}\n")
    assert len(found) == (2 if what else 0)
    for line in found:
        assert line.startswith("f:3:")
        assert f"{what} serves `a` by `forward: nat`" in line
        assert "use the same `forward` for both" in line


def test_a_mapped_port_of_nat_and_offload() -> None:
    """The backend's port counts, not the service's."""
    text = (
        "services:\n"
        "  - {name: a, vip: 192.168.0.11/24, protocol: tcp, ports: 80, backends: [10.0.0.1]}\n"
        "  - {name: b, vip: 192.168.0.12/24, protocol: tcp, ports: 81, forward: offload,"
        " backends: [{address: 10.0.0.1, port: PORT}]}\n"
    )
    (line,) = lines_of(text.replace("PORT", "80"))
    assert "backend 10.0.0.1 port 80 serves `a`" in line
    assert lines_of(text.replace("PORT", "8080")) == []


DIRECT = "return: direct"


@pytest.mark.parametrize(
    ("left", "right", "lines"),
    [
        (f"{DIRECT}, ports: 80", "ports: 80", {3}),
        ("ports: 80", f"{DIRECT}, ports: 80", {2}),
        (f"{DIRECT}, ports: 80", f"{DIRECT}, ports: 80", {3}),
        (f"{DIRECT}, ports: 80", "ports: 80, forward: offload", {3}),
        (DIRECT, "ports: 443", {3}),
        (f"{DIRECT}, protocol: any", "ports: 80, protocol: udp", {3}),
        (f"{DIRECT}, ports: 80", "ports: 80, forward: offload, snat: 10.0.0.9", set()),
        (f"{DIRECT}, ports: 80", "ports: 80, forward: proxy", set()),
        (f"{DIRECT}, ports: 80", "ports: 80, forward: dsr", set()),
        (f"{DIRECT}, ports: 80", "ports: 81", set()),
        (f"{DIRECT}, ports: 80", "ports: 80, protocol: udp", set()),
        (f"{DIRECT}, ports: 80", f"{DIRECT}, ports: 81", set()),
    ],
)
def test_a_backend_that_answers_as_one_vip(left: str, right: str, lines: set[int]) -> None:
    """It cannot distinguish the answers of two services: one port, one VIP."""
    rest = "backends: [10.0.0.2, 10.0.0.1]"
    first = f"{{name: a, vip: 192.168.0.11/24, {_joined(left)}, {rest}}}"
    second = f"{{name: b, vip: 192.168.0.12/24, {_joined(right)}, {rest}}}"
    network = "network: {public: {interface: eth0}, private: {interface: eth1}}"
    found = lines_of(f"services:\n  - {first}\n  - {second}\n{network}\n")
    assert {int(line.split(":")[1]) for line in found} == lines
    assert len(found) == 2 * len(lines)
    for line in found:
        assert f"answers as the VIP of `{'b' if lines == {2} else 'a'}` (`return: direct`)" in line
        assert "use another port or backend for one of the two" in line


def test_services_of_one_vip_may_share_a_backend() -> None:
    """The answers of both are the same VIP's, unless a port of one of them is mapped."""
    text = (
        "services:\n"
        "  - {name: a, vip: 192.168.0.11/24, protocol: tcp, return: direct, backends: [10.0.0.1]}\n"
        "  - {name: b, vip: 192.168.0.11/24, protocol: tcp, return: direct, ports: 80,"
        " backends: [BACKEND]}\n"
    )
    assert lines_of(text.replace("BACKEND", "10.0.0.1")) == []
    (line,) = lines_of(text.replace("BACKEND", "{address: 10.0.0.1, port: 8080}"))
    assert line.startswith("f:3:")
    assert "backend 10.0.0.1 port 8080 answers as the VIP of `a`" in line


def _joined(keys: str) -> str:
    """With the protocol if ``keys`` have none."""
    return ", ".join(part for part in ("" if "protocol" in keys else "protocol: tcp", keys) if part)


HASH = "ports: 80, strategy: maglev"


@pytest.mark.parametrize(
    ("left", "right", "lines"),
    [
        (f"{HASH}, adopt: auto", "ports: 80", {2}),
        (f"{HASH}, adopt: auto", f"{HASH}, adopt: auto", {2, 3}),
        (f"{HASH}, adopt: auto", "ports: 70-90, strategy: maglev", {2}),
        (f"{HASH}, adopt: auto", "", {2}),
        (f"{HASH}, adopt: auto", "ports: 81", set()),
        (f"{HASH}, adopt: auto", "ports: 80, protocol: udp", set()),
        (f"{HASH}, adopt: never", "ports: 80", set()),
        (HASH, "ports: 80", set()),  # a warning
        ("ports: 80, adopt: auto", "ports: 80", set()),
        (f"{HASH}, adopt: auto, affinity: client", "ports: 80", set()),
        ("strategy: maglev, adopt: auto", "ports: 80", set()),
    ],
)
def test_a_port_that_answers_for_two_vips(left: str, right: str, lines: set[int]) -> None:
    """Its answers in mid-stream do not tell whose flow to adopt, where the file asks for that."""
    rest = "backends: [10.0.0.2, 10.0.0.1]"
    first = f"{{name: a, vip: 192.168.0.11/24, {_joined(left)}, {rest}}}"
    second = f"{{name: b, vip: 192.168.0.12/24, {_joined(right)}, {rest}}}"
    found = lines_of(f"services:\n  - {first}\n  - {second}\n")
    assert {int(line.split(":")[1]) for line in found} == lines
    for line in found:
        assert "too, so an answer does not tell whose flow to adopt" in line
        assert "write `adopt: never`" in line


def test_the_other_ports_of_one_vip() -> None:
    """Answers from the port of the narrower service are that one's."""
    text = (
        "services:\n"
        "  - {name: a, vip: 192.168.0.11/24, protocol: tcp, ports: 80, strategy: maglev,"
        " adopt: auto, backends: [10.0.0.1]}\n"
        "  - {name: b, vip: 192.168.0.11/24, protocol: tcp, backends: [10.0.0.1]}\n"
    )
    assert lines_of(text) == []
