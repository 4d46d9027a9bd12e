"""Tests of ``paraglider.config.importers.glider``: a ``glider.yaml``, given to `-c` as it is."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraglider.config import reader
from paraglider.config.diagnostics import Mark
from paraglider.config.importers.glider import convert, is_glider
from paraglider.config.load import ConfigError, parse

# The sample of the Go tool's documentation.
SAMPLE = """\
frontend:
  bind: 166.1.101.2:4444
  privateip: 172.19.0.4
  backends:
    - 172.19.0.2:5555
    - 172.19.0.3:5555
    - 172.19.0.6:5555
"""


def mistakes(text: str) -> list[str]:
    """The lines of the error that ``text`` ends in; none for a good file."""
    try:
        parse(text, "f")
    except ConfigError as error:
        return list(error.lines)
    return []


def test_sample_of_the_documentation() -> None:
    """The sample becomes an offloaded TCP service, rr, its source rewritten to privateip."""
    (service,) = parse(SAMPLE, "f").config.services
    assert (str(service.vip.ip), service.single_port, service.protocol) == (
        "166.1.101.2",
        4444,
        "tcp",
    )
    assert (service.forward, service.strategy, str(service.snat)) == ("offload", "rr", "172.19.0.4")
    assert [f"{backend.address}:{backend.port}" for backend in service.backends] == [
        "172.19.0.2:5555",
        "172.19.0.3:5555",
        "172.19.0.6:5555",
    ]


def test_ipv6() -> None:
    """IPv6, which the Go tool never had, is written with brackets."""
    text = "frontend: {bind: '[2001:db8::1]:80', privateip: 'fd00::1', backends: ['[fd00::2]:81']}"
    (service,) = parse(text, "f").config.services
    assert (str(service.vip.ip), service.single_port) == ("2001:db8::1", 80)
    assert (str(service.backends[0].address), service.backends[0].port) == ("fd00::2", 81)


def test_one_address_for_both_sides() -> None:
    """privateip may be the bind address, as in the Go tool's documentation."""
    text = SAMPLE.replace("privateip: 172.19.0.4", "privateip: 166.1.101.2")
    assert str(parse(text, "f").config.services[0].snat) == "166.1.101.2"


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ("  bind: 166.1.101.2:4444\n", "", "f:1:1: `frontend` has no `bind`; add `bind: ...`"),
        ("  privateip: 172.19.0.4\n", "", "f:1:1: `frontend` has no `privateip`"),
        (":4444", "", "f:2:9: `bind`: '166.1.101.2' is no ADDRESS:PORT; write one such as"),
        (":4444", ":0", "f:2:9: `bind`: port 0 is out of range"),
        ("166.1.101.2:4444", "22:53", "f:2:9: 22:53 is no decimal number, though YAML"),
        ("166.1.101.2:4444", "0.0.0.0:80", "f:2:9: VIP 0.0.0.0 is the unspecified address"),
        ("172.19.0.4", "172.19.0.4:80", "f:3:14: `privateip`: '172.19.0.4:80' is no IP address"),
        ("172.19.0.4", "fd00::1", "f:3:14: `snat` fd00::1 is IPv6, the VIP is IPv4"),
        ("3:5555", "3:http", "f:6:7: `backends[1]`: '172.19.0.3:http' is no ADDRESS:PORT"),
        ("172.19.0.3", "172.19.0.2", "f:6:7: backend 172.19.0.2 port 5555 appears twice"),
        ("172.19.0.3:5555", "[fd00::1]:1", "f:6:7: YAML reads '[fd00::1]:1' as a list"),
        ("172.19.0.3:5555", "'[fd00::1]:1'", "f:6:7: backend fd00::1 is IPv6, the VIP"),
        ("172.19.0.3:5555", "22:53", "f:6:7: 22:53 is no decimal number"),
        ("privateip", "private_ip", "f:3:3: unknown key `private_ip`; the keys here are: bind"),
        ("frontend:", "user: x\nfrontend:", "f:1:1: unknown key `user`; the keys here are: front"),
    ],
)
def test_mistake_is_named_at_its_place(before: str, after: str, line: str) -> None:
    """A mistake names the line and the words of the glider.yaml itself, once."""
    assert before in SAMPLE
    found = mistakes(SAMPLE.replace(before, after))
    assert [found_line.startswith(line) for found_line in found].count(True) == 1
    assert len(found) == (2 if "private_ip" in after else 1)


@pytest.mark.parametrize("value", ["", " []", " x", " {a: 1}", " 5"])
def test_section_or_list_that_is_none(value: str) -> None:
    """A frontend or a list of backends of another kind is one mistake."""
    (line,) = mistakes(f"frontend:{value.replace(' {a: 1}', ' 5')}\n")
    assert line.startswith("f:1:1: `frontend`: ")
    (line,) = mistakes(SAMPLE.partition("  backends")[0] + f"  backends:{value}\n")
    assert line.startswith("f:4:")
    assert "`backends`: " in line


def test_every_mistake_at_once() -> None:
    """All mistakes are reported together."""
    text = SAMPLE.replace("4444", "x").replace("172.19.0.4", "y").replace("0.6", "0.999")
    assert [line.split(" ")[0] for line in mistakes(text)] == ["f:2:9:", "f:3:14:", "f:7:7:"]


def test_our_own_format_is_not_taken_for_it() -> None:
    """A file with `services` is ours, with any other keys."""
    assert not is_glider({"frontend": {}, "services": []})
    assert not is_glider(["frontend"])
    (line,) = mistakes("frontend: {}\nservices: []\n")[:1]
    assert line.startswith("f:1:1: unknown key `frontend`; the keys here are: workers")


@given(
    st.recursive(
        st.none() | st.integers(0, 99999) | st.sampled_from(["10.0.0.1:80", "10.0.0.1", "[", "x"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["frontend", "bind", "privateip", "backends", "x"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=8,
    )
)
def test_no_shape_raises_anything_else(data: object) -> None:
    """With any content of `frontend`: a configuration, or lines with places."""
    text = f"frontend: {data!r}".replace("None", "null")
    with contextlib.suppress(ConfigError):
        parse(text, "f")


def test_keys_without_meaning_are_notes_for_import() -> None:
    """For `import`, an unknown key is a note at its place."""
    draft = convert(reader.parse(SAMPLE + "  healthcheck: 1\n"))
    assert [(note.what, note.mark) for note in draft.notes] == [
        ("unknown key `healthcheck`", Mark(8, 3))
    ]
    assert draft.problems == []
