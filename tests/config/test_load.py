"""Tests of ``paraglider.config.load``: from a file to a configuration, or to all its mistakes."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paraglider.config import reader
from paraglider.config.diagnostics import Problem
from paraglider.config.load import ConfigError, load, parse

GOOD = """\
services:
  - name: web
    vip: 192.168.0.11/24
    protocol: tcp
    ports: 80
    backends: [10.0.0.1, {address: 10.0.0.2, weight: 3}]
"""

LINE = re.compile(r"f:[1-9][0-9]*:[1-9][0-9]*: [^\n]+; [^\n]+")


def mistakes(text: str) -> list[str]:
    """The lines of the error that ``text`` ends in; none when it is a good file."""
    try:
        parse(text, "f")
    except ConfigError as error:
        return list(error.lines)
    return []


def test_good_file_loads(tmp_path: Path) -> None:
    """A file without mistakes becomes the configuration it describes."""
    file = tmp_path / "paraglider.conf"
    file.write_text(GOOD)
    (service,) = load(file).services
    assert (service.name, str(service.vip), service.single_port) == ("web", "192.168.0.11/24", 80)
    assert [backend.weight for backend in service.backends] == [1, 3]


def test_byte_order_mark_shifts_nothing(tmp_path: Path) -> None:
    """A file saved with a byte order mark has the same columns as without."""
    file = tmp_path / "c"
    file.write_bytes(b"\xef\xbb\xbfusr: x\n" + GOOD.encode())
    with pytest.raises(ConfigError, match=r":1:1: unknown key `usr`; did you mean `user`\?"):
        load(file)


def test_every_mistake_at_once() -> None:
    """Mistakes of every kind, in the same file and the same service, are reported together."""
    text = """\
workers: {first_core: 3, last_core: 1}
user: no
servces: []
network:
  private: {interface: eth1, gateway: 10.0.0.254/8}
services:
  - name: web
    vip: 192.168.0.11/24
    protocol: tcp
    ports: [70000, 80]
    colour: red
    snat: 1.2.3.4
    backends:
      - fd00:10::1
      - 10.0.0.1
      - 10.0.0.1
      - {address: 10.0.0.2, port: http}
  - name: web
    vip: 192.168.0.12/24
    protocol: tcp
    backends: [{address: 10.0.0.4, port: 8080}]
  - vip: 192.168.0.13/24
    protocol: sctp
    backends:
"""
    assert mistakes(text) == [
        "f:1:23: `first_core` 3 is above `last_core` 1; write first_core: 1, last_core: 3",
        'f:2:7: `user`: YAML reads no as a truth value; put it in quotes: "no"',
        (
            "f:3:1: unknown key `servces`; the keys here are: workers, queue, user, chroot,"
            " control, stats, network, announce, timeouts, flows, policies, failover, seed, watch,"
            " services"
        ),
        "f:5:39: `gateway`: '10.0.0.254/8' where a list belongs; write [\"10.0.0.254/8\"]",
        "f:10:13: `ports[0]`: port 70000 is out of range; write a number from 1 to 65535",
        (
            "f:11:5: unknown key `colour`; the keys here are: name, vip, protocol, ports, forward,"
            " return, encapsulation, carrier, decide, strategy, strategy_parameters, seed,"
            " affinity, adopt, snat, proxy_protocol, route, check, agent, all_down, min_ready,"
            " on_down, drain_timeout, timeouts, slow_start, backends"
        ),
        (
            "f:12:5: `snat` has no meaning with `forward: nat`; leave `snat` out, or use"
            " `forward: offload`"
        ),
        (
            "f:14:9: backend fd00:10::1 is IPv6, the VIP 192.168.0.11 is IPv4; write an IPv4"
            " backend; each family needs a service of its own"
        ),
        (
            "f:16:9: backend 10.0.0.1 appears twice (first as `backends[1]`); keep one, and give"
            " it a higher weight if it is to get more"
        ),
        "f:17:35: `port`: 'http' is no port number; write a number from 1 to 65535",
        (
            "f:18:11: two services are named `web` (first as `services[0]`); give each service its"
            " own name"
        ),
        (
            "f:21:36: `port` maps to one port, but the service has all ports; leave `port` out, or"
            " give the service a single port"
        ),
        "f:22:5: `services[2]` has no `name`; add `name: ...` (Name of the service)",
        "f:23:15: `protocol`: 'sctp' is not known; write one of: tcp, udp, any",
        "f:24:14: `backends`: the list is empty; write an item on a line of its own, after a dash",
    ]


def test_yaml_gotcha_does_not_hide_other_mistakes() -> None:
    """A value that YAML misreads is reported once, and the rest of the file is checked."""
    text = GOOD.replace("ports: 80", "ports: 22:53").replace("10.0.0.1,", "10.0.0.1/8,")
    assert mistakes(text) == [
        (
            "f:5:12: 22:53 is no decimal number, though YAML reads it as a number; write it in"
            ' decimal, or in quotes ("22:53") if it is a text'
        ),
        "f:6:16: `address`: '10.0.0.1/8' is no IP address; leave the prefix out: 10.0.0.1",
    ]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("protocol: tcp", "protocl: tcp\n    forward: proxy"),  # proxy needs tcp: unknown here
        ("ports: 80", "port: 80\n    forward: nat"),
        ("vip: 192.168.0.11/24", "vip: nowhere"),
    ],
)
def test_no_finding_rests_on_a_mistake(before: str, after: str) -> None:
    """Problems that follow from a wrong value are not reported."""
    text = GOOD.replace(before, after).replace("10.0.0.1,", "{address: 10.0.0.1, port: 8080},")
    found = mistakes(text)
    assert found
    assert all("unknown key" in line or "has no" in line or "no address" in line for line in found)


@pytest.mark.parametrize(
    ("content", "place", "words"),
    [
        (b"", "1:1", "the file is empty; start from the example"),
        (b"- a\n", "1:1", "the file is no mapping of keys to values"),
        (b"just words", "1:1", "the file is no mapping"),
        (b"user: bob\n", "1:1", "the file has no `services`; add `services: ...`"),
        (b"user: \xff\n", "1:7", "byte 0xff is no UTF-8; save the file in UTF-8"),
        ("user: bob\n# ü \udcff".encode(errors="surrogateescape"), "2:5", "byte 0xff is no UTF-8"),
        (GOOD.encode("utf-16"), "1:1", "is no UTF-8"),
        (b"a: 1\n\tb: 2", "2:1", "a tab stands where YAML allows no tab; write spaces there"),
        (b"user: a\n---\nuser: b\n", "2:1", "a second document starts here; keep one"),
        (b"services: []\n", "1:11", "`services`: the list is empty; write an item"),
        (b"services: web\n", "1:11", "`services`: 'web' where a list belongs"),
    ],
)
def test_file_that_is_no_configuration(
    tmp_path: Path, content: bytes, place: str, words: str
) -> None:
    """Another kind of file is one message, with its place."""
    file = tmp_path / "c"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(file)
    (line,) = caught.value.lines
    assert line.startswith(f"{file}:{place}: ")
    assert words in line


def test_missing_file(tmp_path: Path) -> None:
    """The message has its name."""
    with pytest.raises(ConfigError, match="there is no such file; give another with -c FILE"):
        load(tmp_path / "nothing")


def test_directory(tmp_path: Path) -> None:
    """A directory is no file."""
    with pytest.raises(ConfigError, match="this is a directory; name a file in it"):
        load(tmp_path)


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says so; root may read all files, so the refusal is simulated."""

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigError, match="it may not be read; read it as root"):
        load(tmp_path / "c")


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_impossible_file_name(name: str) -> None:
    """A name that no file can have is the operator's mistake like any other."""
    with pytest.raises(ConfigError, match="cannot be read"):
        load(name)


def test_too_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file beyond all measure is refused before it is parsed."""
    monkeypatch.setattr(reader, "MAX_BYTES", 1_000_000)
    file = tmp_path / "c"
    file.write_bytes(b"#" * 1_000_001)
    with pytest.raises(ConfigError, match="the file is larger than 1 MB"):
        load(file)


def test_loaded_configuration_refuses_what_is_found_later() -> None:
    """Problems found after loading have a place in the file, and without problems there is no
    error.
    """
    loaded = parse(GOOD, "f")
    loaded.refuse([])
    with pytest.raises(ConfigError, match=r"^f:5:12: not today; tomorrow$"):
        loaded.refuse([Problem(("services", 0, "ports"), "not today", "tomorrow")])


@given(st.binary(max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_raise_anything_else(tmp_path: Path, content: bytes) -> None:
    """For any content, the only exception is ConfigError."""
    file = tmp_path / "c"
    file.write_bytes(content)
    with contextlib.suppress(ConfigError):
        load(file)


@given(st.text(max_size=300))
def test_no_text_raises_anything_else(text: str) -> None:
    """For any text, every line of the error has a place, a mistake and a remedy."""
    for line in mistakes(text):
        assert LINE.fullmatch(line)


WHOLE: dict[str, Any] = {
    "workers": {"first_core": 0, "last_core": 1},
    "queue": {"length": 100, "io": "auto"},
    "user": "nobody",
    "chroot": "/var/empty",
    "control": {"socket": "/run/x"},
    "stats": {"bind": "127.0.0.1:9777"},
    "network": {
        "public": {"interface": "eth0"},
        "private": {"interface": "eth1", "gateway": ["10.0.0.254/8", "fd00:10::fe/64"]},
        "exempt": ["192.168.0.1:53/udp"],
    },
    "timeouts": {"syn": 240, "udp": 300},
    "flows": {"max": 10},
    "policies": {"path": "/etc/policies", "budget_ms": 2},
    "failover": {"enabled": False, "port_alive": 80, "broadcast": "10.255.255.255"},
    "services": [
        {
            "name": "web",
            "vip": "192.168.0.11/24",
            "protocol": "tcp",
            "ports": [80, "8000-8099"],
            "forward": "nat",
            "return": "via",
            "strategy": "maglev",
            "seed": 7,
            "affinity": "flow",
            "backends": ["10.0.0.1", {"address": "10.0.0.2", "weight": 3}],
        },
        {
            "name": "dns",
            "vip": "2001:db8::11/64",
            "protocol": "udp",
            "ports": 53,
            "backends": [{"address": "fd00:10::1", "port": 5353}],
        },
    ],
}


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    steps: list[Any] = []
    if isinstance(value, dict):
        steps = list(value)
    elif isinstance(value, list):
        steps = list(range(len(value)))
    return [path] + [inner for step in steps for inner in _paths(value[step], (*path, step))]


PATHS = _paths(WHOLE)[1:]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 70000),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.sampled_from(["fd00:10::9", "10.0.0.1", "10.0.0.2/8", "any", "proxy", "direct", "a.b:C"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)


def _changed(value: Any, path: tuple[Any, ...], new: Any, rename: bool) -> Any:
    """``value`` with ``new`` at ``path``, or with the key there misspelled."""
    step, rest = path[0], path[1:]
    if isinstance(value, list):
        return [
            (_changed(item, rest, new, rename) if rest else new) if index == step else item
            for index, item in enumerate(value)
        ]
    if not isinstance(value, dict):
        return value
    return {
        (f"{key}s" if key == step and rename and not rest else key): (
            item if key != step else _changed(item, rest, new, rename) if rest else new
        )
        for key, item in value.items()
    }


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(PATHS), VALUES, st.booleans()), min_size=1, max_size=4))
def test_no_change_to_a_whole_file_raises_anything_else(changes: list[Any]) -> None:
    """Any values in any places: a configuration, or lines that each point into the file."""
    data = WHOLE
    for path, new, rename in changes:
        data = _changed(data, path, new, rename)
    text = yaml.safe_dump(data, sort_keys=False)
    for line in mistakes(text):
        assert LINE.fullmatch(line)
        assert int(line.split(":")[1]) <= text.count("\n") + 1


@pytest.mark.parametrize("path", [path for path in PATHS if isinstance(path[-1], str)], ids=str)
def test_misspelled_key_is_found_anywhere(path: tuple[Any, ...]) -> None:
    """A misspelled key of any section is pointed at, and the right one is named."""
    data: Any = WHOLE
    for step in path:
        data = data[step]
    text = yaml.safe_dump(_changed(WHOLE, path, data, rename=True), sort_keys=False)
    wanted = f"unknown key `{path[-1]}s`; did you mean `{path[-1]}`?"
    hits = [line for line in mistakes(text) if wanted in line]
    assert len(hits) == 1
    _, line, column, _ = hits[0].split(":", 3)
    assert text.splitlines()[int(line) - 1][int(column) - 1 :].startswith(f"{path[-1]}s:")
