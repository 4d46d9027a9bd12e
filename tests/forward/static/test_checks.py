"""The checks and the configuration of `paraglider start`."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.forward.static.checks import cautions, kernel_only, unserved

WEB = {"name": "web", "vip": "192.168.0.11/24", "protocol": "tcp", "backends": ["10.0.0.1"]}


def config(*changes: dict[str, Any], **top: Any) -> Config:
    """A service for each of ``changes``."""
    services = [{**WEB, "name": f"web{n}", **change} for n, change in enumerate(changes)]
    return Config.model_validate({"services": services, **top})


@pytest.mark.parametrize(
    ("change", "key", "words"),
    [
        ({"forward": "dsr"}, "forward", "`forward: dsr` takes a daemon"),
        ({"forward": "proxy"}, "forward", "`forward: proxy` takes a daemon"),
        ({"return": "direct"}, "return", "`return: direct` takes a daemon"),
        ({"strategy": "maglev"}, "strategy", "hash is not consistent"),
        ({"backends": {"file": "/etc/backends"}}, "backends", "from elsewhere take a daemon"),
        ({"strategy": "my.module:Class"}, "strategy", "the kernel runs no Python"),
    ],
)
def test_what_takes_a_daemon_is_refused(change: dict[str, Any], key: str, words: str) -> None:
    """At its place, with the remedy."""
    (problem,) = unserved(config({}, change))
    assert problem.path == ("services", 1, key)
    assert words in problem.what
    assert problem.remedy


def test_all_mistakes_are_reported_together() -> None:
    """Two in one service, one in another."""
    wrong = unserved(config({"forward": "dsr", "strategy": "maglev"}, {"strategy": "maglev"}))
    assert [problem.path[1:] for problem in wrong] == [
        (0, "forward"),
        (0, "strategy"),
        (1, "strategy"),
    ]


@pytest.mark.parametrize("forward", ["nat", "offload"])
@pytest.mark.parametrize("strategy", ["rr", "wrr", "weighted", "source"])
def test_what_the_kernel_can_do_is_served(forward: str, strategy: str) -> None:
    """Both methods that rewrite, by turns or by the client's hash."""
    assert unserved(config({"forward": forward, "strategy": strategy})) == []


def test_cautions() -> None:
    """Live flows, backends and the file are not watched; equal behaviour is not mentioned."""
    services = (
        {"check": {"type": "tcp"}, "agent": {"port": 9999}},
        {"strategy": "weighted"},
    )
    found = cautions(config(*services, watch=True, failover={"enabled": True}))
    assert [problem.path for problem in found] == [
        ("services", 0, "check"),
        ("services", 0, "agent"),
        ("services", 1, "strategy"),
        ("watch",),
        ("failover", "enabled"),
    ]
    assert cautions(config({"strategy": "wrr"}, {"strategy": "source"})) == []


def test_as_the_rules_read_it() -> None:
    """One method, and turns for `weighted`; conntrack's events are not needed."""
    read = kernel_only(config({"strategy": "weighted"}, {"strategy": "source"}))
    assert [(s.forward, s.strategy, s.counted) for s in read.services] == [
        ("offload", "wrr", False),
        ("offload", "source", False),
    ]
