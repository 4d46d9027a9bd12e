"""Tests of ``paraglider.config.messages``: each finding of the model in the words of the file."""

from __future__ import annotations

import re
from typing import Any

import pytest

from paraglider.config.load import ConfigError, parse
from paraglider.config.messages import known_keys, repaired, section_at
from paraglider.config.model import BackendConfig, Config, Service, TimeoutsConfig

SERVICE = """\
services:
  - name: web
    vip: 192.168.0.11/24
    protocol: tcp
    backends: [10.0.0.1]
"""


def only_line(text: str) -> str:
    """The one line of the error that ``text`` ends in."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    (line,) = caught.value.lines
    return line


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("usr: a", "1:1: unknown key `usr`; did you mean `user`?"),
        ("timeouts: {sin: 5}", "1:12: unknown key `sin`; did you mean `syn`?"),
        ("flows: {zzz: 5}", "1:9: unknown key `zzz`; the keys here are: max"),
        (f"flows: {{{'z' * 99}: 5}}", f"1:9: unknown key `{'z' * 60}...`; the keys here are: max"),
        ('flows: {"a\\nb": 5}', "1:9: unknown key `'a\\nb'`; the keys here are: max"),
        (
            "workers:",
            (
                "1:9: `workers`: the section is empty; give it a key (first_core, last_core) or"
                " leave it out"
            ),
        ),
        (
            "workers: 3",
            "1:10: `workers`: 3 where a section belongs; write keys here: first_core, last_core",
        ),
        (
            "workers: [0, 1]",
            (
                "1:10: `workers`: a list where a section belongs; write keys here: first_core,"
                " last_core"
            ),
        ),
        (
            "workers: {first_core: -1}",
            "1:23: `first_core`: -1 is out of range; write a number from 0 to 4095",
        ),
        (
            "workers: {first_core: yes}",
            (
                "1:23: `first_core`: the truth value true is no whole number; write a whole number"
                " from 0 to 4095"
            ),
        ),
        (
            "queue: {length: 99999}",
            "1:17: `length`: 99999 is out of range; write a number from 1 to 65536",
        ),
        (
            "queue: {length: '100'}",
            "1:17: `length`: '100' is a text; write the number 100 without quotes",
        ),
        (
            "failover: {timeout: '0.5'}",
            "1:21: `timeout`: '0.5' is a text; write the number 0.5 without quotes",
        ),
        (
            "failover: {timeout: [1]}",
            "1:21: `timeout`: a list is no number; write a number from 0.1 to 86400",
        ),
        (
            "failover: {timeout: 0.01}",
            "1:21: `timeout`: 0.01 is out of range; write a number from 0.1 to 86400",
        ),
        (
            "queue: {length: 1.5}",
            "1:17: `length`: 1.5 is no whole number; write a whole number from 1 to 65536",
        ),
        (
            "queue: {io: netlnk}",
            (
                "1:13: `io`: 'netlnk' is not known; did you mean netlink? write one of: auto,"
                " netlink, netfilterqueue"
            ),
        ),
        (
            "queue: {io: 3}",
            "1:13: `io`: 3 is not known; write one of: auto, netlink, netfilterqueue",
        ),
        ("user: no", '1:7: `user`: YAML reads no as a truth value; put it in quotes: "no"'),
        ("user: 1000", '1:7: `user`: YAML reads 1000 as a number; put it in quotes: "1000"'),
        ("user: [a]", "1:7: `user`: a list where a text belongs; write one text"),
        ("user:", "1:6: `user`: an empty value where a text belongs; write one text"),
        ("user: ''", "1:7: `user`: the text is empty; write a value or leave the key out"),
        ("chroot: tmp", "1:9: `chroot`: 'tmp' is no absolute path; write one that starts with /"),
        (
            "control: {socket: run/x}",
            "1:19: `socket`: 'run/x' is no absolute path; write one that starts with /",
        ),
        (
            f"control: {{socket: /{'x' * 107}}}",
            "1:19: `socket`: the text is too long; write at most 107 characters",
        ),
        (
            "failover: {enabled: 'yes'}",
            "1:21: `enabled`: 'yes' is neither true nor false; write true or false, without quotes",
        ),
        (
            "failover: {port_alive: 0}",
            "1:24: `port_alive`: port 0 is out of range; write a number from 1 to 65535",
        ),
        (
            "network: {public: {}}",
            (
                "1:11: `public` has no `interface`; add `interface: ...` (Interface that faces the"
                " clients)"
            ),
        ),
        (
            "network: {public: {interface: 'eth0 -j ACCEPT'}}",
            (
                "1:31: `interface`: 'eth0 -j ACCEPT' is no name of an interface; write its name as"
                " `ip link` shows it"
            ),
        ),
        (
            "network: {exempt: 10.0.0.1}",
            "1:19: `exempt`: '10.0.0.1' where a list belongs; write [\"10.0.0.1\"]",
        ),
        (
            "network: {exempt: {a: 1}}",
            (
                "1:19: `exempt`: a section where a list belongs; write each item on a line of its"
                " own, after a dash"
            ),
        ),
        (
            "network: {private: {interface: e, gateway: [10.0.0.254/8, fd00::/x]}}",
            (
                "1:59: `gateway[1]`: 'fd00::/x' is no address with a prefix; write one such as"
                " 192.168.0.11/24 or 2001:db8::11/64"
            ),
        ),
    ],
)
def test_section_mistakes(head: str, expected: str) -> None:
    """A mistake in a section: its place, the mistake, and the allowed values."""
    assert only_line(f"{head}\n{SERVICE}") == f"f:{expected}"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (
            "name: web",
            "name: a b",
            (
                "2:11: `name`: 'a b' is no name of a service; use letters, digits, dots, dashes and"
                " underscores, at most 63"
            ),
        ),
        (
            "name: web",
            "name: on",
            '2:11: `name`: YAML reads on as a truth value; put it in quotes: "on"',
        ),
        (
            "vip: 192.168.0.11/24",
            "vip: www.example.org",
            (
                "3:10: `vip`: 'www.example.org' is no address with a prefix; write one such as"
                " 192.168.0.11/24 or 2001:db8::11/64"
            ),
        ),
        (
            "protocol: tcp",
            "protocol: TCP",
            "4:15: `protocol`: 'TCP' is not known; write one of: tcp, udp, any",
        ),
        (
            "protocol: tcp",
            "return_: via\n    protocol: tcp",
            "4:5: unknown key `return_`; did you mean `return`?",
        ),
        (
            "protocol: tcp",
            "protocol: tcp\n    ports: [80, 80]",
            "5:12: `ports`: ports 80 and 80 overlap; name each port once",
        ),
        (
            "    protocol: tcp\n",
            "",
            (
                "2:5: `services[0]` has no `protocol`; add `protocol: ...` (any: TCP, UDP and ICMP"
                " echo)"
            ),
        ),
        (
            "[10.0.0.1]",
            "[10.0.0.1, {address: 10.0.0.2, wieght: 2}]",
            "5:46: unknown key `wieght`; did you mean `weight`?",
        ),
        (
            "[10.0.0.1]",
            "[10.0.0.1, {weight: 2}]",
            "5:26: `backends[1]` has no `address`; add `address: ...` (Address of the backend)",
        ),
        (
            "[10.0.0.1]",
            "[10.0.0.1, 5]",
            (
                "5:26: `backends[1]`: 5 where a section belongs; write keys here: address, port,"
                " weight"
            ),
        ),
        (
            "[10.0.0.1]",
            "10.0.0.1",
            "5:15: `backends`: '10.0.0.1' where a list belongs; write [\"10.0.0.1\"]",
        ),
        (
            "[10.0.0.1]",
            '[{address: "10.0.0.1:80"}]',
            (
                "5:26: `address`: '10.0.0.1:80' is no IP address; leave the port out: 10.0.0.1"
                " (that of a backend is `port: 80`)"
            ),
        ),
    ],
)
def test_service_mistakes(before: str, after: str, expected: str) -> None:
    """A mistake in a service or a backend: at the very key or value."""
    assert only_line(SERVICE.replace(before, after)) == f"f:{expected}"


def test_each_wrong_port_of_a_list_is_pointed_at() -> None:
    """A list of ports is judged item by item."""
    with pytest.raises(ConfigError) as caught:
        parse(SERVICE.replace("protocol: tcp", "protocol: tcp\n    ports: [80, 0, web]"), "f")
    assert list(caught.value.lines) == [
        "f:5:17: `ports[1]`: port 0 is out of range; write a number from 1 to 65535",
        "f:5:20: `ports[2]`: 'web' is no port or range; write 80 or \"8000-8099\"",
    ]


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ((), Config),
        (("timeouts",), TimeoutsConfig),
        (("services",), Service),
        (("services", 3), Service),
        (("services", 0, "backends", 1), BackendConfig),
        (("services", 0, "ports"), None),
        (("nowhere", "deep"), None),
    ],
)
def test_section_at(path: Any, model: Any) -> None:
    """The model is found by path, through lists and optional sections."""
    assert section_at(path) is model


def test_known_keys_are_spelled_as_in_the_file() -> None:
    """The key `return` is named by its alias."""
    assert "return" in known_keys(Service)
    assert "return_" not in known_keys(Service)


def test_repaired_keeps_indices_and_the_original() -> None:
    """Invalid values are removed or replaced; the rest keeps its place, and the input is not
    changed.
    """
    data = {
        "user": 3,
        "services": [
            7,
            {"name": "a", "vip": "x", "protocol": "tcp", "backends": ["y", "10.0.0.1"], "z": 1},
        ],
    }
    paths: list[Any] = [
        ("user",),
        ("services", 0),
        ("services", 1, "vip"),
        ("services", 1, "backends", 0, "address"),
        ("services", 1, "backends", 0),
        ("services", 1, "z"),
    ]
    fixed = Config.model_validate(repaired(data, paths))
    assert fixed.user == "nobody"
    assert fixed.services[1].name == "a"
    assert str(fixed.services[1].backends[1].address) == "10.0.0.1"
    assert data["user"] == 3


def test_repaired_stands_in_for_missing_services() -> None:
    """Without services, a placeholder is added, so that the other sections can be checked."""
    assert Config.model_validate(repaired({}, [("services",)])).services[0].name == "x"


#: a key of a service or of the file, and a value that is wrong
MISTAKES = (
    ("backends", '"10.0.0.1, 10.0.0.2"'),
    ("backends", '["10.0.0.1, 10.0.0.2"]'),
    ("backends", '"10.0.0.1 10.0.0.2"'),
    ("backends", "10.0.0.1"),
    ("backends", '["10.0.0.1/24"]'),
    ("backends", '[{address: "10.0.0.1:8080"}]'),
    ("backends", '[{address: "10.0.0.1:080"}]'),
    ("backends", '["web1"]'),
    ("backends", '["fe80::1%eth1"]'),
    ("backends", '["2001:db8::5%eth1"]'),
    ("backends", '["::1/128"]'),
    ("vip", "192.168.0.11/33"),
    ("vip", '"2001:db8::11%eth0"'),
    ("ports", '"http"'),
    ("ports", '"90-80"'),
    ("ports", '["90-80"]'),
    ("ports", "0"),
    ("seed", '"5"'),
    ("slow_start", '"5"'),
    ("name", "1.5"),
    ("strategy", "round-robin"),
    ("protocol", "tpc"),
    ("affinity", "clients"),
    ("check", '{type: http, expect: {status: "OK"}}'),
    ("check", '{type: http, path: "up"}'),
    ("stats", '{bind: "9777"}'),
    ("workers", "{first_core: 3, last_core: 1}"),
    ("failover", '{enabled: "yes"}'),
)
#: how a remedy says what to write, and what it then says in place of what
PROPOSALS = (
    re.compile(r"write the number (?P<new>\S+) without quotes"),
    re.compile(r"put it in quotes: (?P<new>.+)"),
    re.compile(r"leave the (?:prefix|zone|port) out: (?P<new>\S+)"),
    re.compile(r"write an item of the list for each: (?P<new>\[.*\])"),
    re.compile(r"write one of: (?P<new>[^,]+)"),
    re.compile(r"write one that starts with (?P<new>/)"),
    re.compile(r"write (?:one )?such as (?P<new>\"[^\"]+\"|\S+)"),
    re.compile(r"write an IPv4 or IPv6 address such as (?P<new>\S+)"),
    re.compile(r"such as (?P<new>\S+)$"),
    re.compile(r"write a number from (?P<new>\d+) to"),
    re.compile(r"write (?P<new>first_core: \d+, last_core: \d+)"),
    re.compile(r"write (?P<new>true) or false"),
    re.compile(r"write (?P<new>\[[^\]]*\]|\{[^}]*\}|\"[^\"]+\"|\d+\b)"),
)


def configuration(key: str, value: str) -> str:
    """A valid file except for ``key``, which has ``value``."""
    six = any(address in value for address in ("fe80", "2001", "fd00", "::1"))
    service = {
        "name": "web",
        "vip": '"2001:db8::11/64"' if six else "192.168.0.11/24",
        "protocol": "tcp",
        "ports": "80",
        "strategy": "maglev",
        "backends": '["2001:db8::1"]' if six else "[10.0.0.1]",
    }
    top = {}
    (top if key in ("stats", "workers", "failover") else service)[key] = value
    lines = [f"{name}: {text}" for name, text in top.items()]
    lines += ["services:", *(f"  {name}: {text}" for name, text in service.items())]
    return "\n".join(lines).replace("  name:", "- name:")


@pytest.mark.parametrize(("key", "value"), MISTAKES)
def test_a_remedy_is_accepted(key: str, value: str) -> None:
    """The configuration that a message recommends is valid."""
    with pytest.raises(ConfigError) as caught:
        parse(configuration(key, value), "f")
    (line,) = caught.value.lines
    what, _, remedy = line.partition("; ")
    match = next((m for m in (one.search(remedy) for one in PROPOSALS) if m), None)
    assert match is not None, line
    new = match["new"].rstrip(";,")
    # What is refused is named in quotes, or it is the whole value.
    named = re.search(r"'([^']+)'", what)
    old = named[1] if named and named[1] in value else value
    if key == "workers":
        old = value.strip("{}")
    quoted = f'"{old}"' if f'"{old}"' in value else old
    if new.startswith("[") and f"[{quoted}]" in value:
        quoted = f"[{quoted}]"
    changed = value.replace(quoted, new)
    assert changed != value
    parse(configuration(key, changed), "f")
