"""Tests of ``paraglider.config.check``: every contradiction, at its place, with its remedy."""

from __future__ import annotations

import pytest

from paraglider.config.check import check_interfaces
from paraglider.config.load import ConfigError, parse

FOUR = "  - {name: a, vip: 192.168.0.11/24, protocol: tcp, ports: 80, backends: [10.0.0.1]"
SIX = "  - {name: b, vip: '2001:db8::11/64', protocol: tcp, ports: 80, backends: ['fd00:10::1']"


def service(**keys: str) -> str:
    """One service, one key per line, from line 2 on, as text of a file."""
    least = {
        "name": "web",
        "vip": "192.168.0.11/24",
        "protocol": "tcp",
        "ports": "80",
        "backends": "[10.0.0.1]",
    }
    lines = [f"{key.rstrip('_')}: {value}" for key, value in {**least, **keys}.items() if value]
    return "services:\n  - " + "\n    ".join(lines) + "\n"


def lines_of(text: str) -> list[str]:
    """The lines of the error that ``text`` ends in; none for a good file."""
    try:
        parse(text, "f")
    except ConfigError as error:
        return list(error.lines)
    return []


@pytest.mark.parametrize(
    ("keys", "place", "what", "remedy"),
    [
        ({"backends": "[10.0.0.1, 'fd00::1']"}, "6:26", "backend fd00::1 is IPv6, the VIP", "IPv4"),
        (
            {"vip": "2001:db8::11/64", "backends": "['fd00::1', 10.0.0.1]"},
            "6:27",
            "backend 10.0.0.1 is IPv4, the VIP 2001:db8::11 is IPv6",
            "write an IPv6 backend",
        ),
        (
            {"backends": "[10.0.0.1, {address: 10.0.0.1}]"},
            "6:36",
            "backend 10.0.0.1 port 80 appears twice (first as `backends[0]`)",
            "keep one",
        ),
        (
            {"backends": "[10.0.0.1, {address: 10.0.0.1, port: 80}]"},
            "6:36",
            "appears twice",
            "higher weight",
        ),
        (
            {"ports": "", "backends": "[10.0.0.1, 10.0.0.1]"},
            "5:26",
            "backend 10.0.0.1 appears twice",
            "keep one",
        ),
        (
            {"ports": "80-81", "backends": "[{address: 10.0.0.1, port: 80}]"},
            "6:36",
            "`port` maps to one port, but the service has several ports",
            "single port",
        ),
        (
            {"ports": "", "backends": "[{address: 10.0.0.1, port: 80}]"},
            "5:36",
            "the service has all ports",
            "leave `port` out",
        ),
        (
            {"protocol": "any", "backends": "[{address: 10.0.0.1, port: 80}]"},
            "6:36",
            "`port` with `protocol: any`",
            "one service for tcp and one for udp",
        ),
        (
            {"backends": "[{address: 10.0.0.1, weight: 0}, {address: 10.0.0.2, weight: 0}]"},
            "6:5",
            "every backend has weight 0",
            "weight of 1 or more",
        ),
        ({"backends": "[10.0.0.1, 192.168.0.11]"}, "6:26", "is the VIP itself", "server's own"),
        ({"backends": "[224.0.0.1]"}, "6:16", "224.0.0.1 is a multicast", "of a server"),
        ({"backends": "[127.0.0.1]"}, "6:16", "is a loopback address", "of a server"),
        ({"backends": "[0.0.0.0]"}, "6:16", "is the unspecified address", "of a server"),
        ({"backends": "[255.255.255.255]"}, "6:16", "is the broadcast address", "of a server"),
        ({"vip": "239.1.1.1/24"}, "3:10", "VIP 239.1.1.1 is a multicast", "unicast"),
        ({"vip": "0.0.0.0"}, "3:10", "VIP 0.0.0.0 is the unspecified address", "unicast"),
        ({"vip": "127.0.0.1/8"}, "3:10", "VIP 127.0.0.1 is a loopback", "unicast"),
        (
            {"vip": "127.0.0.1/8", "forward": "proxy", "backends": "[127.0.0.1]"},
            "6:16",
            "backend 127.0.0.1 is the VIP itself",
            "a `port` that the service does not have",
        ),
        (
            {"vip": "'fe80::1/64'", "backends": "['fd00::1']"},
            "3:10",
            "VIP fe80::1 is a link-local address",
            "unicast",
        ),
        (
            {"vip": "'::ffff:1.2.3.4/128'", "backends": "['fd00::1']"},
            "3:10",
            "is an IPv4 address in IPv6 form (1.2.3.4)",
            "unicast",
        ),
        (
            {"vip": "192.168.0.0/24"},
            "3:10",
            "VIP 192.168.0.0 is the network or broadcast address of 192.168.0.0/24",
            "another prefix",
        ),
        ({"vip": "192.168.0.255/24"}, "3:10", "network or broadcast", "a host's address"),
        ({"snat": "10.0.0.9"}, "7:5", "`snat` has no meaning with `forward: nat`", "offload"),
        (
            {"forward": "offload", "snat": "'fd00::1'"},
            "8:11",
            "`snat` fd00::1 is IPv6, the VIP is IPv4",
            "write an IPv4 address",
        ),
        (
            {"forward": "offload", "return_": "direct"},
            "8:13",
            "`return: direct` does not go with `forward: offload`",
            "`return: via`",
        ),
        ({"forward": "proxy", "return_": "direct"}, "8:13", "does not go with", "`return: via`"),
        (
            {"forward": "proxy", "protocol": "udp"},
            "7:14",
            "`forward: proxy` carries TCP alone, the service is `udp`",
            "`protocol: tcp`",
        ),
        ({"forward": "proxy", "protocol": "any"}, "7:14", "carries TCP alone", "`protocol: tcp`"),
        (
            {"forward": "proxy", "ports": ""},
            "6:14",
            "`forward: proxy` listens on every port, and the service has all ports",
            "at most 1024 ports",
        ),
        ({"forward": "proxy", "ports": "1000-2024"}, "7:14", "has 1025 ports", "another forward"),
        ({"forward": "proxy", "snat": "10.0.0.9"}, "8:5", "`snat` has no meaning", "offload"),
        (
            {"proxy_protocol": "v1"},
            "7:5",
            "`proxy_protocol` has no meaning with `forward: nat`",
            "use `forward: proxy`",
        ),
        (
            {"decide": "hash", "strategy": "maglev"},
            "7:13",
            "`decide: hash` with `forward: nat`, whose replies need a flow",
            "use `forward: dsr`",
        ),
        (
            {"forward": "offload", "carrier": "worker"},
            "8:5",
            "`carrier` has no meaning with `forward: offload`",
            "leave `carrier` out, or use `forward: nat`",
        ),
        ({"forward": "proxy", "carrier": "auto"}, "8:5", "`carrier` has no meaning", "leave"),
        (
            {"forward": "proxy", "adopt": "never"},
            "8:5",
            "`adopt` has no meaning with `forward: proxy`",
            "leave `adopt` out, or use `forward: nat`",
        ),
        ({"adopt": "always"}, "7:12", "`adopt`: 'always' is not known", "auto, never"),
        ({"carrier": "tc"}, "7:14", "`carrier`: 'tc' is not known", "auto, bpf, xdp, worker"),
        ({"strategy": "wr"}, "7:15", "`strategy`: 'wr' is not known", "did you mean wrr?"),
        (
            {"strategy": "my.module.Class"},
            "7:15",
            "is not known",
            "write one of: maglev, rr, source, weighted, wrr, package.module:Class",
        ),
        ({"strategy": "'a.b:'"}, "7:15", "'a.b:' is not known", "package.module:Class"),
        (
            {"strategy": "wrr", "seed": "0"},
            "8:5",
            "`seed` has no meaning with `strategy: wrr`",
            "leave `seed` out, or use `strategy: maglev` or `strategy: source`",
        ),
        ({"seed": "7"}, "7:5", "`seed` has no meaning with `strategy: rr`", "leave `seed` out"),
    ],
)
def test_contradictions_in_a_service(
    keys: dict[str, str], place: str, what: str, remedy: str
) -> None:
    """Each contradiction is one line, at the key or value to be changed."""
    (line,) = lines_of(service(**keys))
    assert line.startswith(f"f:{place}: ")
    found, _, right = line.partition("; ")
    assert what in found
    assert remedy in right


@pytest.mark.parametrize(
    "keys",
    [
        {"backends": "[{address: 10.0.0.1, port: 80}, {address: 10.0.0.1, port: 81}]"},
        {"backends": "[{address: 10.0.0.1, weight: 0}, 10.0.0.2]"},
        {"ports": "80-81"},
        {"ports": "", "protocol": "any"},
        {"return_": "direct"},
        {"forward": "offload", "snat": "10.0.0.9"},
        {"forward": "proxy"},
        {"carrier": "auto"},
        {"carrier": "bpf", "return_": "direct"},
        {"forward": "nat", "carrier": "worker", "protocol": "any", "ports": ""},
        {"forward": "proxy", "proxy_protocol": "v2", "ports": "1000-2023"},
        {"strategy": "maglev"},
        {"strategy": "maglev", "seed": "7"},
        {"strategy": "source", "seed": "4294967295"},
        {"strategy": "my.strategies:Sticky", "seed": "7"},
        {"strategy": "my.strategies:Sticky"},
        {"vip": "192.168.0.0/31"},
        {"vip": "192.168.0.0"},
    ],
)
def test_what_is_allowed(keys: dict[str, str]) -> None:
    """Valid configurations that resemble a mistake."""
    assert lines_of(service(**keys)) == []


@pytest.mark.parametrize(
    ("head", "place", "what", "remedy"),
    [
        (
            "workers: {first_core: 3, last_core: 1}",
            "1:23",
            "`first_core` 3 is above `last_core` 1",
            "first_core: 1, last_core: 3",
        ),
        ("stats: {bind: '9777'}", "1:15", "`bind`: '9777' is no ADDRESS:PORT", "127.0.0.1:9777"),
        ("stats: {bind: '127.0.0.1:0'}", "1:15", "no ADDRESS:PORT", "[::1]:9777"),
        ("stats: {bind: '127.0.0.1:99999'}", "1:15", "no ADDRESS:PORT", "[::1]:9777"),
        ("stats: {bind: '::1:9777'}", "1:15", "no ADDRESS:PORT", "[::1]:9777"),
        ("stats: {bind: '[127.0.0.1]:9777'}", "1:15", "no ADDRESS:PORT", "[::1]:9777"),
        ("stats: {peers: ['10.0.0.2:9777']}", "1:17", "no http://ADDRESS:PORT", "are not looked"),
        ("stats: {peers: ['http://lb2:9777']}", "1:17", "no http://ADDRESS:PORT", "10.0.0.2:9777"),
        ("stats: {peers: ['https://10.0.0.2:1']}", "1:17", "no http://ADDRESS:PORT", "http://10"),
        ("stats: {peers: ['http://10.0.0.2:1/']}", "1:17", "no http://ADDRESS:PORT", "http://10"),
        ("stats: {bind: localhost:9777}", "1:15", "no ADDRESS:PORT", "127.0.0.1:9777"),
        ("failover: {broadcast: 'ff02::1'}", "1:23", "ff02::1 is IPv6", "IPv4 broadcast"),
        (
            "network: {private: {interface: e, gateway: [10.0.0.1/8]}}",
            "1:45",
            "gateway 10.0.0.1 is also a backend of `web`",
            "an address of its own",
        ),
        (
            "network: {private: {interface: e, gateway: [192.168.0.11/24]}}",
            "1:45",
            "gateway 192.168.0.11 is also the VIP of `web`",
            "an address of its own",
        ),
        (
            "network: {private: {interface: e, gateway: [10.0.0.254/8, 10.0.0.254/8]}}",
            "1:59",
            "gateway 10.0.0.254/8 is listed twice",
            "keep one",
        ),
    ],
)
def test_contradictions_in_the_sections(head: str, place: str, what: str, remedy: str) -> None:
    """Keys of the process and the network are checked against the services."""
    (line,) = lines_of(f"{head}\n{service()}")
    assert line.startswith(f"f:{place}: ")
    found, _, right = line.partition("; ")
    assert what in found
    assert remedy in right


@pytest.mark.parametrize(
    "head",
    [
        "stats: {bind: '127.0.0.1:9777'}",
        "stats: {bind: '[::1]:9777'}",
        "stats: {peers: ['http://10.0.0.2:9777', 'http://[fd00::2]:9777']}",
        "workers: {first_core: 1, last_core: 1}",
        "workers: {last_core: 1}",
        "failover: {broadcast: 10.255.255.255}",
    ],
)
def test_sections_that_are_right(head: str) -> None:
    """Endpoints of both families and any order of cores that goes upwards pass."""
    assert lines_of(f"{head}\n{service()}") == []


@pytest.mark.parametrize(
    ("left", "right", "what"),
    [
        ("protocol: tcp, ports: 80", "protocol: tcp, ports: 80", "has tcp port 80 of"),
        ("protocol: tcp, ports: 80-90", "protocol: tcp, ports: [1, 85-99]", "tcp port 85-90"),
        ("protocol: any, ports: 53", "protocol: udp, ports: 53", "has udp port 53"),
        ("protocol: any", "protocol: any", "has tcp on all ports, udp on all ports, ICMP echo of"),
        ("protocol: any", "protocol: any, ports: 53", "has ICMP echo of"),
        ("protocol: any, ports: 80", "protocol: any, ports: 53", "has ICMP echo of"),
        ("protocol: any", "protocol: tcp", "has tcp on all ports of"),
        ("protocol: tcp, ports: 80", "protocol: udp, ports: 80", ""),
        ("protocol: tcp, ports: 80", "protocol: tcp, ports: 81", ""),
        ("protocol: any", "protocol: tcp, ports: 80", ""),
        ("protocol: tcp, ports: 80-90", "protocol: tcp", ""),
    ],
)
def test_two_services_with_the_same_claim(left: str, right: str, what: str) -> None:
    """A port of a VIP belongs to one service; some ports within another's all are no conflict."""
    rest = "vip: 192.168.0.11/24, backends: [10.0.0.1]"
    text = f"services:\n  - {{name: a, {left}, {rest}}}\n  - {{name: b, {right}, {rest}}}\n"
    found = lines_of(text)
    assert len(found) == (1 if what else 0)
    for line in found:
        assert line.startswith("f:3:")
        assert f"`a` {what}" in line or what in line
        assert "give each service its own VIP or ports" in line


def test_same_claim_on_another_vip_is_none() -> None:
    """Two VIPs may have the same ports."""
    assert lines_of(f"services:\n{FOUR}}}\n{SIX}}}\n") == []


def test_services_of_the_same_name() -> None:
    """Each further service with the name is reported."""
    text = f"services:\n{FOUR}}}\n{SIX.replace('name: b', 'name: a')}}}\n"
    (line,) = lines_of(text)
    assert line.startswith("f:3:12: two services are named `a` (first as `services[0]`); ")


def test_interfaces_of_the_host() -> None:
    """An interface that the host lacks is pointed at, and those it has are named."""
    head = "network: {public: {interface: eth0}, private: {interface: eth7}}\n"
    loaded = parse(head + service(), "f")
    problems = check_interfaces(loaded.config, {"lo", "eth0", "eth1"})
    assert loaded.lines(problems) == [
        "f:1:59: there is no interface `eth7` on this host; the interfaces here are: eth0, eth1"
    ]
    assert check_interfaces(loaded.config, {"eth0", "eth7"}) == []


def test_no_network_section_needs_no_interface() -> None:
    """Without `network` the host's interfaces do not matter."""
    assert check_interfaces(parse(service(), "f").config, set()) == []


def test_each_port_taken_twice_is_found_once() -> None:
    """A thousand ports with two services each are a thousand lines, no more."""
    rest = "protocol: tcp, vip: 192.168.0.11/24, backends: [10.0.0.1]"
    items = [f"  - {{name: s{n}, ports: {n % 1000 + 1}, {rest}}}" for n in range(2000)]
    assert len(lines_of("services:\n" + "\n".join(items))) == 1000


@pytest.mark.parametrize(
    ("vip", "backends"),
    [
        ("127.0.0.2/8", "[127.0.0.1]"),
        ("127.0.0.1/8", "[{address: 127.0.0.1, port: 8080}]"),
        ("'::1/128'", "[{address: '::1', port: 8080}, 'fd00::1']"),
        ("192.168.0.11/24", "[{address: 192.168.0.11, port: 8080}, 127.0.0.1]"),
    ],
)
def test_a_proxy_takes_loopback(vip: str, backends: str) -> None:
    """The proxy listens and connects on this host, as HAProxy's servers may; only a connection to
    itself would be endless.
    """
    text = f"""\
services:
  - {{name: web, vip: {vip}, protocol: tcp, ports: 80, forward: proxy, backends: {backends}}}
"""
    assert len(parse(text, "f").config.services) == 1


@pytest.mark.parametrize(
    ("decide", "exempt", "wrong"),
    [
        ("auto", "192.168.0.11:53/udp", True),
        ("auto", "2001:db8::1", False),
        ("python", "192.168.0.11:53/udp", False),
    ],
)
def test_exempt_endpoints_are_unknown_to_the_kernel(decide: str, exempt: str, wrong: bool) -> None:
    """It would decide about their packets."""
    text = f"network: {{exempt: ['{exempt}']}}\n{service(decide=decide)}"
    lines = lines_of(text)
    assert bool(lines) == wrong
    if wrong:
        assert "`decide: auto` with `exempt` endpoints" in lines[0]
        assert "leave `decide` out" in lines[0]
