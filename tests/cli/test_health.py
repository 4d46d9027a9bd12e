"""`paraglider health`: what is printed, and the exit code that keepalived goes by."""

from __future__ import annotations

import json
from typing import Any

WELL = {"healthy": True, "status": "healthy", "problems": []}
PROBLEMS = ["service web: no backend takes new flows", "api: does not serve"]
ILL = {"healthy": False, "status": "unhealthy", "problems": PROBLEMS}


def test_all_is_well(daemon: Any, say: Any) -> None:
    """One word and 0."""
    daemon.answers["/v1/health"] = (200, WELL)
    assert say("health", "--exit-code") == (0, "healthy\n", "")


def test_something_is_wrong(daemon: Any, say: Any) -> None:
    """The word, and a line a problem; the exit code tells only where it is asked to."""
    daemon.answers["/v1/health"] = (200, ILL)
    said = "unhealthy\nservice web: no backend takes new flows\napi: does not serve\n"
    assert say("health") == (0, said, "")
    assert say("health", "--exit-code") == (1, said, "")
    code, out, _ = say("health", "--exit-code", "--json")
    assert (code, json.loads(out)) == (1, ILL)


def test_degraded_still_serves(daemon: Any, say: Any) -> None:
    """It is said, and no reason for keepalived to move the VIP."""
    daemon.answers["/v1/health"] = (200, {**ILL, "status": "degraded"})
    assert say("health", "--exit-code")[:2] == (0, "\n".join(["degraded", *PROBLEMS, ""]))


def test_no_answer_is_not_well(daemon: Any, say: Any) -> None:
    """A daemon that cannot answer, or is none, is an error whichever way it is asked."""
    daemon.answers["/v1/health"] = (
        503,
        {"error": "the supervisor does not answer", "remedy": "see"},
    )
    assert say("health") == (2, "", "paraglider: the supervisor does not answer; see\n")
