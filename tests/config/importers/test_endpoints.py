"""Tests of ``paraglider.config.importers.endpoints``."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraglider.config.importers.endpoints import (
    ANY,
    ANY6,
    host_and_port,
    listening,
    port_number,
)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.1:80", "10.0.0.1", 80),
        ("10.0.0.1", "10.0.0.1", None),
        ("[2001:db8::1]:443", "2001:db8::1", 443),
        ("[2001:db8::1]", "2001:db8::1", None),
        ("2001:db8::1", "2001:db8::1", None),
        ("www.example.com:https", "www.example.com", 443),
        ("www.example.com", "www.example.com", None),
        ("$VIP:domain", "$VIP", 53),
        ("web:", "web", None),
    ],
)
def test_host_and_port(text: str, host: str, port: int | None) -> None:
    """An address with or without brackets, or a name; a port by number or name."""
    found, number = host_and_port(text)
    assert (str(found), number) == (host, port)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("65536", "port '65536' is out of range; write a number up to 65535"),
        ("9" * 5000, "is out of range; write"),
        ("odd", "the port 'odd' is not known by its name; write its number"),
        ("-1", "the port '-1' is not known by its name"),
        ("²", "the port '²' is not known by its name"),
        ("", "the port '' is not known by its name"),
    ],
)
def test_no_port(text: str, message: str) -> None:
    """What is no port is refused with a remedy."""
    with pytest.raises(ValueError, match=message.replace("²", ".")):
        port_number(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ANY),
        ("*", ANY),
        ("0.0.0.0", ANY),
        ("::", ANY6),
        ("[::]", ANY6),
        ("10.0.0.1", "10.0.0.1"),
    ],
)
def test_listening(text: str, found: str) -> None:
    """Every address of the host is known in all spellings."""
    assert str(listening(text)) == found


@given(st.text())
def test_any_text(text: str) -> None:
    """Any text is an endpoint, or refused."""
    with contextlib.suppress(ValueError):
        host_and_port(text)
