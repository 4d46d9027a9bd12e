"""Tests of ``paraglider.config.durations``: what is a duration, and the seconds that it means."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraglider.config.diagnostics import ConfigError
from paraglider.config.durations import SCHEMA, UNITS, is_number, parse_duration, parse_whole
from paraglider.config.load import parse
from paraglider.config.model import Config


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("2m", 120),
        ("500ms", 0.5),
        ("100ms", 0.1),
        ("1h", 3600),
        ("1d", 86_400),
        ("1h30m", 5400),
        ("1m500ms", 60.5),
        ("0.5s", 0.5),
        ("1.1s", 1.1),
        ("0.1h", 360),
        ("0s", 0),
    ],
)
def test_texts(text: str, seconds: float) -> None:
    """Each unit, several in one text, and fractions; whole seconds are an int."""
    found = parse_duration(text)
    assert (found, type(found)) == (seconds, type(seconds))
    assert re.search(SCHEMA["pattern"], text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "30 s",
        " 30s",
        "1m1h",
        "1m1m",
        "-1s",
        "1e3s",
        "30sec",
        "1.s",
        ".5s",
        "\u0663s",
        "1S",
    ],
)
def test_no_durations(text: str) -> None:
    """A unit without a number, in the wrong order, with a sign, or unknown: refused."""
    with pytest.raises(ValueError, match="is no duration; write seconds, or a number with ms, s,"):
        parse_duration(text)


@pytest.mark.parametrize("value", [30, 0.5, True, None, [], "30", "0.5"])
def test_other_values(value: Any) -> None:
    """No text, or a number in quotes, which the model refuses in its own words."""
    assert parse_duration(value) is value
    assert parse_whole(value) is value


@pytest.mark.parametrize(("text", "nearest"), [("500ms", "1s"), ("1.5s", "2s"), ("2m1ms", "120s")])
def test_no_whole_seconds(text: str, nearest: str) -> None:
    """A fraction of a second where whole seconds belong; the remedy is not 0."""
    with pytest.raises(ValueError, match=f"'{text}' is no whole number of.*, such as {nearest}$"):
        parse_whole(text)


_NUMBERS = st.decimals(min_value=0, max_value=99_999, places=3, allow_nan=False).map(str)


@given(st.dictionaries(st.sampled_from(list(UNITS)), _NUMBERS, min_size=1))
def test_the_sum_of_its_parts(parts: dict[str, str]) -> None:
    """Parts in the order of the units add up, to the microsecond; whole seconds are exact."""
    text = "".join(parts[unit] + unit for unit in UNITS if unit in parts)
    exact = {**UNITS, "ms": Fraction(1, 1000)}
    expected = sum(Fraction(number) * Fraction(exact[unit]) for unit, number in parts.items())
    assert re.search(SCHEMA["pattern"], text)
    assert abs(parse_duration(text) - expected) < Fraction(1, 1_000_000)


@given(st.integers(0, 999_999_999), st.sampled_from(["s", "m", "h", "d"]))
def test_whole_numbers(number: int, unit: str) -> None:
    """Of a unit from a second on they are whole seconds, exactly."""
    found = parse_whole(f"{number}{unit}")
    assert isinstance(found, int)
    assert found == number * UNITS[unit]


@given(st.text(max_size=12) | st.from_regex(r"[0-9.]{0,4}[smhd ]{0,3}[0-9]?[ms]?"))
def test_any_text(text: str) -> None:
    """A text is a number, a duration, or refused with a remedy; nothing else is raised."""
    try:
        found = parse_duration(text)
    except ValueError as error:
        what, semicolon, remedy = str(error).partition("; ")
        assert what
        assert semicolon
        assert remedy
        return
    assert found is text if is_number(text) else found >= 0


def configured(keys: str) -> Config:
    """The configuration with ``keys`` beside one service."""
    service = "services: [{name: a, vip: 192.0.2.1, protocol: tcp, backends: [10.0.0.1]}]"
    return parse(f"{keys}\n{service}\n", "f").config


def test_the_keys_of_a_file() -> None:
    """Whole seconds and fractions; one duration stands for both ends of a closed flow."""
    found = configured(
        "timeouts: {established: 2h, closed: 1m}\nfailover: {check_cycle: 500ms, timeout: 2s}"
    )
    assert found.timeouts.established == 7200
    assert (found.timeouts.after_rst, found.timeouts.after_fin) == (60, 60)
    assert (found.failover.check_cycle, found.failover.timeout) == (0.5, 2.0)
    assert found == configured(
        "timeouts: {established: 7200, closed: 60}\nfailover: {check_cycle: 0.5, timeout: 2}"
    )


@pytest.mark.parametrize(
    ("keys", "mistake"),
    [
        ("timeouts: {udp: soon}", "f:1:17: `udp`: 'soon' is no duration; write seconds, or a num"),
        ("timeouts: {udp: 500ms}", "f:1:17: `udp`: '500ms' is no whole number of seconds; write w"),
        ("timeouts: {udp: 0s}", "f:1:17: `udp`: '0s' is out of range; write seconds from 1 to 10"),
        ("timeouts: {udp: 999d}", "f:1:17: `udp`: '999d' is out of range; write seconds from 1"),
        (
            "timeouts: {closed: 1x}",
            "f:1:20: `closed`: '1x' is no duration; write seconds, or a number",
        ),
        ('timeouts: {udp: "30"}', "f:1:17: `udp`: '30' is a text; write the number 30 without q"),
        (
            "failover: {timeout: 10ms}",
            "f:1:21: `timeout`: '10ms' is out of range; write seconds fr",
        ),
    ],
)
def test_mistakes_in_a_file(keys: str, mistake: str) -> None:
    """Each has its place, what the file says, and the remedy."""
    with pytest.raises(ConfigError) as caught:
        configured(keys)
    assert caught.value.lines[0].startswith(mistake)
