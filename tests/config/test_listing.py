"""Tests of ``paraglider.config.listing``: a file of backends, and every mistake in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraglider.config.diagnostics import Path, report
from paraglider.config.listing import MOST, MOST_TOLD, parse
from paraglider.config.model import BackendConfig

PLACE: Path = ("services", 0, "backends")


def told(text: str) -> list[str]:
    """The problems of ``text`` as text."""
    listing = parse(text, PLACE)
    return list(map(str, report("f", listing.marks, listing.problems)))


def name(backend: BackendConfig) -> str:
    """ADDRESS, or ADDRESS:PORT."""
    if backend.port is None:
        return str(backend.address)
    host = f"[{backend.address}]" if backend.address.version == 6 else backend.address
    return f"{host}:{backend.port}"


def listed(text: str) -> list[str]:
    """The backends of ``text`` by name and weight; it has no problem."""
    listing = parse(text, PLACE)
    assert not listing.problems
    return [f"{name(backend)} {backend.weight}" for backend in listing.backends]


def test_every_form() -> None:
    """Addresses, ports, weights, comments, empty lines and carriage returns."""
    text = (
        "# the web servers\n"
        "10.0.0.1\n"
        "\n"
        "  10.0.0.2:8080\tweight=3   # the big one\r\n"
        "10.0.0.3 weight=0\n"
    )
    assert listed(text) == ["10.0.0.1 1", "10.0.0.2:8080 3", "10.0.0.3 0"]
    assert listed("fd00::1\n[fd00::2]\n[fd00::3]:80") == [
        "fd00::1 1",
        "fd00::2 1",
        "[fd00::3]:80 1",
    ]


@pytest.mark.parametrize(
    ("line", "column", "words"),
    [
        ("10.0.0.256", 1, "'10.0.0.256' is no ADDRESS[:PORT]; write `10.0.0.1`"),
        ("  web1.example.com", 3, "'web1.example.com' is no ADDRESS[:PORT]"),
        ("10.0.0.1:0", 1, "port 0 is out of range; write a number from 1 to 65535"),
        ("10.0.0.1:99999", 1, "port 99999 is out of range"),
        ("10.0.0.1:http", 1, "'http' is no port number"),
        ("[10.0.0.1]:80", 1, "an IPv4 address stands without brackets"),
        ("[fd00::1:80", 1, "is no ADDRESS[:PORT]"),
        ("10.0.0.1 weight=65536", 10, "`weight`: 65536 is out of range; write 0 to 65535"),
        ("10.0.0.1 weight=-1", 10, "`weight`: '-1' is no whole number"),
        ("10.0.0.1 weight=1 weight=2", 19, "`weight` appears twice in one line; keep one"),
        ("10.0.0.1, 10.0.0.2", 1, "'10.0.0.1,' is no ADDRESS[:PORT]"),
        ("10.0.0.1 10.0.0.2", 10, "'10.0.0.2' means nothing here"),
        ("10.0.0.1 backup", 10, "'backup' means nothing here"),
        ("10.0.0.1%eth0", 1, "is no ADDRESS[:PORT]"),
    ],
)
def test_mistakes(line: str, column: int, words: str) -> None:
    """Each mistake is reported with its line, column and remedy."""
    (said,) = told(f"10.0.0.9\n{line}\n")
    assert said.startswith(f"f:2:{column}: ")
    assert words in said


def test_all_mistakes_at_once() -> None:
    """Every line is parsed, after any mistake in another."""
    assert [line.partition(" ")[0] for line in told("x\n10.0.0.1\ny\n")] == ["f:1:1:", "f:3:1:"]


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n"])
def test_an_empty_list(text: str) -> None:
    """A file without backends is a mistake, because it is rarely intended."""
    assert told(text) == [
        "f:1:1: the file lists no backend; list one, or take the service out of the configuration"
    ]


def test_bounds() -> None:
    """The numbers of backends and of mistakes are bounded."""
    lines = [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(1, MOST + 2)]
    assert len(listed("\n".join(lines[:MOST]))) == MOST
    assert told("\n".join(lines)) == [
        f"f:{MOST + 1}:1: the file lists more than {MOST} backends; list fewer"
    ]
    assert len(told("x\n" * (2 * MOST_TOLD))) == MOST_TOLD


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    """No text brings it down, and every text has backends or a mistake."""
    listing = parse(text, PLACE)
    assert listing.backends or listing.problems
    assert all("\n" not in str(line) for line in report("f", listing.marks, listing.problems))


backends = st.builds(
    BackendConfig,
    address=st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)),
    port=st.none() | st.integers(1, 65535),
    weight=st.integers(0, 65535),
)


@given(st.lists(backends, min_size=1, max_size=20))
def test_what_is_written_is_read(wanted: list[BackendConfig]) -> None:
    """A backend's name and weight, written on a line, is that backend."""
    text = "".join(f"{name(backend)} weight={backend.weight}\n" for backend in wanted)
    listing = parse(text, PLACE)
    assert listing.backends == tuple(wanted)
    assert [listing.marks.values[*PLACE, n].line for n in range(len(wanted))] == list(
        range(1, len(wanted) + 1)
    )
