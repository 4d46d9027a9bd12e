"""Tests of ``paraglider.health.messages``: what crosses a channel is what comes out of it."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest

from paraglider.config.health import Check, Expect, Failover
from paraglider.config.types import StatusRange
from paraglider.core.pool import Event
from paraglider.health.codes import Code
from paraglider.health.messages import (
    MOST_NEWS,
    Found,
    Hints,
    News,
    Report,
    Targets,
    Verdict,
    batch,
    order,
    told,
)
from paraglider.health.targets import Scope, Target

FOUR, SIX = ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("fd00:10::1")
CHECK = Check(type="https", host="a", timeout=0.5, expect=Expect(status=(StatusRange(200, 204),)))
SCOPE = Scope(Failover(check_cycle=0.5), (FOUR,), "eth1", (SIX,), frozenset((FOUR, SIX)))


@pytest.mark.parametrize(
    "said",
    [
        Targets((Target("web", "10.0.0.1:80", FOUR, 80, CHECK),), SCOPE),
        Targets((Target("web", "fd00:10::1", SIX, 0, None, up=False, found=True),)),
        Targets(()),
        Targets((), gone=(("web", "10.0.0.1"),), whole=False),
        Hints((("web", "10.0.0.1"), ("dns", "10.0.0.2"))),
    ],
)
def test_orders(said: Targets | Hints) -> None:
    """What the hub says survives JSON."""
    assert order(json.loads(json.dumps(said.plain()))) == said


@pytest.mark.parametrize(
    "said",
    [
        Report("web", "10.0.0.1", True, Code.L7OK, "status 200", 0.01, 5.0),
        Report("web", "10.0.0.1", None, Code.SOCKERR, "could not look", 0.01, 5.0),
        Verdict("web", "10.0.0.1", Event.CHECK_FAILED, "refused", 6.0, 66.0),
        Found(True, FOUR, "answers", 7.0),
        Found(False, SIX, "no answer", 8.0),
    ],
)
def test_news(said: News) -> None:
    """What the checker says survives JSON."""
    assert told(json.loads(json.dumps(batch([said, said])))) == [said, said]


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"do": "dance"},
        {"do": "hints"},
        {"do": "hints", "backends": [["web"]]},
        {"do": "targets", "targets": [{}], "failover": None},
        {"do": "targets", "targets": None, "failover": None},
        {"do": "targets", "targets": [], "failover": {"failover": {"rise": 0}}},
        {
            "do": "targets",
            "targets": [{**Target("a", "b", FOUR, 1, CHECK).plain(), "check": {"type": "x"}}],
            "failover": None,
        },
        {
            "do": "targets",
            "targets": [{**Target("a", "b", FOUR, 1, CHECK).plain(), "address": "here"}],
            "failover": None,
        },
    ],
)
def test_no_orders(plain: dict[str, Any]) -> None:
    """What is no order raises one of three errors, and nothing else."""
    with pytest.raises((KeyError, TypeError, ValueError)):
        order(plain)


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"do": "dance", "at": 1, "detail": ""},
        {"do": "joined", "at": 1, "detail": "", "address": "here"},
        {"do": "verdict", "at": 1, "detail": "", "service": "a", "backend": "b", "event": "x"},
    ],
)
def test_no_news(plain: dict[str, Any]) -> None:
    """So does what is no news, among others or where a list of them belongs."""
    good = Found(True, FOUR, "answers", 7.0).plain()
    for message in (plain, {"do": "news", "news": plain}, {"do": "news", "news": [good, plain]}):
        with pytest.raises((KeyError, TypeError, ValueError)):
            told(message)


def test_news_have_a_bound() -> None:
    """A message has no more than the controller handles at a time."""
    news = [Found(True, FOUR, "answers", 7.0)]
    assert len(told(batch(news * MOST_NEWS))) == MOST_NEWS
    with pytest.raises(ValueError, match="too long"):
        told(batch(news * (MOST_NEWS + 1)))
