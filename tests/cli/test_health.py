"""`paraglider health`: the output, and the exit code for keepalived."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

WELL = {"healthy": True, "status": "healthy", "announce": True, "draining": False, "problems": []}
PROBLEMS = ["service web: no backend takes new flows", "api: does not serve"]
ILL = {**WELL, "healthy": False, "status": "unhealthy", "announce": False, "problems": PROBLEMS}


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
    daemon.answers["/v1/health"] = (200, {**ILL, "status": "degraded", "announce": True})
    assert say("health", "--exit-code")[:2] == (0, "\n".join(["degraded", *PROBLEMS, ""]))


def test_a_drained_balancer_is_not_announced(daemon: Any, say: Any) -> None:
    """The word, the remedy, and the exit code, though nothing is wrong."""
    drained = {"status": "draining", "announce": False, "draining": True}
    daemon.answers["/v1/health"] = (200, {**WELL, **drained})
    line = "this balancer is drained, not to be announced; `paraglider node ready` ends that\n"
    assert say("health") == (0, f"draining\n{line}", "")
    assert say("health", "--exit-code") == (1, f"draining\n{line}", "")
    daemon.answers["/v1/health"] = (200, {**ILL, "draining": True})
    assert say("health")[1].endswith(f"api: does not serve\n{line}")


@pytest.mark.parametrize(
    ("words", "query"),
    [
        ((), ""),
        (("--node",), "?of=node"),
        (("--vip", "2001:db8::11"), "?vip=2001%3Adb8%3A%3A11"),
        (("--vip", "192.0.2.1", "--when", "all"), "?vip=192.0.2.1&when=all"),
    ],
)
def test_of_what_it_is(daemon: Any, say: Any, words: tuple[str, ...], query: str) -> None:
    """Of all, of the balancer, or of a VIP."""
    daemon.answers["/v1/health"] = (200, WELL)
    assert say("health", "--exit-code", *words)[0] == 0
    assert daemon.asked == [("GET", f"/v1/health{query}", None)]


def test_of_one_thing_at_a_time(daemon: Any, say: Any) -> None:
    """A VIP, or the balancer, which has no services."""
    for words, said in (
        (("--node", "--vip", "192.0.2.1"), "give --vip or --node, not both"),
        (("--node", "--when", "all"), "--when is for --vip"),
    ):
        code, out, err = say("health", *words)
        assert (code, out, daemon.asked) == (1, "", [])
        assert said in err


def test_a_vip_that_there_is_not(daemon: Any, say: Any) -> None:
    """Is not to be announced, with and without the option."""
    daemon.answers["/v1/health"] = (
        400,
        {"error": "no service has the VIP 192.0.2.9", "remedy": ""},
    )
    for words in ((), ("--exit-code",)):
        assert say("health", "--vip", "192.0.2.9", *words)[0] == 1


def test_no_answer_is_not_healthy(daemon: Any, say: Any) -> None:
    """Without an answer the exit code is not 0, with and without the option."""
    daemon.answers["/v1/health"] = (
        503,
        {"error": "the supervisor does not answer", "remedy": "see"},
    )
    assert say("health") == (2, "", "paraglider: the supervisor does not answer; see\n")


def test_it_starts_quickly() -> None:
    """keepalived runs it each second: it imports neither the model of the file, nor the methods,
    nor what prints tables.
    """
    code = """
import sys, paraglider.cli.health
print([name for name in ("pydantic", "rich", "paraglider.forward") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
