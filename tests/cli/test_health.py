"""`paraglider health`: the output, and the exit code for keepalived."""

from __future__ import annotations

import json
from typing import Any

WELL = {"healthy": True, "status": "healthy", "problems": []}
PROBLEMS = ["service web: no backend takes new flows", "api: does not serve"]
ILL = {"healthy": False, "status": "unhealthy", "problems": PROBLEMS}


def test_healthy(daemon: Any, say: Any) -> None:
    """ "healthy" and exit code 0."""
    daemon.answers["/v1/health"] = (200, WELL)
    assert say("health", "--exit-code") == (0, "healthy\n", "")


def test_something_is_wrong(daemon: Any, say: Any) -> None:
    """The state, and a line per condition; the exit code only with the option."""
    daemon.answers["/v1/health"] = (200, ILL)
    said = "unhealthy\nservice web: no backend takes new flows\napi: does not serve\n"
    assert say("health") == (0, said, "")
    assert say("health", "--exit-code") == (1, said, "")
    code, out, _ = say("health", "--exit-code", "--json")
    assert (code, json.loads(out)) == (1, ILL)


def test_degraded_still_serves(daemon: Any, say: Any) -> None:
    """Degraded is printed, and is no reason for keepalived to move the VIP."""
    daemon.answers["/v1/health"] = (200, {**ILL, "status": "degraded"})
    assert say("health", "--exit-code")[:2] == (0, "\n".join(["degraded", *PROBLEMS, ""]))


def test_no_answer_is_not_healthy(daemon: Any, say: Any) -> None:
    """Without an answer the exit code is not 0, with and without the option."""
    daemon.answers["/v1/health"] = (
        503,
        {"error": "the supervisor does not answer", "remedy": "see"},
    )
    assert say("health") == (2, "", "paraglider: the supervisor does not answer; see\n")
