"""Tests of ``paraglider.daemon.monitor.discovery_messages``: what goes across comes out alike."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest

from paraglider.daemon.monitor.discovery_messages import (
    Answered,
    Changed,
    Errand,
    Failed,
    Name,
    News,
    told,
)
from paraglider.host.dns_records import Record

NAME = Name("_web._tcp.example", "[::1]:53", 6)
RECORD = Record(ipaddress.ip_address("fd00::1"), 8080, 3)


@pytest.mark.parametrize(
    "news",
    [Answered(NAME, (RECORD,), 12.5), Failed(NAME, "nobody answers"), Changed("/etc/web")],
)
def test_news(news: News) -> None:
    """News come as they were told."""
    assert told(json.loads(json.dumps(news.plain()))) == news


def test_errand() -> None:
    """An errand comes as it was given."""
    errand = Errand((NAME, Name("_a._udp.example", "", 4)), ("/etc/web",))
    assert Errand.of(json.loads(json.dumps(errand.plain()))) == errand


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"do": "nothing"},
        {"do": "changed"},
        {"do": "failed", "name": "web", "why": ""},
        {"do": "answer", "name": NAME.plain(), "records": [["x", 1, 1]], "ttl": 1},
        {"do": "answer", "name": NAME.plain(), "records": [["10.0.0.1", 1]], "ttl": 1},
        {"do": "answer", "name": {**NAME.plain(), "server": "x"}, "records": [], "ttl": 1},
    ],
)
def test_what_is_no_news(plain: dict[str, Any]) -> None:
    """Anything else is refused, by one of three exceptions."""
    with pytest.raises((KeyError, TypeError, ValueError)):
        told(plain)


def test_what_is_no_errand() -> None:
    """The scout takes errands alone."""
    with pytest.raises(ValueError, match="is no errand"):
        Errand.of({"do": "targets"})
