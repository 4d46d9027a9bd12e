"""`paraglider flows`: filters in the request, and the output for ended flows."""

from __future__ import annotations

import json
from typing import Any

import pytest

NAMED = ("--client", "192.0.2.0/24", "--backend", "10.0.0.1", "--service", "web")


def test_filters_are_handed_on(daemon: Any, say: Any) -> None:
    """Each given filter, and no other."""
    daemon.answers["/v1/flows"] = (200, {"flows": [], "more": False})
    assert say("flows")[0] == 0
    assert say("flows", *NAMED, "--limit", "5")[2] == ""
    assert [target for _, target, _ in daemon.asked] == [
        "/v1/flows?limit=1000",
        "/v1/flows?limit=5&client=192.0.2.0%2F24&backend=10.0.0.1&service=web",
    ]


@pytest.mark.parametrize(("count", "words"), [(0, "0 flows"), (1, "1 flow"), (2, "2 flows")])
def test_kill(daemon: Any, say: Any, count: int, words: str) -> None:
    """The named flows are ended and counted."""
    daemon.answers["/v1/flows/kill"] = (200, {"killed": count})
    assert say("flows", *NAMED, "kill") == (0, f"{words} ended\n", "")
    body = {"client": "192.0.2.0/24", "backend": "10.0.0.1", "service": "web"}
    assert daemon.asked == [("POST", "/v1/flows/kill", body)]
    assert say("-c", "/missing", "flows", *NAMED, "kill", "-c", daemon.file)[0] == 0


def test_all_is_said_and_not_meant(daemon: Any, say: Any) -> None:
    """Without a filter the daemon decides; --all selects all flows; --json prints the answer."""
    daemon.answers["/v1/flows/kill"] = (400, {"error": "which flows are meant?", "remedy": "say"})
    assert say("flows", "kill") == (1, "", "paraglider: which flows are meant?; say\n")
    daemon.answers["/v1/flows/kill"] = (200, {"killed": 9})
    for words in (("--json", "kill"), ("kill", "--json")):
        assert json.loads(say("flows", *words, "--all")[1]) == {"killed": 9}
    assert [body for _, _, body in daemon.asked] == [{}, {"all": True}, {"all": True}]


def test_limits(daemon: Any, say: Any) -> None:
    """Invalid limits are refused without a request."""
    code, _, err = say("flows", "--limit", "1001")
    assert code == 1
    assert "1001 is not in the range" in err
    assert daemon.asked == []
